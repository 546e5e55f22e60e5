"""The decisions of one supervisor: whom to start and stop, in which order, and when.

A supervisor has a list of children. Each is wanted or not, and is in a *phase*. Whatever happens
(a child is ready, has ended, time has passed, the supervisor shall stop) changes what is wanted;
then :meth:`Supervision._settle` compares and names the next steps, by three rules:

1. Whoever runs and shall not is stopped: the last in the list first, one after the other.
2. While anybody is being stopped nobody is started.
3. Whoever does not run and shall is started. A child that starts *in sequence* (the first start,
   and the restart of a group) waits until everybody before it is up.

So order holds whatever happens in between, and there is never a second instance of a child: it
must be down to be started. Children that are supervisors themselves make the tree.

The rules are those of Erlang/OTP's supervisor (strategies, restart types, intensity and period,
significant children). Where we differ: there are waits between restarts (OTP has none); a child
counts as started when it is ready; beyond the intensity the supervisor may go on slowly instead of
ending; a child may have a limit of its own.

Phases: down, starting (not ready yet), up, stopping, stuck (asked to stop, and cannot be killed).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from outlast.detect.core.restarting import ChildRule, TreeRules
from outlast.detect.core.supervisor import InCrashLoop, RestartDecider, StayDown
from outlast.kernel import Prng

_NS: Final = 1_000_000_000

Phase = Literal["down", "starting", "up", "stopping", "stuck"]


@dataclass(frozen=True, slots=True)
class Exit:
    """How an instance of a child ended.

    ``ok``: by itself, its work done. ``final``: it gave itself up, another start is of no use.
    """

    ok: bool
    code: int = 0
    reason: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start child ``index`` as instance number ``instance``."""

    index: int
    instance: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop instance ``instance`` of child ``index``."""

    index: int
    instance: int


@dataclass(frozen=True, slots=True)
class Restarting:
    """Child ``index`` is started again after ``delay_ns``; ``count`` restarts in the period."""

    index: int
    delay_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class Looping:
    """Too many restarts, the last of child ``index``. Without ``delay_ns`` it stays down."""

    index: int
    count: int
    delay_ns: int | None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Child ``index`` stays down by its own policy; the supervisor goes on."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nobody runs any more.

    ``failed``: it did not end by itself or because it was asked to. ``escalate``: the parent shall
    decide as about any child that has failed. ``asked``: somebody wanted it to stop.
    """

    reason: str
    failed: bool = False
    escalate: bool = False
    asked: bool = False


Effect = Start | Stop | Restarting | Looping | GaveUp | Ended


class Slot:
    """One child as the rules see it. Read it; only :class:`Supervision` writes."""

    __slots__ = (
        "behind", "cycle", "decider", "due_ns", "failures", "instance", "looping", "over", "phase",
        "rule", "up_since_ns", "wanted",
    )  # fmt: skip

    def __init__(self, rule: ChildRule) -> None:
        self.rule = rule
        self.phase: Phase = "down"
        self.instance = 0
        self.wanted = False
        self.decider = None if rule.policy is None else RestartDecider(rule.policy)
        self.up_since_ns = 0
        self.refresh(0)
        self.wanted = False

    def refresh(self, now_ns: int) -> None:
        """Want it afresh, in sequence, and forget what was."""
        self.wanted, self.behind, self.cycle = True, True, False
        self.due_ns = now_ns
        self.failures = 0
        self.looping = False
        self.over: Literal["", "done", "crash-loop"] = ""
        if self.decider is not None:
            self.decider.forget()

    @property
    def runs(self) -> bool:
        """Whether an instance is there that nobody has asked to stop."""
        return self.phase in {"starting", "up"}

    @property
    def owed(self) -> bool:
        """Whether it shall run, sooner or later."""
        return self.wanted and not self.over


