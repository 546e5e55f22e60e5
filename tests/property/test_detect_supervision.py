"""A supervisor's rules under any story: order, one instance at a time, limits, nobody left."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect import RestartBackoff, RestartPolicy
from outlast.detect.core.child_progress import ProgressDecider
from outlast.detect.core.restarting import ChildRule, TreeRules
from outlast.detect.core.supervision import (
    Effect,
    Ended,
    Exit,
    Looping,
    Restarting,
    Start,
    Stop,
    Supervision,
)
from outlast.kernel import Prng

NS = 1_000_000_000

rules = st.builds(
    TreeRules,
    strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
    intensity=st.integers(0, 4),
    period=st.sampled_from([1.0, 10.0]),
    backoff=st.just(RestartBackoff(base=0.5, cap=4.0, reset_after=5.0)),
    on_limit=st.sampled_from(["slow", "stop", "escalate"]),
    auto_shutdown=st.sampled_from(["never", "any_significant", "all_significant"]),
)
policies = st.none() | st.just(RestartPolicy(intensity=2, base=0.1, cap=1.0, slow=True))


@st.composite
def children(draw: Any) -> list[ChildRule]:
    made = []
    for number in range(draw(st.integers(1, 5))):
        restart = draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"]))
        significant = restart != "permanent" and draw(st.booleans())
        policy = draw(policies) if restart == "permanent" else None
        made.append(ChildRule(f"c{number}", restart, significant, policy=policy))
    return made


steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ready",
                "ready",
                "exit",
                "crash",
                "crash",
                "tick",
                "tick",
                "stuck",
                "restart",
                "shut",
            ]
        ),
        st.integers(0, 4),
        st.floats(0, 6),
    ),
    max_size=60,
)


@dataclass
class Machine:
    """The world outside: which instances run, and what must hold at every step."""

    core: Supervision
    rules: TreeRules
    now: int = 0
    running: dict[int, int] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    counted: list[int] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    prng: Prng = field(default_factory=lambda: Prng(5))

    def obey(self, effects: list[Effect]) -> None:
        for one in effects:
            if isinstance(one, Start):
                self.start(one)
            elif isinstance(one, Stop):
                self.stop(one)
            elif isinstance(one, Restarting) and self.core.slots[one.index].rule.policy is None:
                self.counted.append(self.now)
                period_ns = round(self.rules.period * NS)
                recent = [at for at in self.counted if at > self.now - period_ns]
                assert len(recent) <= self.rules.intensity
                assert one.delay_ns <= round(self.rules.backoff.cap * NS)
            elif isinstance(one, Looping) and one.delay_ns is not None:
                assert one.delay_ns > 0
                if self.core.slots[one.index].rule.policy is None:
                    assert self.rules.on_limit == "slow"
            elif isinstance(one, Ended):
                assert set(self.running) <= self.stuck, "ended while somebody runs"
                self.ended.append(one)

    def start(self, one: Start) -> None:
        assert one.index not in self.running, "a second instance"
        assert not (self.asked - self.stuck), "started while another is being stopped"
        assert self.core.ending is None
        slot = self.core.slots[one.index]
        if slot.behind:
            for before in range(one.index):
                if self.core.slots[before].owed:
                    assert before in self.ready, "started before one before it was ready"
        self.running[one.index] = one.instance

    def stop(self, one: Stop) -> None:
        assert self.running.get(one.index) == one.instance
        assert not (self.asked - self.stuck), "two are being stopped at a time"
        if self.core.ending is not None:
            later = {index for index in self.running if index > one.index} - self.stuck
            assert not later, "stopped before one after it"
        self.asked.add(one.index)

    def gone(self, index: int, exit_: Exit) -> None:
        instance = self.running.pop(index)
        for group in (self.ready, self.asked, self.stuck):
            group.discard(index)
        self.obey(self.core.ended(index, instance, exit_, self.now, self.prng))

    def step(self, what: str, index: int, seconds: float) -> None:
        if index >= len(self.core.slots):
            return
        runs = index in self.running
        if what == "ready" and runs and index not in self.asked | self.stuck:
            self.ready.add(index)
            self.obey(self.core.ready(index, self.running[index], self.now))
        elif what in {"exit", "crash"} and runs:
            self.gone(index, Exit(what == "exit", int(what == "crash"), what))
        elif what == "stuck" and index in self.asked:
            self.stuck.add(index)
            self.obey(self.core.stuck(index, self.running[index], self.now))
        elif what == "restart" and not runs:
            self.obey(self.core.restart(index, self.now))
        elif what == "shut":
            self.obey(self.core.shut(self.now))
        elif what == "tick":
            self.now += round(seconds * NS)
            self.obey(self.core.tick(self.now))
        due = self.core.next_ns()
        assert due is None or due > self.now, "a wait that is over starts nobody"


def play(rules: TreeRules, made: list[ChildRule], story: Any) -> Machine:
    core = Supervision(rules, made)
    machine = Machine(core, rules)
    machine.obey(core.begin(0))
    for what, index, seconds in story:
        machine.step(what, index, seconds)
    return machine


@given(rules, children(), steps)
@settings(deadline=None, max_examples=300)
def test_whatever_happens_order_and_limits_hold_and_a_shutdown_leaves_nobody(
    rules: TreeRules, made: list[ChildRule], story: Any
) -> None:
    machine = play(rules, made, story)
    machine.obey(machine.core.shut(machine.now))
    for _ in range(2 * len(made)):
        for index in list(machine.asked - machine.stuck):
            machine.gone(index, Exit(True))
    assert set(machine.running) <= machine.stuck
    assert not machine.core.running
    assert len(machine.ended) >= 1


@given(rules, children(), steps)
@settings(deadline=None, max_examples=200)
def test_left_alone_a_supervisor_that_works_gets_everybody_up(
    rules: TreeRules, made: list[ChildRule], story: Any
) -> None:
    machine = play(rules, made, [one for one in story if one[0] != "shut"])
    for _ in range(6 * len(made) + 2):
        for index in list(machine.running):
            if index in machine.asked | machine.stuck:
                machine.gone(index, Exit(True))
            elif index not in machine.ready:
                machine.step("ready", index, 0)
        due = machine.core.next_ns()
        if due is not None:
            machine.now = due
            machine.obey(machine.core.tick(due))
    if machine.core.ending is None:
        assert machine.core.settled
        assert machine.core.next_ns() is None
    else:
        assert not machine.running


@given(
    st.integers(8 * 10**6, 10 * NS),
    st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=60),
)
@settings(deadline=None)
def test_nobody_is_stuck_whose_stamps_are_younger_than_the_limit(limit: int, looks: Any) -> None:
    decider = ProgressDecider(limit, limit, 0)
    now = last = count = 0
    for rests, stamps in looks:
        now += round(rests * decider.rest_ns)
        if stamps:
            count += 1
            last = now
        silent = decider.look(count, now)
        if silent is not None:
            assert not stamps
            assert limit <= silent <= now - last
            break
        if rests <= 1.0 and now - last > 3 * limit + 4 * NS:
            raise AssertionError("silent for long and not noticed")
