"""``CircuitBreaker``: what callers and observers see of it."""

import asyncio
import json
import os
import threading
from contextlib import suppress
from typing import Any

import pytest

from outlast.kernel import CircuitOpenError, CommandError, ConfigError
from outlast.protect import CircuitBreaker, CountWindow, Policy, Retry, TimeWindow
from outlast.protect.events import (
    CallRejected,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitModeChanged,
    CircuitOpened,
)
from tests.support.protected import Stage, play, stage


def broken() -> None:
    raise ConnectionError("no answer")


def fine() -> str:
    return "fine"


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with suppress(ConnectionError):
            breaker.call(broken)


def opened(**settings: Any) -> CircuitBreaker:
    breaker = CircuitBreaker(**{"failure_threshold": 2, "recovery_timeout": 10, **settings})
    fail(breaker, breaker.failure_threshold or 2)
    assert breaker.state == "OPEN"
    return breaker


# --- as in the textbook ------------------------------------------------------------------------


def test_it_does_what_the_textbook_says_at_the_exact_times() -> None:
    with stage() as here:
        breaker = CircuitBreaker(failure_threshold=5, recovery_timeout=60)
        states = [(breaker.state, breaker.failure_count)]
        for _ in range(5):
            fail(breaker)
            states.append((breaker.state, breaker.failure_count))
        assert states == [
            ("CLOSED", 0), ("CLOSED", 1), ("CLOSED", 2), ("CLOSED", 3), ("CLOSED", 4), ("OPEN", 5),
        ]  # fmt: skip
        assert breaker.retry_after == 60.0
        here.pause(59.5)
        with pytest.raises(CircuitOpenError) as caught:
            breaker.call(fine)
        assert caught.value.retry_after == pytest.approx(0.5)
        here.pause(0.5)
        assert breaker.state == "HALF_OPEN"
        assert breaker.retry_after is None
        assert breaker.call(fine) == "fine"
        assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)


def test_the_names_of_the_states_are_on_the_class() -> None:
    assert (CircuitBreaker.CLOSED, CircuitBreaker.OPEN, CircuitBreaker.HALF_OPEN) == (
        "CLOSED", "OPEN", "HALF_OPEN",
    )  # fmt: skip


def test_a_success_sets_the_failures_back_to_none() -> None:
    breaker = CircuitBreaker(3, 10)
    fail(breaker, 2)
    breaker.call(fine)
    assert breaker.failure_count == 0


def test_it_is_a_decorator_for_functions_coroutines_and_blocks() -> None:
    async def story(here: Stage) -> None:
        breaker = CircuitBreaker(4, 10)

        @breaker
        def plain() -> None:
            raise ConnectionError

        @breaker
        async def awaited() -> None:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            plain()
        with pytest.raises(ConnectionError):
            await awaited()
        with pytest.raises(ConnectionError), breaker:
            raise ConnectionError
        with pytest.raises(ConnectionError):
            async with breaker:
                raise ConnectionError
        assert (breaker.state, breaker.failure_count) == ("OPEN", 4)
        for refused in (plain, breaker.__enter__):
            with pytest.raises(CircuitOpenError):
                refused()
        for awaitable in (awaited, breaker.__aenter__):
            with pytest.raises(CircuitOpenError):
                await awaitable()

    play(story)


# --- what counts -------------------------------------------------------------------------------


def test_only_the_errors_that_were_named_count() -> None:
    breaker = CircuitBreaker(2, 10, counts=(ConnectionError, TimeoutError))
    fail(breaker)
    with suppress(ValueError):
        breaker.call(int, "x")  # another error is an answer: the callee works
    assert breaker.failure_count == 0


def test_a_function_tells_which_errors_count() -> None:
    breaker = CircuitBreaker(1, 10, counts=lambda error: "answer" in str(error))
    fail(breaker)
    assert breaker.state == "OPEN"
    other = CircuitBreaker(1, 10, counts=lambda error: "else" in str(error))
    fail(other)
    assert other.state == "CLOSED"


def test_a_command_that_says_no_is_an_answer() -> None:
    breaker = CircuitBreaker(1, 10)

    def refused() -> None:
        raise CommandError("overdrawn")

    with pytest.raises(CommandError):
        breaker.call(refused)
    assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)


