"""What retries and hedges may add to the load."""

from contextlib import nullcontext

from outlast.protect.core.budget import MICRO, SPANS, BudgetRules

NS = 1_000_000_000
W = 10 * NS


def rules(ratio: float = 0.1, floor: float = 0.0) -> BudgetRules:
    """``floor`` is per window here."""
    return BudgetRules(nullcontext(), round(ratio * MICRO), round(floor * MICRO), W)


def deposit(budget: BudgetRules, count: int) -> None:
    for _ in range(count):
        budget.deposit()


def granted(budget: BudgetRules, now_ns: int, most: int = 10_000) -> int:
    for count in range(most):
        if not budget.ask(now_ns):
            return count
    return most


def test_the_floor_is_there_without_any_call() -> None:
    budget = rules(floor=3)
    assert granted(budget, 5) == 3
    assert granted(budget, W + 4) == 0
    assert granted(budget, W + 5) == 3


def test_calls_earn_their_ratio() -> None:
    budget = rules(0.1)
    assert not budget.ask(0)
    deposit(budget, 100)
    assert granted(budget, NS) == 10
    assert budget.refused == 2


def test_calls_from_before_the_first_question_earn_nothing() -> None:
    budget = rules(0.1)
    deposit(budget, 1_000)
    assert granted(budget, 5 * NS) == 0


def test_questions_are_not_counted_as_calls() -> None:
    budget = rules(1.0)
    for at in range(1000):
        assert not budget.ask(at)
    deposit(budget, 1)
    assert granted(budget, 1001) == 1


def test_calls_are_forgotten_after_the_window() -> None:
    budget = rules(0.5)
    budget.ask(0)
    deposit(budget, 10)
    budget.ask(NS)
    assert not granted(budget, NS + W)


def test_calls_between_two_questions_are_taken_to_come_evenly() -> None:
    budget = rules(1.0)
    budget.ask(0)
    deposit(budget, 400)  # over four windows: 100 in the last
    assert granted(budget, 4 * W) == 100


def test_of_the_span_in_which_the_window_begins_the_part_inside_counts() -> None:
    budget = rules(1.0)
    budget.ask(0)
    deposit(budget, 100)
    budget.left(W)
    assert granted(budget, W + W // 4) == 75


def test_grants_are_remembered_for_a_window_and_at_most_a_64th_longer() -> None:
    budget = rules(0.0, floor=1)
    assert budget.ask(0)
    assert budget.left(W - 1) == 0
    budget = rules(0.0, floor=1)
    assert budget.ask(0)
    assert budget.left(W // SPANS) == 0  # remembered as one
    assert budget.left(W) == 0
    assert budget.left(W + W // SPANS) == 1


def test_it_remembers_a_bounded_number_of_spans() -> None:
    budget = rules(0.1, floor=5)
    for at in range(0, 3 * W, W // 1000):
        budget.deposit()
        budget.ask(at)
        assert len(budget) <= 2 * SPANS + 2


def test_looking_grants_nothing() -> None:
    budget = rules(0.0, floor=2)
    assert [budget.left(at) for at in range(3)] == [2, 2, 2]
    assert budget.ask(3)
    assert (budget.left(3), budget.grants, budget.refused) == (1, 1, 0)


def test_a_change_keeps_what_was_granted() -> None:
    budget = rules(0.0, floor=2)
    assert granted(budget, 0) == 2
    budget.change(0, 3 * MICRO, W)
    assert granted(budget, 1) == 1
    budget.change(0, 1 * MICRO, W)
    assert budget.left(2) == 0


def test_a_clock_that_is_read_a_little_early_does_no_harm() -> None:
    budget = rules(1.0, floor=1)
    assert budget.ask(W)
    deposit(budget, 5)
    assert granted(budget, W - NS) == 5


def test_another_clock_begins_anew() -> None:
    budget = rules(1.0, floor=2)
    assert granted(budget, 5 * W) == 2
    deposit(budget, 5)
    assert granted(budget, 0) == 2
    assert budget.calls == 0


def test_reset_forgets_all() -> None:
    budget = rules(0.0, floor=2)
    assert granted(budget, 0) == 2
    budget.reset()
    assert granted(budget, 0) == 2
