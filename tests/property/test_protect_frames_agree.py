"""Functions, coroutines, blocks and generators under one policy: the same calls, the same story.

A policy is drawn, and what the callee does at each attempt. Every way of protecting it is told
the same; results, errors with their notes, events with their times, counts and states must be
equal. What must differ is left out: a limit of time cancels coroutines only.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from outlast.kernel import CommandError, Prng, RateLimitedError, current_world
from outlast.protect import (
    Budget,
    Bulkhead,
    CircuitBreaker,
    CountWindow,
    Fallback,
    Idempotency,
    Policy,
    RateLimit,
    Retry,
    TimeWindow,
    current_call,
)
from outlast.protect.deadline import remaining
from tests.support.protected import Stage, play, stage

pytestmark = pytest.mark.timeout(120)


class Act(NamedTuple):
    """What the callee does at one attempt."""

    kind: str
    what: Any = None
    seconds: float = 0.0


class Case(NamedTuple):
    """A policy and a story: for each call the acts of its attempts, and the pause after it."""

    parts: dict[str, Any]
    calls: list[tuple[list[Act], float]]


ERRORS: dict[str, Callable[[], BaseException]] = {
    "connection": lambda: ConnectionError("reset"),
    "refused": lambda: ConnectionRefusedError("refused"),
    "value": lambda: ValueError("bad"),
    "answer": lambda: CommandError("no"),
    "throttled": lambda: RateLimitedError("slow down", retry_after=3.3),
    "cancelled": asyncio.CancelledError,
    "interrupted": KeyboardInterrupt,
}


def acts(slow: bool) -> st.SearchStrategy[Act]:
    seconds = st.sampled_from([0.0, 0.0, 0.7, 2.1] if slow else [0.0])
    return st.one_of(
        st.builds(Act, st.just("return"), st.sampled_from(["fine", "bad"]), seconds),
        st.builds(Act, st.just("raise"), st.sampled_from(["connection", "refused"]), seconds),
        st.builds(Act, st.just("raise"), st.sampled_from(sorted(ERRORS)), seconds),
        st.builds(Act, st.just("inner"), st.just(None), seconds),
    )


def is_bad(result: object) -> bool:
    return result == "bad"


@st.composite
def retries(draw: st.DrawFn, judging: bool) -> dict[str, Any]:
    base = draw(st.sampled_from([0.11, 0.5, 1.3]))
    return {
        "on": draw(st.sampled_from([ConnectionError, (ConnectionError, ValueError), Exception])),
        "attempts": draw(st.sampled_from([1, 2, 3, 4])),
        "base": base,
        "cap": draw(st.sampled_from([base, 2.6])),
        "jitter": draw(st.sampled_from(["full", "equal", "decorrelated", "none"])),
        "nested": draw(st.sampled_from(["collapse", "allow"])),
        "retry_after_cap": draw(st.sampled_from([1.0, 60.0])),
        "on_result": is_bad if judging and draw(st.booleans()) else None,
        "budget": draw(st.sampled_from([None, (0.2, 0.1), (0.0, 0.0)])),
    }


@st.composite
def breakers(draw: st.DrawFn, judging: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "recovery_timeout": draw(st.sampled_from([3.137, 7.77])),
        "probes": draw(st.sampled_from([1, 2])),
        "counts": draw(st.sampled_from([Exception, ConnectionError])),
        "counts_result": is_bad if judging and draw(st.booleans()) else None,
    }
    if draw(st.booleans()):
        made["failure_threshold"] = draw(st.sampled_from([1, 2, 3]))
    if draw(st.booleans()) or "failure_threshold" not in made:
        made["window"] = draw(st.sampled_from([CountWindow(4), TimeWindow(9.9, buckets=3)]))
        made["min_calls"] = draw(st.sampled_from([1, 3]))
        made["failure_rate"] = draw(st.sampled_from([0.5, 1.0]))
        if draw(st.booleans()):
            made["slow_call"], made["slow_rate"] = 2.0, 0.5
    return made


@st.composite
def cases(draw: st.DrawFn, *, blocks: bool = False) -> Case:
    parts: dict[str, Any] = {"name": draw(st.sampled_from(["", "p"]))}
    judging = not blocks
    if draw(st.booleans()) or draw(st.booleans()):
        parts["retry"] = draw(retries(judging))
        if blocks and parts["retry"]["on"] is Exception:
            parts["retry"]["on"] = ConnectionError  # a block that was refused is not repeated
    if draw(st.booleans()):
        parts["breaker"] = draw(breakers(judging))
    if draw(st.booleans()):
        parts["limit"] = 1
    if draw(st.booleans()):
        parts["rate"] = draw(st.sampled_from([(2, 5.7, 0.0), (2, 5.7, 3.1)]))
    whole = draw(st.sampled_from([None, None, 2.0317, 0.4137]))
    if whole is not None:
        parts["timeout"] = whole
    if draw(st.booleans()):
        parts["attempt_timeout"] = 5.03
    if draw(st.booleans()):
        parts["idempotency"] = True
    if not blocks and draw(st.booleans()):
        parts["fallback"] = draw(st.sampled_from([Exception, ConnectionError]))
    if not blocks and draw(st.booleans()) and draw(st.booleans()):
        parts["order"] = draw(
            st.sampled_from([("breaker", "retry"), ("limit", "retry"), ("retry", "fallback")])
        )
    slow = whole is None
    gap = st.sampled_from([0.0, 0.0, 0.9, 4.4, 13.3])
    calls = st.lists(st.tuples(st.lists(acts(slow), max_size=4), gap), min_size=1, max_size=6)
    return Case(parts, draw(calls))


def make(parts: dict[str, Any]) -> Policy:
    """Build a policy with parts of its own."""
    built = dict(parts)
    if "retry" in built:
        retry = dict(built["retry"])
        if retry["budget"] is not None:
            retry["budget"] = Budget(*retry["budget"])
        built["retry"] = Retry(**retry, repeat_indefinite=retry["on"] is Exception)
    if "breaker" in built:
        built["breaker"] = CircuitBreaker(**built["breaker"])
    if "limit" in built:
        built["limit"] = Bulkhead(built["limit"])
    if "rate" in built:
        calls, per, max_wait = built["rate"]
        built["rate"] = RateLimit(calls, per, max_wait=max_wait)
    if "idempotency" in built:
        built["idempotency"] = Idempotency(key=lambda: "order-1")
    if "fallback" in built:
        built["fallback"] = Fallback("instead", on=built["fallback"])
    return Policy(built.pop("name"), **built)


class Callee:
    """Does what the case says, and notes what it is told of the call."""

    def __init__(self, case: Case, here: Stage) -> None:
        self.case = case
        self.here = here
        self.acts: list[Act] = []
        self.seen: list[Any] = []
        self.raised: BaseException | None = None
        again = Retry(on=ConnectionError, attempts=2, base=0.3, jitter="none")
        self.inner = Policy("inner", retry=again)

    def begin(self) -> Act:
        call, left = current_call(), remaining()
        told = None if call is None else (call.key, call.attempt, call.policy)
        self.seen.append((self.here.now, told, None if left is None else round(left, 4)))
        return self.acts.pop(0) if self.acts else Act("return", "fine")

    def end(self, act: Act) -> str:
        if act.kind == "return":
            return str(act.what)
        self.raised = ERRORS[act.what]()
        raise self.raised

    def fail(self) -> None:
        self.raised = ConnectionError("inner")
        self.seen.append(("inner", self.here.now))
        raise self.raised

    async def fail_async(self) -> None:
        self.fail()

    def ask(self) -> str:
        act = self.begin()
        if act.seconds:
            self.here.pause(act.seconds)
        if act.kind == "inner":
            self.inner.call(self.fail)
        return self.end(act)

    async def ask_async(self) -> str:
        act = self.begin()
        if act.seconds:
            await current_world().timers.sleep(act.seconds)
        if act.kind == "inner":
            await self.inner.call(self.fail_async)
        return self.end(act)

    def items(self) -> Iterator[str]:
        yield self.ask()

    async def items_async(self) -> AsyncIterator[str]:
        yield await self.ask_async()


Way = Callable[[Policy, Callee], Any]


def by_decorator(policy: Policy, callee: Callee) -> Any:
    ask = policy(callee.ask)
    return lambda: ask()


def by_call(policy: Policy, callee: Callee) -> Any:
    return lambda: policy.call(callee.ask)


def by_attempts(policy: Policy, callee: Callee) -> Any:
    def ask() -> str:
        answer = "none"
        for attempt in policy.attempts():
            with attempt:
                answer = callee.ask()
        return answer

    return ask


def by_items(policy: Policy, callee: Callee) -> Any:
    items = policy(callee.items)

    def asked() -> str:
        (item,) = items()
        return str(item)

    return asked


def by_decorator_async(policy: Policy, callee: Callee) -> Any:
    ask = policy(callee.ask_async)

    async def asked() -> str:
        return await ask()

    return asked


def by_acall(policy: Policy, callee: Callee) -> Any:
    async def asked() -> str:
        return await policy.acall(callee.ask_async)

    return asked


def by_attempts_async(policy: Policy, callee: Callee) -> Any:
    async def asked() -> str:
        answer = "none"
        async for attempt in policy.attempts():
            async with attempt:
                answer = await callee.ask_async()
        return answer

    return asked


def by_items_async(policy: Policy, callee: Callee) -> Any:
    items = policy(callee.items_async)

    async def asked() -> str:
        (item,) = [item async for item in items()]
        return item

    return asked


class Log:
    """What one way of protecting the callee came to."""

    def __init__(self, policy: Policy, callee: Callee, here: Stage) -> None:
        self.policy, self.callee, self.here = policy, callee, here
        self.lines: list[Any] = []
        self.calls = 0

    def took(self, answer: str) -> None:
        self.lines.append(("answer", answer))

    def raised(self, error: BaseException) -> None:
        own = error is self.callee.raised
        notes = getattr(error, "__notes__", [])
        happened = getattr(error, "happened", None)
        after = round(getattr(error, "retry_after", None) or 0, 4)
        self.lines.append((type(error).__name__, str(error), own, notes, happened, after))

    def rest(self) -> None:
        """Note the state after a call."""
        policy, parts = self.policy, self.policy.parts
        counts = policy.snapshot()["calls"]
        self.lines.append((self.here.now, counts))
        ended = sum(
            counts[n] for n in ("succeeded", "failed", "rejected", "cancelled", "fell_back")
        )
        self.calls += 1
        assert ended == self.calls
        if "breaker" in parts:
            snap = parts["breaker"].snapshot()
            assert snap["probes_live"] == 0
            self.lines.append({**snap, "retry_after": round(snap["retry_after"] or 0, 4)})
        if "limit" in parts:
            assert parts["limit"].in_flight == 0
        assert current_call() is None
        assert remaining() is None

    def result(self) -> list[Any]:
        self.callee.raised = None
        return [*self.lines, self.callee.seen, self.here.story()]


def run_blocking(case: Case, way: Way) -> list[Any]:
    with stage() as here:
        policy, callee = make(case.parts), Callee(case, here)
        ask, log = way(policy, callee), Log(policy, callee, here)
        for planned, pause in case.calls:
            callee.acts = list(planned)
            try:
                log.took(ask())
            except BaseException as error:
                log.raised(error)
            log.rest()
            here.pause(pause)
        return log.result()


def run_async(case: Case, way: Way) -> list[Any]:
    async def main(here: Stage) -> list[Any]:
        policy, callee = make(case.parts), Callee(case, here)
        ask, log = way(policy, callee), Log(policy, callee, here)
        for planned, pause in case.calls:
            callee.acts = list(planned)
            try:
                log.took(await ask())
            except BaseException as error:
                log.raised(error)
            log.rest()
            await asyncio.sleep(pause)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return log.result()

    result: list[Any] = play(main)
    return result


@settings(max_examples=100, deadline=None)
@given(cases())
def test_functions_and_coroutines_have_the_same_story(case: Case) -> None:
    expected = run_blocking(case, by_decorator)
    assert run_async(case, by_decorator_async) == expected
    assert run_blocking(case, by_call) == expected
    assert run_async(case, by_acall) == expected


@settings(max_examples=100, deadline=None)
@given(cases(blocks=True))
def test_attempts_and_generators_have_the_same_story_as_functions(case: Case) -> None:
    expected = run_blocking(case, by_decorator)
    note(str(expected))
    assert run_blocking(case, by_attempts) == expected
    assert run_async(case, by_attempts_async) == expected
    assert run_blocking(case, by_items) == expected
    assert run_async(case, by_items_async) == expected


def test_the_random_numbers_of_both_worlds_are_the_same() -> None:
    async def main(here: Stage) -> int:
        return here.world.prng.bits64()

    with stage(seed=5) as here:
        drawn = here.world.prng.bits64()
    assert drawn == play(main, seed=5) == Prng(5).bits64()
