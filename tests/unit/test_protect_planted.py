"""What no other test noticed when it was broken on purpose (``tools/mutants``)."""

import asyncio

import pytest

from outlast import sim
from outlast.kernel import (
    DeadlineError,
    IndefiniteError,
    Prng,
    RejectedError,
    UnavailableError,
    happened,
)
from outlast.kernel.deadline import Deadline
from outlast.protect import GiveUp, Policy, Retry, RetryAfter
from outlast.protect.core.breaker import CLOSED, OPEN, BreakerCore, Round
from outlast.protect.core.breaker_rules import read_rules
from outlast.protect.core.cache import Entry
from outlast.protect.core.fleet import FleetRecord, FleetRules
from outlast.protect.core.window import CountWindow

NS = 1_000_000_000


class Flop(Exception):
    pass


def core_of(**settings: object) -> BreakerCore:
    usual: dict[str, object] = {
        "failure_threshold": None, "recovery_timeout": 1.0, "failure_rate": None,
        "slow_call": None, "slow_rate": None, "window": None, "min_calls": None, "probes": 1,
        "probes_concurrent": 1, "probe_timeout": 1.0, "recovery_cap": None,
    }  # fmt: skip
    return BreakerCore(read_rules(**usual | settings))  # type: ignore[arg-type]


# --- breaker -------------------------------------------------------------------------------------


def test_a_success_between_two_failures_begins_the_count_anew() -> None:
    core, prng = core_of(failure_threshold=2), Prng(1)
    for _ in range(5):
        assert core.failed(core.round, 0, prng, slow=False) is None
        core.round.succeeded()
    assert core.state == CLOSED


def test_a_failed_call_from_before_a_trip_does_not_count_after_the_recovery() -> None:
    core, prng = core_of(failure_threshold=1), Prng(1)
    old = core.round
    core.failed(old, 0, prng, slow=False)
    core.close("it is well again")
    assert isinstance(old, Round)
    assert core.failed(old, 0, prng, slow=False) is None
    assert core.state == CLOSED


def test_rates_of_too_few_calls_open_nothing() -> None:
    window = CountWindow(10)
    core, prng = core_of(failure_rate=0.5, window=window, min_calls=4), Prng(1)
    for _ in range(3):
        assert core.failed(core.round, 0, prng, slow=False) is None
    assert core.failed(core.round, 0, prng, slow=False) is not None
    assert core.state == OPEN


# --- retry ---------------------------------------------------------------------------------------


def decided(
    policy: Retry, error: Exception, *, left: float | None = None, seed: int = 1
) -> object:
    deadline = None if left is None else Deadline(round(left * NS))
    return policy.decide(error, attempt=1, now_ns=0, deadline=deadline, prng=Prng(seed))


def test_what_a_callee_asks_for_is_cut_at_the_cap() -> None:
    policy = Retry(RejectedError, base=0.001, cap=0.001, retry_after_cap=2.0)
    assert decided(policy, UnavailableError("later", retry_after=86_400)) == RetryAfter(2 * NS)


def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    policy = Retry(Flop, base=1.0, jitter="none")
    assert isinstance(decided(policy, Flop(), left=0.9), GiveUp)
    assert decided(policy, Flop(), left=1.1) == RetryAfter(NS)


def test_a_call_that_may_have_happened_is_not_repeated_unasked() -> None:
    assert isinstance(decided(Retry(Exception), IndefiniteError("lost")), GiveUp)
    willing = Retry(Exception, repeat_indefinite=True)
    assert isinstance(decided(willing, IndefiniteError("lost")), RetryAfter)


def test_waits_of_callers_that_failed_together_are_spread_over_the_whole_range() -> None:
    policy = Retry(Flop, base=1.0)
    waits = [decided(policy, Flop(), seed=seed) for seed in range(50)]
    delays = [wait.delay_ns for wait in waits if isinstance(wait, RetryAfter)]
    assert len(delays) == len(waits)
    assert min(delays) < NS // 5
    assert max(delays) > NS * 4 // 5


def test_a_call_of_which_the_first_attempt_was_lost_may_have_happened() -> None:
    async def main() -> str:
        errors = [DeadlineError("no answer"), UnavailableError("no"), UnavailableError("no")]
        retry = Retry(Exception, 3, base=0.01, repeat_indefinite=True)

        @Policy(retry=retry)
        async def ask() -> None:
            raise errors.pop(0)

        with pytest.raises(UnavailableError) as caught:
            await ask()
        return happened(caught.value)

    assert sim.run(main) == "maybe"


# --- limits of time ------------------------------------------------------------------------------


def test_who_cancels_a_call_at_the_instant_of_its_limit_has_cancelled_it() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        policy = Policy(attempt_timeout=1.0)

        async def call() -> None:
            await policy.acall(asyncio.sleep, 60)

        task = loop.create_task(call())
        await asyncio.sleep(0)
        loop.call_at(loop.time() + 1.0, task.cancel)
        await asyncio.wait({task})
        return task.cancelled()

    assert sim.run(main)


def test_a_limit_of_time_takes_its_cancellation_back() -> None:
    async def main() -> int:
        with pytest.raises(DeadlineError):
            await Policy(attempt_timeout=1.0).acall(asyncio.sleep, 60)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert sim.run(main) == 0


def test_calls_side_by_side_end_each_at_their_own_instant() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        policy = Policy(attempt_timeout=1.0)

        async def call(after: float) -> float:
            await asyncio.sleep(after)
            with pytest.raises(DeadlineError):
                await policy.acall(asyncio.sleep, 60)
            return loop.time() - begun

        begun = loop.time()
        return list(await asyncio.gather(*(call(number / 10) for number in range(4))))

    assert sim.run(main) == pytest.approx([1.0, 1.1, 1.2, 1.3])


# --- shared things -------------------------------------------------------------------------------


def test_one_caller_fetches_an_entry_anew_until_it_is_done() -> None:
    entry = Entry("value", 0)
    assert [entry.claim() for _ in range(3)] == [True, False, False]
    entry.claimed.clear()
    assert entry.claim()


def test_what_nodes_saw_before_the_fleet_closed_does_not_open_it_again() -> None:
    rules, record = FleetRules(open_ms=10), FleetRecord(1)
    seen = record.epoch
    for node in ("a", "b"):
        record.report(node, seen, True, rules, 1)
    assert record.opened
    lease = record.lease_probe("api", "a", record.epoch, rules, ttl_ms=100, now_ms=20)
    assert lease is not None
    record.settle(lease, True, rules, 21)
    for node in ("a", "b"):
        record.report(node, seen, True, rules, 22)
    assert not record.opened
