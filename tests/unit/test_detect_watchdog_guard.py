"""What the outside guard decides, and what it and the guarded tell each other."""

import json
import signal
from pathlib import Path

import pytest

from outlast.detect.core import guard_rules
from outlast.detect.core.guard_rules import GuardJudge, Order, Slot, read_slots, write_slot
from outlast.detect.core.ladder import Ladder
from outlast.detect.guard import Guard, read_report
from outlast.detect.watchdog_events import GuardReported
from outlast.kernel import ConfigError

MS = 1_000_000
NS = 1_000_000_000
HALF = NS // 2
EVENT = [(0, "event")]


def page() -> memoryview:
    return memoryview(bytearray(guard_rules.PAGE_BYTES))


def slots(loop: int, process: int | None = None) -> dict[int, Slot]:
    found = {2: Slot("loop", loop, HALF)}
    if process is not None:
        found[1] = Slot("process", process, HALF, 350 * MS)
    return dict(sorted(found.items()))


def said(orders: list[Order]) -> list[tuple[str, str, str]]:
    return [(order.action, order.kind, order.name) for order in orders]


def test_slots_are_read_as_they_were_written() -> None:
    shared = page()
    write_slot(shared, 1, "process", HALF, 7, rest_ns=9)
    write_slot(shared, 63, "ü" * 30, NS, 8)
    found = read_slots(shared)
    assert list(found) == [1, 63]
    first = found[1]
    assert (first.name, first.stamp_ns, first.limit_ns, first.rest_ns) == ("process", 7, HALF, 9)
    assert found[63].name == "ü" * 16


def test_a_page_of_garbage_has_no_slots_or_slots_that_can_be_judged() -> None:
    shared = page()
    shared[:] = bytes(range(256)) * (guard_rules.PAGE_BYTES // 256)
    words = shared.cast("q")
    for number in range(1, 64):
        words[number * 8 + guard_rules.ACTIVE] = number % 2
    found = read_slots(shared)
    assert all(slot.limit_ns > 0 for slot in found.values())
    GuardJudge(EVENT).look(NS, found, False)


def test_a_stamp_is_bad_from_its_limit_on_and_told_once() -> None:
    judge = GuardJudge(EVENT)
    orders, next_ns = judge.look(NS, slots(NS), False)
    assert (orders, next_ns) == ([], NS + HALF)
    orders, next_ns = judge.look(NS + HALF, slots(NS), False)
    assert said(orders) == [("event", "stalled", "loop")]
    assert orders[0].seconds == 0.5
    assert "stalled loop 0.50" in repr(orders[0])
    assert judge.look(next_ns, slots(NS), False)[0] == []


def test_a_fresh_stamp_after_a_bad_one_is_a_recovery_with_its_length() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS), False)
    _, next_ns = judge.look(NS + HALF, slots(NS), False)
    orders, _ = judge.look(next_ns, slots(NS + HALF + 100 * MS), False)
    assert said(orders) == [("recovered", "stalled", "loop")]
    assert orders[0].seconds == pytest.approx(0.6)


def test_a_process_that_runs_no_python_is_frozen_and_told_once_for_all_slots() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS, NS), False)
    orders, next_ns = judge.look(NS + HALF, slots(NS, NS), False)
    assert said(orders) == [("event", "frozen", "process")]
    assert judge.look(next_ns, slots(NS, NS), False)[0] == []


def test_a_stopped_process_is_told_as_stopped() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS, NS), False)
    orders, _ = judge.look(NS + HALF, slots(NS, NS), True)
    assert said(orders) == [("event", "stopped", "process")]


def test_only_the_loop_is_stalled_while_the_watcher_goes_on() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS, NS), False)
    orders, _ = judge.look(NS + HALF, slots(NS, NS + HALF - 200 * MS), False)
    assert said(orders) == [("event", "stalled", "loop")]


def test_a_guard_that_was_late_itself_accuses_nobody_of_it() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS, NS), False)
    late = NS + 10 * NS
    orders, next_ns = judge.look(late, slots(NS, NS), True)
    assert (orders, next_ns) == ([], late + HALF)
    assert said(judge.look(late + HALF, slots(NS, NS), False)[0]) == [
        ("event", "frozen", "process")
    ]


def test_actions_come_at_their_times_and_the_guard_wakes_for_them() -> None:
    judge = GuardJudge([(0, "event"), (100 * MS, "stacks"), (NS, "restart")])
    judge.look(NS, slots(NS), False)
    orders, next_ns = judge.look(NS + HALF, slots(NS), False)
    assert said(orders) == [("event", "stalled", "loop")]
    assert next_ns == NS + HALF + 100 * MS
    orders, next_ns = judge.look(next_ns, slots(NS), False)
    assert [order.action for order in orders] == ["stacks"]
    while next_ns < NS + HALF + NS:
        assert orders == [] or orders[0].action == "stacks"
        orders, next_ns = judge.look(next_ns, slots(NS), False)
    orders, _ = judge.look(next_ns, slots(NS), False)
    assert [order.action for order in orders] == ["restart"]


def test_a_slot_that_is_taken_off_the_page_is_forgotten() -> None:
    judge = GuardJudge(EVENT)
    judge.look(NS, slots(NS), False)
    _, next_ns = judge.look(NS + HALF, slots(NS), False)
    assert judge.look(next_ns, {}, False)[0] == []
    assert said(judge.look(next_ns + HALF, slots(NS), False)[0]) == [("event", "stalled", "loop")]


def test_a_stamp_from_the_future_counts_as_now() -> None:
    judge = GuardJudge(EVENT)
    orders, next_ns = judge.look(NS, slots(100 * NS), False)
    assert (orders, next_ns) == ([], NS + HALF)


def test_a_guard_of_nothing_looks_once_a_second() -> None:
    assert GuardJudge(EVENT).look(NS, {}, False) == ([], 2 * NS)


def test_what_cannot_be_done_from_outside_is_refused() -> None:
    with pytest.raises(ConfigError, match="'not_ready', which cannot be done from outside"):
        Guard(act=("event", "not_ready"))
    with pytest.raises(ConfigError, match=r"stall is 0\.01 s; at least"):
        Guard(0.01)


def test_a_guard_that_does_not_run_has_no_slots() -> None:
    with pytest.raises(ConfigError, match="the guard does not run"):
        Guard().slot("mine", 1.0)
    with pytest.raises(ConfigError, match=r"limit of 'mine' is 0\.0 s"):
        Guard().slot("mine", 0.0)


def test_a_guard_says_its_settings_and_its_state(tmp_path: Path) -> None:
    guard = Guard(act=Ladder(("event", "restart"), after=(0, 9)), log=str(tmp_path / "log"))
    assert guard.describe()["after"] == [0.0, 9.0]
    assert guard.snapshot()["pid"] is None
    assert Guard(signal=None)._signal is None
    assert Guard(signal=signal.SIGUSR1)._signal == signal.SIGUSR1


def test_a_line_of_the_guard_is_an_event_and_anything_else_is_not() -> None:
    line = {"kind": "frozen", "slot": "process", "seconds": 0.5, "stack": "x" * 100_000}
    report = read_report(json.dumps(line).encode())
    assert isinstance(report, GuardReported)
    assert (report.kind, report.slot, len(report.stack)) == ("frozen", "process", 32_000)
    for odd in (b"", b"{", b"[]", b"{}", b"7", b'{"kind":1,"slot":2,"seconds":"x","stack":0}'):
        assert read_report(odd) is None
    assert read_report(b"[" * 100_000) is None
