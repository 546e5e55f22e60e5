"""The rules by which a fleet shares a breaker, a rate, a budget: one by one."""

import json

import pytest

from outlast.kernel import Prng
from outlast.protect.core import shares
from outlast.protect.core.fleet import (
    LEASES_MAX,
    REPORTERS_MAX,
    FleetRecord,
    FleetRules,
    Lease,
    View,
)
from outlast.protect.core.fleet_node import AdoptClosed, AdoptOpen, FleetNode, StoreHealth

RULES = FleetRules(report_ttl_ms=1_000, open_ms=100, open_max_ms=500)
NS = 1_000_000_000


def opened(now_ms: int = 10) -> FleetRecord:
    record = FleetRecord(now_ms)
    for node in "ab":
        record.report(node, record.epoch, True, RULES, now_ms)
    assert record.opened
    return record


def lease(record: FleetRecord, node: str, now_ms: int, ttl_ms: int = 50) -> Lease | None:
    return record.lease_probe("x", node, record.epoch, RULES, ttl_ms=ttl_ms, now_ms=now_ms)


def test_a_record_survives_its_bytes() -> None:
    record = opened()
    assert lease(record, "a", 200) is not None
    record.failed = ["b"]
    again = FleetRecord.decode(record.encode(), 900)
    assert again.encode() == record.encode()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2), ("epoch", -1), ("epoch", True), ("epoch", 1 << 63), ("epoch", "5"),
        ("opened", 1), ("until", 1.5), ("failed", {}), ("failed", [1]), ("failed", ["x" * 200]),
        ("reports", [["a", True]]), ("reports", [[1, True, 5]]), ("leases", [[1, "a", None]]),
        ("reports", [["a", True, 1]] * (REPORTERS_MAX + 1)),
        ("leases", [[1, "a", 1]] * (LEASES_MAX + 1)),
    ],
)  # fmt: skip
def test_a_record_with_one_odd_field_counts_as_none(field: str, value: object) -> None:
    row = json.loads(opened().encode())
    row[field] = value
    assert not FleetRecord.decode(json.dumps(row).encode(), 77).opened


@pytest.mark.parametrize("data", [None, b"", b"{}", b"[]", b"x" * 70_000, b"\xff", b"[" * 9_000])
def test_bytes_that_are_no_record_count_as_none(data: bytes | None) -> None:
    assert FleetRecord.decode(data, 77).epoch == 77


def test_the_time_open_doubles_with_each_failed_round_up_to_a_cap() -> None:
    record, now_ms, waits = opened(), 10, []
    for node in ("a", "b", "a", "b"):
        waits.append(record.until - now_ms)
        now_ms = record.until + 5_000
        held = lease(record, node, now_ms)
        assert held is not None
        assert record.settle(held, False, RULES, now_ms)
    assert waits == [100, 200, 400, 500]


def test_reporters_are_bounded_and_the_stalest_goes() -> None:
    record = FleetRecord(1)
    for number in range(REPORTERS_MAX + 5):
        record.report(f"n{number}", record.epoch, False, RULES, 10 + number)
    assert len(record.reports) == REPORTERS_MAX
    assert "n4" not in record.reports
    assert "n5" in record.reports


def test_a_record_is_kept_for_longer_than_it_is_open() -> None:
    record = opened()
    assert record.keep_ms(10, RULES) >= (record.until - 10) + RULES.open_max_ms


def test_who_failed_a_probe_waits_for_the_others_but_not_for_ever() -> None:
    record = opened()
    held = lease(record, "a", 200)
    assert held is not None
    record.settle(held, False, RULES, 200)
    record.report("b", record.epoch, False, RULES, 500)
    assert lease(record, "a", 500) is None
    assert lease(record, "a", record.until + RULES.report_ttl_ms) is not None


def test_who_failed_a_probe_need_not_wait_when_nobody_else_is_there() -> None:
    record = opened()
    held = lease(record, "a", 200)
    assert held is not None
    record.settle(held, False, RULES, 200)
    record.leave("b")
    assert lease(record, "a", record.until) is not None


