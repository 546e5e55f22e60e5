"""What no other test noticed when it was broken on purpose (``tools/mutants``)."""

from collections.abc import Callable

import pytest

from outlast.detect import Bertier, Chen, Fixed, PhiAccrual, Quantile
from outlast.detect.core.child_progress import ProgressDecider
from outlast.detect.core.detector import Beats
from outlast.detect.core.swim import wire
from outlast.log.engines.raft.core.patience import Patience
from outlast.log.engines.raft.core.settings import RaftSettings
from tests.support.swim_bench import MS, Bench, accused

STEP = 100 * MS


@pytest.mark.parametrize("make", [lambda: Fixed(0.5, interval=0.1), Chen, PhiAccrual, Quantile])
def test_the_wait_for_the_first_beat_is_no_interval(make: Callable[[], Beats]) -> None:
    expected, new = make(), make()
    expected.expect(0)
    for detector in (expected, new):
        detector.beat(None, STEP // 4)
        detector.beat(None, STEP // 4 + STEP)
    assert expected.detection_ns(8.0) == new.detection_ns(8.0)


def test_of_three_intervals_the_middle_one_is_the_median() -> None:
    median = Quantile(0.5, window=3, cap=5.0, learn="all")
    now = 0
    for gap in (0, 90, 110, 130):
        now += gap * MS
        median.beat(None, now)
    assert median.snapshot()["quantile"] == 0.11


def test_bertier_adds_the_error_as_it_is_and_not_the_sum_of_all() -> None:
    bertier = Bertier(window=1000, phi=0.0)
    for n in range(500):
        bertier.beat(n, n * STEP + (50 * MS if n >= 450 else 0))
    # Expected 5 ms late by now, by the mean of all; and for all but one in a hundred 45 more.
    assert bertier.detection_ns(8.0) / MS == pytest.approx(100, abs=5)


def test_entries_right_after_the_beats_are_no_beats() -> None:
    alone, busy = Patience(RaftSettings()), Patience(RaftSettings())
    now = 1000 * MS
    for beat in range(60):
        now += (60, 200, 90, 180)[beat % 4] * MS
        alone.hear(now)
        for late in range(20):
            busy.hear(now + late * MS)
    assert busy.silence_ns == alone.silence_ns


def test_a_suspect_hears_of_it_in_the_next_ping() -> None:
    bench = Bench("b", "c", "d")
    bench.news(wire.SuspectNews("b", 1, accused("c")))
    bench.node._context.queue.drop("b")  # nobody passes it on any more
    ping = bench.until(wire.Ping)
    while ping.target != "b":
        ping = bench.until(wire.Ping)
    told = [one for one in ping.updates if isinstance(one, wire.SuspectNews)]
    assert [(one.name, one.accusations[0].by) for one in told] == [("b", "c")]


def test_a_suspect_that_asks_hears_of_it_in_the_answer() -> None:
    bench = Bench("b", "c", "d")
    bench.news(wire.SuspectNews("b", 1, accused("c")))
    bench.node._context.queue.drop("b")
    effects = bench.packet(wire.Ping(5, "b", 1, "a", []), "b:1")
    ack = wire.decode_packet(effects.packets[0].data)
    assert isinstance(ack, wire.Ack)
    assert [one.name for one in ack.updates if isinstance(one, wire.SuspectNews)] == ["b"]


def test_whose_answers_take_longer_is_waited_for_longer() -> None:
    bench = Bench("b")
    ping = bench.until(wire.Ping)
    bench.now_ns += 190 * MS
    bench.packet(wire.Ack(ping.seq, "b", 1, False, []), "b:1")
    peer = bench.node._table.peers["b"]
    assert bench.node._prober.timeout_ns(peer) == (190 + 4 * 95) * MS
    bench.until(wire.Ping)
    began = bench.now_ns
    while not bench.timer().streams:
        pass
    assert bench.now_ns - began == (190 + 4 * 95) * MS


def looked(decider: ProgressDecider, count: int, now_ns: int, until_ns: int) -> int | None:
    """Look as often as one should, and return what the last look says."""
    said = None
    while now_ns < until_ns:
        now_ns += decider.rest_ns
        said = decider.look(count, now_ns)
    return said


def test_a_child_has_the_time_of_a_start_for_its_first_stamp_and_then_its_limit() -> None:
    decider = ProgressDecider(1000 * MS, 5000 * MS, 0)
    assert looked(decider, 0, 0, 4000 * MS) is None
    assert looked(decider, 0, 4000 * MS, 5000 * MS) == 5000 * MS
    assert looked(decider, 1, 5000 * MS, 5500 * MS) is None
    assert looked(decider, 1, 5500 * MS, 6500 * MS) is not None


def test_a_watcher_that_was_away_accuses_nobody_of_that_time() -> None:
    decider = ProgressDecider(1000 * MS, 1000 * MS, 0)
    assert looked(decider, 1, 0, 500 * MS) is None
    assert decider.look(1, 9000 * MS) is None
    assert looked(decider, 1, 9000 * MS, 9250 * MS) is None
    assert looked(decider, 1, 9250 * MS, 10_000 * MS) is not None
