"""Calls through a pool: failing over, judging, hedges, blocks, and what can be asked of it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import (
    CircuitOpenError,
    CommandError,
    ConfigError,
    Event,
    IndefiniteError,
    UnavailableError,
    current_world,
    happened,
    idempotency_key,
)
from outlast.kernel.registry import watched
from outlast.pool import Endpoint, InstanceEjected, Outlier, Pool
from outlast.protect import (
    Hedge,
    Idempotency,
    Policy,
    Retry,
    current_attempt,
    current_call,
    deadline,
)
from outlast.testing import virtual_time

ABC = ["a", "b", "c"]


@pytest.fixture
def told() -> Iterator[list[Event]]:
    """Events of a test in virtual time."""
    events: list[Event] = []
    with virtual_time():
        end = current_world().events.subscribe(events.append)  # type: ignore[attr-defined]
        yield events
        end()


class Service:
    """Instances that answer with their name, or as told."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, endpoint: Endpoint, *args: Any) -> Any:
        self.asked.append(endpoint.address)
        answer = self.answers.get(endpoint.address, endpoint.address)
        if isinstance(answer, BaseException):
            raise answer
        return answer(endpoint, *args) if callable(answer) else answer

    async def aask(self, endpoint: Endpoint, *args: Any) -> Any:
        return self.ask(endpoint, *args)


def pool(**settings: Any) -> Pool:
    return Pool("shop", ABC, **{"pick": "round_robin", **settings})


# --- failing over --------------------------------------------------------------------------------


def test_a_call_goes_on_at_another_instance_after_a_failure_that_did_nothing() -> None:
    service = Service(a=ConnectionRefusedError())
    assert pool().call(service.ask) == "c"
    assert service.asked == ["a", "c"]


def test_a_coroutine_goes_on_as_well() -> None:
    async def main() -> None:
        service = Service(a=ConnectionRefusedError())
        assert await pool().call(service.aask) == "c"
        assert await pool().acall(lambda endpoint: service.aask(endpoint)) == "c"

    sim.run(main)


def test_a_failure_that_may_have_had_an_effect_comes_out() -> None:
    service = Service(a=ConnectionResetError())
    with pytest.raises(ConnectionResetError) as caught:
        pool().call(service.ask)
    assert service.asked == ["a"]
    assert happened(caught.value) == "maybe"


def test_after_it_a_call_that_may_be_made_twice_goes_on() -> None:
    service = Service(a=ConnectionResetError())
    assert pool(idempotent=True).call(service.ask) == "c"


def test_after_it_a_call_with_a_key_goes_on_and_keeps_the_key() -> None:
    keys = []

    def note(endpoint: Endpoint) -> str:
        call = current_call()
        keys.append(None if call is None else call.key)
        raise ConnectionResetError

    service = Service(a=note, c=note)
    policy = Policy("orders", idempotency=Idempotency())
    made = pool(policy=policy, attempts=3)
    assert made.call(service.ask) == "b"
    assert keys[0] is not None
    assert keys == [keys[0]] * 2


def test_a_key_of_the_context_is_enough() -> None:
    service = Service(a=ConnectionResetError())
    with idempotency_key("order-17"):
        assert pool().call(service.ask) == "c"


def test_attempts_are_numbered_and_at_most_so_many() -> None:
    numbers = []

    def fail(endpoint: Endpoint) -> None:
        numbers.append((endpoint.address, current_attempt()))
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError) as caught:
        pool(attempts=3).call(fail)
    assert numbers == [("a", 1), ("c", 2), ("b", 3)]
    assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]


def test_with_one_attempt_nothing_is_repeated() -> None:
    service = Service(a=ConnectionRefusedError())
    with pytest.raises(ConnectionRefusedError):
        pool(attempts=1).call(service.ask)
    assert service.asked == ["a"]


def test_when_all_have_been_tried_they_are_tried_again() -> None:
    service = Service(**dict.fromkeys(ABC, ConnectionRefusedError()))
    with pytest.raises(ConnectionRefusedError):
        pool(attempts=5, eject=None).call(service.ask)
    assert sorted(service.asked[:3]) == ABC
    assert len(service.asked) == 5


