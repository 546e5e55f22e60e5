"""What is written on errors that are not ours, and hooks that raise: the error comes through."""

import asyncio
import pickle
from typing import Any

import pytest

from outlast.kernel import CircuitOpenError
from outlast.protect import CircuitBreaker, Hedge, Policy, Retry
from outlast.protect.core.filter import matches
from outlast.protect.core.note import add_note, get_mark, set_mark, shown, sign, signed
from outlast.protect.retrying import call_with_retry
from outlast.protect.story import _retried
from tests.support.protected import Stage, play, stage


class Sealed(Exception):
    """An error that nothing can be written on, and that hides what it has."""

    def __setattr__(self, name: str, value: object) -> None:
        raise LookupError("sealed")

    def __getattribute__(self, name: str) -> Any:
        if name in {"__notes__", "__outlast_retried__", "happened"}:
            raise LookupError("hidden")
        return super().__getattribute__(name)

    def add_note(self, note: str) -> None:
        raise LookupError("sealed")

    def __str__(self) -> str:
        raise LookupError("silent")


def again(on: Any = Exception, **settings: Any) -> Retry:
    return Retry(on=on, **{"base": 1.0, "jitter": "none", **settings})


# --- errors that refuse ------------------------------------------------------------------------


def test_an_error_that_cannot_be_written_on_comes_through_itself() -> None:
    with stage():
        error = Sealed()

        def ask() -> None:
            raise error

        policy = Policy("p", retry=again(), breaker=CircuitBreaker(9))
        with pytest.raises(Sealed) as caught:
            policy.call(ask)
        assert caught.value is error
        assert policy.snapshot()["calls"]["retried"] == 2


def test_it_comes_through_loops_and_hedges_as_well() -> None:
    async def main(_: Stage) -> None:
        async def ask() -> None:
            raise Sealed

        with pytest.raises(Sealed):
            await call_with_retry(ask, again())
        with pytest.raises(Sealed):
            await Policy("p", retry=again(), hedge=Hedge(after=1.0, on=Sealed))(ask)()

    play(main)


def test_its_text_is_not_needed_for_the_note_on_a_refusal() -> None:
    with stage():

        def ask() -> None:
            raise Sealed

        with pytest.raises(CircuitOpenError) as caught:
            Policy("p", retry=again(), breaker=CircuitBreaker(1, 50)).call(ask)
        assert caught.value.__notes__[-1] == "the last attempt that was made failed: Sealed"


def test_a_note_is_written_once_and_not_without_end() -> None:
    error = KeyError("x")
    for number in range(40):
        add_note(error, "same")
        add_note(error, f"note {number}")
    assert error.__notes__[:3] == ["same", "note 0", "note 1"]
    assert len(error.__notes__) == 16


def test_marks_are_set_where_they_can_be() -> None:
    error, sealed = KeyError("x"), Sealed()
    set_mark(error, "happened", "no")
    set_mark(sealed, "happened", "no")
    assert get_mark(error, "happened") == "no"
    assert get_mark(error, "other") is None
    assert get_mark(sealed, "happened") is None


def test_an_error_knows_the_policy_that_has_made_it() -> None:
    one, other, error = object(), object(), CircuitOpenError("x")
    assert not signed(error, one)
    sign(error, one)
    assert signed(error, one)
    assert not signed(error, other)
    assert pickle.loads(pickle.dumps(error)).args == ("x",)


def test_an_error_is_shown_in_one_short_line() -> None:
    assert shown(ValueError("a\n  b")) == "ValueError: a b"
    assert shown(ValueError("x" * 999)) == "ValueError: " + "x" * 200
    assert shown(ValueError()) == "ValueError"
    assert shown(Sealed()) == "Sealed"


# --- hooks that raise --------------------------------------------------------------------------


def wrong(error: Exception) -> bool:
    raise LookupError(error.__class__.__name__)


ASKED = "wrong was asked about this error and raised LookupError: ConnectionError"


def broken() -> None:
    raise ConnectionError


def test_counts_that_raises_lets_the_error_through_and_counts_it() -> None:
    with stage():
        policy = Policy("p", breaker=CircuitBreaker(2, 50, counts=wrong))
        for _ in range(2):
            with pytest.raises(ConnectionError) as caught:
                policy.call(broken)
            assert caught.value.__notes__ == [ASKED]
        assert policy.parts["breaker"].state == "OPEN"


def test_counts_that_raises_leaves_no_probe_behind() -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 5, counts=wrong, probe_timeout=100.0)
        policy = Policy("p", breaker=breaker)
        breaker.trip()
        here.pause(5.0)
        with pytest.raises(ConnectionError):
            policy.call(broken)
        assert breaker.snapshot()["probes_live"] == 0
        assert breaker.state == "OPEN"


def test_counts_result_that_raises_leaves_no_probe_behind() -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 5, counts_result=wrong, probe_timeout=100.0)
        breaker.trip()
        here.pause(5.0)
        with pytest.raises(LookupError):
            Policy("p", breaker=breaker).call(lambda: "fine")
        assert breaker.snapshot()["probes_live"] == 0
        assert breaker.state == "HALF_OPEN"


def test_on_that_raises_lets_the_error_through_and_repeats_nothing() -> None:
    with stage():
        breaker = CircuitBreaker(9)
        policy = Policy("p", retry=again(wrong), breaker=breaker)
        with pytest.raises(ConnectionError) as caught:
            policy.call(broken)
        assert caught.value.__notes__ == [ASKED]
        assert breaker.failure_count == 1
        assert policy.snapshot()["calls"] == {
            "succeeded": 0, "failed": 1, "rejected": 0, "cancelled": 0, "retried": 0,
            "fell_back": 0, "timed_out": 0,
        }  # fmt: skip


def test_a_filter_without_a_name_is_shown_by_its_class() -> None:
    class Filter:
        def __call__(self, error: Exception) -> bool:
            raise error

    error = KeyError("x")
    assert matches(Filter(), error, otherwise=True)
    assert error.__notes__ == ["Filter was asked about this error and raised KeyError: 'x'"]
    assert not matches(Filter(), KeyError("x"))


# --- retries of retries in groups --------------------------------------------------------------


def test_what_was_retried_inside_a_group_of_tasks_is_not_retried_again() -> None:
    async def main(_: Stage) -> None:
        calls = 0

        async def ask() -> None:
            nonlocal calls
            calls += 1
            raise ConnectionError

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(Policy("in", retry=again(attempts=3))(ask)())

        with pytest.raises(ExceptionGroup):
            await Policy("out", retry=again(attempts=4))(both)()
        assert calls == 3

    play(main)


def test_marks_are_looked_for_in_causes_contexts_and_groups() -> None:
    marked = KeyError()
    set_mark(marked, "__outlast_retried__", (3, 7))
    cause, context = ValueError(), ValueError()
    cause.__cause__, context.__context__ = marked, marked
    group = ExceptionGroup("x", [OSError(), ExceptionGroup("y", [cause, OSError()])])
    for error in (marked, cause, context, group):
        assert _retried(error, 6) == 3
        assert _retried(error, 7) == 0
    assert _retried(ExceptionGroup("x", [OSError()]), 0) == 0


def test_the_search_ends_in_circles_and_in_huge_groups() -> None:
    one, other = KeyError(), KeyError()
    one.__context__, other.__context__ = other, None
    other.__cause__ = one
    assert _retried(one, 0) == 0
    huge = ExceptionGroup("x", [OSError() for _ in range(10_000)])
    assert _retried(huge, 0) == 0
