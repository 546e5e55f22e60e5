"""Supervisors from files: what stands there, and what is said when it is wrong."""

import signal
from pathlib import Path

import pytest

from outlast.cli import main
from outlast.detect import Child, Grace, Ready, Supervisor
from outlast.detect.supervisor_file import load_supervisor, read_supervisor
from outlast.kernel import ConfigError

GOOD = """
[supervisor]
name = "app"
strategy = "rest_for_one"
intensity = 3
[supervisor.backoff]
cap = 5
[children.db]
command = ["python", "-m", "http.server"]
ready = 8000
stop = 20
stop_signal = "SIGINT"
[children.web]
command = "python -m web --title 'a b'"
ready = "listening"
restart = "transient"
final = [2]
environment = { DB = "x" }
directory = "sub"
output = "web.log"
progress = 2.5
"""


def spec(supervisor: Supervisor, name: str) -> Child:
    found = supervisor.child(name).spec
    assert isinstance(found, Child)
    return found


def test_a_file_of_commands_is_a_supervisor(tmp_path: Path) -> None:
    (tmp_path / "tree.toml").write_text(GOOD)
    supervisor = load_supervisor(str(tmp_path / "tree.toml"))
    assert supervisor.describe()["strategy"] == "rest_for_one"
    assert supervisor.describe()["children"] == ["db", "web"]
    db, web = spec(supervisor, "db"), spec(supervisor, "web")
    assert db.grace == Grace(20, signal.SIGINT)
    assert db.ready == Ready.port(8000)
    assert db.directory == str(tmp_path)
    assert web.line == ("python", "-m", "web", "--title", "a b")
    assert web.output == str(tmp_path / "web.log")
    assert web.directory == str(tmp_path / "sub")
    assert web.environment is not None
    assert web.environment["DB"] == "x"
    assert "PATH" in web.environment
    assert (web.restart, web.final, web.progress) == ("transient", (2,), 2.5)


def test_a_name_in_a_file_is_a_supervisor_or_makes_one(tmp_path: Path) -> None:
    text = "from outlast.detect import Child, Supervisor\n"
    text += (
        "tree = Supervisor(Child.command('a', ['true']))\ndef make():\n    return tree\nx = 3\n"
    )
    path = tmp_path / "supervised_tree_here.py"
    path.write_text(text)
    tree = load_supervisor(f"{path}:tree")
    assert load_supervisor(f"{path}:make") is tree
    assert load_supervisor("supervised_tree_here:tree") is tree
    with pytest.raises(ConfigError, match="is int, not a Supervisor"):
        load_supervisor(f"{path}:x")
    with pytest.raises(ConfigError, match="no 'tre'; did you mean tree"):
        load_supervisor(f"{path}:tre")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "Invalid value"),
        ("", "no children"),
        ("[childs.a]", "no key 'childs'; did you mean children"),
        ("[children]\na = 1", "children.a is 1; a table"),
        ("[children.a]\ncomand = ['x']", "no key 'comand'; did you mean command"),
        ("[children.a]\nrestart = 'transient'", "command is None"),
        ("[children.a]\ncommand = [1]", r"command is \[1\]"),
        ("[children.a]\ncommand = 'x'\nstop = true", "stop is True; int or float"),
        ("[children.a]\ncommand = 'x'\nstop_signal = 'TERM'", "stop_signal is 'TERM'"),
        ("[children.a]\ncommand = 'x'\nrestart = 'always'", "restart is 'always'"),
        ("[children.a]\ncommand = 'x'\nenvironment = { A = 1 }", "every value is a text"),
        ("[supervisor]\nbackoff = 3", "supervisor.backoff is 3"),
        ("[supervisor]\nstrategy = 3", "strategy is 3; str"),
        ("[supervisor.backoff]\nbase = 0\n[children.a]\ncommand = 'x'", "base is 0"),
        ("[supervisor]\nzzz = 3", "there are strategy"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_supervisor(text)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("tre.toml", "tre.toml: no such file; did you mean tree.toml?"),
        (
            "qqqqqqqqqqq.toml",
            "qqqqqqqqqqq.toml: no such file; write FILE.toml, FILE.py:NAME or module:NAME",
        ),
        ("nothing", "'nothing': write FILE.toml, FILE.py:NAME or module:NAME"),
        ("no_such_module_here:x", "'no_such_module_here': no such module; write"),
        ("broken.py:x", "broken.py:1: ZeroDivisionError"),
        ("raises_here:x", "raises_here.py:1: ZeroDivisionError"),
        ("binary.toml", "binary.toml: not UTF-8"),
        ("huge.toml", "huge.toml: larger than 1048576 bytes"),
        ("needs_more_here:x", "No module named 'not_there_at_all'"),
    ],
)
def test_bad_targets_are_one_line_and_exit_2(
    target: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tree.toml").write_text(GOOD)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "raises_here.py").write_text("1 / 0\n")
    (tmp_path / "needs_more_here.py").write_text("import not_there_at_all\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    (tmp_path / "huge.toml").write_bytes(b"#" * (1 << 21))
    assert main(["supervise", target]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said
