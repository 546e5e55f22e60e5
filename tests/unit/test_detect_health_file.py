"""Health in a file, and what the probe makes of files and answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from outlast.cli import main
from outlast.detect import Health, HealthFile, Probed, Status, probe_health, write_health_file
from outlast.detect.core.health_file import read_text
from outlast.detect.health_file import _answered
from outlast.kernel import ConfigError

NS = 1_000_000_000


def registry() -> Health:
    health = Health()
    health.report("db", Status.FAILED, "refused")
    return health


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "health"
    write_health_file(registry(), path)
    assert probe_health(str(path)) == Probed(
        False, "failed", ({"name": "db", "status": "failed", "detail": "refused"},)
    )
    assert probe_health(str(path), group="liveness") == Probed(True, "ok", ())
    assert [one.name for one in tmp_path.iterdir()] == ["health"]


@pytest.mark.parametrize(("age", "passing"), [(0, True), (5, True), (6, False), (-6, False)])
def test_a_file_that_is_old_does_not_pass(age: int, passing: bool, tmp_path: Path) -> None:
    found = {"status": "ok", "passing": True, "checks": []}
    text = json.dumps({"format": 1, "written": 100, "groups": {"readiness": found}})
    probed = read_text(text, "readiness", (100 + age) * NS, 5 * NS)
    assert probed.passing is passing
    assert passing or "its writer is stuck or gone" in probed.status


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", "null", '{"format": 2}', '{"format": 1}', "[" * 100_000,
        '{"format": 1, "written": "x", "groups": {}}',
        '{"format": 1, "written": 1, "groups": []}',
        '{"format": 1, "written": 1, "groups": {"readiness": 5}}',
        '{"format": 1, "written": 1, "groups": {"readiness": {"status": 1, "passing": 1}}}',
        '{"format": 1, "written": 1, "groups": {"readiness": {"status": "ok", "passing": true,'
        ' "checks": [5]}}}',
    ],
)  # fmt: skip
def test_a_damaged_file_tells_nothing(text: str) -> None:
    assert read_text(text, "readiness", NS, NS).passing is None


def test_a_written_instant_that_is_no_number_does_not_pass() -> None:
    found = {"status": "ok", "passing": True, "checks": []}
    text = json.dumps({"format": 1, "written": float("nan"), "groups": {"readiness": found}})
    assert not read_text(text, "readiness", NS, NS).passing


def test_passing_must_be_true_and_not_merely_something(tmp_path: Path) -> None:
    found = {"status": "ok", "passing": "no", "checks": []}
    text = json.dumps({"format": 1, "written": 1, "groups": {"readiness": found}})
    assert read_text(text, "readiness", NS, NS).passing is False


def test_the_file_is_there_from_the_start_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "health"
    with HealthFile(registry(), path, every=60) as file:
        assert path.exists()
        file.start()
        assert repr(file) == f"<HealthFile {path}>"
    assert not path.exists()


def test_a_directory_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HealthFile(registry(), tmp_path / "no" / "health").start()


def test_a_pace_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="every is 0"):
        HealthFile(registry(), "x", every=0)


@pytest.mark.parametrize(
    ("raw", "passing", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, "200"),
        (b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", True, "204"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", False, "301"),
        (b'HTTP/1.1 503 No\r\n\r\n{"status": "failed"}', False, "failed"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": 7}', True, "200"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "ok", "checks": {"a": 1}}', True, "ok"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "ok", "checks": 1}', True, "ok"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", True, "200"),
        (b"", None, "u: the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", None, "u: the answer is not HTTP"),
        (b"HTTP/1.1 x\r\n\r\n", None, "u: the answer is not HTTP"),
    ],
)
def test_an_answer_is_judged_by_its_status(raw: bytes, passing: bool | None, status: str) -> None:
    found = _answered("u", raw)
    assert (found.passing, found.status) == (passing, status)


@pytest.mark.parametrize(
    ("target", "settings", "says"),
    [
        ("ftp://x/", {}, "write http"),
        ("http:///readyz", {}, "write http"),
        ("http://x:99999/", {}, "Port out of range"),
        ("http://x/a b", {}, "%20"),
        ("http://x/ä", {}, "write http"),
        ("x", {"group": "ready"}, "one of startup"),
        ("x", {"within": 0}, "within 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(target: str, settings: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        probe_health(target, **settings)


def test_the_command_says_no_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "health")
    write_health_file(registry(), path)
    assert main(["health", path]) == 1
    assert capsys.readouterr().out == "failed\ndb failed: refused\n"
    assert main(["health", path, "--group", "liveness"]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert main(["health", path, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1, "target": path, "passing": False, "status": "failed",
        "checks": [{"name": "db", "status": "failed", "detail": "refused"}],
    }  # fmt: skip


def test_the_command_cannot_ask_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "none")
    assert main(["health", path]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["health", path, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["passing"] is None
