"""The rules of a supervisor: order, strategies, limits, what follows them."""

from collections.abc import Sequence
from typing import Any

import pytest

from outlast.detect import RestartBackoff, RestartPolicy
from outlast.detect.core.restarting import ChildRule, TreeRules
from outlast.detect.core.supervision import (
    Effect,
    Ended,
    Exit,
    GaveUp,
    Looping,
    Restarting,
    Start,
    Stop,
    Supervision,
)
from outlast.kernel import ConfigError, Prng

NS = 1_000_000_000
CRASH = Exit(False, 1, "crashed")
DONE = Exit(True, 0, "done")


class Tree:
    """A core whose children do at once what they are told; says what happened in short words."""

    def __init__(self, *children: ChildRule | str, auto: bool = True, **rules: Any) -> None:
        named = [ChildRule(one) if isinstance(one, str) else one for one in children]
        rules.setdefault("backoff", RestartBackoff(base=1.0, cap=8.0, jitter=0))
        self.core = Supervision(TreeRules(**rules), named)
        self.auto = auto
        self.now = 0
        self.said: list[str] = []
        self.prng = Prng(1)

    def do(self, effects: Sequence[Effect]) -> list[str]:
        """Obey, and return what was said since the last time."""
        todo = list(effects)
        while todo:
            one = todo.pop(0)
            if isinstance(one, Start):
                self.said.append(f"start {self.name(one.index)}")
                if self.auto:
                    todo += self.core.ready(one.index, one.instance, self.now)
            elif isinstance(one, Stop):
                self.said.append(f"stop {self.name(one.index)}")
                if self.auto:
                    todo += self.core.ended(one.index, one.instance, DONE, self.now, self.prng)
            elif isinstance(one, Restarting):
                self.said.append(f"again {self.name(one.index)} {one.delay_ns / NS:g}")
            elif isinstance(one, Looping):
                wait = "never" if one.delay_ns is None else f"{one.delay_ns / NS:g}"
                self.said.append(f"loop {self.name(one.index)} {wait}")
            elif isinstance(one, GaveUp):
                self.said.append(f"gave up {self.name(one.index)}")
            else:
                words = ["ended", *(["failed"] * one.failed), *(["escalate"] * one.escalate)]
                self.said.append(" ".join(words))
        said, self.said = self.said, []
        return said

    def name(self, index: int) -> str:
        return self.core.slots[index].rule.name

    def begin(self) -> list[str]:
        return self.do(self.core.begin(self.now))

    def exits(self, index: int, exit_: Exit = CRASH) -> list[str]:
        slot = self.core.slots[index]
        return self.do(self.core.ended(index, slot.instance, exit_, self.now, self.prng))

    def ready(self, index: int) -> list[str]:
        return self.do(self.core.ready(index, self.core.slots[index].instance, self.now))

    def after(self, seconds: float) -> list[str]:
        self.now += round(seconds * NS)
        return self.do(self.core.tick(self.now))


def test_children_start_in_order_and_stop_in_reverse() -> None:
    tree = Tree("a", "b", "c")
    assert tree.begin() == ["start a", "start b", "start c"]
    assert tree.core.settled
    assert tree.do(tree.core.shut(0)) == ["stop c", "stop b", "stop a", "ended"]
    assert not tree.core.running


def test_the_next_child_waits_until_the_one_before_is_ready() -> None:
    tree = Tree("a", "b", auto=False)
    assert tree.begin() == ["start a"]
    assert tree.after(100) == []
    assert tree.ready(0) == ["start b"]
    assert not tree.core.settled
    assert tree.ready(1) == []
    assert tree.core.settled


def test_only_one_child_is_stopped_at_a_time() -> None:
    tree = Tree("a", "b", auto=False)
    tree.begin()
    tree.ready(0)
    tree.ready(1)
    assert tree.do(tree.core.shut(0)) == ["stop b"]
    assert tree.do(tree.core.shut(0)) == []
    assert tree.exits(1) == ["stop a"]
    assert tree.exits(0) == ["ended"]


def test_a_child_that_fails_before_it_is_ready_keeps_those_behind_it_waiting() -> None:
    tree = Tree("a", "b", auto=False)
    tree.begin()
    assert tree.exits(0) == ["again a 0", "start a"]
    assert tree.exits(0) == ["again a 1"]
    assert tree.core.next_ns() == NS
    assert tree.after(1) == ["start a"]
    assert tree.ready(0) == ["start b"]


def test_one_for_one_starts_the_one_that_ended_and_does_not_wait_for_others() -> None:
    tree = Tree("a", "b", auto=False)
    tree.begin()
    tree.ready(0)
    tree.ready(1)
    assert tree.exits(0) == ["again a 0", "start a"]
    assert tree.exits(1) == ["again b 0", "start b"]


