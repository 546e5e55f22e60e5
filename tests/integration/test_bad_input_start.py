"""What stops a node from starting is one line that says what is wrong and what would be right.

Each case is a process with the command line that people type: exit code 2, no traceback, and
the directory as it was.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from outlast.cli import main
from tests.support.nodes import WAIT, Nodes, complaint, outlast, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

MACHINES = """
from dataclasses import dataclass, field
from outlast import StateMachine, Table, command

class Plain:
    pass

@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def deposit(self, account: str, amount: int) -> int:
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]
"""
SETS = MACHINES.replace("Table[str, int] = field(default_factory=Table)", "set[str]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "machines.py").write_text(MACHINES)
    (tmp_path / "sets.py").write_text(SETS)
    return tmp_path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One node that has run, holds a deposit, and is stopped."""
    nodes = Nodes(tmp_path_factory.mktemp("stopped"), count=1)
    try:
        nodes.init().start().serving()
        assert nodes.call("deposit", {"account": "alice", "amount": 30})[0] == 0
        nodes.signal(signal.SIGTERM, "n1")
        assert nodes.ended("n1") == 0
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def copied(stopped: Nodes, tmp_path: Path) -> Nodes:
    """A copy of that node's directory, to be broken."""
    nodes = Nodes(tmp_path, count=1)
    nodes.listen, nodes.http = stopped.listen, stopped.http
    shutil.copytree(stopped.data("n1"), nodes.data("n1"))
    return nodes


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below ``folder`` but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }


def refused(nodes: Nodes, *more: str, **changed: str) -> str:
    """Start n1 with changed options; return the one line that it refuses to run with."""
    line = nodes.command("n1")[3:]
    for option, value in changed.items():
        line[line.index(f"--{option}") + 1] = value
    before = tree(nodes.data("n1"))
    code, out, err = outlast(*line, *more, cwd=nodes.folder)
    assert (code, out) == (2, ""), err
    assert tree(nodes.data("n1")) == before
    return complaint(err)


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("machine.py:Bank", "machine.py: no such file; did you mean machines.py?"),
        ("machines.py:Bnak", "machines.py: no class 'Bnak'; did you mean Bank?"),
        (
            "machines.py:Plain",
            "machines.py:Plain is not a StateMachine; write class Plain(StateMachine)",
        ),
        (
            "sets.py:Bank",
            "sets.py:Bank: field 'balances' is set[str]; iteration order differs between nodes;"
            " use dict[str, None]",
        ),
    ],
)
def test_the_machine(
    folder: Path,
    target: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = ["node", target, "--id", "n1", "--listen", "127.0.0.1:7400", "--data", "data"]
    code, out, err = outlast(*node, cwd=folder)
    assert (code, out, complaint(err)) == (2, "", said)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("machines", "sets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main(["serve", target, "--data", "data"]) == 2
    assert complaint(capsys.readouterr().err) == said
    assert not (folder / "data").exists()


# --- addresses -----------------------------------------------------------------------------------


def test_addresses_in_use_are_named(copied: Nodes) -> None:
    for option, address in (("--listen", copied.listen["n1"]), ("--http", copied.http["n1"])):
        host, port = address.rsplit(":", 1)
        with socket.create_server((host, int(port))):
            line = copied.command("n1")[3:]
            code, _, err = outlast(*line)
        assert code == 2
        said = complaint(err)
        assert address in said
        assert option in said
    assert copied.start().serving().call("balances", {}, "--query")[1] == '{"alice": 30}\n'
    copied.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--listen", "0.0.0.0:7400"], "add --advertise HOST:PORT"),
        (["--listen", "127.0.0.1:0"], "127.0.0.1:0 names no address that others can dial"),
        (["--listen", "127.0.0.1:seven"], "port 'seven' is not a number from 0 to 65535"),
        (["--listen", "127.0.0.1:70000"], "port '70000' is not a number from 0 to 65535"),
        (["--listen", "127.0.0.1:7400", "--advertise", "n1"], "'n1' has no port"),
        (["--listen", "127.0.0.1:7400", "--advertise", "0.0.0.0:1"], "--advertise 0.0.0.0:1"),
        (["--listen", "127.0.0.1:7400", "--http", "8080"], "'8080' has no port"),
        (["--listen", "127.0.0.1:7400", "--peers", "n1=a:1,n2=a:1"], "'a:1' stands twice"),
        (["--listen", "127.0.0.1:7400", "--peers", "n1=a:1,n1=b:1"], "'n1' stands twice"),
        (["--listen", "127.0.0.1:7400", "--peers", "n1=a:one"], "port 'one'"),
        (["--listen", "127.0.0.1:7400", "--peers", "n1=a:0"], "port 0"),
    ],
)
def test_addresses_that_cannot_work(
    tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tmp_path / "n1")
    assert main(["init", "--id", "n1", "--peers", "n1=127.0.0.1:7400", "--data", data]) == 0
    capsys.readouterr()
    assert main(["node", "bank", "--id", "n1", "--data", data, *options]) == 2
    assert named in complaint(capsys.readouterr().err)


