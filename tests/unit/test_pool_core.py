"""The decisions of a pool: choosing, and settings."""

from collections import Counter
from typing import Any

import pytest

from outlast.kernel import ConfigError
from outlast.pool import Found, Instance, Outlier, mad, p2c, peak_ewma, ramp
from outlast.pool.core.instance import found_of
from outlast.pool.core.settings import pick_of
from tests.support.pool_story import MS, S, Story

# --- choosing ------------------------------------------------------------------------------------


def test_round_robin_asks_one_after_another() -> None:
    story = Story("a", "b", "c")
    assert [story.ask() for _ in range(4)] == ["a", "b", "c", "a"]


def test_round_robin_interleaves_by_weight() -> None:
    story = Story("a", "b", "c", weights={"a": 5})
    asked = [story.ask() for _ in range(7)]
    assert Counter(asked) == {"a": 5, "b": 1, "c": 1}
    assert "".join(asked).count("aaa") == 0


def test_least_loaded_takes_who_has_fewest_calls_for_its_weight() -> None:
    story = Story("a", "b", weights={"b": 2}, pick=pick_of("least_loaded"))
    held = [story.take().member.address for _ in range(6)]
    assert Counter(held) == {"a": 2, "b": 4}


def test_least_loaded_goes_round_among_equals() -> None:
    assert Story("a", "b", "c", pick=pick_of("least_loaded")).chosen(30) == dict.fromkeys(
        "abc", 10
    )


def test_the_better_of_two_follows_the_weights_when_nothing_is_under_way() -> None:
    story = Story("a", "b", "c", weights={"a": 2}, pick=p2c())
    shares = story.chosen(4000)
    assert shares["a"] == pytest.approx(2000, abs=130)
    assert shares["b"] == pytest.approx(1000, abs=110)


def test_the_better_of_two_leaves_a_busy_one() -> None:
    story = Story("a", "b", pick=p2c())
    for _ in range(10):
        story.take("b")
    assert story.chosen(50) == {"b": 50}


def test_peak_ewma_takes_the_quick_one_and_notices_a_peak_at_once() -> None:
    story = Story("a", "b", pick=pick_of("peak_ewma"))
    story.ask_of("a", "ok", 1, 10 * MS)
    story.ask_of("b", "ok", 1, 20 * MS)
    assert story.chosen(5) == {"a": 5}
    story.ask_of("a", "ok", 1, 500 * MS)
    assert story.chosen(5) == {"b": 5}


def test_a_peak_fades() -> None:
    story = Story("a", "b", pick=pick_of(peak_ewma(decay=1)))
    story.ask_of("a", "ok", 1, 500 * MS)
    story.ask_of("b", "ok", 1, 20 * MS)
    story.now += 10 * S
    assert story.chosen(1) == {"b": 1}
    story.ask_of("b", "ok", 5, 20 * MS)
    story.now += 10 * S
    story.ask_of("b", "ok", 1, 20 * MS)
    assert story.chosen(1) == {"a": 1}


def test_with_peak_ewma_an_instance_that_has_not_answered_yet_is_asked_once() -> None:
    story = Story("a", "b", pick=pick_of("peak_ewma"))
    story.ask_of("b", "ok")
    assert story.take().member.address == "a"
    assert [story.take().member.address for _ in range(3)] == ["b", "b", "b"]


def test_a_quick_failure_is_no_low_latency_and_counts_as_load() -> None:
    for pick in ("peak_ewma", "least_loaded"):
        story = Story("a", "b", pick=pick_of(pick), eject=None)
        story.ask_of("a", "ok", 1, 20 * MS)
        story.ask_of("b", "ok", 1, 20 * MS)
        story.ask_of("a", "failed", 1, MS // 10)
        assert story.chosen(10) == {"b": 10}, pick


def test_a_quick_failure_moves_the_average_up_only() -> None:
    story = Story("a", "b", eject=None)
    for verdict, took in (("ok", 20), ("failed", 1), ("cut", 1)):
        story.ask_of("a", verdict, 1, took * MS)
        assert story.core.snapshot(story.now)["instances"][0]["latency"] == 0.02
    story.ask_of("a", "cut", 1, 900 * MS)
    assert story.core.snapshot(story.now)["instances"][0]["latency"] == 0.9


def test_a_busy_instance_is_spared_and_not_ejected() -> None:
    story = Story("a", "b", "c", pick=pick_of("least_loaded"))
    story.ask_of("a", "busy", 20)
    assert story.told() == []
    assert "a" not in story.chosen(20)


def test_an_attempt_goes_where_the_call_has_not_been_while_there_is_such_a_place() -> None:
    story = Story("a", "b", "c")
    assert story.take("a", "b").member.address == "c"
    assert story.take("a", "b", "c").member.address in "abc"


def test_there_is_nobody_in_an_empty_pool() -> None:
    assert Story().core.pick((), 0) is None


def test_instances_of_the_own_zone_are_preferred_while_enough_of_them_work() -> None:
    story = Story(zone="eu")
    zones = {"a": "eu", "b": "eu", "c": "eu", "d": "us"}
    story.find(*"abcd", zones=zones)
    assert "d" not in story.chosen(12)
    for name in "ab":
        for _ in range(3):
            story.core.checked(name, "down", story.now)
    assert story.chosen(12) == {"c": 6, "d": 6}


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Outlier(consecutive=-1),
        lambda: Outlier(failure=1.5),
        lambda: Outlier(latency=4),  # type: ignore[arg-type]
        lambda: Outlier(base=40, cap=30),
        lambda: Outlier(max_ejected=True),
        lambda: Outlier(success_rate=0),
        lambda: mad(0),
        lambda: ramp(-1),
        lambda: ramp(1, floor=0),
        lambda: peak_ewma(0),
        lambda: pick_of("random"),
        lambda: Instance(""),
        lambda: Instance("a", weight=0),
    ],
)
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_ways_to_choose_are_shown_as_they_are_written() -> None:
    names = ("p2c", "round_robin", "least_loaded", "peak_ewma")
    assert [str(pick_of(name)) for name in names] == [*names]
    assert str(p2c(peak_ewma())) == "p2c(peak_ewma())"


def test_an_instance_is_shown_by_its_address_and_what_is_none_is_refused() -> None:
    assert str(Instance("http://a", zone="eu")) == "http://a"
    assert pick_of(peak_ewma()) == pick_of("peak_ewma")
    for wrong in ("http://a", b"x", 5, [5]):
        with pytest.raises(ConfigError):
            found_of(wrong, 10)
    with pytest.raises(ConfigError, match="more than 1 instances"):
        found_of(Found((Instance("a"), Instance("b"))), 1)


def test_a_call_of_an_instance_that_was_ejected_meanwhile_ends_its_leave_at_once() -> None:
    story = Story("a", "b", "c")
    held = story.take("b", "c")
    story.ask_of("a", "lied")
    story.find("b", "c")
    story.core.done(held, "lied", MS, story.now)
    assert story.standing("a") == "gone"


def test_latencies_older_than_the_window_do_not_count_and_failures_have_none() -> None:
    rules = Outlier(consecutive=0, failure=None, success_rate=None)
    story = Story("a", "b", "c", eject=rules)
    for name, took in (("a", 10), ("b", 10), ("c", 100)):
        story.ask_of(name, "ok", 20, took * MS)
        story.told()
    story.now += 11 * S
    for name in "abc":
        story.ask_of(name, "failed", 20, MS)
    story.now += S
    story.core.tend(story.now)
    assert story.told() == []
