"""One allowance for retries and hedges, as policies hold it."""

import os
import threading

import pytest

import outlast.host  # noqa: F401 - the real world, for tests without a virtual one
from outlast.kernel import ConfigError
from outlast.kernel.events import EventBus
from outlast.protect.budget import Budget
from outlast.protect.events import BudgetExhausted
from outlast.protect.hedge import Hedge
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry
from outlast.testing import virtual_time


def test_two_users_of_one_budget_share_it() -> None:
    with virtual_time() as time:
        budget = Budget(ratio=0.1, floor=0, window=10)
        assert not budget.try_spend()
        retry, hedge = budget, budget
        for _ in range(20):
            retry.deposit()
        time.advance(1)
        assert [retry.try_spend(), hedge.try_spend(), retry.try_spend()] == [True, True, False]


def test_a_failing_service_gets_no_more_than_the_ratio_and_the_floor() -> None:
    """Every call fails and would like three attempts: metastable without a budget."""
    with virtual_time() as time:
        budget, attempts = Budget(ratio=0.1, floor=1, window=10), 0
        for _ in range(6_000):
            time.advance(0.01)
            budget.deposit()
            attempts += 1
            for _ in range(2):
                if budget.try_spend():
                    attempts += 1
        assert attempts <= 6_000 * 1.1 + 70
        assert attempts >= 6_000 * 1.08


def test_after_a_quiet_hour_the_calls_of_the_hour_are_not_all_spent_at_once() -> None:
    with virtual_time() as time:
        budget = Budget(ratio=0.1, floor=0.1, window=10)
        assert budget.try_spend()
        for _ in range(36_000):  # ten per second
            budget.deposit()
        time.advance(3_600)
        assert sum(budget.try_spend() for _ in range(100)) == 11


def test_exhaustion_is_told_once_and_again_after_it_was_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(EventBus, "emit", lambda _, event: told.append(event))
    with virtual_time() as time:
        budget = Budget(floor=0.1, name="rates")
        results = [budget.try_spend() for _ in range(3)]
        time.advance(11)
        results += [budget.try_spend() for _ in range(3)]
    assert results == [True, False, False] * 2
    assert [type(event) for event in told] == [BudgetExhausted] * 2
    first = told[0]
    assert isinstance(first, BudgetExhausted)
    assert (first.name, first.granted, first.calls) == ("rates", 1, 0)


@pytest.mark.parametrize("position", ["retry", "hedge"])
def test_a_budget_without_a_name_has_that_of_the_first_policy_that_uses_it(position: str) -> None:
    budget = Budget()
    retry, hedge = Retry(on=OSError, budget=budget), Hedge(1.0, budget=budget)
    for name in ("rates", "other"):
        Policy(name, retry=retry) if position == "retry" else Policy(name, hedge=hedge)
    assert budget.name == "rates"


def test_what_is_left_can_be_seen_without_spending_it() -> None:
    with virtual_time() as time:
        budget = Budget(ratio=0.5, floor=0.3)
        for _ in range(4):
            budget.try_spend()
        assert budget.snapshot() == {"calls": 0, "granted": 3, "left": 0, "refused": 1}
        for _ in range(8):
            budget.deposit()
        time.advance(1)
        assert budget.snapshot() == {"calls": 8, "granted": 3, "left": 4, "refused": 1}
        budget.reset()
        assert budget.snapshot()["left"] == 3


def test_settings_change_live_and_grants_stay() -> None:
    with virtual_time():
        budget = Budget(floor=0.3)
        assert budget.try_spend()
        budget.configure(floor=0.2)
        assert budget.snapshot()["left"] == 1
        budget.configure(window=100, ratio=0.25)
        assert budget.describe() == {"ratio": 0.25, "floor": 0.2, "window": 100.0}
        assert budget.snapshot()["left"] == 19


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": -0.1}, "Budget: ratio is -0.1; extra attempts per call from 0 to 10"),
        ({"ratio": True}, "ratio is True"),
        ({"floor": "x"}, "floor is 'x'; extra attempts per second"),
        ({"window": 0}, "window is 0; seconds from 0.1"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**settings)  # type: ignore[arg-type]
    budget = Budget()
    with pytest.raises(ConfigError, match=message):
        budget.configure(**settings)
    assert budget.describe() == {"ratio": 0.1, "floor": 1.0, "window": 10.0}


def test_threads_never_get_more_than_there_is() -> None:
    budget, granted = Budget(ratio=0, floor=30, window=10), list[bool]()

    def work() -> None:
        for _ in range(150):
            budget.deposit()
            granted.append(budget.try_spend())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 300
    assert budget.rules.calls <= 600


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child() -> None:
    budget = Budget()
    with budget.rules.guard:
        child = os.fork()
        if not child:
            os._exit(0 if budget.try_spend() else 1)
        assert os.waitpid(child, 0)[1] == 0
