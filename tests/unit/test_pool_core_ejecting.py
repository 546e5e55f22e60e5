"""The decisions of a pool: ejecting what fails, lies or is slow, and readmitting it."""

from collections import Counter

import pytest

from outlast.kernel import Event
from outlast.pool import InstanceEjected, InstanceReadmitted, Outlier, mad, p2c, ramp
from outlast.pool.core.member import PROBE_NS
from tests.support.pool_story import MS, S, Story, ejected

# --- ejecting ------------------------------------------------------------------------------------


def test_five_failures_in_a_row_eject_and_the_event_has_the_numbers() -> None:
    story = Story("a", "b", "c")
    story.ask_of("a", "failed", 4)
    assert story.told() == []
    story.ask_of("a", "failed")
    (event,) = story.told()
    assert isinstance(event, InstanceEjected)
    assert (event.endpoint, event.why, event.value, event.limit, event.times) == (
        "a", "consecutive failures", 5, 5, 1,
    )  # fmt: skip
    assert 24 <= event.seconds <= 30
    assert "a" not in story.chosen(20)


def test_a_success_ends_a_row_of_failures() -> None:
    story = Story("a", "b", "c")
    for _ in range(10):
        story.ask_of("a", "failed", 4)
        story.ask_of("a", "ok", 5)
    assert story.told() == []


def test_half_of_twenty_calls_failed_ejects() -> None:
    story = Story("a", "b", "c", eject=Outlier(consecutive=0, success_rate=None))
    for _ in range(9):
        story.ask_of("a", "ok")
        story.ask_of("a", "failed")
    story.now += S
    story.core.tend(story.now)
    assert story.told() == []
    story.ask_of("a", "ok")
    story.ask_of("a", "failed")
    story.now += S
    story.core.tend(story.now)
    (event,) = story.told()
    assert isinstance(event, InstanceEjected)
    assert (event.why, event.value, event.limit) == ("failure rate", 0.5, 0.5)


def test_failures_older_than_the_window_do_not_count() -> None:
    story = Story("a", "b", "c", eject=Outlier(consecutive=0))
    story.ask_of("a", "failed", 19)
    story.now += 11 * S
    story.ask_of("a", "failed", 1)
    story.now += S
    story.core.tend(story.now)
    assert story.told() == []


def test_a_success_rate_far_below_the_others_ejects() -> None:
    story = Story(*"abcdefgh", eject=Outlier(consecutive=0, failure=None))
    for name in "abcdefgh":
        story.ask_of(name, "ok", 20, MS)
    story.ask_of("a", "failed", 5, MS)
    story.now += S
    story.core.tend(story.now)
    (event,) = story.told()
    assert isinstance(event, InstanceEjected)
    assert (event.endpoint, event.why, event.value) == ("a", "success rate", 0.8)


def test_four_instances_are_too_few_for_success_rates() -> None:
    story = Story(*"abcd", eject=Outlier(consecutive=0, failure=None))
    for name in "abcd":
        story.ask_of(name, "ok", 20, MS)
    story.ask_of("a", "failed", 15, MS)
    story.now += S
    story.core.tend(story.now)
    assert story.told() == []


def slow(story: Story, **took: int) -> list[Event]:
    for name, each in took.items():
        story.ask_of(name, "ok", 20, each * MS)
    story.now += S
    story.core.tend(story.now)
    return story.told()


def test_an_instance_much_slower_than_the_others_is_ejected() -> None:
    (event,) = slow(Story("a", "b", "c"), a=10, b=11, c=100)
    assert isinstance(event, InstanceEjected)
    assert (event.endpoint, event.why, event.value) == ("c", "latency", 0.1)
    assert event.limit == pytest.approx(0.022)


def test_an_instance_a_little_slower_is_not_ejected_even_where_the_others_are_equal() -> None:
    assert slow(Story("a", "b", "c"), a=10, b=10, c=14) == []
    assert slow(Story("a", "b", "c"), a=1, b=1, c=5) == []  # four times, but only 4 ms


def test_of_two_instances_none_is_odd() -> None:
    rules = Outlier(max_ejected=1, latency=mad(0.5, times=1))
    assert slow(Story("a", "b", eject=rules), a=10, b=200) == []
    assert len(slow(Story("a", "b", "c", eject=rules), a=10, b=10, c=200)) == 1


