"""``retry_with_backoff``: the loop of the textbooks."""

from typing import Any

import pytest

import outlast
from outlast.kernel import ConfigError, ConnectionLostError
from outlast.protect import retry_with_backoff
from outlast.protect.events import RetryScheduled
from tests.support.protected import Stage, play, stage


class Flaky:
    def __init__(self, failures: int, error: type[BaseException] = ValueError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def ask(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return "fine"

    async def ask_async(self) -> str:
        return self.ask()


def test_it_makes_three_calls_and_raises_the_last_exception() -> None:
    with stage() as here:
        flaky = Flaky(99)
        with pytest.raises(ValueError, match="failure 3"):
            retry_with_backoff(flaky.ask, max_retries=3, base_delay=1)
        assert flaky.calls == 3
        first, second = (event.delay for event in here.of(RetryScheduled))
        assert 0 <= first <= 1
        assert 0 <= second <= 2
        assert here.now == pytest.approx(first + second, abs=0.001)


def test_it_returns_the_first_result() -> None:
    with stage():
        flaky = Flaky(2)
        assert retry_with_backoff(flaky.ask) == "fine"
        assert flaky.calls == 3
        assert retry_with_backoff(lambda: None) is None


def test_it_is_importable_from_the_package() -> None:
    assert outlast.retry_with_backoff is retry_with_backoff
    assert outlast.CircuitBreaker(failure_threshold=5, recovery_timeout=60).state == "CLOSED"


def test_every_exception_is_retried_as_the_loop_does() -> None:
    with stage():
        flaky = Flaky(2, ConnectionLostError)
        assert retry_with_backoff(flaky.ask) == "fine"


def test_loops_within_each_other_multiply_as_loops_do() -> None:
    with stage():
        flaky = Flaky(99)
        with pytest.raises(ValueError, match="failure 9"):
            retry_with_backoff(lambda: retry_with_backoff(flaky.ask, 3, 0.1), 3, 0.1)


def test_cancellation_and_the_end_of_the_program_are_not_retried() -> None:
    with stage():
        flaky = Flaky(99, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            retry_with_backoff(flaky.ask)
        assert flaky.calls == 1


def test_a_coroutine_function_gives_a_coroutine() -> None:
    async def story(here: Stage) -> None:
        flaky = Flaky(2)
        assert await retry_with_backoff(flaky.ask_async) == "fine"
        assert flaky.calls == 3

    play(story)


def test_a_long_first_wait_is_not_cut() -> None:
    with stage(seed=3) as here:
        flaky = Flaky(40)
        assert retry_with_backoff(flaky.ask, 50, base_delay=500) == "fine"
        assert max(event.delay for event in here.of(RetryScheduled)) > 400


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_retries": 0}, "retry_with_backoff: max_retries is 0; 1 or more calls"),
        ({"max_retries": 2.5}, "max_retries is 2.5"),
        ({"max_retries": True}, "max_retries is True"),
        ({"max_retries": None}, "max_retries is None"),
        ({"base_delay": 0}, "base_delay is 0; seconds above 0"),
        ({"base_delay": -1}, "base_delay is -1"),
        ({"base_delay": float("inf")}, "base_delay is inf"),
        ({"base_delay": "1"}, "base_delay is '1'"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        retry_with_backoff(int, **given)