def test_results_can_be_failures() -> None:
    breaker = CircuitBreaker(2, 10, counts_result=lambda status: status >= 500)
    assert [breaker.call(int, n) for n in (500, 404, 503, 500)] == [500, 404, 503, 500]
    assert breaker.state == "OPEN"


def test_a_judge_of_results_that_raises_leaves_no_probe_behind() -> None:
    with stage() as here:
        breaker = opened(counts_result=lambda result: result.status >= 500)
        here.pause(10)
        with pytest.raises(AttributeError):
            breaker.call(fine)
        assert (breaker.state, breaker.snapshot()["probes_live"]) == ("HALF_OPEN", 0)


def test_slow_calls_open_it() -> None:
    with stage() as here:
        breaker = CircuitBreaker(
            slow_call=2.0, slow_rate=0.5, window=CountWindow(4), min_calls=2, recovery_timeout=10
        )
        breaker.call(here.pause, 1.9)
        breaker.call(here.pause, 2.0)
        assert breaker.state == "OPEN"
        assert here.of(CircuitOpened)[0].reason == "1 of 2 calls were slow"


def test_failures_that_took_long_count_as_slow_calls_too() -> None:
    with stage() as here:
        breaker = CircuitBreaker(slow_call=2.0, slow_rate=1.0, min_calls=2)

        def slowly() -> None:
            here.pause(3)
            raise ConnectionError

        for _ in range(2):
            with suppress(ConnectionError):
                breaker.call(slowly)
        assert breaker.state == "OPEN"


def test_a_time_window_forgets_what_is_old() -> None:
    with stage() as here:
        breaker = CircuitBreaker(
            failure_rate=0.5, window=TimeWindow(10, buckets=5), min_calls=4, recovery_timeout=10
        )
        fail(breaker, 3)
        here.pause(13)
        for _ in range(2):
            breaker.call(fine)
        fail(breaker)
        assert breaker.state == "CLOSED"
        fail(breaker)
        assert breaker.state == "OPEN"


def test_a_stream_of_successes_moves_a_time_window_on() -> None:
    with stage() as here:
        breaker = CircuitBreaker(failure_rate=0.5, window=TimeWindow(4, buckets=2), min_calls=2)
        for _ in range(20):
            breaker.call(fine)
            here.pause(1)
        fail(breaker)
        assert breaker.state == "CLOSED"
        fail(breaker)
        assert here.of(CircuitOpened)[0].reason == "2 of 4 calls failed"  # and not of 22


# --- events ------------------------------------------------------------------------------------


def test_each_change_of_state_is_told_once_with_its_reason() -> None:
    with stage() as here:
        breaker = opened(name="rates")
        with suppress(CircuitOpenError):
            breaker.call(fine)
        here.pause(10)
        fail(breaker)
        here.pause(20)
        breaker.call(fine)
        names = here.told()
        assert names == [
            "CircuitOpened", "CallRejected", "CircuitHalfOpened", "CircuitOpened",
            "CircuitHalfOpened", "CircuitClosed",
        ]  # fmt: skip
        first, second = here.of(CircuitOpened)
        assert (first.name, first.failures, first.seconds) == ("rates", 2, 10.0)
        assert first.reason == "2 failures one after another"
        assert second.reason == "a probe failed"
        assert 10 <= second.seconds <= 20
        (refused,) = here.of(CallRejected)
        assert (refused.name, refused.part, refused.reason) == (
            "rates", "breaker", "the circuit is open",
        )  # fmt: skip
        assert here.of(CircuitHalfOpened)[0].name == "rates"
        assert here.of(CircuitClosed)[0].reason == "probes succeeded"


def test_a_refusal_names_the_breaker_or_the_policy_and_says_that_nothing_was_sent() -> None:
    with stage():
        breaker = opened()
        assert breaker.name == ""
        with pytest.raises(CircuitOpenError, match=r"^the circuit is open$"):
            breaker.call(fine)
        with pytest.raises(CircuitOpenError, match=r"^rates: the circuit is open$") as caught:
            Policy("rates", breaker=breaker).call(fine)
        assert caught.value.happened == "no"


