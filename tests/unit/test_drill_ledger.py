"""The judge of the bank workload: it must see each way in which a bank can lie."""

from outlast.drill.core.gaps import AckTimes, percentile
from outlast.drill.core.ledger import Account, judge


def spent(*amounts: int, start: int = 100) -> Account:
    account = Account("a", start)
    left = start
    for amount in amounts:
        left -= amount
        assert account.acknowledge(amount, left) is None
    return account


def test_an_honest_bank_survives():
    judgement = judge([spent(10, 5)], {"a": 85, "till": 15}, 100)
    assert judgement.survived
    assert judgement.acknowledged == 2


def test_a_lost_acknowledged_transfer_is_found():
    judgement = judge([spent(10, 5)], {"a": 90, "till": 10}, 100)
    assert not judgement.survived
    assert (judgement.lost, judgement.applied_twice) == (1, 0)


def test_a_transfer_applied_twice_is_found():
    judgement = judge([spent(10, 5)], {"a": 80, "till": 20}, 100)
    assert (judgement.lost, judgement.applied_twice) == (0, 1)


def test_an_answer_that_shows_a_doubled_transfer_is_found_at_once():
    account = spent(10)
    problem = account.acknowledge(5, 75)
    assert problem is not None
    assert "applied twice" in problem


def test_an_answer_that_shows_a_lost_transfer_is_found_at_once():
    account = spent(10)
    problem = account.acknowledge(5, 95)
    assert problem is not None
    assert "lost" in problem


def test_money_out_of_nothing_is_found():
    assert not judge([spent(10)], {"a": 90, "till": 11}, 100).survived


def test_an_unknown_transfer_may_or_may_not_have_happened():
    for shown in (90, 83):
        account = spent(10)
        account.leave_unknown(7)
        assert judge([account], {"a": shown, "till": 100 - shown}, 100).survived


def test_a_later_answer_settles_what_was_unknown():
    account = spent(10)
    account.leave_unknown(7)
    assert account.acknowledge(1, 82) is None
    assert account.unknown == []
    assert judge([account], {"a": 82, "till": 18}, 100).survived
    assert not judge([account], {"a": 89, "till": 11}, 100).survived


def test_an_unknown_transfer_does_not_excuse_another_amount():
    account = spent(10)
    account.leave_unknown(7)
    assert not judge([account], {"a": 84, "till": 16}, 100).survived


def test_the_longest_gap_reaches_back_to_the_last_acknowledgement_before():
    acks = AckTimes([100, 200, 900, 1000])
    assert acks.longest_gap_ns(300, 950) == 700


def test_a_gap_that_goes_on_after_the_window_belongs_to_the_next_fault():
    acks = AckTimes([100, 200, 300, 5_000])
    assert acks.longest_gap_ns(150, 310) == 100
    assert acks.longest_gap_ns(310, 6_000) == 4_700


def test_a_service_that_never_answers_again_has_a_gap_to_the_end():
    acks = AckTimes([100])
    assert acks.longest_gap_ns(150, 5_000) == 4_900
    assert AckTimes().longest_gap_ns(150, 5_000) == 4_850


def test_rates_count_the_window_only():
    acks = AckTimes([n * 100_000_000 for n in range(31)])
    assert acks.rate(3_000_000_000) == 11
    assert acks.per_second(0, 3_000_000_000) == [10, 10, 10]


def test_percentiles_are_nearest_rank():
    assert percentile([], 50) == 0
    assert percentile(list(range(1, 101)), 99) == 99
