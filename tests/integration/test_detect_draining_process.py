"""Real processes that are told to stop while they work: nothing is dropped, and they exit."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from outlast.detect import probe_health

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
WAIT = 60


@contextmanager
def running(*command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return its exit code and what :func:`line` has left of its output."""
    # Not communicate(): what readline() has read ahead would be lost.
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    return process.wait(WAIT), out, err


def get(port: int, path: str) -> tuple[int, str, str | None]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)) as one:
        one.request("GET", path)
        answer = one.getresponse()
        return answer.status, answer.read().decode(), answer.headers["connection"]


class Getting(threading.Thread):
    def __init__(self, port: int, path: str) -> None:
        super().__init__()
        self.port, self.path = port, path
        self.start()

    def run(self) -> None:
        self.answer = get(self.port, self.path)


class TooLateError(Exception):
    """The machine was so busy that a moment had passed before it could be looked at."""


def test_a_service_under_uvicorn_finishes_its_request_and_exits() -> None:
    for slower in (1, 5, 25):
        try:
            serve_and_stop(delay=0.6 * slower, work=1.2 * slower)
        except TooLateError:
            continue
        return
    pytest.fail("the machine is too busy to see the moment before requests are refused")


def serve_and_stop(*, delay: float, work: float) -> None:
    """Stop the example while it works on a request; it takes others for ``delay`` seconds."""
    example = str(ROOT / "examples" / "health_drain.py")
    more = {"DRAIN_DELAY": str(delay), "HEALTH_ADDRESS": ":0"}
    with running(example, "0", **more) as process:
        url = line(process).rpartition(" ")[2]
        assert process.stderr is not None
        for told in process.stderr:
            if found := re.search(r"running on http://127.0.0.1:(\d+)", told):
                break
        else:
            pytest.fail("it did not start")
        port = int(found[1])
        ready = f"{url}/readyz"
        wait_for(lambda: probe_health(ready).passing is True)
        begun = time.monotonic()
        request = Getting(port, f"/work?seconds={work}")
        time.sleep(0.2)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: probe_health(ready).passing is False)
        with by(asked + delay):
            assert probe_health(f"{url}/livez").passing
            assert get(port, "/work?seconds=0") == (200, "done\n", "close")  # not yet noticed
        with by(begun + work):
            wait_for(lambda: get(port, "/work?seconds=0")[0] == 503)
        request.join(WAIT)
        assert request.answer == (200, "done\n", "close")
        code, _, err = ended(process)
        assert (code, "Traceback" in err) == (0, False), err


@contextmanager
def by(end: float) -> Iterator[None]:
    """What happens in the block counts only if it was over by ``end``."""
    try:
        yield
    except (AssertionError, OSError, http.client.HTTPException):
        if time.monotonic() > end:
            raise TooLateError from None
        raise
    if time.monotonic() > end:
        raise TooLateError


def wait_for(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.02)


LOOP = """
import asyncio, sys
from outlast.detect import Drain, Health, HealthFile
async def main():
    health = Health()
    async with Drain(health, delay=0.1, within=float(sys.argv[1])) as drain:
        async with drain.working():
            print("up", flush=True)
            await asyncio.sleep(float(sys.argv[2]))
            print("worked", flush=True)
        await asyncio.sleep(600)
try:
    asyncio.run(main())
finally:
    print("closed", flush=True)
"""


def test_a_program_of_coroutines_finishes_its_work_and_exits_0() -> None:
    with running("-c", LOOP, "200", "0.5") as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, "worked\nclosed\n", "")


def test_a_program_that_leaves_work_exits_1() -> None:
    with running("-c", LOOP, "0.3", "600") as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (1, "closed\n", "")


THREADS = """
import sys, threading, time
from outlast.detect import Drain
def work(drain, seconds):
    with drain.working():
        print("up", flush=True)
        time.sleep(seconds)
        print("worked", flush=True)
how = sys.argv[2]
try:
    with Drain(delay=0.1, within=200) as drain:
        thread = threading.Thread(target=work, args=(drain, float(sys.argv[1])), daemon=True)
        thread.start()
        if how == "block":
            threading.Event().wait()  # blocked in C
        while not drain.wait_blocking(0.02):
            if how == "say" and drain.phase != "serving":
                how = "said"
                print("asked", flush=True)
finally:
    print("closed", flush=True)
"""


@pytest.mark.parametrize("how", ["wait", "block"])
def test_a_program_of_threads_finishes_its_work_and_exits_0(how: str) -> None:
    with running("-c", THREADS, "0.5", how) as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, "worked\nclosed\n", "")


def test_a_second_interrupt_does_not_wait() -> None:
    with running("-c", THREADS, "600", "say") as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGINT)
        assert line(process) == "asked"  # or both might arrive as one
        process.send_signal(signal.SIGINT)
        assert ended(process) == (0, "closed\n", "")


BUSY = """
import os, signal, sys, threading, time
from outlast.detect import Drain
signal.signal(signal.SIGUSR1, lambda *_: None)  # gets it, should the drain end before the wait
with Drain(delay=0, within=20, signals=(signal.SIGUSR1,)) as drain:
    def bombard():
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)
    thread = threading.Thread(target=bombard)
    with drain.working():
        thread.start()
        while thread.is_alive():
            if drain.try_enter():
                drain.leave()
    thread.join()
    drain.wait_blocking(10)
    print(drain.phase, drain.in_flight, flush=True)
"""


def test_a_handler_that_interrupts_the_bookkeeping_locks_nothing_up() -> None:
    with running("-c", BUSY) as process:
        assert ended(process) == (0, "ended 0\n", "")
