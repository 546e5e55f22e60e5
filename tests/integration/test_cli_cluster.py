"""The commands against a real cluster: serve, call, status, member, transfer, lint, check."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.nodes import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
WAIT = 60.0


def outlast(*arguments: str, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
    """Run one command; return its exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        capture_output=True, text=True, check=False, timeout=WAIT, cwd=cwd,
        env={**os.environ, **more},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@dataclass
class Served:
    process: subprocess.Popen[str]
    data: Path
    facts: dict[str, Any]

    @property
    def at(self) -> str:
        return ",".join(self.facts["addresses"].values())


def serve(data: Path, *more: str) -> Served:
    """Start ``outlast serve bank`` and wait until it says where it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "serve", "bank", "--data", str(data), "--json",
         "--port", "0", "--http-port", "0", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate(timeout=WAIT)[1]
    return Served(process, data, json.loads(line))


def stop(served: Served, number: int) -> int:
    served.process.send_signal(number)
    try:
        served.process.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        served.process.kill()
        served.process.communicate()
        raise
    return served.process.returncode


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = serve(tmp_path_factory.mktemp("served") / "data")
    yield made
    stop(made, signal.SIGTERM)


def test_call_runs_commands_and_queries(served: Served) -> None:
    deposit = '{"account": "alice", "amount": 30}'
    code, out, err = outlast("call", "deposit", deposit, "--at", served.at)
    assert (code, out, err) == (0, "30\n", "")
    code, out, _ = outlast("call", "balances", "--query", "--json", OUTLAST_AT=served.at)
    assert code == 0
    assert json.loads(out) == {"schema": 1, "result": {"alice": 30}}


def test_a_command_error_is_an_answer_with_exit_code_1(served: Served) -> None:
    transfer = '{"source": "nobody", "target": "bob", "amount": 1}'
    code, out, err = outlast("call", "transfer", transfer, "--at", served.at)
    assert (code, out) == (1, "")
    assert err == "outlast: OverdrawnError: nobody\n"


def test_a_repeat_under_a_key_is_executed_once(served: Served) -> None:
    deposit = '{"account": "keyed", "amount": 5}'
    for _ in range(2):
        code, out, _ = outlast("call", "deposit", deposit, "--key", "order-17", "--at", served.at)
        assert (code, out) == (0, "5\n")


def test_wrong_arguments_and_unknown_commands_are_one_line(served: Served) -> None:
    for name, arguments in (("deposit", '{"account": "a"}'), ("burn", "{}")):
        code, out, err = outlast("call", name, arguments, "--at", served.at)
        assert (code, out) == (2, "")
        assert re.fullmatch(rf"outlast: .*{name}.*\n", err)


def test_status_shows_every_node_from_one_address(served: Served) -> None:
    one = served.facts["addresses"]["n2"]

    def steady() -> dict[str, Any] | None:
        """The picture when all answer and one leads, which a busy machine may interrupt."""
        code, out, _ = outlast("status", "--at", one, "--json")
        if code != 0:
            return None
        found: dict[str, Any] = json.loads(out)
        assert [row["node"] for row in found["nodes"]] == ["n1", "n2", "n3"]
        leaders = [row["node"] for row in found["nodes"] if row["role"] == "leader"]
        there = all(row["reachable"] and row["applied"] > 0 for row in found["nodes"])
        return found if there and leaders == [found["leader"]] else None

    found = until(steady, "every node is reachable, and the one that leads is named")
    assert found is not None
    _, out, _ = outlast("status", "--at", one)
    assert f"led by {found['leader']} in term" in out
    assert len(out.splitlines()) == 5


def test_transfer_leader_moves_the_lead(served: Served) -> None:
    found = json.loads(outlast("status", "--at", served.at, "--json")[1])
    other = next(row["node"] for row in found["nodes"] if row["node"] != found["leader"])
    code, out, err = outlast("transfer-leader", other, "--at", served.at)
    assert (code, out, err) == (0, f"{other} leads\n", "")


def test_member_refusals_are_one_line(served: Served) -> None:
    code, _, err = outlast("member", "remove", "n9", "--at", served.at)
    assert code == 2
    assert err.startswith("outlast: node n9 is not a member (members: n1, n2, n3)")
    taken = served.facts["addresses"]["n1"]
    code, _, err = outlast("member", "add", "n4", "--address", taken, "--at", served.at)
    assert code == 2
    assert err == f"outlast: address {taken} belongs to member n1\n"


def test_data_check_reads_every_nodes_log(served: Served) -> None:
    code, out, _ = outlast("data", "check", str(served.data), "--json")
    logs = json.loads(out)["logs"]
    assert code == 0
    assert len(logs) == 3
    assert {one["status"] for one in logs} <= {"clean", "torn"}


def test_an_address_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, _ = outlast(
            "init", "--id", "n1", "--peers", f"n1={address}", "--data", str(tmp_path / "n1")
        )
        assert code == 0
        code, out, err = outlast(
            "node", "bank", "--id", "n1", "--listen", address, "--data", str(tmp_path / "n1")
        )
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"outlast: --listen {address}: ")
    assert "Traceback" not in err


def test_probes_of_a_served_cluster_follow_its_majority(tmp_path: Path) -> None:
    made = serve(tmp_path / "data", "--health", "127.0.0.1:0")
    url = made.facts["health"]
    nodes = psutil.Process(made.process.pid).children()
    frozen = [one for one in nodes if "node" in one.cmdline()][:2]
    try:
        until(lambda: outlast("health", f"{url}/readyz")[0] == 0, "ready with all nodes")
        assert outlast("health", f"{url}/startupz")[0] == 0
        for one in frozen:
            one.suspend()
        until(lambda: outlast("health", f"{url}/readyz")[0] == 1, "not ready without a majority")
        assert outlast("health", f"{url}/livez")[0] == 0
        for one in frozen:
            one.resume()
        until(lambda: outlast("health", f"{url}/readyz")[0] == 0, "ready again")
    finally:
        for one in frozen:
            one.resume()
        assert stop(made, signal.SIGTERM) == 0
    assert outlast("health", f"{url}/readyz")[0] == 2


def test_a_cluster_whose_port_for_probes_is_taken_starts_no_node(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = outlast(
            "serve", "bank", "--data", str(tmp_path / "data"), "--port", "0",
            "--http-port", "0", "--health", address,
        )  # fmt: skip
    assert (code, out) == (2, "")
    assert err.startswith(f"outlast: --health {address}: Address already in use")
    assert not list((tmp_path / "data").glob("*.log"))


def test_ctrl_c_stops_the_nodes_and_a_second_start_continues(tmp_path: Path) -> None:
    first = serve(tmp_path / "data", "--nodes", "1")
    deposit = '{"account": "alice", "amount": 30}'
    assert outlast("call", "deposit", deposit, "--at", first.at)[0] == 0
    assert stop(first, signal.SIGINT) == 130
    with (
        pytest.raises(OSError),
        socket.create_connection(("127.0.0.1", int(first.at.rpartition(":")[2])), timeout=1),
    ):
        pass
    second = serve(tmp_path / "data", "--nodes", "1")
    try:
        assert first.facts["new"]
        assert not second.facts["new"]
        _, out, _ = outlast("call", "balances", "--query", "--at", second.at)
        assert json.loads(out) == {"alice": 30}
    finally:
        assert stop(second, signal.SIGTERM) == 0
