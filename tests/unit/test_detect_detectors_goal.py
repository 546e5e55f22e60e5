"""Parameters from a goal, and how well a detector did."""

import math
from typing import Any

import pytest

from outlast.detect import Fixed, PhiAccrual, Plan, Quality, for_goal, score
from outlast.detect.core.goal import _Net
from outlast.kernel import ConfigError, Prng

MS = 1_000_000
STEP = 100 * MS


def trace(beats: int, *, jitter_ms: int = 2, seed: int = 7) -> list[tuple[int | None, int]]:
    prng = Prng(seed)
    return [(n, n * STEP + prng.below(jitter_ms * MS)) for n in range(beats)]


# --- goals ---------------------------------------------------------------------------------------


def test_the_example_of_the_paper_comes_out() -> None:
    """Chen et al. 2002: 30 s, a mistake a month, 1 % lost, variance 0.02: eta = 9.71 s."""
    net = _Net(30.0 - 0.02, 0.01, 0.02, math.log(30 * 86_400))
    interval = net.longest_interval()
    assert interval == pytest.approx(9.71, abs=0.01)


@pytest.mark.parametrize("kind", ["chen", "phi", "fixed"])
def test_a_plan_meets_its_goal(kind: Any) -> None:
    plan = for_goal(detect_within=0.5, mistakes_per_day=1.0, interval=0.1, loss=0.01, kind=kind)
    assert plan.interval == 0.1
    assert plan.margin == pytest.approx(0.4)
    assert 0.0 < plan.mistakes_per_day <= 1.0
    detector = plan.detector()
    for n in range(300):
        detector.beat(n, n * STEP)
    late = detector.deadline_ns(8.0) - 299 * STEP
    assert 400 * MS < late <= 500 * MS


def test_the_interval_is_as_long_as_the_goal_allows() -> None:
    easy = for_goal(detect_within=1.0, mistakes_per_day=10.0, loss=0.01)
    hard = for_goal(detect_within=1.0, mistakes_per_day=0.1, loss=0.01)
    assert hard.interval < easy.interval < 0.5
    with pytest.raises(ConfigError):
        for_goal(detect_within=1.0, mistakes_per_day=0.1, loss=0.01, interval=easy.interval)


def test_beats_that_are_never_lost_nor_late_make_no_mistakes() -> None:
    plan = for_goal(detect_within=1.0, mistakes_per_day=1e-9, deviation=0.0)
    assert (plan.mistakes_per_day, plan.interval) == (0.0, pytest.approx(1.0, abs=0.01))


def test_a_delay_is_part_of_the_detection_time() -> None:
    plan = for_goal(detect_within=1.0, mistakes_per_day=1.0, delay=0.3, interval=0.1)
    assert plan.margin == pytest.approx(0.6)
    fixed = for_goal(
        detect_within=1.0, mistakes_per_day=1.0, delay=0.3, interval=0.1, kind="fixed"
    ).detector()
    assert fixed.describe()["timeout"] == pytest.approx(0.7)