# --- by hand -----------------------------------------------------------------------------------


def test_isolate_refuses_until_it_is_enabled_again() -> None:
    with stage() as here:
        breaker = CircuitBreaker(5, 10, name="b")
        breaker.isolate()
        here.pause(1e6)
        with pytest.raises(CircuitOpenError, match="isolated") as caught:
            breaker.call(fine)
        assert caught.value.retry_after is None
        assert (breaker.state, breaker.mode, breaker.retry_after) == ("OPEN", "isolated", None)
        breaker.enable()
        assert breaker.call(fine) == "fine"
        changes = [(e.before, e.mode) for e in here.of(CircuitModeChanged)]
        assert changes == [("normal", "isolated"), ("isolated", "normal")]


def test_disable_lets_all_calls_pass_whatever_happens() -> None:
    with stage() as here:
        breaker = opened()
        breaker.disable()
        assert here.told()[-2:] == ["CircuitModeChanged", "CircuitClosed"]
        assert here.of(CircuitClosed)[0].reason == "now disabled"
        fail(breaker, 50)
        breaker.trip()
        assert (breaker.state, breaker.failure_count, breaker.mode) == ("CLOSED", 0, "disabled")
        breaker.disable()
        assert len(here.of(CircuitModeChanged)) == 1


def test_a_shadow_tells_what_it_would_refuse_and_refuses_nothing() -> None:
    with stage() as here:
        breaker = CircuitBreaker(2, 10, name="b")
        breaker.shadow()
        fail(breaker, 2)
        assert breaker.state == "OPEN"
        assert [breaker.call(fine) for _ in range(2)] == ["fine"] * 2
        refusals = here.of(CallRejected)
        assert [event.part for event in refusals] == ["breaker (shadow)"] * 2
        here.pause(10)
        assert breaker.call(fine) == "fine"
        assert breaker.state == "CLOSED"


def test_a_shadow_lets_calls_pass_beside_its_probes() -> None:
    async def story(here: Stage) -> None:
        breaker = CircuitBreaker(1, 10)
        breaker.shadow()
        fail(breaker)
        await asyncio.sleep(10)
        slow = asyncio.create_task(breaker(asyncio.sleep)(1, "slow"))
        await asyncio.sleep(0.1)
        assert await breaker(asyncio.sleep)(0, "quick") == "quick"
        assert breaker.state == "HALF_OPEN"  # what passed in the shadow is no probe
        assert await slow == "slow"
        assert breaker.state == "CLOSED"

    play(story)


def test_reset_closes_and_forgets() -> None:
    with stage() as here:
        breaker = opened()
        breaker.reset()
        assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)
        assert here.of(CircuitClosed)[0].reason == "reset"
        breaker.reset()
        assert len(here.of(CircuitClosed)) == 1


def test_trip_opens_it_for_a_test() -> None:
    with stage() as here:
        breaker = CircuitBreaker(5, 10)
        breaker.trip()
        assert (breaker.state, breaker.retry_after) == ("OPEN", 10)
        breaker.reset()
        breaker.trip(3)
        here.pause(3)
        assert breaker.state == "HALF_OPEN"
        assert [event.seconds for event in here.of(CircuitOpened)] == [10, 3]
        for wrong in (0, -1, float("inf"), "3"):
            with pytest.raises(ConfigError, match="seconds is"):
                breaker.trip(wrong)  # type: ignore[arg-type]


def test_the_fleet_can_open_and_close_it() -> None:
    with stage() as here:
        breaker = CircuitBreaker(5, 10)
        breaker.adopt_open(4 * 10**9)
        assert (breaker.state, breaker.retry_after) == ("OPEN", 4)
        breaker.adopt_closed()
        breaker.adopt_closed()
        assert here.told() == ["CircuitOpened", "CircuitClosed"]


# --- two phases --------------------------------------------------------------------------------