def test_a_close_clears_who_failed_and_the_round() -> None:
    record = opened()
    record.round, record.failed = 3, ["a"]
    held = lease(record, "b", 200)
    assert held is not None
    record.settle(held, True, RULES, 200)
    assert (record.opened, record.round, record.failed, record.until) == (False, 0, [], 0)


def test_inconclusive_probes_only_free_the_slot() -> None:
    record = opened()
    held = lease(record, "a", 200)
    assert held is not None
    epoch = record.epoch
    assert record.settle(held, None, RULES, 201)
    assert not record.settle(held, None, RULES, 202)
    assert (record.epoch, record.good, record.leases) == (epoch, 0, {})


def test_a_lease_of_a_record_that_was_lost_settles_nothing_in_the_next() -> None:
    before = opened(10)
    old = lease(before, "a", 200)
    after = opened(5_000)
    new = lease(after, "b", 5_200)
    assert old is not None
    assert new is not None
    assert old.token == new.token
    assert not after.settle(old, False, RULES, 5_201)
    assert after.settle(new, True, RULES, 5_202)


# --- one node ------------------------------------------------------------------------------------


def node() -> FleetNode:
    return FleetNode(report_every_ns=100, ask_every_ns=10)


def view(epoch: int, state: str = "closed", left: int = 0) -> View:
    return View(epoch, state, 1_000 + left, 1_000, 1, 0)  # type: ignore[arg-type]


def test_evidence_is_due_when_it_changes_and_now_and_then() -> None:
    one = node()
    one.viewed(view(5), is_open=False)
    assert one.evidence(is_open=False, now_ns=0) is False
    one.reported(False, 5, 0)
    assert one.evidence(is_open=False, now_ns=99) is None
    assert one.evidence(is_open=False, now_ns=100) is False
    assert one.evidence(is_open=True, now_ns=1) is True


def test_a_short_trip_is_reported_although_it_is_over() -> None:
    one = node()
    one.viewed(view(5), is_open=False)
    one.tripped()
    assert one.evidence(is_open=False, now_ns=0) is True
    one.reported(True, 5, 0)
    assert one.evidence(is_open=False, now_ns=1) is False


def test_following_is_no_evidence() -> None:
    one = node()
    assert one.viewed(view(5, "open", 7), is_open=False) == AdoptOpen(7_000_000)
    assert one.evidence(is_open=True, now_ns=0) is False


def test_the_fleet_is_followed_once_per_epoch() -> None:
    one = node()
    one.viewed(view(5, "open", 7), is_open=False)
    assert one.viewed(view(5, "half_open"), is_open=True) is None
    assert one.viewed(view(6, "open", 3), is_open=True) == AdoptOpen(3_000_000)
    assert one.viewed(view(6, "half_open"), is_open=False) == AdoptOpen(0)
    assert one.viewed(view(7), is_open=True) == AdoptClosed()
    assert one.viewed(view(7), is_open=True) is None


def test_a_closed_fleet_does_not_close_who_opened_alone() -> None:
    one = node()
    one.viewed(view(5), is_open=False)
    one.tripped()
    assert one.viewed(view(5), is_open=True) is None
    one.viewed(view(6, "open", 1), is_open=True)
    one.tripped()  # by itself, while the store was away
    assert one.viewed(view(7), is_open=True) is None


def test_a_view_from_before_is_ignored_until_it_comes_again() -> None:
    one = node()
    one.viewed(view(9, "open", 5), is_open=False)
    assert one.viewed(view(8), is_open=True) is None
    assert one.viewed(view(9, "open", 5), is_open=True) is None
    assert [one.viewed(view(8), is_open=True) for _ in range(3)] == [None, None, AdoptClosed()]


def test_a_lease_that_was_refused_is_not_asked_for_at_once() -> None:
    one = node()
    assert one.may_ask(0)
    one.refused(5)
    assert not one.may_ask(14)
    assert one.may_ask(15)
    one.refused(15)
    one.viewed(view(5, "open"), is_open=False)
    assert one.may_ask(15)