def test_one_for_all_stops_all_in_reverse_and_starts_all_in_order() -> None:
    tree = Tree("a", "b", "c", strategy="one_for_all")
    tree.begin()
    assert tree.exits(1) == ["again b 0", "stop c", "stop a", "start a", "start b", "start c"]


def test_rest_for_one_leaves_those_before_alone() -> None:
    tree = Tree("a", "b", "c", strategy="rest_for_one")
    tree.begin()
    assert tree.exits(1) == ["again b 0", "stop c", "start b", "start c"]


def test_a_group_waits_together() -> None:
    tree = Tree("a", "b", strategy="one_for_all")
    tree.begin()
    tree.exits(0)
    assert tree.exits(0) == ["again a 1", "stop b"]
    assert tree.after(0.5) == []
    assert tree.after(0.5) == ["start a", "start b"]


def test_a_child_that_crashes_while_its_group_is_stopped_is_not_counted() -> None:
    tree = Tree("a", "b", "c", strategy="one_for_all", auto=False)
    tree.begin()
    for index in range(3):
        tree.ready(index)
    assert tree.exits(0) == ["again a 0", "stop c"]
    assert tree.exits(1) == []
    assert tree.exits(2) == ["start a"]


def test_a_finished_transient_child_takes_part_when_its_group_begins_anew() -> None:
    tree = Tree(ChildRule("once", "transient"), "b", strategy="one_for_all")
    tree.begin()
    assert tree.exits(0, DONE) == []
    assert tree.exits(1) == ["again b 0", "start once", "start b"]


def test_a_temporary_child_is_stopped_with_its_group_and_never_started_again() -> None:
    tree = Tree("a", ChildRule("t", "temporary"), strategy="one_for_all")
    tree.begin()
    assert tree.exits(0) == ["again a 0", "stop t", "start a"]
    assert tree.core.slots[1].over == "done"


@pytest.mark.parametrize(
    ("restart", "exit_", "again"),
    [
        ("permanent", DONE, True),
        ("permanent", CRASH, True),
        ("transient", DONE, False),
        ("transient", CRASH, True),
        ("temporary", CRASH, False),
    ],
)
def test_which_ends_are_followed_by_a_start(restart: Any, exit_: Exit, again: bool) -> None:
    tree = Tree(ChildRule("a", restart), "b")
    tree.begin()
    assert tree.exits(0, exit_) == (["again a 0", "start a"] if again else [])


def test_a_final_code_is_not_followed_by_a_start() -> None:
    tree = Tree(ChildRule("a", final=(7,)), "b")
    tree.begin()
    assert tree.exits(0, Exit(False, 7)) == []
    assert tree.core.slots[0].over == "done"


def test_when_all_have_done_their_work_the_supervisor_ends() -> None:
    tree = Tree(ChildRule("a", "transient"), ChildRule("b", "temporary"))
    tree.begin()
    assert tree.exits(0, DONE) == []
    assert tree.exits(1, CRASH) == ["ended"]


def test_restarts_of_all_children_count_together() -> None:
    tree = Tree("a", "b", intensity=2, on_limit="stop")
    tree.begin()
    tree.exits(0)
    tree.exits(1)
    assert tree.exits(0) == ["loop a never", "stop b", "ended failed"]
    ending = tree.core.ending
    assert ending is not None
    assert ending.reason == "3 restarts within 60 s, the last of a (crashed)"


def test_restarts_outside_the_period_do_not_count() -> None:
    tree = Tree("a", intensity=1, period=10.0, on_limit="stop")
    tree.begin()
    for _ in range(20):
        assert tree.exits(0) == ["again a 0", "start a"]
        tree.after(10)


def test_escalating_says_so_to_the_parent() -> None:
    tree = Tree("a", intensity=0, on_limit="escalate")
    tree.begin()
    assert tree.exits(0) == ["loop a never", "ended failed escalate"]


def test_a_slow_supervisor_goes_on_at_the_cap() -> None:
    tree = Tree("a", intensity=1)
    tree.begin()
    tree.exits(0)
    for _ in range(5):
        assert tree.exits(0) == ["loop a 8"]
        assert tree.core.slots[0].looping
        assert tree.after(7.9) == []
        assert tree.after(0.1) == ["start a"]


def test_waits_double_and_are_forgotten_after_a_healthy_time() -> None:
    tree = Tree("a", intensity=100, backoff=RestartBackoff(base=1.0, cap=4.0, jitter=0))
    tree.begin()
    waits = []
    for _ in range(5):
        waits.append(tree.exits(0)[0])
        tree.after(4)
    assert waits == ["again a 0", "again a 1", "again a 2", "again a 4", "again a 4"]
    tree.after(10)
    assert tree.exits(0)[0] == "again a 0"


