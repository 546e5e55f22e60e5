"""The decisions of a pool: active checks, panic, avoiding, joining and leaving."""

import pytest

from outlast.pool import (
    InstanceCheckFailed,
    InstanceCheckPassed,
    InstanceReadmitted,
    PoolCalmed,
    PoolChanged,
    PoolPanicked,
    ramp,
)
from tests.support.pool_story import MS, S, Story, ejected

# --- checks, panic, avoiding ---------------------------------------------------------------------


def test_checks_take_an_instance_out_after_three_failures_and_back_after_two_passes() -> None:
    story = Story("a", "b", "c")
    for _ in range(2):
        story.core.checked("a", "down", 0)
    story.core.checked("a", None, 0)
    for _ in range(3):
        assert story.told() == []
        story.core.checked("a", "status 503", 0)
    (event,) = story.told()
    assert event == InstanceCheckFailed(name="shop", endpoint="a", failures=3, reason="status 503")
    assert "a" not in story.chosen(10)
    story.core.checked("a", None, 0)
    assert "a" not in story.chosen(10)
    story.core.checked("a", None, 0)
    assert story.told() == [InstanceCheckPassed(name="shop", endpoint="a", passes=2)]
    assert story.chosen(9)["a"] == 3
    story.core.checked("nobody", "down", 0)


def test_below_the_panic_threshold_all_get_calls_until_enough_are_back() -> None:
    story = Story("a", "b", "c", "d")
    for name in "abc":
        for _ in range(3):
            story.core.checked(name, "down", 0)
        story.chosen(1)
    told = story.told()
    assert told[-1] == PoolPanicked(name="shop", available=1, instances=4, threshold=0.5)
    assert story.chosen(8) == dict.fromkeys("abcd", 2)
    for name in "ab":
        for _ in range(2):
            story.core.checked(name, None, 0)
    assert story.chosen(9) == {"a": 3, "b": 3, "d": 3}
    assert PoolCalmed(name="shop", available=3, instances=4) in story.told()


def test_without_a_panic_threshold_there_may_be_nobody() -> None:
    story = Story("a", panic=0.0)
    for _ in range(3):
        story.core.checked("a", "down", 0)
    assert story.core.pick((), 0) is None


def test_exactly_the_threshold_is_no_panic() -> None:
    story = Story("a", "b")
    for _ in range(3):
        story.core.checked("a", "down", 0)
    assert story.chosen(4) == {"b": 4}


def test_a_suspected_instance_gets_calls_only_when_others_are_few() -> None:
    story = Story()
    story.find("a", "b", "c", avoid="a")
    assert "a" not in story.chosen(10)
    story.find("a", "b", "c", avoid="ab")
    assert story.chosen(9) == dict.fromkeys("abc", 3)
    story.find("a", "b", "c")
    assert story.chosen(9) == dict.fromkeys("abc", 3)


# --- joining and leaving -------------------------------------------------------------------------


def test_an_instance_that_leaves_gets_no_new_calls_and_its_old_ones_may_end() -> None:
    story = Story("a", "b")
    held = story.take("b")
    story.find("b")
    assert story.told() == [PoolChanged(name="shop", joined=(), leaving=("a",), instances=1)]
    assert story.chosen(5) == {"b": 5}
    assert story.standing("a") == "live"
    story.core.done(held, "ok", MS, story.now)
    assert story.standing("a") == "gone"


def test_calls_of_an_instance_that_leaves_are_not_waited_for_without_end() -> None:
    story = Story("a", "b", drain_ns=5 * S)
    held = story.take("b")
    story.find("b")
    story.now += 5 * S
    assert story.standing("a") == "gone"
    story.core.done(held, "ok", MS, story.now)


def test_an_instance_that_returns_while_it_leaves_stays() -> None:
    story = Story("a", "b")
    story.take("b")
    story.find("b")
    story.find("a", "b")
    assert story.chosen(4) == {"a": 2, "b": 2}


def test_one_that_joins_later_has_a_ramp_and_those_of_the_beginning_have_none() -> None:
    story = Story("a", "b", readmit=ramp(10))
    assert story.chosen(4) == {"a": 2, "b": 2}
    story.find("a", "b", "c")
    assert story.chosen(42)["c"] == 2


def test_a_new_weight_is_taken_over() -> None:
    story = Story("a", "b")
    story.weights = {"a": 3}
    story.find("a", "b")
    assert story.told() == []
    assert story.chosen(8) == {"a": 6, "b": 2}


def test_the_share_of_ejected_ones_is_kept_when_the_pool_becomes_smaller() -> None:
    story = Story(*"abcdef")
    for name in "ab":
        story.ask_of(name, "lied")
    story.told()
    story.find(*"abc")
    told = story.told()
    assert isinstance(told[-1], InstanceReadmitted)
    assert told[-1].why == "the pool has become smaller"
    assert story.core.snapshot(story.now)["ejected"] == 1


def test_draining_by_hand_holds_until_it_is_taken_back() -> None:
    story = Story("a", "b", "c")
    assert story.core.drain("a", 0)
    assert story.core.drain("a", 0)
    story.find("a", "b", "c")
    assert "a" not in story.chosen(10)
    assert story.core.drain("a", 0, draining=False)
    assert story.chosen(9)["a"] == 3
    assert not story.core.drain("nobody", 0)


def test_a_snapshot_tells_all_of_it() -> None:
    story = ejected()
    state = story.core.snapshot(story.now)
    assert (state["state"], state["usable"], state["ejected"]) == ("calm", 2, 1)
    (a, b, _) = state["instances"]
    assert (a["standing"], a["why"], a["times_ejected"]) == ("ejected", "consecutive failures", 1)
    assert 23 < a["seconds_left"] <= 30
    assert (b["standing"], b["why"], b["seconds_left"], b["latency"]) == ("live", "", 0, None)
    assert story.core.soonest_ns(story.now) == pytest.approx(a["seconds_left"] * S, abs=9)
    assert Story("a").core.soonest_ns(0) is None
