"""Exit codes, one-line errors, and where settings come from."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast import cli, kernel
from outlast.cli import main, run, use


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OUTLAST_DEBUG", "OUTLAST_NODES", "OUTLAST_AT"):
        monkeypatch.delenv(name, raising=False)


def ends_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code when the command raises ``error``."""

    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    return main([])


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (kernel.CommandError("alice"), 1, "outlast: CommandError: alice\n"),
        (kernel.CommandError.undeclared("KeyError", "bob"), 1, "outlast: KeyError: bob\n"),
        (kernel.ConfigError("two\nlines"), 2, "outlast: two lines\n"),
        (kernel.UnavailableError("no leader"), 2, "outlast: no leader\n"),
        (kernel.DeadlineError("no answer"), 3, "outlast: no answer\n"),
        (kernel.ConnectionLostError("gone"), 3, "outlast: gone\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "outlast: [Errno 2] No such file: 'x'\n"),
    ],
)
def test_the_exit_code_says_what_happened(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    says: str,
) -> None:
    assert ends_with(monkeypatch, error) == code
    assert capsys.readouterr() == ("", says)


def test_a_bug_is_called_one_and_the_traceback_is_a_variable_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, TypeError("oops")) == 2
    said = capsys.readouterr().err
    assert said.startswith("outlast: internal error: TypeError: oops; OUTLAST_DEBUG=1")
    assert said.count("\n") == 1
    monkeypatch.setenv("OUTLAST_DEBUG", "1")
    assert ends_with(monkeypatch, TypeError("oops")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_our_own_broken_promise_is_a_bug_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, kernel.InvariantError("two leaders")) == 2
    assert "internal error: InvariantError: two leaders" in capsys.readouterr().err


def test_ctrl_c_is_130_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_inside_a_command_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(use.asyncio, "run", interrupted)
    monkeypatch.setattr("outlast.cluster.overview.overview", lambda *_, **__: None)
    assert main(["status"]) == 130


@pytest.mark.timeout(120)
def test_a_reader_that_goes_away_is_not_an_error() -> None:
    program = f"{sys.executable} -m outlast lint kv | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(120)
def test_a_missing_package_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['cyclopts'] = None;"
        "from outlast.cli import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 2
    expected = 'outlast: the command line needs cyclopts: pip install "outlast[cluster]"\n'
    assert done.stderr == expected


@pytest.mark.timeout(120)
def test_help_needs_no_network_no_cluster_and_no_engine() -> None:
    program = (
        "import sys; from outlast.cli import main; main(['--help']);"
        "print([m for m in sys.modules if m.startswith("
        "('outlast.cluster', 'outlast.state', 'outlast.log', 'starlette', 'uvicorn'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.splitlines()[-1] == "[]"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[str]]:
    """Setting → value and origin, as ``--show-config`` prints them."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--show-config"])
    assert stopped.value.code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    return {row[0]: row[1:] for row in rows}


def test_a_flag_beats_the_environment_which_beats_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, "serve", "kv")["nodes"] == ["3", "default"]
    (tmp_path / "pyproject.toml").write_text("[tool.outlast.serve]\nnodes = 9\nport = 7100\n")
    value, origin = shown(capsys, "serve", "kv")["nodes"]
    assert (value, Path(origin).name) == ("9", "pyproject.toml")
    (tmp_path / "outlast.toml").write_text("[serve]\nnodes = 7\n")
    value, origin = shown(capsys, "serve", "kv")["nodes"]
    assert (value, Path(origin).name) == ("7", "outlast.toml")
    monkeypatch.setenv("OUTLAST_NODES", "5")
    assert shown(capsys, "serve", "kv")["nodes"] == ["5", "OUTLAST_NODES"]
    found = shown(capsys, "serve", "kv", "--nodes", "1")
    assert found["nodes"] == ["1", "--nodes"]
    assert found["port"][0] == "7100"
    assert found["TARGET"] == ["kv", "argument"]


def test_settings_of_other_tools_in_pyproject_do_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nnodes = 9\n")
    assert shown(capsys, "serve", "kv")["nodes"] == ["3", "default"]


def test_a_token_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTLAST_TOKEN", "a-secret-of-some-length")
    assert shown(capsys, "status")["token"] == ["(not", "shown)", "OUTLAST_TOKEN"]


def test_an_unknown_setting_in_a_file_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outlast.toml").write_text("[serve]\nnods = 7\n")
    assert main(["serve", "kv"]) == 2
    said = capsys.readouterr().err
    assert "nods" in said
    assert said.count("\n") == 1


def test_arguments_reach_the_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def fake(target: str, settings: Any, **options: Any) -> int:
        seen.append((target, settings, options["storage"]))
        return 7

    monkeypatch.setattr("outlast.cluster.run_node", fake, raising=False)
    monkeypatch.setattr(run, "_log_to_stderr", lambda: None)
    code = main(
        ["node", "kv", "--id", "n2", "--listen", "127.0.0.1:7401", "--data", "n2",
         "--peers", "n1=127.0.0.1:7400,n2=127.0.0.1:7401", "--route", "n1=127.0.0.1:9",
         "--route", "n3=127.0.0.1:10", "--http", "127.0.0.1:0", "--storage", "lossy",
         "--cluster", "c-1"]
    )  # fmt: skip
    assert code == 7
    ((target, settings, storage),) = seen
    assert (target, storage) == ("kv", "lossy")
    assert settings.routes == {"n1": "127.0.0.1:9", "n3": "127.0.0.1:10"}
    assert settings.peers == {"n1": "127.0.0.1:7400", "n2": "127.0.0.1:7401"}
    assert (settings.node, settings.data, settings.http) == ("n2", "n2", "127.0.0.1:0")
    assert (settings.cluster, settings.address) == ("c-1", "127.0.0.1:7401")