@pytest.mark.parametrize("error", [CommandError("no"), ValueError("bug")])
def test_an_answer_or_a_bug_is_not_asked_elsewhere_and_ejects_nobody(
    error: Exception, told: list[Event]
) -> None:
    service = Service(**dict.fromkeys(ABC, error))
    made = pool()
    for _ in range(20):
        with pytest.raises(type(error)):
            made.call(service.ask)
    assert len(service.asked) == 20
    assert [event for event in told if isinstance(event, InstanceEjected)] == []


def test_a_refusal_further_in_is_asked_elsewhere_and_ejects_nobody(told: list[Event]) -> None:
    service = Service(a=CircuitOpenError("open"))
    made = pool()
    assert [made.call(service.ask) for _ in range(30)].count("a") == 0
    assert service.asked.count("a") > 9
    assert [event for event in told if isinstance(event, InstanceEjected)] == []


def test_a_storm_of_failures_is_not_doubled_by_failing_over() -> None:
    service = Service(**dict.fromkeys(ABC, ConnectionRefusedError()))
    made = pool(eject=None)
    for _ in range(400):
        with pytest.raises(ConnectionRefusedError):
            made.call(service.ask)
    assert len(service.asked) < 700


def test_the_retry_of_a_policy_decides_where_it_has_one() -> None:
    service = Service(a=KeyError("x"), c=KeyError("x"))
    policy = Policy("orders", retry=Retry(KeyError, attempts=3, base=0.01))
    assert pool(policy=policy, attempts=1).call(service.ask) == "b"


def test_a_policy_without_a_retry_gets_one_and_keeps_its_counts_and_limits() -> None:
    policy = Policy("orders", timeout=5)
    made = pool(policy=policy)
    service = Service(a=ConnectionRefusedError())
    assert made.call(service.ask) == "c"
    assert policy.snapshot()["calls"]["succeeded"] == 1
    policy.configure(timeout=9)
    assert made._guard.policy().timeout == 9


def test_arguments_reach_the_function_and_the_key() -> None:
    keys = []

    def buy(endpoint: Endpoint, order: int, *, count: int) -> tuple[int, int]:
        call = current_call()
        keys.append("" if call is None else call.key)
        return order, count

    policy = Policy("orders", idempotency=Idempotency(key=lambda order, count: f"order-{order}"))
    assert pool(policy=policy).call(buy, 17, count=2) == (17, 2)
    assert keys == ["order-17"]


def test_the_time_of_an_attempt_that_hangs_is_up_and_the_call_goes_on_elsewhere() -> None:
    async def main() -> None:
        async def ask(endpoint: Endpoint) -> str:
            if endpoint.address == "a":
                await asyncio.sleep(60)
            return endpoint.address

        policy = Policy("orders", attempt_timeout=1)
        made = pool(policy=policy, idempotent=True)
        assert await made.call(ask) == "c"
        assert made.snapshot()["instances"][0]["failures_in_a_row"] == 1

    sim.run(main)


def test_a_call_that_its_caller_cancels_says_nothing_of_the_instance() -> None:
    async def main() -> None:
        made = pool()

        async def ask(endpoint: Endpoint) -> None:
            await asyncio.sleep(60)

        for _ in range(30):
            task = asyncio.ensure_future(made.call(ask))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        state = made.snapshot()
        assert (state["ejected"], state["in_flight"]) == (0, 0)

    sim.run(main)


def test_a_hedge_goes_elsewhere_and_the_loser_is_no_failure() -> None:
    async def main() -> None:
        async def ask(endpoint: Endpoint) -> str:
            await asyncio.sleep(9 if endpoint.address == "a" else 0.1)
            return endpoint.address

        made = pool(policy=Policy("orders", hedge=Hedge(after=0.5)))
        assert await made.call(ask) == "c"
        (a, _, c) = made.snapshot()["instances"]
        assert (a["failures_in_a_row"], a["in_flight"], c["good"]) == (0, 0, 1)
        assert a["latency"] == pytest.approx(0.6)  # at least: it was left then

    sim.run(main)


def test_a_hedge_of_blocking_calls_goes_elsewhere(told: list[Event]) -> None:
    def ask(endpoint: Endpoint) -> str:
        current_world().clock.pause(9 if endpoint.address == "a" else 0.1)
        return endpoint.address

    made = pool(policy=Policy("orders", hedge=Hedge(after=0.5)))
    assert made.call(ask) == "c"


