"""Detectors one by one: what each says after so long a silence, and what it learns."""

import copy
import pickle
from collections.abc import Callable

import pytest

from outlast.detect import (
    Bertier,
    Chen,
    Detector,
    Fixed,
    Levels,
    PhiAccrual,
    Quantile,
)
from outlast.detect.core.detector import Beats
from outlast.detect.core.learning import NEW_PACE
from outlast.detect.core.ring import Ring
from outlast.detect.core.scale import NEVER, normal_phi, normal_z
from outlast.kernel import ConfigError

MS = 1_000_000
STEP = 100 * MS

KINDS: dict[str, Callable[[], Beats]] = {
    "fixed": lambda: Fixed(0.5, interval=0.1),
    "chen": lambda: Chen(0.4),
    "bertier": lambda: Bertier(floor=0.05),
    "phi": PhiAccrual,
    "exponential": lambda: PhiAccrual(shape="exponential", pause=0.0, cap=10.0),
    "quantile": Quantile,
}
each = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def fed(detector: Beats, beats: int = 300, step: int = STEP, begin: int = 0) -> Beats:
    for n in range(beats):
        detector.beat(begin // step + n, begin + n * step)
    return detector


def after_ms(detector: Beats, level: float) -> float:
    return detector.detection_ns(level) / MS


# --- all of them ---------------------------------------------------------------------------------


@each
def test_nothing_is_suspected_before_anything_is_waited_for(make: Callable[[], Detector]) -> None:
    detector = make()
    assert detector.suspicion(10**15) == 0.0
    assert detector.deadline_ns(8.0) == NEVER


@each
def test_a_silence_becomes_more_suspicious_until_each_deadline(make: Callable[[], Beats]) -> None:
    detector = fed(make())
    deadlines = [detector.deadline_ns(level) for level in (1.0, 3.0, 8.0, 12.0)]
    assert deadlines == sorted(set(deadlines))
    for level, due in zip((1.0, 3.0, 8.0, 12.0), deadlines, strict=True):
        assert detector.suspicion(due - 1) < level <= detector.suspicion(due)


@each
def test_who_was_never_heard_is_suspected_from_when_it_was_expected(
    make: Callable[[], Beats],
) -> None:
    detector = make()
    detector.expect(STEP)
    detector.expect(9 * STEP)
    assert STEP < detector.deadline_ns(8.0) < 30 * STEP
    assert detector.suspicion(100 * STEP) >= 8.0
    detector.beat(0, 100 * STEP)
    assert detector.suspicion(100 * STEP) == 0.0
    assert detector.beats == 1


@each
def test_repeated_and_old_and_backdated_beats_change_nothing(make: Callable[[], Beats]) -> None:
    detector = fed(make(), 20)
    now = 19 * STEP
    before = [detector.deadline_ns(level) for level in (1.0, 3.0, 8.0)]
    detector.beat(19, now + 90 * MS)
    detector.beat(3, now + 95 * MS)
    detector.beat(20, now - 1)
    detector.beat(None, now - 1)
    assert [detector.deadline_ns(level) for level in (1.0, 3.0, 8.0)] == before
    assert (detector.beats, detector.stale) == (20, 4)


@each
def test_forgetting_is_like_being_new(make: Callable[[], Beats]) -> None:
    used, new = fed(make(), 250, step=130 * MS), make()
    used.forget()
    assert used.deadline_ns(8.0) == NEVER
    fed(used, 30, begin=50 * STEP)
    fed(new, 30, begin=50 * STEP)
    assert used.deadline_ns(8.0) == new.deadline_ns(8.0)
    assert used.snapshot() == new.snapshot()


@each
def test_settings_and_state_are_told_and_copies_go_on_alike(make: Callable[[], Beats]) -> None:
    detector = fed(make(), 50)
    assert detector.describe()["kind"] == detector.kind
    assert repr(detector).startswith(detector.kind + "(")
    assert detector.snapshot()["beats"] == 50
    for twin in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        fed(twin, 5, begin=50 * STEP)
    fed(detector, 5, begin=50 * STEP)
    assert twin.deadline_ns(3.0) == detector.deadline_ns(3.0)


@each
@pytest.mark.parametrize("level", [0.0, -1.0, 1001.0, float("nan"), float("inf")])
def test_a_level_off_the_scale_is_refused(make: Callable[[], Beats], level: float) -> None:
    with pytest.raises(ConfigError, match="level"):
        fed(make(), 3).deadline_ns(level)


@each
def test_beats_without_numbers_are_understood(make: Callable[[], Beats]) -> None:
    detector = make()
    for n in range(300):
        detector.beat(None, n * STEP)
    numbered = fed(make())
    assert detector.detection_ns(8.0) == numbered.detection_ns(8.0)


# --- fixed, Chen, Bertier ------------------------------------------------------------------------


def test_a_fixed_timeout_is_evict_and_grows_from_where_the_beat_is_due() -> None:
    fixed = fed(Fixed(0.5, interval=0.1), 1)
    assert [fixed.suspicion(ms * MS) for ms in (50, 100, 300, 500, 900)] == [0, 0, 4, 8, 16]
    assert Fixed(0.5).describe() == {"kind": "Fixed", "timeout": 0.5, "interval": 0.0}


def test_chen_waits_for_the_margin_after_the_expected_beat() -> None:
    chen = fed(Chen(0.4))
    assert after_ms(chen, 8.0) == 500
    assert after_ms(chen, 4.0) == 300


def test_a_late_beat_does_not_put_the_next_ones_deadline_off() -> None:
    chen = fed(Chen(0.4, window=100), 100)
    on_time = chen.deadline_ns(8.0) + STEP
    chen.beat(100, 100 * STEP + 80 * MS)
    assert abs(chen.deadline_ns(8.0) - on_time) < 2 * MS  # a hundredth of it, by the mean
    phi = fed(PhiAccrual(), 100)
    before = phi.deadline_ns(8.0) + STEP
    phi.beat(100, 100 * STEP + 80 * MS)
    assert phi.deadline_ns(8.0) - before > 70 * MS


def test_lost_beats_are_no_news_to_chen() -> None:
    chen = Chen(0.4)
    for n in range(400):
        if n % 3:
            chen.beat(n, n * STEP)
    assert after_ms(chen, 8.0) == 500


def test_a_beat_without_a_number_counts_for_the_time_that_has_passed() -> None:
    chen = Chen(0.4)
    for n in range(400):
        if n % 3:
            chen.beat(None, n * STEP + (n % 2) * 20 * MS)
    assert after_ms(chen, 8.0) == pytest.approx(
        510, abs=1
    )  # half come 20 ms late, the last did not


def test_a_burst_after_a_stop_of_ours_does_not_confuse_chen() -> None:
    chen = fed(Chen(0.4, window=100), 200)
    for _ in range(10):
        chen.beat(None, 209 * STEP)
    late = chen.deadline_ns(8.0) - 209 * STEP
    assert 499 * MS <= late <= 600 * MS
    numbered = fed(Chen(0.4, window=100), 200)
    for n in range(200, 210):
        numbered.beat(n, 209 * STEP)
    assert 500 * MS <= numbered.detection_ns(8.0) <= 560 * MS


def test_numbers_that_leap_away_from_the_time_are_those_of_another_sender() -> None:
    chen = fed(Chen(0.4), 50)
    for n in range(60):
        chen.beat(1_000_000 + n, (50 + n) * STEP + 30 * MS)
    assert after_ms(chen, 8.0) == 500


def test_a_sender_that_begins_to_give_numbers_begins_anew() -> None:
    chen = Chen(0.4)
    for n in range(50):
        chen.beat(None, n * STEP)
    for n in range(5):
        chen.beat(77 + n, (50 + n) * STEP)
    assert after_ms(chen, 8.0) == 500


def test_chen_never_expects_the_next_beat_before_the_last() -> None:
    chen = fed(Chen(0.01, window=10), 10)
    chen.beat(10, 13 * STEP)
    assert chen.expected_ns() < 13 * STEP
    assert chen.suspicion(13 * STEP) == 0.0
    assert chen.deadline_ns(8.0) == 13 * STEP + 10 * MS


def test_bertier_follows_how_wrong_its_expectation_was() -> None:
    steady, ragged = Bertier(), Bertier()
    for n in range(300):
        steady.beat(n, n * STEP)
        ragged.beat(n, n * STEP + (n % 5) * 4 * MS)
    assert after_ms(steady, 8.0) == 101  # the floor
    assert 110 < after_ms(ragged, 8.0) < 140


# --- phi -----------------------------------------------------------------------------------------


def test_regular_beats_that_stop_are_evicted_within_half_a_second() -> None:
    phi = fed(PhiAccrual())
    assert [round(after_ms(phi, level)) for level in (1.0, 3.0, 8.0)] == [413, 431, 456]


def test_the_first_beat_is_enough_to_suspect() -> None:
    assert after_ms(fed(PhiAccrual(), 1), 8.0) == 500  # the cap
    phi = fed(PhiAccrual(cap=2.0), 1)
    assert after_ms(phi, 8.0) == pytest.approx(100 + 300 + 5.612 * 25, abs=1)
    early = fed(PhiAccrual(first=0.2, cap=9.0), 1)
    assert after_ms(early, 8.0) == pytest.approx(200 + 300 + 5.612 * 50, abs=1)


def test_irregular_beats_make_phi_patient() -> None:
    ragged = PhiAccrual(cap=2.0)
    now = 0
    for n in range(400):
        now += (60 if n % 2 else 140) * MS
        ragged.beat(n, now)
    assert after_ms(ragged, 8.0) == pytest.approx(100 + 300 + 5.612 * 40, abs=2)


def test_a_freeze_is_not_learnt_unless_all_is() -> None:
    trusted, everything = fed(PhiAccrual()), fed(PhiAccrual(learn="all", cap=5.0))
    before = trusted.detection_ns(8.0)
    for detector in (trusted, everything):
        detector.beat(300, 299 * STEP + 900 * MS)
    assert trusted.detection_ns(8.0) == before
    assert everything.detection_ns(8.0) > before + 200 * MS


def test_an_interval_that_ended_no_suspicion_is_learnt() -> None:
    phi = fed(PhiAccrual(cap=2.0))
    phi.beat(300, 299 * STEP + 420 * MS)  # beyond watch, below avoid
    assert phi.detection_ns(8.0) > 500 * MS


def test_ten_odd_intervals_in_a_row_are_the_new_pace() -> None:
    phi = fed(PhiAccrual(cap=5.0))
    now = 299 * STEP
    for n in range(NEW_PACE - 1):
        now += 800 * MS
        phi.beat(300 + n, now)
    assert (phi.odd, round(after_ms(phi, 8.0))) == (9, 456)
    phi.beat(400, now + 800 * MS)
    assert phi.odd == 0
    assert after_ms(phi, 8.0) > 1100
    assert phi.snapshot()["mean"] == pytest.approx(0.8, abs=0.01)


def test_an_interval_in_time_begins_the_count_of_odd_ones_anew() -> None:
    phi = fed(PhiAccrual())
    now = 299 * STEP
    for n in range(40):
        now += (700 if n % 5 else 100) * MS
        phi.beat(300 + n, now)
    assert after_ms(phi, 8.0) == pytest.approx(456, abs=1)


def test_the_cap_bounds_the_detection_time_whatever_was_learnt() -> None:
    phi = PhiAccrual(learn="all", cap=0.6)
    now = 0
    for n in range(300):
        now += (30 if n % 2 else 900) * MS
        phi.beat(n, now)
    assert after_ms(phi, 8.0) == 600
    assert after_ms(phi, 1.0) <= 600
    assert after_ms(phi, 12.0) == 900
    assert phi.suspicion(now + 600 * MS) >= 8.0
    assert phi.suspicion(now + 600 * MS - 1) < 8.0


def test_the_cap_follows_what_was_set() -> None:
    assert PhiAccrual().describe()["cap"] == 0.5
    assert PhiAccrual(interval=0.5).describe()["cap"] == 2.5
    assert PhiAccrual(floor=0.1).describe()["cap"] == pytest.approx(1.4)
    assert PhiAccrual(pause=3.0).describe()["cap"] == pytest.approx(3.2)
    assert PhiAccrual(shape="exponential").describe()["cap"] == pytest.approx(2.3)
    assert Quantile().describe()["cap"] == 1.0
    assert PhiAccrual(interval=0.5, cap=2.0).describe()["cap"] == 2.0


def test_the_exponential_shape_is_blind_to_regularity() -> None:
    phi = fed(PhiAccrual(shape="exponential", pause=0.0, cap=10.0))
    assert after_ms(phi, 8.0) == pytest.approx(8 * 2.302585 * 100, abs=5)
    paused = fed(PhiAccrual(shape="exponential", pause=0.3, cap=10.0))
    assert after_ms(paused, 8.0) == pytest.approx(300 + 8 * 2.302585 * 100, abs=5)


def test_a_day_between_beats_loses_no_digits() -> None:
    day = 86_400 * 1000 * MS
    phi = PhiAccrual(interval=86_400.0, pause=0.0, floor=0.01)
    for n in range(500):
        phi.beat(n, n * day + (n % 2) * 20 * MS)
    assert phi.snapshot()["deviation"] == pytest.approx(0.02, rel=0.01)


# --- quantile ------------------------------------------------------------------------------------


def test_the_quantile_is_that_of_the_window() -> None:
    quantile = Quantile(0.9, 2.0, window=10, learn="all", cap=5.0)
    now = 0
    for n, gap in enumerate([0, 900, *range(101, 111)]):
        now += gap * MS
        quantile.beat(n, now)
    assert quantile.snapshot()["quantile"] == 0.109
    assert after_ms(quantile, 8.0) == 218


def test_a_quantile_of_nothing_is_the_interval() -> None:
    assert after_ms(fed(Quantile(), 1), 8.0) == 300


def test_a_new_pace_is_the_new_quantile() -> None:
    quantile = fed(Quantile(cap=20.0))
    now = 299 * STEP
    for n in range(NEW_PACE):
        now += 1000 * MS
        quantile.beat(300 + n, now)
    assert after_ms(quantile, 8.0) == 3000


# --- the scale -----------------------------------------------------------------------------------


def test_levels_have_names() -> None:
    levels = Levels()
    assert [levels.name_of(s) for s in (0.0, 0.99, 1.0, 3.0, 7.99, 8.0, 500.0)] == [
        "trusted", "trusted", "watch", "avoid", "avoid", "evict", "evict",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("z", "phi"),
    [(-40.0, 0.0), (-3.0, 0.000586645), (0.0, 0.30103), (3.0, 2.869699), (8.0, 15.206143),
     (25.0, 137.51475), (30.0, 197.309), (100.0, 2173.8720)],
)  # fmt: skip
def test_the_tail_of_the_normal_distribution_is_right_however_far_out(
    z: float, phi: float
) -> None:
    assert normal_phi(z) == pytest.approx(phi, rel=1e-5, abs=1e-12)


def test_the_two_ways_to_compute_the_tail_meet() -> None:
    assert normal_phi(25.0 + 1e-9) - normal_phi(25.0) == pytest.approx(1.09e-8, rel=0.05)
    assert normal_phi(1e-12) == pytest.approx(normal_phi(-1e-12), abs=1e-11)


@pytest.mark.parametrize("phi", [1e-3, 0.3, 1.0, 3.0, 8.0, 12.0, 137.0, 138.0, 1000.0])
def test_its_inverse_is_its_inverse(phi: float) -> None:
    assert normal_phi(normal_z(phi)) == pytest.approx(phi, rel=1e-9)


def test_the_ring_knows_its_exact_deviation() -> None:
    ring = Ring(4)
    assert (ring.mean(), ring.deviation(), len(ring)) == (0, 0, 0)
    for value in (7, 7, 10**18, 10**18 + 4, 10**18, 10**18 + 4):
        ring.add(value)
    assert (ring.mean(), ring.deviation()) == (10**18 + 2, 2)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Fixed(0.0), "timeout is 0.0"),
        (lambda: Fixed(0.1, interval=0.1), "a timeout above the interval"),
        (lambda: Chen(0.0), "margin is 0.0"),
        (lambda: Chen(interval=0.0), "interval is 0.0"),
        (lambda: Chen(window=0), "window is 0"),
        (lambda: Bertier(gamma=0.0), "gamma is 0.0"),
        (lambda: Bertier(interval=0.001, floor=2.0), "floor is 2.0"),
        (lambda: PhiAccrual(floor=0.0), "floor is 0.0"),
        (lambda: PhiAccrual(window=1), "window is 1"),
        (lambda: PhiAccrual(window=True), "window is True"),
        (lambda: PhiAccrual(pause=-0.1), "pause is -0.1"),
        (lambda: PhiAccrual(cap=0.1), "a cap above the interval"),
        (lambda: PhiAccrual(learn="some"), "learn is 'some'"),  # type: ignore[arg-type]
        (lambda: PhiAccrual(shape="flat"), "shape is 'flat'"),  # type: ignore[arg-type]
        (lambda: PhiAccrual(interval="1"), "interval is '1'"),  # type: ignore[arg-type]
        (lambda: Quantile(q=1.5), "q is 1.5"),
        (lambda: Quantile(factor=1.0), "factor is 1.0"),
        (lambda: Levels(watch=4.0), "watch is 4.0"),
        (lambda: Levels(evict=2000.0), "evict is 2000.0"),
    ],
)
def test_a_setting_that_cannot_be_is_told_by_name(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()
