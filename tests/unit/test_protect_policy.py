"""``Policy`` as a value: what it is made of, what it says of itself, how it is changed."""

import json
from typing import Any

import pytest

from outlast.kernel import CircuitOpenError, ConfigError, DeadlineError
from outlast.protect import (
    CANONICAL,
    Budget,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Fallback,
    Hard,
    Hedge,
    Idempotency,
    Inject,
    Keyed,
    Policy,
    RateLimit,
    Retry,
)
from outlast.protect.core.order import check_order, frames
from outlast.protect.core.tally import Tally
from outlast.protect.part import Part, plain
from tests.support.protected import Stage, play, stage


def broken() -> None:
    raise ConnectionError("no answer")


def full(name: str = "rates") -> Policy:
    return Policy(
        name, timeout=5.0, retry=Retry(on=ConnectionError, jitter="none"),
        breaker=CircuitBreaker(5, 30), rate=RateLimit(100), limit=Bulkhead(20, queue=50),
        attempt_timeout=2.0, fallback=Fallback(0), idempotency=Idempotency(), hedge=Hedge(after=1),
        cache=Cache(1), inject=Inject(),
    )  # fmt: skip


# --- a value -----------------------------------------------------------------------------------


def test_it_is_frozen() -> None:
    policy = Policy("p", timeout=1)
    with pytest.raises(AttributeError, match=r"use policy.replace\(timeout=…\) or policy.conf"):
        policy.timeout = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        policy.name = "q"
    assert (policy.name, policy.timeout) == ("p", 1.0)


def test_an_empty_policy_protects_nothing_and_counts() -> None:
    policy = Policy()
    assert policy(len)([1, 2]) == 2
    assert policy.parts == {}
    assert policy.snapshot()["calls"]["succeeded"] == 1
    assert repr(policy) == "Policy('')"


def test_parts_without_a_name_take_that_of_the_first_policy() -> None:
    breaker, named = CircuitBreaker(5, 30), Bulkhead(5, name="pool")
    Policy("first", breaker=breaker, limit=named)
    Policy("second", breaker=breaker)
    assert (breaker.name, named.name) == ("first", "pool")


def test_parts_can_be_looked_at_and_not_changed() -> None:
    policy = full()
    policy.parts.clear()
    assert set(policy.parts) == {
        "fallback", "cache", "retry", "hedge", "breaker", "rate", "limit", "inject", "idempotency",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"retry": CircuitBreaker(5, 30)}, "retry is .*which is no retry; give it as breaker="),
        ({"limit": 5}, "limit is 5, which is no limit$"),
        (
            {"breaker": Keyed(lambda: Bulkhead(1), by=str)},
            "breaker is .*, which is no breaker; give it as limit=",
        ),
        ({"timeout": 0}, "timeout is 0; seconds above 0, or None for no limit"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"attempt_timeout": -1}, "attempt_timeout is -1"),
        ({"order": ("retry", "hodge")}, "order names 'hodge'; known are fallback, cache"),
        ({"order": ("retry", "retry")}, "order names 'retry' twice"),
    ],
)
def test_what_cannot_be_is_told_by_name_and_value(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=f"Policy: {says}"):
        Policy(**given)


def test_a_limit_of_infinite_time_is_none() -> None:
    policy = Policy(timeout=float("inf"), attempt_timeout=float("inf"))
    assert (policy.timeout, policy.attempt_timeout) == (None, None)


# --- what it says of itself --------------------------------------------------------------------


def test_it_describes_itself_in_json_from_outside_to_inside() -> None:
    described = json.loads(json.dumps(full().describe()))
    assert list(described) == [
        "name", "fallback", "cache", "timeout", "retry", "hedge", "breaker", "rate", "limit",
        "attempt_timeout", "inject", "idempotency", "order",
    ]  # fmt: skip
    assert described["order"] == list(CANONICAL)
    assert (described["timeout"], described["attempt_timeout"]) == (5.0, 2.0)
    assert described["retry"]["kind"] == "Retry"
    assert described["breaker"]["failure_threshold"] == 5
    hard = Policy(attempt_timeout=Hard(2.0))
    assert hard.describe()["attempt_timeout"] == {"hard": 2.0}
    assert hard.attempt_timeout == 2.0
    assert Policy().describe() == {"name": "", "order": []}


def test_it_shows_its_live_state_in_json() -> None:
    with stage():
        policy = full()
        with pytest.raises(ConnectionError):
            policy.parts["breaker"].call(broken)
        state = json.loads(json.dumps(policy.snapshot()))
        assert state["name"] == "rates"
        assert state["breaker"]["failure_count"] == 1
        assert state["limit"] == {"in_flight": 0, "waiting": 0}
        assert "retry" not in state  # it has none
        assert "CircuitBreaker(" in repr(policy)
        assert repr(policy).startswith("Policy('rates', timeout=5, attempt_timeout=2, fallback=")