def test_a_lost_store_is_tried_ever_less_and_one_at_a_time() -> None:
    health, prng, now_ns, gaps = StoreHealth(base_ns=100, cap_ns=1_000), Prng(1), 0, []
    assert health.may_try(0)
    assert health.failed(0, prng)
    for _ in range(6):
        before = now_ns
        while not health.may_try(now_ns):
            now_ns += 1
        assert not health.may_try(now_ns)
        gaps.append(now_ns - before)
        assert not health.failed(now_ns, prng)
    assert 50 <= gaps[0] <= 100
    assert 500 <= gaps[-1] <= 1_000
    assert health.worked()
    assert not health.worked()
    assert health.may_try(now_ns)


# --- rate, budget, records -----------------------------------------------------------------------


def take(
    data: bytes | None, now_ns: int, *, cost: int = 1, max_wait_ns: int = 0
) -> tuple[int, shares.Taken]:
    return shares.take(
        data, now_ns, interval_ns=10, burst_ns=30, cost=cost, max_wait_ns=max_wait_ns
    )


def test_a_rate_gives_its_burst_then_one_slot_per_interval() -> None:
    data: bytes | None = None
    granted = []
    for now_ns in range(1_000, 1_100):
        reach, taken = take(data, now_ns)
        data = b"%d" % reach
        if taken.granted:
            granted.append(now_ns)
    assert granted[:4] == [1_000, 1_001, 1_002, 1_010]
    assert len(granted) == 3 + 9


def test_a_refused_slot_tells_when_to_come_again() -> None:
    assert take(b"1030", 1_000) == (1_030, shares.Taken(granted=False, wait_ns=10))
    assert take(b"1030", 1_000, max_wait_ns=10) == (1_040, shares.Taken(granted=True, wait_ns=10))


def test_a_rate_far_in_the_future_is_damaged() -> None:
    assert take(b"%d" % (1 << 60), 1_000)[1].granted


@pytest.mark.parametrize("data", [b"", b"-5", b"1e9", b"9" * 20, b"\xb2"])
def test_a_number_is_digits_and_not_many(data: bytes) -> None:
    assert shares.whole(data) is None


def spend(data: bytes | None, now_ns: int, want: int, deposit: int = 0) -> tuple[bytes, int]:
    return shares.spend(
        data, now_ns, deposit_milli=deposit, floor_milli_per_s=1_000, cap_milli=5_000, want=want
    )


def test_a_budget_grows_by_its_floor_without_losing_parts_of_it() -> None:
    data, granted = spend(None, 0, 1)
    total = granted
    for tick in range(1, 4_501):
        data, granted = spend(data, tick * (NS // 1_500), 1)
        total += granted
    assert total == 1 + 2


def test_a_budget_is_capped() -> None:
    data, _ = spend(None, 0, 0, deposit=90_000)
    assert spend(data, 0, 99)[1] == 5


@pytest.mark.parametrize("data", [b"x", b"1 2 3", b"5000 999999999999999", b"1", b"9" * 50])
def test_a_budget_that_is_damaged_begins_anew(data: bytes) -> None:
    assert spend(data, 1_000, 9)[1] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b'[2,true,"t","f",99]', b'[1,1,"t","f",99]', b'[1,true,3,"f",99]',
        b'[1,true,"t",null,99]', b'[1,true,"t","f",-1]', b"[" * 5_000, b"[" * 3_000, b"x" * 5_000,
    ],
)  # fmt: skip
def test_a_damaged_record_counts_as_none(data: bytes) -> None:
    assert shares.begin(data, 5, "t", "f", 10).answer is shares.BEGUN
    assert shares.finish(data, 5, "t", b"x", 10).answer is False
    assert shares.renew(data, 5, "t", 10).answer is False
    assert shares.release(data, "t").data is None


def test_nothing_of_a_record_that_is_done_is_renewed_or_released() -> None:
    held = shares.begin(None, 5, "t", "f", 10).data
    done = shares.finish(held, 6, "t", b"x", 10).data
    assert shares.renew(done, 7, "t", 10).answer is False
    assert shares.release(done, "t").data is None
    assert shares.release(held, "t").data == b""
