"""`outlast policies`: what an application protects, where each value is from, how it is now."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from outlast.cli import main
from outlast.kernel import registry
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.core.window import CountWindow
from outlast.protect.overview import overview, overview_json
from outlast.protect.policy import Policy
from outlast.protect.settings import configure, forget_settings

SHOP = """
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry

rates = Policy("rates", timeout=5.0, retry=Retry(on=OSError), breaker=CircuitBreaker(3))
database = Bulkhead(20, name="database")
number = 3
"""
TOML = """
[policies.rates]
timeout = 4.0
retry.attempts = 2
breaker.window = {seconds = 30}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "polshop.py").write_text(SHOP)
    (tmp_path / "outlast.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(registry, "_live", {})
    forget_settings()
    yield tmp_path
    forget_settings()
    for name in ("polshop", "polshop2"):
        sys.modules.pop(name, None)


Run = pytest.CaptureFixture[str]


def run(capsys: Run, *arguments: str) -> tuple[int, str, str]:
    code = main(["policies", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def rows(capsys: Run, *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["schema"] == 1
    return found["policies"]  # type: ignore[no-any-return]


def test_each_value_is_shown_with_its_origin_and_then_the_state(capsys: Run) -> None:
    code, out, err = run(capsys, "polshop.py")
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert ["rates", "timeout", "4.0", "outlast.toml"] in lines
    assert ["rates", "retry.attempts", "2", "outlast.toml"] in lines
    assert ["rates", "retry.on", "OSError", "program"] in lines
    assert ["rates", "retry.base", "0.1", "default"] in lines
    assert ["rates", "breaker.failure_threshold", "3", "program"] in lines
    assert ["rates", "breaker.state", "CLOSED"] in lines
    assert ["database", "(limit)", "max_concurrent", "20", "program"] in lines
    assert "TimeWindow(30, buckets=10)  outlast.toml" in out


def test_one_object_alone_and_a_module_by_name(capsys: Run, folder: Path) -> None:
    sys.path.insert(0, str(folder))
    assert [row["name"] for row in rows(capsys, "polshop:database")] == ["database"]
    assert [row["name"] for row in rows(capsys, "polshop")] == ["rates", "database"]


def test_as_json_every_key_has_an_origin(capsys: Run) -> None:
    (row,) = rows(capsys, "polshop.py:rates")
    assert row["settings"].keys() == row["origins"].keys()
    assert row["origins"]["breaker.window"] == "outlast.toml"
    assert row["state"]["calls.succeeded"] == 0


def test_without_a_target_the_settings_of_the_files_are_shown(capsys: Run) -> None:
    (row,) = rows(capsys)
    assert row["settings"]["retry.attempts"] == 2
    assert row["origins"]["timeout"] == "outlast.toml"


def test_nothing_at_all_is_said(capsys: Run, folder: Path) -> None:
    (folder / "outlast.toml").unlink()
    assert run(capsys) == (0, "no policies\n", "")


def test_another_file_may_be_given(capsys: Run, folder: Path) -> None:
    (folder / "other.toml").write_text("[policies.rates]\ntimeout = 1\n")
    (row,) = rows(capsys, "polshop.py:rates", "--config", "other.toml")
    assert (row["settings"]["timeout"], row["settings"]["retry.attempts"]) == (1.0, 3)


def test_a_module_that_configures_itself_is_shown_as_it_does(capsys: Run, folder: Path) -> None:
    own = (
        "\nfrom outlast.protect.settings import configure\nconfigure({'rates': {'timeout': 9}})\n"
    )
    (folder / "polshop2.py").write_text(SHOP + own)
    row = rows(capsys, "polshop2.py")[0]
    assert (row["settings"]["timeout"], row["origins"]["timeout"]) == (9.0, "configure")


def test_a_policy_of_the_file_that_does_not_exist_is_a_warning(capsys: Run, folder: Path) -> None:
    (folder / "outlast.toml").write_text("[policies.ratse]\ntimeout = 1\n")
    code, _, err = run(capsys, "polshop.py")
    assert code == 0
    assert err == (
        "outlast: warning: policies.ratse (outlast.toml): no policy of that name here;"
        " did you mean rates?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("polshop.py:number",), "polshop.py:number is no Policy and no part of one"),
        (("polshop.py:rats",), "polshop.py: no 'rats'; did you mean rates?"),
        (("polshp.py",), "polshp.py: no such file; did you mean polshop.py?"),
        (("nowhere",), "'nowhere': no such module; write FILE.py, FILE.py:NAME, module or"),
        (("broken.py",), "broken.py:1: ZeroDivisionError: division by zero"),
        (("--config", "none.toml"), "none.toml: No such file or directory"),
        (
            ("--config", "bad.toml", "polshop.py"),
            "bad.toml: policies.rates.retry.attempts is 'x';",
        ),
        (("--url", "ftp://x"), "--url ftp://x: http://HOST:PORT/PATH would be right"),
        (("--url", "http://127.0.0.1:1/"), "--url http://127.0.0.1:1/: "),
        (("--url", "http://127.0.0.1:1/", "polshop.py"), "--url shows another process; leave"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: tuple[str, ...], message: str, capsys: Run, folder: Path
) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "bad.toml").write_text("[policies.rates.retry]\nattempts = 'x'\n")
    code, out, err = run(capsys, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"outlast: {message}")


def test_lint_says_what_each_policy_has_to_say(
    capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "lint", lambda self: [])
    assert run(capsys, "polshop.py:rates", "--lint") == (0, "nothing found\n", "")
    monkeypatch.setattr(Policy, "lint", lambda self: ["the breaker is\n inside the retry"])
    code, out, _ = run(capsys, "polshop.py:rates", "--lint")
    assert (code, out) == (1, "rates: the breaker is inside the retry\n")
    code, out, _ = run(capsys, "polshop.py:rates", "--lint", "--json")
    assert code == 1
    assert json.loads(out)["findings"][0]["policy"] == "rates"


ANSWERS = {
    "/good": [{"kind": "Policy", "name": "far", "settings": {"timeout": 1}, "state": {}}],
    "/list": [3],
    "/word": "x",
}


@pytest.fixture
def service() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"{" if self.path == "/torn" else b"[]"
            if self.path == "/own":
                body = overview_json()
            if self.path in ANSWERS:
                body = json.dumps({"policies": ANSWERS[self.path]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Be silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_service_is_asked(service: str, capsys: Run) -> None:
    (row,) = rows(capsys, "--url", f"{service}/good")
    assert row["name"] == "far"
    assert "far     timeout  1" in run(capsys, "--url", f"{service}/good")[1]
    policy = Policy("own", limit=Bulkhead(3))
    assert rows(capsys, "--url", f"{service}/own") == json.loads(json.dumps(overview([policy])))
    for path in ("/list", "/word", "/torn", "/none"):
        code, _, err = run(capsys, "--url", service + path)
        assert code == 2
        assert "the answer is no list of policies" in err


def test_an_overview_never_fails_and_shows_a_shared_part_inside_its_policy() -> None:
    class Bad(Policy):
        def snapshot(self) -> dict[str, Any]:
            raise RuntimeError("no")

    shared = Bulkhead(3, name="shared")
    policy, bad = Policy("good", limit=shared), Bad("bad")
    good, broken = overview([shared, policy, bad])
    assert good["settings"]["limit.max_concurrent"] == 3
    assert broken["error"] == "RuntimeError: no"
    assert {row["name"] for row in overview()} == {"good", "bad"}


def test_the_origin_of_a_window_is_that_of_its_table() -> None:
    from outlast.protect.breaker import CircuitBreaker

    breaker = CircuitBreaker(3, window=CountWindow(7))
    policy = Policy("rates", breaker=breaker)
    assert overview([policy])[0]["origins"]["breaker.window"] == "program"
    configure({"rates": {"breaker.window": {"calls": 9}}})
    assert overview([policy])[0]["origins"]["breaker.window"] == "configure"