def test_each_call_is_counted_by_how_it_ended() -> None:
    with stage() as here:
        breaker = CircuitBreaker(failure_threshold=4, recovery_timeout=10)
        policy = Policy("p", retry=Retry(on=ConnectionError, attempts=2), breaker=breaker)
        policy.call(len, "x")
        for _ in range(2):
            with pytest.raises(ConnectionError):
                policy.call(broken)
        with pytest.raises(CircuitOpenError):
            policy.call(len, "x")
        here.pause(10)

        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            policy.call(interrupted)
        expected = {
            "succeeded": 1, "failed": 2, "rejected": 1, "cancelled": 1, "retried": 2,
            "fell_back": 0, "timed_out": 0,
        }  # fmt: skip
        assert policy.snapshot()["calls"] == expected
        assert policy.snapshot()["calls"] == expected  # looking counts nothing


def test_what_a_fallback_answered_is_counted_as_that_and_nothing_else() -> None:
    with stage() as here:
        policy = Policy("p", fallback=Fallback("instead", on=ConnectionError))
        assert policy.call(broken) == "instead"
        with pytest.raises(ValueError, match="invalid"):
            policy.call(int, "x")
        calls = policy.snapshot()["calls"]
        assert (calls["fell_back"], calls["failed"], calls["succeeded"]) == (1, 1, 0)
        assert here.told() == ["FallbackUsed"]


def test_frames_further_in_count_retries_and_timeouts_for_the_whole_policy() -> None:
    async def story(here: Stage) -> None:
        breaker = CircuitBreaker(4, 10)
        policy = Policy(
            "p", retry=Retry(on=(ConnectionError, DeadlineError), repeat_indefinite=True),
            breaker=breaker, attempt_timeout=1.0, order=("breaker", "retry"),
        )  # fmt: skip

        @policy
        async def hang() -> None:
            await here.world.timers.sleep(60)

        with pytest.raises(DeadlineError):
            await hang()
        calls = policy.snapshot()["calls"]
        assert (calls["retried"], calls["timed_out"], calls["failed"]) == (2, 3, 1)
        hedged = Policy("h", hedge=Hedge(after=1), breaker=breaker)
        breaker.trip()
        with pytest.raises(CircuitOpenError):
            await hedged.call(hang)
        calls = hedged.snapshot()["calls"]
        assert (calls["rejected"], calls["failed"]) == (1, 0)

    play(story)


def test_a_tally_can_be_begun_anew() -> None:
    tally = Tally()
    tally.failed()
    assert tally.read()["failed"] == 1
    tally.failed()
    tally.begin_anew()
    assert set(tally.read().values()) == {0}
    inner = tally.inner()
    inner.retried()
    inner.failed()
    assert (tally.read()["retried"], tally.read()["failed"]) == (1, 0)


# --- changes -----------------------------------------------------------------------------------


def test_replace_shares_the_parts_that_it_does_not_name() -> None:
    policy = full()
    other = policy.replace(timeout=9.0, retry=None, name="other")
    assert (other.name, other.timeout, other.attempt_timeout) == ("other", 9.0, 2.0)
    assert other.parts["breaker"] is policy.parts["breaker"]
    assert "retry" not in other.parts
    assert policy.timeout == 5.0
    ordered = Policy(attempt_timeout=Hard(1), order=("breaker", "retry")).replace(timeout=1)
    assert ordered.order.index("breaker") < ordered.order.index("retry")
    assert ordered.describe()["attempt_timeout"] == {"hard": 1.0}
    with pytest.raises(TypeError):
        policy.replace(speed=1)


def test_limits_of_time_change_live_for_functions_that_are_decorated_already() -> None:
    async def story(here: Stage) -> None:
        policy = Policy("p", retry=Retry(on=ConnectionError))

        @policy
        async def hang() -> None:
            await here.world.timers.sleep(10)

        await hang()
        assert here.now == 10
        policy.configure(timeout=2.0)
        assert policy.timeout == 2.0
        with pytest.raises(DeadlineError, match=r"p: timeout of 2 s passed"):
            await hang()
        assert here.now == 12
        policy.configure(timeout=None, attempt_timeout=1.0)
        with pytest.raises(DeadlineError, match=r"p: attempt_timeout of 1 s passed"):
            await hang()
        policy.configure(attempt_timeout=None)
        await hang()
        assert here.now == 23

    play(story)


def test_a_limit_can_be_shortened_while_calls_are_under_way() -> None:
    async def story(here: Stage) -> None:
        policy = Policy("p", attempt_timeout=30.0)

        @policy
        async def hang() -> None:
            await here.world.timers.sleep(100)

        early = here.world.spawn.task(hang(), name="early")
        await here.world.timers.sleep(1)
        policy.configure(attempt_timeout=2.0)
        with pytest.raises(DeadlineError):
            await hang()
        assert here.now == 3
        with pytest.raises(DeadlineError):
            await early
        assert here.now == 30  # it keeps its own

    play(story)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"retry": None}, "Policy: no setting 'retry' to change; timeout and attempt_timeout are"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": 3, "attempt_timeout": 0}, "attempt_timeout is 0"),
    ],
)
def test_a_wrong_change_changes_nothing(changes: dict[str, Any], says: str) -> None:
    policy = Policy("p", timeout=5)
    with pytest.raises(ConfigError, match=says):
        policy.configure(**changes)
    assert policy.timeout == 5


