"""Ctrl-C and time limits in a simulation: they come through, and leave the machine as it was."""

import _thread
import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from outlast.sim import fakes, running
from outlast.sim.ambient import ambient
from outlast.sim.interrupts import GUARD, held
from outlast.sim.lab import Lab
from outlast.sim.loop import SimLoop
from outlast.sim.running import Options, run_case
from outlast.sim.search import _Search
from outlast.testing import virtual_time

OPTIONS = Options()
interrupt = _thread.interrupt_main  # as from a keyboard: the simulation does not replace it


class LimitError(BaseException):
    """What a time limit raises."""


async def trivial(lab: Lab) -> float:
    await asyncio.sleep(1)
    return lab.now


def ring(*_: Any) -> None:
    raise LimitError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of Ctrl-C and of a limit, and proof that a test has left them there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, ring)
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGALRM) is ring
        assert (GUARD.open, GUARD.before) == (True, {})
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- blocks --------------------------------------------------------------------------------------


def test_a_handler_runs_when_the_block_has_ended() -> None:
    seen: list[str] = []

    def block() -> None:
        with held():
            signal.raise_signal(signal.SIGALRM)
            seen.append("its end")

    with pytest.raises(LimitError):
        block()
    assert seen == ["its end"]


def test_a_handler_runs_when_the_outermost_block_has_ended() -> None:
    seen: list[str] = []

    def block() -> None:
        with held():
            with held():
                signal.raise_signal(signal.SIGINT)
                seen.append("inner")
            seen.append("outer")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert seen == ["inner", "outer"]


def test_a_second_signal_does_not_wait_for_a_block_that_takes_too_long() -> None:
    seen: list[str] = []

    def block() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            seen.append("once")
            signal.raise_signal(signal.SIGINT)
            seen.append("twice")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert seen == ["once"]


def test_where_the_guard_is_open_a_handler_runs_at_once() -> None:
    seen: list[str] = []

    def block() -> None:
        with held():
            try:
                GUARD.open = True
                signal.raise_signal(signal.SIGINT)
                seen.append("later")
            finally:
                GUARD.open = False

    with pytest.raises(KeyboardInterrupt):
        block()
    assert not seen


def test_what_has_waited_runs_when_the_guard_is_opened() -> None:
    seen: list[str] = []

    def block() -> None:
        with held():
            signal.raise_signal(signal.SIGALRM)
            seen.append("held")
            try:
                GUARD.open = True
                GUARD.let_through()
                seen.append("later")
            finally:
                GUARD.open = False

    with pytest.raises(LimitError):
        block()
    assert seen == ["held"]


def test_an_error_of_the_block_becomes_the_context_of_what_a_handler_raises() -> None:
    def block() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_signal_that_comes_while_handlers_are_put_back_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = signal.getsignal
    strikes = iter([signal.SIGINT])

    def late(number: int) -> Any:
        if GUARD.before:
            for strike in strikes:
                signal.raise_signal(strike)
        return real(number)

    def block() -> None:
        with held():
            pass

    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", late)
        with pytest.raises(KeyboardInterrupt):
            block()


def test_a_handler_that_strikes_when_it_is_put_back_does_not_keep_the_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = signal.signal
    strikes = iter([KeyboardInterrupt])

    def late(number: int, handler: Any) -> Any:
        before = real(number, handler)
        if handler != GUARD.ring:
            for strike in strikes:
                raise strike
        return before

    def block() -> None:
        with held():
            pass

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", late)
        with pytest.raises(KeyboardInterrupt):
            block()


def test_a_handler_that_others_have_set_in_the_meantime_stays() -> None:
    heard: list[int] = []
    with held():
        signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.raise_signal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, ring)
    assert heard == [signal.SIGALRM]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_signals_that_are_ignored_stay_so(handler: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGALRM, handler)
    with held():
        assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, ring)


def test_a_handler_that_strikes_before_the_block_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = signal.signal

    def late(number: int, handler: Any) -> Any:
        before = real(number, handler)
        if handler == GUARD.ring and number == signal.SIGINT:
            signal.raise_signal(signal.SIGALRM)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", late)
        with pytest.raises(LimitError), held():
            pytest.fail("entered")


def test_another_thread_has_no_handlers_to_hold() -> None:
    found: list[Any] = []

    def other() -> None:
        with held():
            found.append(dict(GUARD.before))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [{}]


# --- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (_Search, "look"),
        (_Search, "put"),
        (fakes, "begin"),
        (fakes, "end"),
        (SimLoop, "close"),
        (running, "_collect"),
        (running, "_judge"),
    ],
)
def test_ctrl_c_while_a_run_begins_or_ends_leaves_the_real_clock_behind(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    real = getattr(owner, name)
    strikes = iter([interrupt])

    def struck(*args: Any, **kwargs: Any) -> Any:
        for strike in strikes:
            strike()
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, struck)
        with pytest.raises(KeyboardInterrupt):
            run_case(trivial, 1, OPTIONS)
    assert not fakes.active()
    assert time.time is fakes.ORIGINALS[id(time.time)].real
    assert run_case(trivial, 1, OPTIONS).value == 1.0


def test_ctrl_c_ends_a_program_that_never_waits() -> None:
    async def spin(lab: Lab) -> None:
        interrupt()
        while True:
            pass

    with pytest.raises(KeyboardInterrupt):
        run_case(spin, 1, OPTIONS)


def test_ctrl_c_that_the_program_swallows_is_raised_when_its_run_is_over() -> None:
    after = False

    async def greedy(lab: Lab) -> None:
        nonlocal after
        with suppress(BaseException):
            interrupt()
            for _ in range(1000):
                pass
        after = True

    with pytest.raises(KeyboardInterrupt):
        run_case(greedy, 1, OPTIONS)
    assert after
    assert run_case(trivial, 1, OPTIONS).passed


def test_ctrl_c_in_a_finaliser_is_not_lost() -> None:
    class Last:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            interrupt()
            for _ in range(1000):
                pass

    async def litter(lab: Lab) -> Last:
        return Last()

    def run() -> None:
        outcome = run_case(litter, 1, OPTIONS)
        del outcome.value
        run_case(trivial, 2, OPTIONS)

    with pytest.raises(KeyboardInterrupt), running.many_runs():
        run()


def test_a_limit_strikes_the_program_and_not_the_machinery_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = _Search.put
    strikes = iter([signal.SIGALRM])

    def struck(self: _Search, inside: bool) -> None:
        for number in strikes:
            GUARD.ring(number, None)
        real(self, inside)

    monkeypatch.setattr(_Search, "put", struck)
    outcome = run_case(trivial, 1, OPTIONS)
    assert isinstance(outcome.error, LimitError)
    assert not fakes.active()


def test_ctrl_c_reaches_blocking_code_in_virtual_time() -> None:
    seen: list[str] = []

    def block() -> None:
        with virtual_time():
            interrupt()
            for _ in range(1000):
                pass
            seen.append("later")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert not seen
    assert not fakes.active()


def test_ctrl_c_before_virtual_time_has_begun_is_raised_as_soon_as_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = fakes.begin

    def struck(source: Any) -> None:
        interrupt()
        real(source)

    monkeypatch.setattr(fakes, "begin", struck)
    loop = SimLoop(1)
    with pytest.raises(KeyboardInterrupt), ambient(loop.source):
        pytest.fail("entered")
    loop.close()
    assert not fakes.active()
