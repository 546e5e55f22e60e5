"""What tests put there by hand: circuits that are open, attempts that fail."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import CircuitOpenError, ConfigError, current_world
from outlast.kernel.registry import fresh_world
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.fallback import Fallback
from outlast.protect.hedge import Hedge
from outlast.protect.inject import Inject
from outlast.protect.keyed import Keyed
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry
from outlast.testing import forced, forced_open, virtual_time

assert outlast.host


class Down(Exception):
    """The service is down."""


def never() -> None:
    pytest.fail("the function was called")


# --- circuits ------------------------------------------------------------------------------------


def test_a_circuit_is_open_inside_and_as_it_was_afterwards() -> None:
    breaker = CircuitBreaker(5, 60)
    with forced_open(breaker):
        with pytest.raises(CircuitOpenError):
            breaker.call(never)
        assert breaker.state == "OPEN"
    assert (breaker.mode, breaker.call(lambda: 1)) == ("normal", 1)


@pytest.mark.parametrize("mode", ["normal", "disabled", "shadow", "isolated"])
def test_the_mode_that_was_chosen_comes_back(mode: str) -> None:
    breaker = CircuitBreaker(5, 60)
    before: dict[str, Callable[[], None]] = {
        "normal": breaker.enable, "disabled": breaker.disable, "shadow": breaker.shadow,
        "isolated": breaker.isolate,
    }  # fmt: skip
    before[mode]()
    with forced_open(breaker):
        assert breaker.mode == "isolated"
    assert breaker.mode == mode


def test_policies_are_meant_by_name_or_themselves() -> None:
    one = Policy("forced-one", breaker=CircuitBreaker(5, 60))
    two = Policy("forced-one", breaker=CircuitBreaker(5, 60))
    other = Policy("forced-two", breaker=CircuitBreaker(5, 60))
    with forced_open("forced-one", other):
        for policy in (one, two, other):
            with pytest.raises(CircuitOpenError):
                policy.call(never)
    assert [policy.call(lambda: 1) for policy in (one, two, other)] == [1, 1, 1]


def test_a_target_given_twice_comes_back_as_it_was() -> None:
    breaker = CircuitBreaker(5, 60)
    with forced_open(breaker, breaker):
        assert breaker.mode == "isolated"
    assert breaker.mode == "normal"


def test_what_has_no_breaker_is_refused() -> None:
    with pytest.raises(ConfigError, match="no policy is called 'nobody'"), forced_open("nobody"):
        pass
    with pytest.raises(ConfigError, match="has no breaker"), forced_open(Policy("bare")):
        pass
    keyed = Keyed(lambda: CircuitBreaker(5, 60), by=lambda key: key)
    policy = Policy("by-key", breaker=keyed)
    with pytest.raises(ConfigError, match=r"give breakers\.part"), forced_open(policy):
        pass
    with forced_open(keyed.part("a")):
        assert keyed.part("a").state == "OPEN"


def test_nothing_is_forced_if_one_of_several_is_refused() -> None:
    breaker = CircuitBreaker(5, 60)
    with pytest.raises(ConfigError), forced_open(breaker, "nobody"):
        pass
    assert breaker.mode == "normal"


def test_a_circuit_stays_open_in_the_worlds_inside() -> None:
    breaker = CircuitBreaker(5, 60)

    async def main() -> str:
        await asyncio.sleep(3600)
        return breaker.state

    with forced_open(breaker):
        assert sim.run(main) == "OPEN"
        with virtual_time():
            assert breaker.state == "OPEN"
    assert breaker.state == "CLOSED"


@pytest.fixture
def closed_afterwards() -> Iterator[CircuitBreaker]:
    policy = Policy("of-the-fixture", breaker=CircuitBreaker(5, 60))
    yield policy.parts["breaker"]
    assert policy.parts["breaker"].state == "CLOSED"


def test_the_fixture_opens_until_the_end_of_the_test(
    closed_afterwards: CircuitBreaker, force_open: Callable[..., None]
) -> None:
    force_open("of-the-fixture")
    assert closed_afterwards.state == "OPEN"


# --- attempts ------------------------------------------------------------------------------------


def test_every_attempt_fails_as_if_the_function_had_raised() -> None:
    policy = Policy(
        "failing", retry=Retry(Down, attempts=3), breaker=CircuitBreaker(5, 60),
        limit=Bulkhead(1), attempt_timeout=5.0,
    )  # fmt: skip
    guarded = policy(never)
    with virtual_time(), forced(policy, Down):
        with pytest.raises(Down) as caught:
            guarded()
        assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]
        assert policy.parts["breaker"].failure_count == 3
        with pytest.raises(CircuitOpenError):
            guarded()
        assert policy.snapshot()["calls"]["retried"] == 4
        assert policy.parts["limit"].in_flight == 0
    fresh_world()
    assert policy.call(lambda: 1) == 1


@pytest.mark.parametrize("parts", [{}, {"timeout": 3.0}, {"attempt_timeout": 1.0}])
def test_with_limits_of_time_and_without_and_they_are_there_afterwards(
    parts: dict[str, Any],
) -> None:
    policy = Policy("failing", **parts)

    @policy
    async def slow() -> None:
        await asyncio.sleep(2.0)

    @policy
    async def touch() -> None:
        never()

    async def main() -> None:
        with forced(policy, Down), pytest.raises(Down):
            await touch()
        if "attempt_timeout" in parts:
            with pytest.raises(TimeoutError):
                await slow()
        else:
            await slow()

    sim.run(main)


def test_a_fallback_answers_and_a_hedge_or_an_injection_changes_nothing() -> None:
    policy = Policy(
        "failing", fallback=Fallback(7, on=Down), hedge=Hedge(1.0), inject=Inject(active=False)
    )

    @policy
    async def ask() -> int:
        never()
        return 0

    async def main() -> int:
        with forced(policy, Down):
            return await ask()

    assert sim.run(main) == 7


def test_an_error_is_raised_itself_and_of_a_class_a_new_one_each_time() -> None:
    policy, error = Policy("failing"), Down("this one")
    with forced(policy, error), pytest.raises(Down) as caught:
        policy.call(never)
    assert caught.value is error
    raised = []
    with forced(policy, Down):
        for _ in range(2):
            with pytest.raises(Down) as caught:
                policy.call(never)
            raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_a_refusal_by_a_part_stays_one() -> None:
    policy = Policy("failing", breaker=CircuitBreaker(1, 60))
    policy.parts["breaker"].trip()
    with forced(policy, Down), pytest.raises(CircuitOpenError):
        policy.call(never)
    assert policy.snapshot()["calls"]["rejected"] == 1


def test_blocks_and_generators_fail_when_they_begin() -> None:
    policy = Policy("failing", breaker=CircuitBreaker(5, 60))

    @policy
    def items() -> Any:
        never()
        yield 1

    with forced(policy, Down):
        with pytest.raises(Down), policy:
            never()
        with pytest.raises(Down):
            next(items())
    assert policy.parts["breaker"].failure_count == 2


def test_what_is_no_error_and_a_policy_by_key_are_refused() -> None:
    wrong: Any = "down"
    with pytest.raises(TypeError, match="no exception"), forced(Policy("p"), wrong):
        pass
    keyed = Policy("p", breaker=Keyed(lambda: CircuitBreaker(5, 60), by=lambda key: key))
    with pytest.raises(TypeError, match="chosen by a key"), forced(keyed, Down):
        pass


def test_a_change_of_settings_inside_counts_afterwards() -> None:
    policy = Policy("failing", timeout=5.0)
    with forced(policy, Down):
        policy.configure(timeout=2.0)
    with virtual_time():

        def late() -> None:
            current_world().clock.pause(3.0)

        policy.call(late)
        assert policy.timeout == 2.0
        assert policy._layers.only("a test").whole_ns == 2_000_000_000
        assert policy._layers.only("a test").attempt_ns == 0
        assert policy._layers.only("a test").failing is None