def test_a_deadline_of_the_caller_that_is_too_short_ejects_nobody() -> None:
    async def main() -> None:
        made = pool()

        async def ask(endpoint: Endpoint) -> None:
            await asyncio.sleep(1)

        for _ in range(30):
            await made.call(ask)
        for _ in range(30):
            with deadline(1.5):
                await made.call(ask)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await made.call(ask)
        policy = Policy("short", timeout=0.5)
        for _ in range(30):
            with pytest.raises(TimeoutError):
                await policy.acall(made.call, ask)
        assert made.snapshot()["ejected"] == 0

    sim.run(main)


def test_generators_are_refused() -> None:
    def stream(endpoint: Endpoint) -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"use pool\.endpoint"):
        pool().call(stream)


# --- wrong answers -------------------------------------------------------------------------------


def test_an_answer_that_is_not_valid_is_never_returned_and_ejects() -> None:
    service = Service(a=-1, b=5, c=5)
    made = pool(valid=lambda answer: answer >= 0, idempotent=True)
    assert [made.call(service.ask) for _ in range(9)] == [5] * 9
    assert service.asked.count("a") == 1
    assert made.snapshot()["instances"][0]["why"] == "lies"


def test_a_call_that_may_not_be_made_twice_ends_with_the_wrong_answer_as_an_error() -> None:
    service = Service(a=-1)
    with pytest.raises(IndefiniteError, match="shop: a gave a wrong answer: the answer is not"):
        pool(valid=lambda answer: answer != -1).call(service.ask)
    assert service.asked == ["a"]


def test_the_function_may_say_that_the_answer_is_wrong() -> None:
    def lying(endpoint: Endpoint) -> str:
        endpoint.lied("bad signature")
        return "x"

    async def main() -> None:
        service = Service(a=lying)
        made = pool(idempotent=True)
        assert await made.call(service.aask) == "c"
        assert made.snapshot()["ejected"] == 1
        with pytest.raises(IndefiniteError, match="bad signature"):
            await pool().call(Service(a=lying).aask)

    sim.run(main)


def test_what_is_found_out_later_is_held_against_the_instance_once() -> None:
    made = pool()
    kept: list[Endpoint] = []
    made.call(kept.append)
    kept[0].lied("another replica says otherwise")
    kept[0].lied("once more")
    (a, *_) = made.snapshot()["instances"]
    assert (a["standing"], a["times_ejected"]) == ("ejected", 1)
    other = pool(eject=Outlier(lies=2))
    with other.endpoint() as endpoint:
        pass
    endpoint.lied("")
    assert other.snapshot()["ejected"] == 0


def test_a_validator_that_raises_is_the_fault_of_nobody_else() -> None:
    def valid(answer: Any) -> bool:
        raise ZeroDivisionError

    made = pool(valid=valid)
    for _ in range(9):
        with pytest.raises(ZeroDivisionError):
            made.call(Service().ask)
    assert made.snapshot()["ejected"] == 0


def test_the_caller_may_say_whose_fault_an_error_is() -> None:
    service = Service(a=KeyError("shard"), b=ConnectionResetError())
    made = pool(
        blame=lambda error: True if isinstance(error, KeyError) else False
        if isinstance(error, ConnectionResetError) else None
    )  # fmt: skip
    for _ in range(30):
        with suppress(KeyError, ConnectionResetError):
            made.call(service.ask)
    states = [one["standing"] for one in made.snapshot()["instances"]]
    assert states == ["ejected", "live", "live"]


# --- blocks --------------------------------------------------------------------------------------


def test_a_block_notes_the_time_it_took_and_an_error_as_a_failure(told: list[Event]) -> None:
    made = pool()
    with made.endpoint() as endpoint:
        assert str(endpoint) == "a"
        current_world().clock.pause(2)
    with suppress(ConnectionResetError), made.endpoint(avoid=["a"]) as endpoint:
        assert endpoint.address == "c"
        assert made.snapshot()["in_flight"] == 1
        raise ConnectionResetError
    (a, _, c) = made.snapshot()["instances"]
    assert (a["latency"], a["good"], c["bad"]) == (2.0, 1, 1)


def test_an_asynchronous_block_does_the_same_and_is_entered_once() -> None:
    async def main() -> None:
        made = pool()
        block = made.endpoint()
        async with block as endpoint:
            assert endpoint.instance.weight == 1.0
        assert made.snapshot()["instances"][0]["good"] == 1
        with pytest.raises(RuntimeError, match="anew"):
            async with block:
                pass

    sim.run(main)