def test_a_crash_loop_is_over_once_the_child_has_been_up_long_enough() -> None:
    tree = Tree("a", intensity=0)
    tree.begin()
    tree.exits(0)
    tree.after(8)
    assert tree.core.next_ns() == 18 * NS
    tree.after(9.9)
    assert tree.core.slots[0].looping
    tree.after(0.1)
    assert not tree.core.slots[0].looping
    assert tree.core.next_ns() is None


def test_waits_are_shortened_by_chance_and_never_lengthened() -> None:
    backoff, prng = RestartBackoff(base=1.0, cap=4.0, jitter=0.5), Prng(3)
    drawn = [backoff.delay_ns(3, prng) / NS for _ in range(500)]
    assert 1.0 <= min(drawn) < 1.02
    assert 1.98 < max(drawn) <= 2.0
    assert backoff.delay_ns(1, prng) == 0


def test_a_policy_of_its_own_replaces_the_limit_of_the_supervisor() -> None:
    policy = RestartPolicy(intensity=1, base=1e-9, cap=1e-9)
    tree = Tree(ChildRule("a", policy=policy), "b", intensity=0, on_limit="stop")
    tree.begin()
    assert tree.exits(0)[0].startswith("again a")
    tree.after(1)
    assert tree.exits(0) == ["loop a never", "gave up a"]
    assert tree.core.running


def test_a_slow_policy_of_its_own_goes_on() -> None:
    policy = RestartPolicy(intensity=0, base=1.0, cap=3.0, slow=True)
    tree = Tree(ChildRule("a", policy=policy), "b")
    tree.begin()
    assert tree.exits(0) == ["loop a 3"]
    assert tree.after(3) == ["start a"]


def test_a_policy_decides_about_ends_without_a_code_as_about_failures() -> None:
    tree = Tree(ChildRule("a", "transient", policy=RestartPolicy(restart="transient")), "b")
    tree.begin()
    assert tree.exits(0, Exit(False, 0, "not ready"))[0].startswith("again a")
    tree.after(1)
    assert tree.exits(0, DONE) == []


def test_a_policy_that_says_stay_down_is_obeyed() -> None:
    tree = Tree(ChildRule("a", policy=RestartPolicy(final=(3,))), "b")
    tree.begin()
    assert tree.exits(0, Exit(False, 3)) == []
    assert tree.core.slots[0].over == "done"


def test_a_child_that_gave_itself_up_stays_down() -> None:
    tree = Tree("a", "b")
    tree.begin()
    assert tree.exits(0, Exit(False, 1, "no use", final=True)) == ["gave up a"]
    assert tree.core.slots[0].over == "crash-loop"


def test_the_end_of_one_significant_child_ends_the_supervisor() -> None:
    job = ChildRule("job", "transient", significant=True)
    tree = Tree("a", job, "c", auto_shutdown="any_significant")
    tree.begin()
    assert tree.exits(1, CRASH) == ["again job 0", "start job"]
    assert tree.exits(1, DONE) == ["stop c", "stop a", "ended"]


def test_all_significant_children_must_end() -> None:
    jobs = [ChildRule(name, "temporary", significant=True) for name in "ab"]
    tree = Tree(*jobs, "c", auto_shutdown="all_significant")
    tree.begin()
    assert tree.exits(0) == []
    assert tree.exits(1) == ["stop c", "ended"]


def test_significant_children_do_nothing_if_shutdown_is_never_automatic() -> None:
    tree = Tree(ChildRule("a", "temporary", significant=True), "b")
    tree.begin()
    assert tree.exits(0) == []


def test_reports_about_an_older_instance_are_ignored() -> None:
    tree = Tree("a", auto=False)
    tree.begin()
    assert tree.do(tree.core.ready(0, 7, 0)) == []
    assert tree.do(tree.core.ended(0, 7, CRASH, 0, Prng(1))) == []
    assert tree.do(tree.core.stuck(0, 7, 0)) == []
    assert tree.core.slots[0].phase == "starting"
    tree.exits(0)
    tree.exits(0)
    assert tree.exits(0) == []
    assert tree.core.slots[0].failures == 2


def test_one_that_does_not_stop_is_passed_over_and_not_started_before_it_ends() -> None:
    tree = Tree("a", "b", strategy="one_for_all", auto=False)
    tree.begin()
    tree.ready(0)
    tree.ready(1)
    assert tree.exits(0) == ["again a 0", "stop b"]
    assert tree.do(tree.core.stuck(1, 1, 0)) == ["start a"]
    assert tree.ready(0) == []
    assert tree.exits(1) == ["start b"]