def test_each_call_makes_a_new_detector() -> None:
    plan = for_goal(detect_within=0.5, mistakes_per_day=1.0, interval=0.1, kind="phi")
    assert isinstance(plan, Plan)
    assert plan.detector() is not plan.detector()
    assert plan.detector().describe()["cap"] == 0.5


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"interval": 0.1, "detect_within": 0.2, "loss": 0.01}, "within 0.41"),
        ({"interval": 0.3, "detect_within": 0.2, "loss": 0.01}, "with a beat every 0.3 s"),
        ({"detect_within": 0.05, "loss": 0.2, "deviation": 0.1}, "however often it beats"),
        ({"detect_within": 0.5, "delay": 0.5}, "the delay alone is 0.5 s"),
        ({"detect_within": 1.0, "interval": 0.1, "deviation": 0.12, "kind": "phi"}, "phi itself"),
        ({"detect_within": 4e4, "interval": 3e4, "mistakes_per_day": 1e-7, "loss": 0.9},
         "at no detection time"),
    ],
)  # fmt: skip
def test_a_goal_that_cannot_be_had_is_refused_with_the_nearest_that_can(
    wish: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        for_goal(**{"mistakes_per_day": 1.0, **wish})


def test_the_nearest_goal_can_be_had() -> None:
    with pytest.raises(ConfigError, match=r"within 0\.411 s"):
        for_goal(detect_within=0.2, mistakes_per_day=1.0, interval=0.1, loss=0.01)
    for_goal(detect_within=0.412, mistakes_per_day=1.0, interval=0.1, loss=0.01)


@pytest.mark.parametrize(
    "wrong",
    [{"detect_within": 0.0}, {"mistakes_per_day": 0.0}, {"loss": 1.0}, {"deviation": -1.0},
     {"delay": -0.1}, {"kind": "magic"}, {"interval": 0.0001}],
)  # fmt: skip
def test_a_wish_off_the_scale_is_told_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        for_goal(**{"detect_within": 1.0, "mistakes_per_day": 1.0, **wrong})


def test_a_trace_says_interval_loss_and_deviation() -> None:
    beats = [beat for beat in trace(2000) if beat[0] is None or beat[0] % 50]
    plan = for_goal(detect_within=0.6, mistakes_per_day=1.0, from_trace=beats)
    assert plan.interval == pytest.approx(0.1, rel=1e-3)
    assert plan.loss == pytest.approx(0.02, abs=0.001)
    assert plan.deviation == pytest.approx(0.002 / math.sqrt(12), rel=0.1)


def test_a_trace_without_numbers_will_do() -> None:
    beats: list[tuple[int | None, int]] = [(None, at) for _, at in trace(100)]
    assert for_goal(detect_within=0.6, mistakes_per_day=1.0, from_trace=beats).loss == 0.0


def test_what_was_given_counts_before_the_trace() -> None:
    plan = for_goal(
        detect_within=0.6, mistakes_per_day=1.0, from_trace=trace(100), interval=0.1, loss=0.05,
        deviation=0.005,
    )  # fmt: skip
    assert (plan.loss, plan.deviation, plan.interval) == (0.05, 0.005, 0.1)


def test_a_plan_must_do_on_its_own_trace_what_it_promises() -> None:
    beats = trace(500)
    frozen = beats[:250] + [(n, at + 900 * MS if n == 250 else at) for n, at in beats[250:]]
    frozen[251:260] = []
    with pytest.raises(ConfigError, match=r"would have had 1; its longest silence is 0\.999"):
        for_goal(
            detect_within=0.6, mistakes_per_day=1.0, from_trace=frozen, interval=0.1,
            loss=0.0, deviation=0.002,
        )  # fmt: skip


@pytest.mark.parametrize("beats", [trace(5), [*trace(30), *trace(30)]])
def test_a_trace_that_tells_nothing_is_refused(beats: list[tuple[int | None, int]]) -> None:
    with pytest.raises(ConfigError, match="from_trace has"):
        for_goal(detect_within=0.6, mistakes_per_day=1.0, from_trace=beats)


# --- quality -------------------------------------------------------------------------------------


def test_mistakes_and_detections_are_told_apart() -> None:
    quality = Quality()
    quality.begin(0)
    for begun, ended in ((10, 11), (30, 32), (60, 63)):
        quality.suspected(begun * 1000 * MS)
        quality.suspected(begun * 1000 * MS + 1)
        quality.trusted(ended * 1000 * MS)
    quality.stopped(100 * 1000 * MS)
    quality.stopped(101 * 1000 * MS)
    quality.suspected(100_500 * MS)
    made = quality.score(200 * 1000 * MS)
    assert (made.mistakes, made.recurrence, made.duration) == (3, 25.0, 2.0)
    assert (made.detection, made.detection_p99, made.seconds) == (0.5, 0.5, 100.0)
    assert made.accuracy == pytest.approx(0.94)
    assert made.mistakes_per_day == pytest.approx(3 * 864)
    assert quality.snapshot() == {"mistakes": 3, "detections": 1}


def test_a_sender_that_began_again_is_measured_on() -> None:
    quality = Quality()
    quality.begin(0)
    quality.stopped(10 * STEP)
    quality.suspected(15 * STEP)
    quality.trusted(20 * STEP)
    quality.begin(20 * STEP)
    assert quality.score(30 * STEP).mistakes == 0
    assert quality.score(30 * STEP).seconds == 2.0


def test_a_suspicion_that_was_on_when_it_stopped_was_a_mistake_until_then() -> None:
    quality = Quality()
    quality.begin(0)
    quality.suspected(10 * STEP)
    quality.stopped(20 * STEP)
    quality.suspected(21 * STEP)
    made = quality.score(30 * STEP)
    assert (made.mistakes, made.duration, made.detection) == (1, 1.0, 0.0)


def test_nothing_measured_is_nothing_told() -> None:
    quality = Quality()
    quality.suspected(1)
    quality.stopped(2)
    made = quality.score(3)
    assert (made.mistakes, made.accuracy, made.detection, made.recurrence) == (0, None, None, None)
    assert score([], Fixed(1.0)).detection is None


def test_only_so_many_detections_are_remembered() -> None:
    quality = Quality(keep=3)
    for n in range(10):
        quality.begin(n * STEP)
        quality.stopped(n * STEP)
        quality.suspected(n * STEP + n * MS)
    assert quality.score(10 * STEP).detection == 0.008
    with pytest.raises(ConfigError, match="keep is 0"):
        Quality(keep=0)


def test_a_replay_counts_silences_beyond_the_deadline() -> None:
    beats = trace(100, jitter_ms=1)
    late = [*beats, (100, 100 * STEP + 450 * MS), (101, 101 * STEP + 450 * MS)]
    made = score(late, Fixed(0.5))
    assert (made.mistakes, made.detection, made.detection_p99) == (1, 0.5, 0.5)
    assert made.duration == pytest.approx(0.05, abs=0.002)
    assert score(late, Fixed(0.5), skip=101).mistakes == 0
    assert score(late, Fixed(0.5), level=16.0).mistakes == 0


def test_a_replay_can_be_gated() -> None:
    late = [*trace(100, jitter_ms=1), (100, 100 * STEP + 450 * MS)]
    gated = score(late, Fixed(0.5), postpone=lambda due_ns: due_ns + STEP)
    assert (gated.mistakes, gated.detection) == (0, 0.6)


def test_the_default_makes_no_mistake_on_steady_beats() -> None:
    made = score(trace(600), PhiAccrual(), skip=100)
    assert made.mistakes == 0
    assert made.detection is not None
    assert made.detection < 0.5