def test_a_block_that_says_lied_notes_a_lie() -> None:
    made = pool()
    with made.endpoint() as endpoint:
        endpoint.lied("negative")
    assert repr(endpoint) == "Endpoint('a')"
    assert made.snapshot()["ejected"] == 1


# --- the pool itself -----------------------------------------------------------------------------


def test_an_empty_pool_refuses_with_the_time_to_wait(told: list[Event]) -> None:
    made = Pool("shop", ["a"], eject=Outlier(max_ejected=1, min_left=0), panic=0.0)
    with made.endpoint() as endpoint:
        endpoint.lied("x")
    with pytest.raises(UnavailableError, match="none of 1 instances is usable") as caught:
        made.call(Service().ask)
    assert 20 < (caught.value.retry_after or 0) <= 30
    assert not hasattr(caught.value, "__notes__")  # it was not tried again
    assert happened(caught.value) == "no"


def test_with_work_in_the_background_it_must_be_entered() -> None:
    made = pool(check=lambda instance: True)
    with pytest.raises(ConfigError, match="async with pool"):
        made.call(Service().ask)


def test_draining_waits_for_the_calls_under_way() -> None:
    async def main() -> None:
        made = pool()
        began = asyncio.get_running_loop().time()

        async def ask(endpoint: Endpoint) -> str:
            await asyncio.sleep(3)
            return endpoint.address

        task = asyncio.ensure_future(made.call(ask))
        await asyncio.sleep(0)
        made.drain("a")
        assert not await made.drained("a", timeout=1)
        assert await made.drained("a")
        assert 2.9 < asyncio.get_running_loop().time() - began < 3.2
        assert await task == "a"
        assert made.addresses == ("b", "c")
        made.drain("a", draining=False)
        assert made.addresses == ("a", "b", "c")
        assert await made.drained("nobody")
        with pytest.raises(ConfigError, match="no instance 'x'"):
            made.drain("x")

    sim.run(main)


def test_it_is_watched_and_tells_its_settings_and_state() -> None:
    made = pool(policy=Policy("orders"))
    assert made in watched()
    described = made.describe()
    assert described["source"] == "3 given"
    assert described["pick"] == "round_robin"
    assert described["eject"]["consecutive"] == 5
    assert described["eject"]["latency"] == 4.0
    assert described["policy"] == "orders"
    assert repr(made) == "Pool('shop', 3 given)"
    made.call(Service().ask)
    assert repr(made) == "Pool('shop', 3 of 3 usable)"
    assert made.snapshot()["name"] == "shop"
    assert "eject" not in pool(eject=None).describe()


def test_another_world_knows_nothing_of_the_last() -> None:
    made = pool()
    made.call(Service().ask)
    made.begin_anew()
    assert made.snapshot()["instances"][0]["good"] == 0


def test_a_child_of_a_fork_has_a_lock_of_its_own() -> None:
    made = pool()
    made._lock.acquire()
    made.forked()
    assert made.call(Service().ask) == "a"


def test_threads_share_a_pool() -> None:
    made = pool(pick="p2c")
    service = Service()

    def work() -> None:
        for _ in range(300):
            made.call(service.ask)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = made.snapshot()
    assert (len(service.asked), state["in_flight"]) == (1200, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"source": []},
        {"source": "http://a"},
        {"source": [1]},
        {"source": 5},
        {"pick": "best"},
        {"eject": 5},
        {"readmit": 10},
        {"readmit": None},
        {"panic": 2},
        {"policy": "x"},
        {"attempts": 0},
        {"valid": 1},
        {"blame": 1},
        {"check": 5},
        {"drain": -1},
        {"instances_max": 2},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pool(**{"name": "shop", "source": ABC, **settings})


@pytest.mark.parametrize("pick", ["p2c", "least_loaded", "peak_ewma", "round_robin"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_instance_that_failed_once_is_called_again(pick: str, workers: int) -> None:
    called = {"a": 0, "b": 0, "c": 0}

    async def order(endpoint: Endpoint) -> None:
        called[endpoint.address] += 1
        await asyncio.sleep(0.02)
        if endpoint.address == "c" and called["c"] == 10:
            raise ConnectionResetError("once")

    async def main() -> None:
        shop = Pool("shop", ["a", "b", "c"], pick=pick, idempotent=True)

        async def work() -> None:
            for _ in range(600):
                await shop.call(order)

        await asyncio.gather(*(work() for _ in range(workers)))

    sim.run(main, seed=3)
    assert called["c"] > 600 * workers * 0.2