class Supervision:
    """The rules of one supervisor at work. Not thread-safe; knows no clock.

    Every method returns what is to be done, in order. Reports about an instance that is not the
    present one are ignored.

    Args:
        rules: Strategy, limits and waits.
        children: The children, in the order in which they start.
    """

    __slots__ = ("_ending", "_restarts", "_rules", "_shown", "slots")

    def __init__(self, rules: TreeRules, children: Sequence[ChildRule]) -> None:
        self._rules = rules
        self.slots = tuple(Slot(rule) for rule in children)
        self._restarts: deque[int] = deque(maxlen=rules.intensity + 1)
        self._ending: Ended | None = None
        self._shown = True

    # --- what there is -------------------------------------------------------------------------

    @property
    def ending(self) -> Ended | None:
        """Why everything is being stopped, or has been; ``None`` while it works."""
        return self._ending

    @property
    def running(self) -> bool:
        """Whether it was begun and has not ended."""
        return not self._shown

    @property
    def settled(self) -> bool:
        """Whether every child that shall run is up."""
        return all(slot.phase == "up" for slot in self.slots if slot.owed)

    def next_ns(self) -> int | None:
        """When :meth:`tick` has something to do; ``None`` if only reports can change anything."""
        if self._ending is not None:
            return None
        stopping = any(slot.phase == "stopping" for slot in self.slots)
        instants = [
            slot.due_ns
            for index, slot in enumerate(self.slots)
            if not stopping and slot.owed and slot.phase == "down" and self._has_turn(index)
        ]
        instants += [
            slot.up_since_ns + self._calm_ns(slot)
            for slot in self.slots
            if slot.looping and slot.phase == "up"
        ]
        return min(instants, default=None)

    # --- what happens --------------------------------------------------------------------------

    def begin(self, now_ns: int) -> list[Effect]:
        """Start all children in order, counting afresh."""
        self._ending, self._shown = None, False
        self._restarts.clear()
        for slot in self.slots:
            slot.refresh(now_ns)
        return self._settle(now_ns)

    def tick(self, now_ns: int) -> list[Effect]:
        """Start what was waiting for ``now_ns``; forget crash loops that are over."""
        for slot in self.slots:
            if slot.phase == "up" and now_ns - slot.up_since_ns >= self._calm_ns(slot):
                slot.looping = False
        return self._settle(now_ns)

    def ready(self, index: int, instance: int, now_ns: int) -> list[Effect]:
        """An instance is ready: those that waited for it may start."""
        slot = self.slots[index]
        if slot.instance != instance or slot.phase != "starting":
            return []
        slot.phase, slot.up_since_ns, slot.behind = "up", now_ns, False
        return self._settle(now_ns)

    def stuck(self, index: int, instance: int, now_ns: int) -> list[Effect]:
        """An instance was told to end, has not, and cannot be killed: go on without it."""
        slot = self.slots[index]
        if slot.instance != instance or slot.phase in {"down", "stuck"}:
            return []
        slot.phase = "stuck"
        return self._settle(now_ns)

    def ended(
        self, index: int, instance: int, exit_: Exit, now_ns: int, prng: Prng
    ) -> list[Effect]:
        """An instance has ended, or could not be started."""
        slot = self.slots[index]
        if slot.instance != instance or slot.phase == "down":
            return []
        asked = not slot.runs or slot.cycle or not slot.wanted
        was_up, slot.phase = slot.phase == "up", "down"
        effects: list[Effect] = []
        if asked:
            slot.cycle = False
            if slot.rule.restart == "temporary" and slot.wanted:
                slot.over = "done"
        else:
            if was_up and now_ns - slot.up_since_ns >= self._calm_ns(slot):
                slot.failures, slot.looping = 0, False
            effects += self._decide(index, exit_, now_ns, prng)
        return effects + self._settle(now_ns)

    def restart(self, index: int, now_ns: int) -> list[Effect]:
        """Start a child that is down at once, counting it afresh, also after the end of all.

        Nothing happens if it runs, or while everything is being stopped.
        """
        slot = self.slots[index]
        if slot.phase != "down" or (self._ending is not None and not self._shown):
            return []
        self._ending, self._shown = None, False
        slot.refresh(now_ns)
        slot.behind = False
        return self._settle(now_ns)

    def shut(self, now_ns: int, reason: str = "stopped") -> list[Effect]:
        """Stop all children, the last first."""
        return self._end(Ended(reason, asked=True), now_ns)

    # --- deciding ------------------------------------------------------------------------------

    def _decide(self, index: int, exit_: Exit, now_ns: int, prng: Prng) -> list[Effect]:
        slot = self.slots[index]
        rule = slot.rule
        if exit_.final:
            slot.over = "crash-loop"
            return [GaveUp(index, exit_.reason)]
        done = rule.restart == "temporary" or (rule.restart == "transient" and exit_.ok)
        if done or exit_.code in rule.final:
            return self._over(index, exit_, done=done)
        if slot.decider is not None:
            return self._by_policy(index, slot.decider, exit_, now_ns, prng)
        period_ns = round(self._rules.period * _NS)
        while self._restarts and self._restarts[0] <= now_ns - period_ns:
            self._restarts.popleft()
        self._restarts.append(now_ns)
        slot.failures += 1
        count = len(self._restarts)
        delay_ns = self._rules.backoff.delay_ns(slot.failures, prng)
        if count <= self._rules.intensity:
            self._plan(index, now_ns + delay_ns)
            return [Restarting(index, delay_ns, count)]
        slot.looping = True
        if self._rules.on_limit == "slow":
            delay_ns = max(delay_ns, self._rules.backoff.slow_ns(prng))
            self._plan(index, now_ns + delay_ns)
            return [Looping(index, count, delay_ns)]
        slot.over = "crash-loop"
        reason = f"{count} restarts within {self._rules.period:g} s, the last of {rule.name}"
        if exit_.reason:
            reason += f" ({exit_.reason})"
        self._ending = self._ending or Ended(
            reason, failed=True, escalate=self._rules.on_limit == "escalate"
        )
        self._want_nobody()
        return [Looping(index, count, None)]

    def _by_policy(
        self, index: int, decider: RestartDecider, exit_: Exit, now_ns: int, prng: Prng
    ) -> list[Effect]:
        """Let the child's own policy decide; its restarts do not count for the supervisor."""
        slot = self.slots[index]
        code = exit_.code if exit_.code or exit_.ok else 1
        decision = decider.on_exit(code, now_ns, prng)
        if isinstance(decision, StayDown):
            return self._over(index, exit_, done=exit_.ok)
        if isinstance(decision, InCrashLoop):
            slot.looping = True
            if decision.delay_ns is None:
                slot.over = "crash-loop"
                reason = f"{slot.rule.name} is in a crash loop"
                return [Looping(index, decision.count, None), GaveUp(index, reason)]
            self._plan(index, now_ns + decision.delay_ns)
            return [Looping(index, decision.count, decision.delay_ns)]
        slot.looping = False
        self._plan(index, now_ns + decision.delay_ns)
        return [Restarting(index, decision.delay_ns, decision.count)]

    def _calm_ns(self, slot: Slot) -> int:
        """How long a child must be up until its failures are forgotten."""
        policy = slot.rule.policy
        return round((policy.period if policy else self._rules.backoff.reset_after) * _NS)

    def _plan(self, index: int, due_ns: int) -> None:
        """Start a child again at ``due_ns``, and with it whom the strategy says."""
        strategy = self._rules.strategy
        slot = self.slots[index]
        slot.due_ns = due_ns
        if strategy == "one_for_one":
            return
        first = 0 if strategy == "one_for_all" else index
        for other in self.slots[first:]:
            if other.over == "done" and other.rule.restart == "transient" and not other.runs:
                other.over = ""  # as OTP: the group begins anew with all that it has
            if other.over:
                continue
            if other.runs:
                other.cycle = True
            elif other.rule.restart == "temporary":
                continue
            other.behind = True
            other.due_ns = due_ns

    def _over(self, index: int, exit_: Exit, *, done: bool) -> list[Effect]:
        slot = self.slots[index]
        slot.over = "done"
        slot.looping = False
        mode = self._rules.auto_shutdown
        if done and slot.rule.significant and mode != "never":
            others = [s for s in self.slots if s.rule.significant]
            if mode == "any_significant" or all(s.over == "done" for s in others):
                self._ending = self._ending or Ended(f"{slot.rule.name} has ended: {exit_.reason}")
                self._want_nobody()
        return []

    def _end(self, ending: Ended, now_ns: int) -> list[Effect]:
        self._ending = self._ending or ending
        self._want_nobody()
        return self._settle(now_ns)

    def _want_nobody(self) -> None:
        for slot in self.slots:
            slot.wanted = False

    # --- the next steps ------------------------------------------------------------------------

    def _settle(self, now_ns: int) -> list[Effect]:
        if any(slot.phase == "stopping" for slot in self.slots):
            return []
        for index in range(len(self.slots) - 1, -1, -1):
            slot = self.slots[index]
            if slot.runs and (slot.cycle or not slot.wanted):
                slot.phase = "stopping"
                return [Stop(index, slot.instance)]
        if self._ending is None and all(slot.over == "done" for slot in self.slots):
            self._ending = Ended("all children have done their work")
        if self._ending is not None:
            if self._shown:
                return []
            self._shown = True
            return [self._ending]
        effects: list[Effect] = []
        for index, slot in enumerate(self.slots):
            free = slot.owed and slot.phase == "down" and slot.due_ns <= now_ns
            if free and self._has_turn(index):
                slot.phase = "starting"
                slot.instance += 1
                effects.append(Start(index, slot.instance))
        return effects

    def _has_turn(self, index: int) -> bool:
        """Whether all before it are up, if it starts in sequence."""
        if not self.slots[index].behind:
            return True
        return all(slot.phase == "up" for slot in self.slots[:index] if slot.owed)