def test_one_that_does_not_stop_does_not_hold_up_a_shutdown() -> None:
    tree = Tree("a", "b", auto=False)
    tree.begin()
    tree.ready(0)
    tree.ready(1)
    tree.do(tree.core.shut(0))
    assert tree.do(tree.core.stuck(1, 1, 0)) == ["stop a"]
    assert tree.exits(0) == ["ended"]
    assert tree.exits(1) == []


def test_a_stuck_child_that_ends_is_started_again_without_being_counted() -> None:
    tree = Tree("a", "b", intensity=0, on_limit="stop")
    tree.begin()
    tree.do(tree.core.stuck(0, 1, 0))
    assert tree.core.slots[0].phase == "stuck"
    assert tree.exits(0) == ["start a"]


def test_a_shutdown_while_a_restart_waits_starts_nothing() -> None:
    tree = Tree("a", "b")
    tree.begin()
    tree.exits(0)
    tree.exits(0)
    assert tree.do(tree.core.shut(0)) == ["stop b", "ended"]
    assert tree.core.next_ns() is None
    assert tree.after(100) == []


def test_a_child_that_stays_down_can_be_started_by_hand_and_counts_afresh() -> None:
    tree = Tree("a", intensity=0, on_limit="stop")
    tree.begin()
    tree.exits(0)
    assert not tree.core.running
    assert tree.do(tree.core.restart(0, 5)) == ["start a"]
    assert tree.core.running
    assert tree.do(tree.core.restart(0, 5)) == []


def test_it_can_begin_again_after_its_end() -> None:
    tree = Tree("a", "b")
    tree.begin()
    tree.do(tree.core.shut(0))
    assert tree.do(tree.core.shut(0)) == []
    assert tree.begin() == ["start a", "start b"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TreeRules(strategy="all"), "strategy is 'all'"),  # type: ignore[arg-type]
        (lambda: TreeRules(on_limit="die"), "on_limit is 'die'"),  # type: ignore[arg-type]
        (lambda: TreeRules(auto_shutdown="x"), "auto_shutdown"),  # type: ignore[arg-type]
        (lambda: TreeRules(intensity=-1), "intensity is -1"),
        (lambda: TreeRules(period=0), "period is 0"),
        (lambda: RestartBackoff(base=0), "base is 0"),
        (lambda: RestartBackoff(cap=float("inf")), "cap is inf"),
        (lambda: RestartBackoff(base=2, cap=1), "below base"),
        (lambda: RestartBackoff(jitter=2), "jitter is 2"),
        (lambda: ChildRule("a", "always"), "restart is 'always'"),  # type: ignore[arg-type]
        (lambda: ChildRule("a", significant=True), "never ends for good"),
    ],
)
def test_settings_are_checked(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_an_ending_says_whether_somebody_asked_for_it() -> None:
    tree = Tree("a")
    tree.begin()
    tree.do(tree.core.shut(0, "told to"))
    assert tree.core.ending == Ended("told to", asked=True)


def test_a_child_that_has_done_its_work_can_be_started_by_hand() -> None:
    tree = Tree(ChildRule("a", "transient"), "b")
    tree.begin()
    tree.exits(0, DONE)
    assert tree.do(tree.core.restart(0, 0)) == ["start a"]


def test_a_group_leaves_out_those_that_stay_down() -> None:
    tree = Tree("a", ChildRule("t", "temporary"), ChildRule("f", final=(7,)),
                strategy="one_for_all")  # fmt: skip
    tree.begin()
    tree.exits(1)
    tree.exits(2, Exit(False, 7, ""))
    assert tree.exits(0, Exit(False, 1)) == ["again a 0", "start a"]


def test_a_temporary_child_that_waits_for_its_turn_starts_with_its_group() -> None:
    tree = Tree("a", ChildRule("t", "temporary"), strategy="one_for_all", auto=False)
    tree.begin()
    assert tree.exits(0) == ["again a 0", "start a"]
    assert tree.ready(0) == ["start t"]


def test_a_limit_without_a_reason_names_the_child() -> None:
    tree = Tree("a", intensity=0, on_limit="stop")
    tree.begin()
    tree.exits(0, Exit(False, 1))
    assert tree.core.ending is not None
    assert tree.core.ending.reason == "1 restarts within 60 s, the last of a"


def test_starting_by_hand_changes_nothing_for_one_that_runs() -> None:
    tree = Tree("a")
    tree.begin()
    tree.exits(0)
    assert tree.do(tree.core.restart(0, 0)) == []
    assert tree.core.slots[0].failures == 1


def test_nothing_is_started_by_hand_while_all_are_being_stopped() -> None:
    tree = Tree("a", ChildRule("b", "temporary"), auto=False)
    tree.begin()
    tree.ready(0)
    tree.exits(1)
    assert tree.do(tree.core.shut(0)) == ["stop a"]
    assert tree.do(tree.core.restart(1, 0)) == []
    assert tree.exits(0) == ["ended"]
