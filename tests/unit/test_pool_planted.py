"""What no other test noticed when it was broken on purpose (``tools/mutants``)."""

from outlast.pool import Endpoint, Outlier, Pool
from tests.support.pool_story import MS, S, Story


def test_four_instances_are_too_few_for_success_rates_however_strict_the_rule() -> None:
    story = Story(*"abcd", eject=Outlier(consecutive=0, failure=None, success_rate=1.0))
    for name in "abcd":
        story.ask_of(name, "ok", 20, MS)
    story.ask_of("a", "failed", 15, MS)
    story.now += S
    story.core.tend(story.now)
    assert story.told() == []


def test_a_second_lie_of_an_instance_that_is_ejected_is_no_ejection_given_up() -> None:
    pool = Pool("shop", ["a", "b", "c"], pick="round_robin")
    kept: list[Endpoint] = []
    for _ in range(4):
        pool.call(kept.append)
    assert kept[0].address == kept[3].address
    kept[0].lied("another replica says otherwise")
    kept[3].lied("and once more")
    state = pool.snapshot()
    assert (state["ejected"], state["ejections_given_up"]) == (1, 0)
