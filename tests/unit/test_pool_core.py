"""The decisions of a pool: choosing, ejecting, readmitting, panic, draining, active checks."""

from collections import Counter
from typing import Any

import pytest

from outlast.kernel import ConfigError, Event, Prng
from outlast.pool import (
    Found,
    Instance,
    InstanceCheckFailed,
    InstanceCheckPassed,
    InstanceEjected,
    InstanceReadmitted,
    Outlier,
    PoolCalmed,
    PoolChanged,
    PoolPanicked,
    mad,
    p2c,
    peak_ewma,
    ramp,
)
from outlast.pool.core.instance import found_of
from outlast.pool.core.member import PROBE_NS
from outlast.pool.core.pool import Picked, PoolCore, Rules
from outlast.pool.core.settings import pick_of

S = 1_000_000_000
MS = 1_000_000


class Story:
    """A pool, its time, and what it has told."""

    def __init__(self, *names: str, weights: dict[str, float] | None = None, **rules: Any) -> None:
        given = {"pick": pick_of("round_robin"), "readmit": ramp(0), **rules}
        self.core = PoolCore("shop", Rules(**given), Prng(7))
        self.now = 0
        self.weights = weights or {}
        self.find(*names)
        self.core.events.clear()

    def find(self, *names: str, avoid: str = "", zones: dict[str, str] | None = None) -> None:
        made = tuple(
            Instance(name, self.weights.get(name, 1.0), (zones or {}).get(name, ""))
            for name in names
        )
        self.core.found(Found(made, frozenset(avoid)), self.now)

    def take(self, *tried: str) -> Picked:
        picked = self.core.pick(tried, self.now)
        assert picked is not None
        return picked

    def ask(self, verdict: Any = "ok", took: int = 10 * MS, *tried: str) -> str:
        picked = self.take(*tried)
        self.now += took
        self.core.done(picked, verdict, took, self.now)
        return picked.member.address

    def ask_of(self, name: str, verdict: Any, times: int = 1, took: int = 10 * MS) -> None:
        """Call ``name``, by leaving all others out."""
        others = [member.address for member in self.core.members if member.address != name]
        for _ in range(times):
            assert self.ask(verdict, took, *others) == name

    def told(self) -> list[Event]:
        told, self.core.events = self.core.events, []
        return told

    def standing(self, name: str) -> str:
        self.core.tend(self.now)
        member = self.core.member(name)
        return "gone" if member is None else member.standing

    def chosen(self, count: int) -> Counter[str]:
        return Counter(self.ask() for _ in range(count))


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


def ejected(**rules: Any) -> Story:
    story = Story("a", "b", "c", **rules)
    story.ask_of("a", "failed", 5)
    story.told()
    return story


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


def test_while_a_probe_is_under_way_others_go_elsewhere() -> None:
    story = ejected()
    story.now += 31 * S
    assert story.take().probe
    assert [story.take().probe for _ in range(3)] == [False] * 3