def test_where_latencies_spread_a_wide_one_is_no_outlier() -> None:
    assert slow(Story(*"abcde"), a=10, b=60, c=100, d=150, e=230) == []


def test_latency_can_be_left_out() -> None:
    assert slow(Story("a", "b", "c", eject=Outlier(latency=None)), a=10, b=10, c=200) == []


def test_one_wrong_answer_ejects() -> None:
    story = Story("a", "b", "c")
    story.ask_of("a", "lied")
    (event,) = story.told()
    assert isinstance(event, InstanceEjected)
    assert (event.why, event.value, event.limit) == ("lies", 1, 1)


def test_lies_can_be_allowed_for() -> None:
    story = Story("a", "b", "c", eject=Outlier(lies=3, consecutive=0))
    story.ask_of("a", "lied", 2)
    assert story.told() == []
    story.ask_of("a", "lied")
    assert isinstance(story.told()[0], InstanceEjected)


def test_errors_of_our_own_and_cancelled_calls_eject_nobody() -> None:
    for verdict in ("ours", "cut"):
        story = Story("a", "b", "c")
        story.ask_of("a", verdict, 50)
        story.now += S
        story.core.tend(story.now)
        assert story.told() == []


def test_a_call_that_we_gave_too_little_time_ejects_nobody_and_one_with_time_enough_does() -> None:
    story = Story("a", "b", "c")
    for name in "abc":
        story.ask_of(name, "ok", 3, 100 * MS)
    story.now += S
    story.core.tend(story.now)
    story.ask_of("a", "late", 10, 150 * MS)
    assert story.told() == []
    story.ask_of("a", "late", 5, 250 * MS)
    assert isinstance(story.told()[0], InstanceEjected)


def test_a_late_call_counts_while_nothing_is_known_of_the_others() -> None:
    story = Story("a", "b", "c")
    story.ask_of("a", "late", 5)
    assert isinstance(story.told()[0], InstanceEjected)


