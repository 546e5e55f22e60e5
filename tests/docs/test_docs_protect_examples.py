"""The examples of protecting calls say what they are to say."""

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "protect_httpx": [
        "around: (200, '1.08') 2",
        "around: (200, '1.08') 3",
        "around: Server disconnected without sending a response. 6",
        "around: (503, 'try again in 30 s') 8",
        "below: 1.08 ['GET', 'GET', 'GET']",
        "below: 503 ['POST']",
    ],
    "protect_requests": [
        "GET: 1.08 ['GET', 'GET', 'GET']",
        "POST: 503 ['POST']",
        "POST with a key: 1.08 ['POST', 'POST']",
    ],
    "protect_aiohttp": [
        "GET: 1.08 ['GET', 'GET', 'GET']",
        "POST: 503 ['POST']",
        "POST with a key: 1.08 ['POST', 'POST']",
    ],
    "protect_grpc": [
        "Get: 5 s left {'Get': 3}",
        "Buy: UNAVAILABLE {'Get': 3, 'Buy': 1}",
    ],
    "protect_grpc_server": [
        "second: UNAVAILABLE Bulkhead: 1 calls are running and the queue is full "
        "(_Metadatum(key='grpc-retry-pushback-ms', value='100'),)",
        "first: 5 s left",
    ],
    "protect_sqlalchemy": [
        "reports: Bulkhead 'reports': 1 calls are running and the queue is full",
        "42",
        "reports: interrupted",
        "stock: no such server after 3 attempts: 3 of 3 attempts used",
    ],
    "protect_redis": ["set: True", "get: b'1.08'", "slow: b'a price of yesterday'"],
    "protect_asgi": [
        "pay: {'payments': 1}",
        "pay: {'payments': 1} true",
        "another payment under this key: 422 KeyReusedError",
        "two at a time: [200, 503]",
        "too slow: 504 DeadlineError",
    ],
    "flaky": ["b'1.08' ['GET']"],
}


def test_every_example_of_protecting_calls_is_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("protect_*.py")}
    assert {*names, "flaky"} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_a_program_runs_and_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    # Of five seconds some may have passed on a busy machine.
    out = re.sub(r"\b[1-4] s left", "5 s left", capsys.readouterr().out)
    assert [line.rstrip() for line in out.splitlines()] == SAID[name]