def test_a_permit_is_settled_once_by_its_outcome() -> None:
    with stage() as here:
        breaker = CircuitBreaker(2, 10)
        permit = breaker.try_admit()
        permit.fail(ConnectionError())
        permit.fail(ConnectionError())
        permit.succeed()
        permit.cancel()
        assert breaker.failure_count == 1
        breaker.try_admit().fail()  # without an error: for protocols that have none
        assert breaker.state == "OPEN"
        with pytest.raises(CircuitOpenError):
            breaker.try_admit()
        here.pause(10)
        probe = breaker.try_admit()
        with pytest.raises(CircuitOpenError) as caught:
            breaker.try_admit()
        assert caught.value.retry_after == 10.0  # when the probe's place is free at the latest
        probe.cancel()
        breaker.try_admit().succeed()
        assert breaker.state == "CLOSED"


def test_a_permit_as_a_block_settles_itself() -> None:
    with stage() as here:
        breaker = CircuitBreaker(2, 10, slow_call=2, slow_rate=1.0, min_calls=1)
        with pytest.raises(ConnectionError), breaker.try_admit():
            raise ConnectionError
        assert breaker.failure_count == 1
        with breaker.try_admit():
            pass
        assert breaker.failure_count == 0
        with breaker.try_admit():
            here.pause(2)
        with breaker.try_admit():
            here.pause(2)
        assert breaker.state == "CLOSED"  # 2 of 4
        with pytest.raises(CommandError), breaker.try_admit():
            raise CommandError("no")
        assert breaker.failure_count == 0


# --- sharing with others -----------------------------------------------------------------------