def test_a_hard_limit_cannot_be_changed_through_the_policy() -> None:
    with pytest.raises(ConfigError, match=r"Hard\(…\) here and cannot be changed"):
        Policy(attempt_timeout=Hard(1)).configure(attempt_timeout=2)


# --- order -------------------------------------------------------------------------------------


def test_positions_that_an_order_leaves_out_stand_at_their_place() -> None:
    assert check_order(()) == CANONICAL
    assert check_order(CANONICAL) == CANONICAL
    assert check_order(("breaker", "retry")) == (
        "fallback", "cache", "deadline", "breaker", "retry", "hedge", "rate", "limit",
        "attempt_timeout", "inject",
    )  # fmt: skip
    assert check_order(("inject",))[-1] == "inject"
    assert check_order(("limit", "deadline"))[:4] == ("fallback", "cache", "limit", "deadline")


def test_parts_in_canonical_order_share_a_frame() -> None:
    assert frames(CANONICAL, CANONICAL) == [
        ("fallback",), ("cache",), ("deadline", "retry"), ("hedge",),
        ("breaker", "rate", "limit", "attempt_timeout"), ("inject",),
    ]  # fmt: skip
    assert frames(("limit", "breaker", "retry"), {"limit", "breaker", "retry"}) == [
        ("limit",), ("breaker",), ("retry",),
    ]  # fmt: skip
    assert frames(CANONICAL, ()) == []


@pytest.mark.parametrize(
    ("order", "failures", "asked"), [(CANONICAL, 3, 3), (("breaker", "retry"), 1, 3)]
)
def test_a_breaker_outside_of_the_retry_sees_calls_and_not_attempts(
    order: Any, failures: int, asked: int
) -> None:
    with stage():
        calls: list[int] = []

        def ask() -> None:
            calls.append(1)
            raise ConnectionError

        breaker = CircuitBreaker(9, 10)
        policy = Policy("p", retry=Retry(on=ConnectionError), breaker=breaker, order=order)
        with pytest.raises(ConnectionError):
            policy.call(ask)
        assert (breaker.failure_count, len(calls)) == (failures, asked)


def test_a_limit_outside_of_the_retry_is_held_during_the_waits() -> None:
    with stage():
        limit = Bulkhead(1)
        held: list[int] = []
        retry = Retry(on=ConnectionError, between=lambda _: held.append(limit.in_flight))
        for order in (CANONICAL, ("limit", "retry")):
            with pytest.raises(ConnectionError):
                Policy(retry=retry, limit=limit, order=order).call(broken)
        assert held == [0, 0, 1, 1]
        assert limit.in_flight == 0


def test_a_fallback_inside_of_the_retry_answers_the_first_failure() -> None:
    with stage() as here:
        order = ("retry", "fallback")
        policy = Policy(retry=Retry(on=ConnectionError), fallback=Fallback(0), order=order)
        assert policy.call(broken) == 0
        assert here.told() == ["FallbackUsed"]


def test_a_timeout_inside_of_the_retry_is_for_each_attempt() -> None:
    async def story(here: Stage) -> None:
        policy = Policy(
            timeout=1.0, order=("retry", "deadline"),
            retry=Retry(on=DeadlineError, repeat_indefinite=True, base=1, jitter="none"),
        )  # fmt: skip
        with pytest.raises(DeadlineError):
            await policy.call(here.world.timers.sleep, 60)
        assert here.now == 1 + 1 + 1 + 2 + 1

    play(story)


# --- parts -------------------------------------------------------------------------------------


def test_a_part_alone_is_a_policy_of_its_own_made_once() -> None:
    budget_free = Retry(on=ConnectionError, name="mine")
    assert budget_free.alone() is budget_free.alone()
    assert budget_free.alone().name == "mine"
    with pytest.raises(ConfigError, match="Budget: no setting 'speed' to change; it has ratio"):
        Budget().configure(speed=1)
    assert Part().describe() == {} == Part().snapshot()
    with pytest.raises(ConfigError, match="Part: no setting 'x' to change; it has nothing"):
        Part().configure(x=1)
    assert repr(Part("n")) == "Part()"


def test_settings_are_shown_as_json_can_hold_them() -> None:
    assert [plain(value) for value in (None, 1, 0.5, "x", True)] == [None, 1, 0.5, "x", True]
    assert plain((KeyError, CircuitOpenError)) == [
        "KeyError", "outlast.kernel.errors.CircuitOpenError",
    ]  # fmt: skip
    assert plain(broken) == "broken"
    assert plain({1}) == "{1}"