@pytest.mark.parametrize(("count", "most"), [(2, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_never_more_than_the_share_is_ejected_reckoned_after_the_ejection(
    count: int, most: int
) -> None:
    names = [f"i{number}" for number in range(count)]
    story = Story(*names)
    for name in names:
        others = [other for other in names if other != name]
        for _ in range(5):
            picked = story.core.pick(others, story.now)
            assert picked is not None
            if picked.member.address == name:
                story.core.done(picked, "failed", MS, story.now)
    assert len(story.told()) == most
    assert story.core.snapshot(story.now)["ejected"] == most
    assert (story.core.capped > 0) == (most < count)


def test_a_product_of_floats_does_not_lose_an_instance() -> None:
    names = [f"i{number}" for number in range(100)]
    story = Story(*names, eject=Outlier(max_ejected=0.29))
    for name in names[:40]:
        member = story.core.member(name)
        assert member is not None
        story.core.lied(member, 0)
    assert len(story.told()) == 29


def test_so_many_are_left_whatever_the_share_and_one_that_fails_its_check_is_not_left() -> None:
    story = Story("a", "b", "c", eject=Outlier(max_ejected=1, min_left=2))
    story.ask_of("a", "lied")
    assert len(story.told()) == 1
    story.ask_of("b", "lied")
    assert story.told() == []
    other = Story("a", "b", "c", eject=Outlier(max_ejected=1, min_left=2), panic=0.0)
    for _ in range(3):
        other.core.checked("b", "down", 0)
    other.told()
    other.ask_of("a", "lied")
    assert other.told() == []


def test_without_rules_nobody_is_ejected() -> None:
    story = Story("a", "b", "c", eject=None)
    story.ask_of("a", "failed", 50)
    story.ask_of("a", "lied", 5)
    story.now += 20 * S
    story.ask()
    assert story.told() == []


# --- readmitting ---------------------------------------------------------------------------------


def test_an_ejected_instance_comes_back_by_one_call_as_a_probe() -> None:
    story = ejected()
    story.now += 31 * S
    probe = story.take()
    assert (probe.member.address, probe.probe) == ("a", True)
    assert "a" not in story.chosen(20)
    story.core.done(probe, "ok", MS, story.now)
    (event,) = story.told()
    assert isinstance(event, InstanceReadmitted)
    assert event.endpoint == "a"
    assert event.after == pytest.approx(31.2, abs=0.1)
    assert story.chosen(30)["a"] == 10


def test_a_probe_that_fails_lengthens_the_ejection_up_to_the_cap() -> None:
    story = ejected(eject=Outlier(base=10, cap=25))
    seconds = []
    for _ in range(4):
        story.now += 26 * S
        assert story.ask("failed") == "a"
        (event,) = story.told()
        assert isinstance(event, InstanceEjected)
        assert event.why == "probe"
        seconds.append(event.seconds)
    assert 16 <= seconds[0] <= 20
    assert all(20 <= one <= 25 for one in seconds[1:])


def test_a_second_attempt_is_no_probe() -> None:
    story = ejected()
    story.now += 31 * S
    assert story.take("b").probe is False


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    story = ejected()
    story.now += 31 * S
    assert story.ask("cut") == "a"
    assert story.standing("a") == "half-open"
    assert story.ask("ok") == "a"
    assert story.standing("a") == "live"


def test_a_probe_that_nobody_ends_is_given_up() -> None:
    story = ejected()
    story.now += 31 * S
    lost = story.take()
    assert "a" not in story.chosen(4)
    story.now += PROBE_NS
    assert story.ask() == "a"
    story.core.done(lost, "failed", MS, story.now)
    assert story.standing("a") == "live"


def test_outcomes_of_calls_from_before_an_ejection_do_not_count_after_it() -> None:
    story = Story("a", "b", "c")
    old = [story.take("b", "c") for _ in range(12)]
    for picked in old[:5]:
        story.core.done(picked, "failed", MS, story.now)
    assert len(story.told()) == 1
    story.now += 31 * S
    assert story.ask() == "a"
    for picked in old[5:]:
        story.core.done(picked, "failed", MS, story.now)
    assert story.standing("a") == "live"
    assert all(member.in_flight == 0 for member in story.core.members)


def test_good_order_makes_the_next_ejection_shorter_again() -> None:
    story = ejected(eject=Outlier(base=10, cap=100))
    for _ in range(2):
        story.now += 21 * S
        assert story.ask("failed") == "a"
    story.now += 31 * S
    assert story.ask() == "a"
    story.told()
    for _ in range(21):
        story.now += S
        story.ask()
    story.ask_of("a", "failed", 5)
    (event,) = story.told()
    assert isinstance(event, InstanceEjected)
    assert event.times == 2


def test_a_readmitted_instance_gets_its_share_little_by_little() -> None:
    story = ejected(readmit=ramp(10), pick=p2c())
    story.now += 31 * S
    while story.standing("a") != "live":
        story.ask()
    shares = []
    for _ in range(3):
        picked = Counter()
        for _ in range(600):
            one = story.take()
            story.core.done(one, "ok", MS, story.now)
            picked[one.member.address] += 1
        shares.append(picked["a"])
        story.now += 5 * S
        story.core.tend(story.now)
    assert shares[0] < 60
    assert 60 < shares[1] < 170
    assert 150 < shares[2] < 250


def test_a_late_lie_ejects_and_one_of_an_ejected_instance_changes_nothing() -> None:
    story = Story("a", "b", "c")
    member = story.core.member("a")
    assert member is not None
    old = story.take("b", "c")
    story.core.lied(member, 0)
    assert len(story.told()) == 1
    story.core.done(old, "lied", MS, story.now)
    assert story.told() == []


def test_a_lie_of_a_call_from_before_counts_once_the_instance_is_back() -> None:
    story = Story("a", "b", "c")
    old = story.take("b", "c")
    story.ask_of("a", "failed", 5)
    story.now += 31 * S
    assert story.ask() == "a"
    story.told()
    story.core.done(old, "lied", MS, story.now)
    assert isinstance(story.told()[0], InstanceEjected)


def test_a_probe_that_lies_fails() -> None:
    story = ejected()
    story.now += 31 * S
    assert story.ask("lied") == "a"
    assert isinstance(story.told()[0], InstanceEjected)


def test_while_a_probe_is_under_way_others_go_elsewhere() -> None:
    story = ejected()
    story.now += 31 * S
    assert story.take().probe
    assert [story.take().probe for _ in range(3)] == [False] * 3
