"""What the algorithms do with given samples, and on a simulated service."""

import pytest

from benchmarks.adaptive import (
    Fixed,
    Service,
    Simulation,
)  # fmt: skip
from outlast.kernel import Prng
from outlast.protect.core.adaptive import AIMD, Algorithm, Gradient, Measuring, Vegas

MS = 1_000_000
S = 1_000_000_000


class Line:
    """A service of ``capacity`` places without chance: a surplus makes all calls slower."""

    def __init__(self, algorithm: Algorithm, initial: int = 20, low: int = 1) -> None:
        self.state = algorithm.begin(initial, low, 200, Prng(1))
        self.capacity, self.base_ns, self.now_ns = 40, 50 * MS, 0
        self.least = initial

    def calls(self, count: int, *, ok: bool = True, use: float = 1.0) -> int:
        for _ in range(count):
            limit = int(self.state.limit)
            flights = max(1, int(limit * use))
            rtt_ns = int(self.base_ns * max(1.0, flights / self.capacity))
            self.now_ns += rtt_ns // flights
            self.state.on_sample(rtt_ns, flights, ok, self.now_ns)
            self.least = min(self.least, int(self.state.limit))
        return int(self.state.limit)


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()])
def test_the_limit_grows_to_the_capacity_and_stays_near(algorithm: Algorithm) -> None:
    line = Line(algorithm)
    assert 40 <= line.calls(20_000) <= 46
    assert 40 <= line.calls(20_000) <= 46


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()])
def test_the_limit_follows_the_capacity_down_and_up(algorithm: Algorithm) -> None:
    line = Line(algorithm)
    line.calls(20_000)
    line.capacity = 20
    assert 20 <= line.calls(10_000) <= 25
    line.capacity = 40
    assert 40 <= line.calls(20_000) <= 46


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()])
def test_a_beginning_far_above_the_capacity_is_no_base(algorithm: Algorithm) -> None:
    line = Line(algorithm, initial=100)
    line.capacity = 5
    assert 5 <= line.calls(5_000) <= 9


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas()])
def test_a_service_that_becomes_slower_as_such_keeps_its_limit(algorithm: Algorithm) -> None:
    line = Line(algorithm)
    line.calls(10_000)
    line.base_ns = 150 * MS
    assert 40 <= line.calls(20_000) <= 47
    line.base_ns = 30 * MS
    assert 40 <= line.calls(20_000) <= 46


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    line = Line(Gradient())
    line.calls(2_000)
    before = int(line.state.limit)
    assert line.calls(20_000, use=0.4) == before


def test_idle_calls_tell_the_base_without_a_probe() -> None:
    line = Line(Gradient(), initial=30)
    line.calls(1_000, use=0.3)
    assert isinstance(line.state, Measuring)
    assert line.state.base == 50 * MS
    assert line.least == 30
    line.base_ns = 80 * MS
    line.calls(1_000, use=0.3)
    assert line.state.base == pytest.approx(80 * MS, rel=0.05)


def test_probes_are_rare_and_halve_the_limit_for_a_while() -> None:
    line = Line(Gradient(probe_interval=10.0))
    line.calls(20_000)
    halved = 0
    before = True
    for _ in range(40_000):  # about 50 s
        line.calls(1)
        now = line.state.limit > 30
        halved += before and not now
        before = now
    assert 2 <= halved <= 6


def test_quick_failures_are_no_samples_and_slow_ones_are() -> None:
    state = Gradient().begin(20, 1, 200, Prng(1))
    assert isinstance(state, Measuring)
    line = Line(Gradient())
    line.calls(20_000)
    state = line.state  # type: ignore[assignment]
    before = state.limit
    for _ in range(5_000):
        line.now_ns += MS
        state.on_sample(MS, 40, False, line.now_ns)
    assert state.limit == before
    for _ in range(1_000):
        line.now_ns += MS
        state.on_sample(500 * MS, 40, False, line.now_ns)
    assert state.limit < before


def test_one_call_that_hangs_moves_the_limit_little() -> None:
    line = Line(Gradient())
    before = line.calls(20_000)
    line.state.on_sample(3_600 * S, 40, True, line.now_ns)
    line.calls(200)
    assert abs(line.state.limit - before) <= 5
    assert abs(line.calls(2_000) - before) <= 3


def test_a_probe_without_calls_is_given_up() -> None:
    line = Line(Gradient(), initial=20)
    while int(line.state.limit) == 20:
        line.calls(1)
    assert int(line.state.limit) == 10
    for _ in range(40):
        line.now_ns += 15 * S
        line.state.on_sample(50 * MS, 10, True, line.now_ns)
    assert int(line.state.limit) == 20


def test_the_lowest_limit_is_its_own_base() -> None:
    line = Line(Gradient(), initial=1)
    line.capacity = 1
    assert line.calls(5_000) <= 3
    assert isinstance(line.state, Measuring)
    assert 50 * MS <= line.state.base <= 51 * MS


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas(), AIMD()])
def test_the_bounds_hold_and_can_be_moved(algorithm: Algorithm) -> None:
    state = algorithm.begin(10, 5, 12, Prng(1))
    assert state.bound(2, 8) == 8
    assert state.bound(9, 20) == 9


def test_aimd_grows_by_one_a_round_trip_and_falls_once_a_round_trip() -> None:
    state = AIMD(threshold=0.1).begin(10, 1, 200, Prng(1))
    for _ in range(10):
        state.on_sample(50 * MS, 10, True, S)
    assert 10.9 < state.limit < 11.1
    limit = state.limit
    for _ in range(10):
        state.on_sample(200 * MS, 10, True, 2 * S)
    assert state.limit == pytest.approx(limit * 0.9)
    state.on_sample(200 * MS, 10, True, 3 * S)
    assert state.limit == pytest.approx(limit * 0.81)


def test_aimd_without_a_threshold_falls_with_failures_and_does_not_grow_unused() -> None:
    state = AIMD(backoff=0.5).begin(10, 4, 200, Prng(1))
    state.on_sample(50 * MS, 2, True, S)
    assert state.limit == 10
    state.on_sample(50 * MS, 10, False, S)
    assert state.limit == 5
    state.on_sample(50 * MS, 10, False, 2 * S)
    assert state.limit == 4
    threshold = AIMD(threshold=1.0).begin(10, 4, 200, Prng(1))
    assert threshold.on_sample(50 * MS, 10, False, S) == 10


def test_settings_show_themselves() -> None:
    assert repr(Gradient()) == "Gradient(tolerance=1.0, probe_interval=30.0)"
    assert repr(AIMD(threshold=0.5)) == "AIMD(threshold=0.5, backoff=0.9)"


def test_on_a_service_of_known_capacity_it_settles_near_the_best_fixed_limit() -> None:
    service = Service(seconds=60)
    places = service.workers * (1 + 2 * service.network_ns / service.service_ns)
    ours = Simulation(service, Gradient(), 7, 20).run()
    limits = [phase.mean_limit() for phase in ours.phases]
    for limit, room in zip(limits, (places, places / 2, places), strict=True):
        assert 0.97 * room <= limit <= 1.12 * room
    best = Simulation(Service(seconds=12), Fixed(50), 7, 50).run()
    assert ours.goodput(0) > 0.9 * best.goodput(0)
    assert ours.phases[0].p99_ms() < 1.2 * best.phases[0].p99_ms()