class Fleet:
    """What the link to other processes is asked."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.lease: object = "lease"

    def tripped(self, now_ns: int, open_ns: int) -> None:
        self.told.append(("tripped", open_ns))

    def may_probe(self, now_ns: int) -> object:
        if isinstance(self.lease, BaseException):
            raise self.lease
        return self.lease

    def probe_settled(self, lease: object, ok: bool | None) -> None:
        self.told.append((lease, ok))


def test_the_fleet_hears_of_trips_and_of_probes() -> None:
    with stage() as here:
        breaker, fleet = CircuitBreaker(2, 10), Fleet()
        breaker.shared = fleet
        fail(breaker, 2)
        here.pause(10)
        fail(breaker)
        here.pause(20)
        with pytest.raises(KeyboardInterrupt), breaker.try_admit():
            raise KeyboardInterrupt
        breaker.call(fine)
        assert fleet.told == [
            ("tripped", 10 * 10**9), ("lease", False), ("lease", None), ("lease", True),
        ]  # fmt: skip


def test_without_a_lease_of_the_fleet_no_probe_is_made() -> None:
    with stage() as here:
        breaker, fleet = opened(), Fleet()
        breaker.shared, fleet.lease = fleet, None
        here.pause(10)
        with pytest.raises(CircuitOpenError, match="others have its probes"):
            breaker.call(fine)
        assert breaker.snapshot()["probes_live"] == 0
        fleet.lease = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            breaker.call(fine)
        assert breaker.snapshot()["probes_live"] == 0
        breaker.shadow()
        breaker.trip(1)
        here.pause(1)
        fleet.lease = None
        assert breaker.call(fine) == "fine"  # a shadow refuses nothing


# --- settings and state ------------------------------------------------------------------------


def test_settings_change_live_and_the_state_stays() -> None:
    with stage() as here:
        breaker = opened(name="b")
        breaker.configure(failure_threshold=4, recovery_timeout=20)
        assert (breaker.state, breaker.failure_count, breaker.retry_after) == ("OPEN", 2, 10)
        here.pause(10)
        breaker.call(fine)
        fail(breaker, 3)
        assert breaker.state == "CLOSED"
        breaker.configure(failure_threshold=5)
        fail(breaker)
        assert (breaker.state, breaker.failure_count) == ("CLOSED", 4)
        fail(breaker)
        assert (breaker.state, breaker.retry_after) == ("OPEN", 20)


def test_rules_can_be_added_and_dropped_live() -> None:
    with stage() as here:
        breaker = CircuitBreaker(9, 10)
        policy = Policy(breaker=breaker)
        ask, wait = policy(fine), policy(here.pause)
        ask()
        fail(breaker, 3)
        breaker.configure(slow_call=2.0, slow_rate=1.0, min_calls=1, window=CountWindow(2))
        assert (breaker.failure_count, breaker.timed) == (3, True)
        ask()
        wait(2)
        assert breaker.state == "CLOSED"
        wait(2)
        assert breaker.state == "OPEN"
        breaker.reset()
        breaker.configure(slow_call=None, slow_rate=None)
        for _ in range(9):
            wait(2)
        assert breaker.state == "CLOSED"


def test_a_wrong_setting_changes_nothing_at_all() -> None:
    breaker = CircuitBreaker(5, 10)
    before = breaker.describe()
    for wrong in ({"failure_threshold": 3, "recovery_cap": 1}, {"probes": 0}, {"speed": 1}):
        with pytest.raises(ConfigError, match="CircuitBreaker: "):
            breaker.configure(**wrong)  # type: ignore[arg-type]
    assert breaker.describe() == before


def test_what_it_says_of_itself_can_be_written_as_json() -> None:
    breaker = CircuitBreaker(
        5, 10, failure_rate=0.5, slow_call=2, slow_rate=0.9, window=TimeWindow(30), probes=2,
        probes_concurrent=2, probe_timeout=4, recovery_cap=99, min_calls=7,
    )  # fmt: skip
    described = json.loads(json.dumps(breaker.describe()))
    assert described == {
        "failure_threshold": 5, "recovery_timeout": 10.0, "failure_rate": 0.5, "slow_call": 2.0,
        "slow_rate": 0.9, "window": "TimeWindow(30, buckets=10)", "min_calls": 7, "probes": 2,
        "probes_concurrent": 2, "probe_timeout": 4.0, "recovery_cap": 99,
    }  # fmt: skip
    with stage():
        assert json.loads(json.dumps(breaker.snapshot())) == {
            "state": "CLOSED", "mode": "normal", "failure_count": 0, "retry_after": None,
            "probes_live": 0,
        }  # fmt: skip
        assert "state='CLOSED'" in repr(breaker)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ("ConnectionError", "counts is 'ConnectionError'; give exception classes or a function"),
        ((ValueError, 3), "counts holds 3"),
        (KeyboardInterrupt, "counts names KeyboardInterrupt, which ends programs"),
        (asyncio.CancelledError, "counts names CancelledError"),
    ],
)
def test_what_counts_is_checked(counts: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"CircuitBreaker: {says}"):
        CircuitBreaker(5, 10, counts=counts)


# --- threads and processes ---------------------------------------------------------------------


def test_no_failure_of_many_threads_is_lost() -> None:
    breaker = CircuitBreaker(10_000, 10)
    threads = [threading.Thread(target=fail, args=(breaker, 250)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.failure_count == 1000


def test_of_many_threads_one_makes_the_probe() -> None:
    with stage() as here:
        breaker = opened()
        here.pause(10)
        inside: list[int] = []

        def nested() -> None:
            for _ in range(3):
                with suppress(CircuitOpenError):
                    breaker.call(inside.append, 2)

        breaker.call(nested)
        assert inside == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_use_it_although_the_lock_was_held() -> None:
    breaker = CircuitBreaker(2, 10)
    policy = Policy(breaker=breaker)
    fail(breaker)
    held, policy_lock = breaker._lock, policy._lock
    with held, policy_lock:
        pid = os.fork()
        if pid == 0:
            fail(breaker)
            calls = policy.snapshot()["calls"]
            os._exit(7 if breaker.state == "OPEN" and calls["failed"] == 0 else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert breaker.failure_count == 1  # the child has a copy of its own


def test_retries_stop_when_the_breaker_opens() -> None:
    with stage() as here:
        breaker = CircuitBreaker(2, 10)
        policy = Policy("p", retry=Retry(on=ConnectionError, attempts=5), breaker=breaker)
        with pytest.raises(CircuitOpenError) as caught:
            policy.call(broken)
        assert caught.value.__notes__ == [
            "after 3 attempts: CircuitOpenError is not among the errors to retry",
            "the last attempt that was made failed: ConnectionError: no answer",
        ]
        assert caught.value.happened == "maybe"  # an earlier attempt may have had an effect
        assert here.told().count("RetryScheduled") == 2
