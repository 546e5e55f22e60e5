"""Ctrl-C at every place of a protected call: no permit is lost, no lock stays taken."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import outlast.host  # noqa: F401 - threads here find the real world
from outlast.kernel import current_deadline
from outlast.protect import (
    AdaptiveLimit,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Hard,
    Policy,
    RateLimit,
    Retry,
)
from outlast.protect.beside import Crew
from tests.support.interrupts import interrupted as places

HOPELESS = ("the beginning of give_back", "the beginning of _Landing.__exit__")
"""Places at which nothing that is written in Python can help: what would help begins there."""


def interrupted(act: Callable[[], Callable[[], object]]) -> Iterator[str]:
    """Yield the places at which something could be done."""
    for where in places(act):
        if not where.endswith(HOPELESS):
            yield where


class FlakyError(Exception):
    """What the second attempt does not raise."""


def once_flaky() -> Callable[[], int]:
    calls: list[int] = []

    def ask() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise FlakyError
        return 1

    return ask


def test_an_interrupted_call_keeps_no_permit_and_no_lock() -> None:
    made: list[tuple[Bulkhead, CircuitBreaker]] = []

    def act() -> Callable[[], object]:
        limit, breaker = Bulkhead(2, queue=2), CircuitBreaker(3)
        made.append((limit, breaker))
        retry = Retry(FlakyError, base=1e-6, cap=1e-6, repeat_indefinite=True)
        policy = Policy(
            timeout=5, retry=retry, breaker=breaker, rate=RateLimit(1e6), limit=limit,
            attempt_timeout=1,
        )  # fmt: skip
        return policy(once_flaky())

    for where in interrupted(act):
        limit, breaker = made[-1]
        assert limit.in_flight == 0, where
        assert not limit._lock.locked(), where
        assert not breaker._lock.locked(), where


def test_a_limit_that_is_interrupted_while_it_learns_has_its_permit_back() -> None:
    made: list[AdaptiveLimit] = []

    def act() -> Callable[[], object]:
        made.append(AdaptiveLimit(initial=1))
        ask = Policy(limit=made[-1])(once_flaky())

        def twice() -> None:
            with suppress(FlakyError):
                ask()
            ask()

        return twice

    for where in interrupted(act):
        assert made[-1].in_flight == 0, where
        assert not made[-1]._digesting.locked(), where


def test_a_permit_that_comes_back_to_a_waiter_leaves_no_lock_taken_when_interrupted() -> None:
    made: list[Bulkhead] = []

    def act() -> Callable[[], object]:
        limit = Bulkhead(1, queue=1)
        made.append(limit)
        held = limit.try_acquire()
        assert held is not None
        permit: int = held
        limit.attention = True

        def back() -> None:
            limit.release(permit)

        return back

    for where in interrupted(act):
        assert not made[-1]._lock.locked(), where


def test_a_fetch_that_is_interrupted_before_it_begins_is_not_waited_for() -> None:
    made: list[Cache] = []

    def act() -> Callable[[], object]:
        made.append(Cache(60))
        return made[-1](lambda: 1)

    for where in interrupted(act):
        assert made[-1].snapshot()["in_flight"] == 0, where


def test_a_thread_that_was_interrupted_as_it_was_hired_counts_for_none() -> None:
    made: list[tuple[Crew, threading.Event]] = []

    def act() -> Callable[[], object]:
        crew, done = Crew(1), threading.Event()
        made.append((crew, done))
        return lambda: crew.try_start(done.set)

    for where in interrupted(act):
        crew, done = made[-1]
        if not done.is_set() and crew.threads:
            assert done.wait(5), where


def test_an_interrupted_call_in_a_thread_gives_its_permit_back_once() -> None:
    made: list[Hard] = []

    def act() -> Callable[[], object]:
        made.append(Hard(5, max_threads=1))
        return Policy(attempt_timeout=made[-1])(lambda: 1)

    for where in interrupted(act):
        pool: Any = made[-1]
        for _ in range(500):
            if not pool._crew.busy:
                break
            time.sleep(0.001)
        assert len(pool._permits._free) == 1, where


def test_attempts_that_are_interrupted_while_a_failure_is_looked_at_leave_no_deadline() -> None:
    left: list[object] = []

    def act() -> Callable[[], object]:
        retry = Retry(FlakyError, base=1e-6, cap=1e-6, repeat_indefinite=True)
        policy = Policy(timeout=5, retry=retry)
        ask = once_flaky()

        def run() -> None:
            try:
                for attempt in policy.attempts():
                    with attempt:
                        ask()
            finally:
                left[:] = [current_deadline.get()]

        return run

    for where in interrupted(act):
        if "Story.failed" in where or "_decide" in where or "_retried" in where:
            assert left == [None], where