@pytest.mark.parametrize(
    "options",
    [
        ["--listen", "0.0.0.0:7400", "--advertise", "127.0.0.1:7400"],
        ["--listen", "203.0.113.7:7400"],
        ["--listen", "127.0.0.1:7400", "--http", "0.0.0.0:8080"],
    ],
)
def test_strangers_may_not_reach_a_node_without_tls_and_tokens(
    copied: Nodes, options: list[str]
) -> None:
    line = ["node", "bank", "--id", "n1", "--data", str(copied.data("n1"))]
    code, out, err = outlast(*line, *options)
    assert (code, out) == (2, "")
    assert "not a loopback address; give TLS" in complaint(err)


# --- the data directory --------------------------------------------------------------------------


def test_another_clusters_or_nodes_directory(copied: Nodes) -> None:
    said = refused(copied, cluster="c-other")
    assert "belongs to cluster c-test, not to c-other" in said
    said = refused(copied, id="n2")
    assert "belongs to node n1, not to n2" in said


def test_another_nodes_directory_whose_log_is_gone_is_not_taken_over(copied: Nodes) -> None:
    shutil.rmtree(copied.data("n1") / "log")
    assert "belongs to node n1, not to n2" in refused(copied, id="n2", peers="n1=127.0.0.1:1")


def test_another_nodes_log_in_the_directory(copied: Nodes, tmp_path: Path) -> None:
    other = Nodes(tmp_path / "other", count=1)
    other.cluster = "c-other"
    other.folder.mkdir()
    other.init()
    (copied.data("n1") / "identity.json").write_bytes(
        (other.data("n1") / "identity.json").read_bytes()
    )
    said = refused(copied, cluster="c-other")
    assert "c-test" in said
    assert "c-other" in said


def test_a_directory_without_its_identity_is_not_emptied(copied: Nodes) -> None:
    (copied.data("n1") / "identity.json").unlink()
    said = refused(copied)
    assert "identity.json" in said
    assert "put that file back" in said


def test_a_directory_in_use(copied: Nodes) -> None:
    copied.start().serving()
    try:
        line = copied.command("n1")[3:]
        line[line.index("--http") + 1] = "127.0.0.1:0"
        code, _, err = outlast(*line)
        assert code == 2
        assert "already open elsewhere" in complaint(err)
        assert copied.call("balances", {}, "--query")[1] == '{"alice": 30}\n'
    finally:
        copied.close()


@pytest.mark.parametrize("what", ["", '{"format": 1}'])
def test_a_damaged_identity(copied: Nodes, what: str) -> None:
    (copied.data("n1") / "identity.json").write_text(what)
    said = refused(copied)
    assert "identity.json: not an identity file" in said
    assert "restore it" in said


def newer_identity(data: Path) -> str:
    path = data / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    return "identity.json: format 99 is newer"


def newer_segment(data: Path) -> str:
    path = next((data / "log" / "wal").glob("*.seg"))
    raw = path.read_bytes()
    length = int.from_bytes(raw[16:20], "little")
    rest = (99).to_bytes(4, "little") + raw[16 : 20 + length]
    path.write_bytes(raw[:8] + crc32c(rest).to_bytes(4, "little") + rest + raw[20 + length :])
    return f"{path.name}"


@pytest.mark.parametrize("make_newer", [newer_identity, newer_segment])
def test_a_newer_format_says_upgrade(copied: Nodes, make_newer: Any) -> None:
    named = make_newer(copied.data("n1"))
    said = refused(copied)
    assert named in said
    assert "newer" in said
    assert "upgrade outlast" in said or "use the newer version of outlast" in said


# --- outlast serve -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"format": 99}', "cluster.json: format 99 is newer"),
        ("{", "cluster.json: not a cluster file"),
        ('{"format": 1, "cluster": "c-1"}', "cluster.json: not a cluster file"),
    ],
)
def test_a_damaged_or_newer_cluster_file(
    tmp_path: Path, text: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.json").write_text(text)
    assert main(["serve", "bank", "--data", str(tmp_path)]) == 2
    assert named in complaint(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_serving_another_machine_than_the_directory_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {
        "format": 1, "cluster": "c-1", "target": "bank", "http": {},
        "addresses": {"n1": "127.0.0.1:7400"},
    }  # fmt: skip
    (tmp_path / "cluster.json").write_text(json.dumps(plan))
    assert main(["serve", "kv", "--data", str(tmp_path)]) == 2
    assert "holds a cluster of bank, not of kv" in complaint(capsys.readouterr().err)


def test_serve_says_which_port_is_taken_and_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = outlast(
            "serve", "bank", "--nodes", "1", "--data", str(tmp_path / "data"),
            "--port", str(port), "--http-port", "0",
        )  # fmt: skip
    assert (code, out) == (2, "")
    assert f"n1: stays down: --listen 127.0.0.1:{port}" in err
    assert complaint(err) == "no node can run"


def test_serve_warns_of_an_even_number_of_nodes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "serve", "bank", "--nodes", "2", "--port", "0",
         "--http-port", "0", "--data", str(tmp_path / "data")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("new cluster")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "warning: 2 voters: survives the loss of 0, as 1 would" in err
    until(lambda: process.poll() is not None, "the end")
