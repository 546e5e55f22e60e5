"""What a retry does with refusals by its own policy, and with attempts that were cut off."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from outlast import deadline
from outlast.kernel import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineError,
    InvariantError,
    RateLimitedError,
    RejectedError,
    TooLateError,
    happened,
)
from outlast.protect import (
    Bulkhead,
    Cache,
    CircuitBreaker,
    Fallback,
    Hard,
    Hedge,
    Idempotency,
    Policy,
    RateLimit,
    Retry,
)
from outlast.protect.core.filter import names
from outlast.protect.events import RetryGaveUp, RetryScheduled
from tests.support.protected import Stage, play, stage

NOT_REPEATED = (
    "not repeated: the call may have happened; repeat_indefinite=True if it may be repeated"
)


def again(on: Any = Exception, **settings: Any) -> Retry:
    return Retry(on=on, **{"base": 1.0, "jitter": "none", **settings})


def broken() -> None:
    raise ConnectionResetError("no answer")


class Slow:
    """Takes a minute, and counts its calls."""

    def __init__(self, quick_from: int = 99) -> None:
        self.calls = 0
        self.quick_from = quick_from

    async def ask(self) -> str:
        self.calls += 1
        if self.calls < self.quick_from:
            await asyncio.sleep(60)
        return "answered"


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [Exception, (OSError, Exception), lambda _: True])
def test_a_broad_filter_does_not_wait_for_the_own_breaker(on: Any) -> None:
    with stage() as here:
        policy = Policy("p", retry=again(on), breaker=CircuitBreaker(1, 50))
        with pytest.raises(CircuitOpenError) as caught:
            policy.call(broken)
        assert here.now == 1.0
        assert caught.value.__notes__ == [
            "after 2 attempts: the policy refuses, and on names no CircuitOpenError",
            "the last attempt that was made failed: ConnectionResetError: no answer",
        ]
        assert isinstance(caught.value.__context__, ConnectionResetError)
        (told,) = here.of(RetryGaveUp)
        assert told.reason == "the policy refuses, and on names no CircuitOpenError"


@pytest.mark.parametrize("on", [RejectedError, CircuitOpenError, (OSError, RejectedError)])
def test_a_refusal_that_is_named_is_waited_for(on: Any) -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 50)
        policy = Policy("p", retry=again(on), breaker=breaker)
        breaker.trip()
        assert policy.call(lambda: "fine") == "fine"
        assert here.now == 50.0


def test_another_refusal_than_the_one_that_is_named_is_not_waited_for() -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 50)
        policy = Policy("p", retry=again((Exception, BulkheadFullError)), breaker=breaker)
        breaker.trip()
        with pytest.raises(CircuitOpenError):
            policy.call(broken)
        assert here.now == 0.0


def test_permits_and_rates_that_refuse_are_not_waited_for_either() -> None:
    with stage() as here:
        bulkhead = Bulkhead(1)
        bulkhead.pop()
        with pytest.raises(BulkheadFullError):
            Policy("p", retry=again(), limit=bulkhead).call(lambda: 1)
        rate = Policy("p", retry=again(), rate=RateLimit(1, per=60.0, burst=1))
        rate.call(lambda: 1)
        with pytest.raises(RateLimitedError):
            rate.call(lambda: 1)
        assert here.now == 0.0


def test_a_refusal_of_the_callee_is_a_failure_like_others() -> None:
    with stage() as here:
        answers = iter([CircuitOpenError("theirs", retry_after=5.0), None])

        def ask() -> str:
            error = next(answers)
            if error is not None:
                raise error
            return "fine"

        assert Policy("p", retry=again(), breaker=CircuitBreaker(3)).call(ask) == "fine"
        assert here.now == 5.0


def test_a_refusal_of_another_policy_further_in_is_a_failure_like_others() -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 5)
        inner = Policy("in", breaker=breaker)(lambda: "fine")
        breaker.trip()
        outer = Policy("out", retry=again(), hedge=Hedge(after=9.0))
        assert outer.call(inner) == "fine"
        assert here.now == 5.0


@pytest.mark.parametrize(
    "settings", [{"hedge": Hedge(after=9.0)}, {"order": ("attempt_timeout", "retry", "breaker")}]
)
def test_a_refusal_of_an_inner_frame_is_known(settings: dict[str, Any]) -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 5)
        policy = Policy("p", retry=again(), breaker=breaker, attempt_timeout=3.0, **settings)
        breaker.trip()
        with pytest.raises(CircuitOpenError):
            policy.call(broken)
        assert here.now == 0.0


def test_coroutines_and_attempts_do_not_wait_either() -> None:
    async def main(here: Stage) -> None:
        async def fails() -> None:
            raise ConnectionResetError("no answer")

        policy = Policy("p", retry=again(), breaker=CircuitBreaker(1, 50))
        with pytest.raises(CircuitOpenError) as caught:
            await policy(fails)()
        assert isinstance(caught.value.__context__, ConnectionResetError)
        assert here.now == 1.0

        async def repeated() -> None:
            async for attempt in Policy(
                "p", retry=again(), breaker=CircuitBreaker(1, 50)
            ).attempts():
                async with attempt:
                    await fails()

        with pytest.raises(CircuitOpenError) as caught:
            await repeated()
        told = "the last attempt that was made failed: ConnectionResetError: no answer"
        assert caught.value.__notes__[-1] == told
        assert isinstance(caught.value.__context__, ConnectionResetError)
        assert here.now == 2.0

    play(main)


def test_no_thread_that_is_free_is_a_refusal_of_the_policy() -> None:
    done, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        done.wait(600)

    policy = Policy("p", retry=again(), attempt_timeout=Hard(600.0, max_threads=1))
    holder = threading.Thread(target=policy.call, args=(hold,))
    holder.start()
    begun.wait(15)
    try:
        with pytest.raises(BulkheadFullError):
            policy.call(lambda: 1)
    finally:
        done.set()
        holder.join()


def test_what_an_earlier_attempt_may_have_done_is_not_forgotten_by_the_refusal() -> None:
    with stage():
        policy = Policy("p", retry=again(), breaker=CircuitBreaker(1, 50))
        with pytest.raises(CircuitOpenError) as caught:
            policy.call(broken)
        assert happened(caught.value) == "maybe"


class Gone(ConnectionResetError):
    """Can be referred to weakly."""


def test_a_failure_is_not_kept_longer_than_the_call() -> None:
    with stage():
        gone: list[Any] = []

        def ask() -> str:
            if gone:
                return "fine"
            error = Gone("no answer")
            gone.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

        gc.disable()
        try:
            policy = Policy("p", retry=again(), breaker=CircuitBreaker(9))
            assert policy.call(ask) == "fine"
            assert gone[0]() is None
        finally:
            gc.enable()


def test_a_refusal_that_has_a_context_keeps_it() -> None:
    with stage():
        before = LookupError("before")
        policy = Policy("p", retry=again(), breaker=CircuitBreaker(1, 50))

        def ask_while_it_is_handled() -> None:
            try:
                raise before
            except LookupError:
                policy.call(broken)

        with pytest.raises(CircuitOpenError) as caught:
            ask_while_it_is_handled()
        assert caught.value.__context__ is before
        assert caught.value.__notes__[-1].endswith("ConnectionResetError: no answer")


def test_a_call_that_was_refused_at_once_tells_of_no_attempt() -> None:
    with stage():
        breaker = CircuitBreaker(1, 50)
        breaker.trip()
        with pytest.raises(CircuitOpenError) as caught:
            Policy("p", retry=again(), breaker=breaker).call(broken)
        assert not hasattr(caught.value, "__notes__")


def test_an_attempt_that_comes_too_late_is_a_refusal() -> None:
    with stage() as here:
        policy = Policy("p", retry=again(attempts=None), breaker=CircuitBreaker(9))
        with deadline(2.0):
            here.pause(3.0)
            with pytest.raises(TooLateError):
                policy.call(broken)
        assert here.now == 3.0


def test_the_classes_that_are_named_are_told_from_those_that_are_met() -> None:
    error = CircuitOpenError("x")
    assert names(RejectedError, error, RejectedError)
    assert names((OSError, CircuitOpenError), error, RejectedError)
    assert not names(Exception, error, RejectedError)
    assert not names(BulkheadFullError, error, RejectedError)
    assert not names(lambda _: True, error, RejectedError)


# --- attempts that were cut off ----------------------------------------------------------------


def test_an_attempt_that_was_cut_off_says_why_it_was_not_repeated() -> None:
    async def main(here: Stage) -> None:
        slow = Slow()
        policy = Policy("p", timeout=9.0, attempt_timeout=2.0, retry=again(TimeoutError))
        with pytest.raises(DeadlineError) as caught:
            await policy(slow.ask)()
        assert (slow.calls, here.now) == (1, 2.0)
        assert caught.value.__notes__ == [NOT_REPEATED]

    play(main)


@pytest.mark.parametrize("retry", [again(ConnectionError), again(TimeoutError, attempts=1)])
def test_where_nothing_would_be_repeated_anyway_nothing_is_said(retry: Retry) -> None:
    async def main(_: Stage) -> None:
        with pytest.raises(DeadlineError) as caught:
            await Policy("p", attempt_timeout=2.0, retry=retry)(Slow().ask)()
        assert not hasattr(caught.value, "__notes__")

    play(main)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hedge": Hedge(after=9.0)},
        {"fallback": Fallback("none", on=InvariantError), "cache": Cache(60)},
    ],
)
def test_with_a_key_attempts_that_were_cut_off_are_repeated(settings: dict[str, Any]) -> None:
    async def main(here: Stage) -> None:
        slow = Slow(quick_from=3)
        policy = Policy(
            "p", attempt_timeout=2.0, retry=again(TimeoutError), idempotency=Idempotency(),
            **settings,
        )  # fmt: skip
        assert await policy(slow.ask)() == "answered"
        assert (slow.calls, here.now) == (3, 2.0 + 1.0 + 2.0 + 2.0)
        assert [told.error for told in here.of(RetryScheduled)] == ["DeadlineError"] * 2

    play(main)


def test_with_a_key_an_attempt_is_given_up_in_its_thread_and_repeated() -> None:
    done, calls = threading.Event(), []

    def ask() -> str:
        calls.append(1)
        if len(calls) < 2:
            done.wait(60)
        return "answered"

    policy = Policy(
        "p", attempt_timeout=Hard(0.3), retry=again(TimeoutError, base=0.001),
        idempotency=Idempotency(),
    )  # fmt: skip
    try:
        assert policy.call(ask) == "answered"
    finally:
        done.set()


def test_with_a_key_a_limit_of_somebody_else_is_in_doubt_as_before() -> None:
    async def main(_: Stage) -> None:
        slow = Slow()
        inner = Policy("in", timeout=1.0)(slow.ask)
        outer = Policy(
            "out", attempt_timeout=2.0, retry=again(TimeoutError), idempotency=Idempotency()
        )
        with pytest.raises(DeadlineError) as caught:
            await outer(inner)()
        assert (slow.calls, caught.value.__notes__) == (1, [NOT_REPEATED])

    play(main)


def test_with_a_key_what_is_not_meant_is_not_repeated() -> None:
    async def main(_: Stage) -> None:
        slow = Slow()
        policy = Policy(
            "p", attempt_timeout=2.0, retry=again(ConnectionError), idempotency=Idempotency()
        )
        with pytest.raises(DeadlineError):
            await policy(slow.ask)()
        assert slow.calls == 1

    play(main)
