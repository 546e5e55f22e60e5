"""The portal runs coroutines for blocking callers, whatever happens to them."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from outlast.host.portal import Portal

WAIT = 60.0
pytestmark = pytest.mark.timeout(120)
colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal("test-portal")
    yield made
    made.close()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail() -> None:
    raise LookupError("from the loop")


def thread_of(portal: Portal) -> threading.Thread:
    async def here() -> threading.Thread:
        return threading.current_thread()

    return portal.call(here)


def test_nothing_starts_before_the_first_call(portal: Portal) -> None:
    assert "test-portal" not in {thread.name for thread in threading.enumerate()}
    assert portal.call(double, 21) == 42
    assert "test-portal" in {thread.name for thread in threading.enumerate()}
    assert "running" in repr(portal)


def test_an_exception_of_the_coroutine_is_raised_at_the_caller(portal: Portal) -> None:
    with pytest.raises(LookupError, match="from the loop"):
        portal.call(fail)


def test_a_function_that_gives_no_coroutine_fails_at_the_caller(portal: Portal) -> None:
    with pytest.raises(TypeError):
        portal.call(lambda: 5)  # type: ignore[arg-type,return-value]


def test_it_works_inside_a_running_loop(portal: Portal) -> None:
    async def main() -> int:
        return portal.call(double, 4)

    assert asyncio.run(main()) == 8


def test_threads_share_one_loop(portal: Portal) -> None:
    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(lambda _: thread_of(portal), range(32)))
        doubled = list(pool.map(lambda n: portal.call(double, n), range(200)))
    assert len(set(threads)) == 1
    assert doubled == [2 * n for n in range(200)]


def test_context_variables_of_the_caller_hold_in_the_coroutine(portal: Portal) -> None:
    async def seen() -> str:
        return colour.get()

    token = colour.set("red")
    try:
        assert portal.call(seen) == "red"
    finally:
        colour.reset(token)
    assert portal.call(seen) == "none"


def test_a_call_on_the_portals_own_loop_is_refused_and_does_not_hang(portal: Portal) -> None:
    async def inside() -> int:
        return portal.call(double, 1)

    with pytest.raises(RuntimeError, match="inside its own event loop"):
        portal.call(inside)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise, also where this run was started in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_keyboard_interrupt_ends_the_wait_and_cancels_the_coroutine(portal: Portal) -> None:
    cancelled = threading.Event()

    async def never() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        portal.call(never)
    assert cancelled.wait(WAIT)
    assert portal.call(double, 3) == 6


def test_an_interrupt_before_the_wait_begins_cancels_the_coroutine_too(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the loop was told, it may run the coroutine before the caller goes on."""
    started, cancelled = threading.Event(), threading.Event()

    async def never() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    portal.call(double, 1)
    loop = portal._loop
    assert loop is not None
    tell = loop.call_soon_threadsafe

    def interrupted(callback: Callable[[], object]) -> None:
        monkeypatch.setattr(loop, "call_soon_threadsafe", tell)
        tell(callback)
        assert started.wait(WAIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(never)
    assert cancelled.wait(WAIT / 6)
    assert portal.call(double, 3) == 6


def test_a_timeout_inside_is_the_callers_timeout(portal: Portal) -> None:
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        portal.call(late)


def test_closing_ends_the_thread_and_what_waits(portal: Portal) -> None:
    started = threading.Event()

    async def never() -> None:
        started.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.call, never)
        assert started.wait(WAIT)
        thread = thread_of(portal)
        portal.close()
        with pytest.raises(CancelledError):
            waiting.result(WAIT)
    thread.join(WAIT)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="is closed"):
        portal.call(double, 1)


def test_a_process_ends_quietly_with_calls_under_way() -> None:
    program = """
import asyncio, threading
from outlast.host.portal import PORTAL
started = threading.Event()
async def never():
    started.set()
    await asyncio.Event().wait()
threading.Thread(target=lambda: PORTAL.call(never), daemon=True).start()
started.wait()
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True, text=True, check=False, timeout=WAIT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert "never" not in done.stderr.replace("PORTAL.call(never)", "")


def in_child(portal: Portal) -> bytes:
    """Fork, run one call in the child and return what it wrote."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, f"{portal.call(double, 5)} {os.getpid()}".encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_gets_a_loop_of_its_own_and_the_parent_keeps_its(portal: Portal) -> None:
    before = thread_of(portal)
    number, pid = in_child(portal).split()
    assert number == b"10"
    assert int(pid) != os.getpid()
    assert thread_of(portal) is before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_lock_does_not_hang(portal: Portal) -> None:
    portal.call(double, 1)
    with portal._lock:
        assert in_child(portal).split()[0] == b"10"


def test_a_call_that_comes_while_the_portal_closes_is_refused_and_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is queued behind the end of the loop, which will never run it."""
    portal = Portal("closing")
    portal.call(double, 1)
    loop = portal._running()
    told: list[BaseException] = []

    def late() -> None:
        try:
            portal.call(double, 1)
        except RuntimeError as error:
            told.append(error)

    caller = threading.Thread(target=late, daemon=True)
    closes = loop.close

    def close_late() -> None:
        caller.start()
        while not loop._ready:  # type: ignore[attr-defined]
            time.sleep(0.001)
        closes()

    monkeypatch.setattr(loop, "close", close_late)
    monkeypatch.setattr(portal, "_running", lambda: loop)
    portal.close()
    caller.join(10)
    assert not caller.is_alive()
    assert "closed before the call ended" in str(told[0])
