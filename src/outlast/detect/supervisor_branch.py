"""One supervisor of a tree at work: does what its rules decide, and tells them what happens."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from outlast.detect.child import Child, Grace
from outlast.detect.child_run import Runner, TaskRunner, ThreadRunner
from outlast.detect.child_status import ChildStatus
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
from outlast.detect.events import (
    ChildAbandoned,
    ChildExited,
    ChildReady,
    ChildRestarting,
    ChildStarted,
    ChildStopped,
    CrashLoop,
    OrphansEnded,
    SupervisorEscalated,
)
from outlast.detect.life import Life
from outlast.kernel import Event, TimerHandle, UnavailableError, World

_NS: Final = 1_000_000_000
_NOT_STARTED: Final = 126

BranchState = Literal["new", "running", "stopping", "ended"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a supervisor has ended; ``failed`` if restarts did not help."""

    reason: str
    failed: bool = False


class Branch:
    """The working part of a :class:`~outlast.detect.Supervisor`. Used on one loop.

    Args:
        name: Its name.
        specs: Children: a :class:`Child` or a :class:`Supervisor` each.
        rules: Its rules.
    """

    def __init__(
        self, name: str, specs: Sequence[Any], rules: TreeRules, child_rules: Sequence[ChildRule]
    ) -> None:
        self.name, self.rules = name, rules
        self.path = ""
        self.specs = tuple(specs)
        self.core = Supervision(rules, child_rules)
        self.statuses = {
            one.name: ChildStatus(one, slot)
            for one, slot in zip(self.specs, self.core.slots, strict=True)
        }
        self.lives: dict[int, Life] = {}
        self.ending: Ending | None = None
        self.finished = asyncio.Event()
        self.told = asyncio.Event()
        self.up: asyncio.Future[None] | None = None
        self.world: World | None = None
        self._top: Top = Top()
        self._dropping = False
        self._effects: deque[Effect] = deque()
        self._applying = False
        self._again: list[int] = []
        self._timer: TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def state(self) -> BranchState:
        """What it does."""
        if self.core.running:
            return "running" if self.core.ending is None else "stopping"
        return "new" if self.ending is None else "ended"

    @property
    def children(self) -> tuple[ChildStatus, ...]:
        """The children, in order of start."""
        return tuple(self.statuses.values())

    def begin(self, world: World, top: "Top", path: str = "") -> None:
        """Start all children in order."""
        self.world, self._top, self.path = world, top, path
        self.ending = None
        self._dropping = False
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # events belong to the loop where they were waited for
            if self._loop is not None:
                self.finished, self.told = asyncio.Event(), asyncio.Event()
            self._loop = loop
        self.finished.clear()
        self.told.clear()
        self.up = loop.create_future()
        self.apply(self.core.begin(self.now()))

    def restart(self, index: int) -> bool:
        """Start a child again that is down; ``False`` if it is not."""
        if self._applying:  # asked by a listener: what has been decided comes first
            self._again.append(index)
            return True
        if self.world is None or self.core.slots[index].phase != "down":
            return False
        if self.state == "stopping":
            return False
        self.told.clear()
        self.finished.clear()
        self.ending = None
        if not self.core.running:  # how the first start went says nothing about this one
            self.up = asyncio.get_running_loop().create_future()
            self.up.set_result(None)
        self.apply(self.core.restart(index, self.now()))
        return True

    def shut(self, reason: str = "stopped") -> None:
        """Stop all children in reverse order."""
        if self.core.running:
            self.apply(self.core.shut(self.now(), reason))

    def kill(self) -> None:
        """End everything at once, as far as that can be done."""
        self.shut("killed")
        for life in list(self.lives.values()):
            life.kill()

    def drop(self) -> None:
        """End everybody here and now: the loop is being closed."""
        self._dropping = True
        self.shut("its event loop was closed")

    def now(self) -> int:
        """Return the time."""
        return self._here().clock.monotonic_ns()

    def _here(self) -> World:
        if self.world is None:
            raise LookupError("it was not started")
        return self.world

    def _emit(self, event: Event) -> None:
        self._here().events.emit(event)

    # --- steps ---------------------------------------------------------------------------------

    def apply(self, effects: list[Effect]) -> None:
        """Do what the rules have decided, and plan when to ask them again.

        A listener of an event may ask for more meanwhile (to stop, say): that is done afterwards,
        so that nobody is stopped whom the rules have started and we have not.
        """
        self._effects.extend(effects)
        if self._applying:
            return
        self._applying = True
        try:
            while self._effects:
                self._apply(self._effects.popleft())
        finally:
            self._applying = False
        while self._again:
            self.restart(self._again.pop())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ns = self.core.next_ns()
        if due_ns is not None:
            self._timer = self._here().timers.call_at(due_ns, self._tick)
        settled = self.core.ending is None and self.core.settled
        if settled and self.up is not None and not self.up.done():
            self.up.set_result(None)
        self._top.changed()

    def _apply(self, effect: Effect) -> None:
        if isinstance(effect, Start):
            self._launch(effect)
        elif isinstance(effect, Stop):
            life = self.lives[effect.index]
            if self._dropping:
                life.drop()
            else:
                life.stop()
        elif isinstance(effect, Ended):
            self._finish(effect)
        else:
            self._tell(effect)

    def _tick(self) -> None:
        self._timer = None
        self.apply(self.core.tick(self.now()))

    def _launch(self, start: Start) -> None:
        spec = self.specs[start.index]
        self.lives[start.index] = Life(
            self, self._here(), self._make_runner(spec),
            index=start.index, instance=start.instance, path=f"{self.path}{spec.name}",
            settings=spec if isinstance(spec, Child) else None,
        )  # fmt: skip

    def _make_runner(self, spec: Any) -> Runner:
        world, path = self._here(), f"{self.path}{spec.name}"
        if not isinstance(spec, Child):
            return BranchRunner(spec.branch, world, self._top, f"{path}/")
        if spec.kind == "task":
            return TaskRunner(spec)
        if spec.kind == "thread":
            return ThreadRunner(spec, world, path)
        from outlast.detect.child_process import ProcessRunner

        return ProcessRunner(spec, world, self._top.next_mark())

    def _tell(self, effect: Restarting | Looping | GaveUp) -> None:
        name = f"{self.path}{self.specs[effect.index].name}"
        if isinstance(effect, Restarting):
            self._emit(
                ChildRestarting(child=name, delay=effect.delay_ns / _NS, count=effect.count)
            )
        elif isinstance(effect, Looping):
            policy = self.core.slots[effect.index].rule.policy
            self._emit(
                CrashLoop(
                    child=name,
                    count=effect.count,
                    period=policy.period if policy else self.rules.period,
                    reason=self.children[effect.index].last_exit,
                )
            )
        else:
            self.ending = Ending(effect.reason, failed=True)
            self.told.set()

    def _finish(self, ended: Ended) -> None:
        """Nobody runs any more."""
        self.ending = Ending(ended.reason, ended.failed)
        if ended.failed:
            path = self.path.rstrip("/")
            parent = path.rpartition("/")[0] or self._top.name
            self._emit(
                SupervisorEscalated(
                    supervisor=path or self.name,
                    reason=ended.reason,
                    parent=parent if path and ended.escalate else "",
                )
            )
        if self.up is not None and not self.up.done():
            if ended.failed or ended.asked:
                error = self._top.error
                self.up.set_exception(error or UnavailableError(f"it has ended: {ended.reason}"))
                self.up.exception()  # nobody need wait for it
            else:
                self.up.set_result(None)
        self.finished.set()
        self.told.set()

    # --- what lives tell -----------------------------------------------------------------------

    def on_started(self, life: Life) -> None:
        """An instance runs."""
        spec = self.specs[life.index]
        restarts = self.statuses[spec.name].note_start(life.runner.pid)
        self._emit(
            ChildStarted(child=life.path, pid=life.runner.pid, restarts=restarts, kind=spec.kind)
        )

    def on_ready(self, life: Life) -> None:
        """An instance is ready."""
        now_ns = self.now()
        after = round((now_ns - life.started_ns) / _NS, 6)
        self._emit(ChildReady(child=life.path, after=after))
        self.apply(self.core.ready(life.index, life.instance, now_ns))

    def on_abandoned(self, life: Life) -> None:
        """An instance does not end."""
        seconds = (self.now() - (life.asked_ns or life.started_ns)) / _NS
        self._emit(
            ChildAbandoned(child=life.path, seconds=round(seconds, 3), stack=life.runner.stack())
        )
        self.apply(self.core.stuck(life.index, life.instance, self.now()))

    def on_dropped(self, life: Life) -> None:
        """The loop is being closed: start nobody, and end everybody here and now."""
        self.drop()
        exit_ = Exit(False, 1, "its event loop was closed")
        if life.started_ns:
            self._note_exit(life, exit_)
        self._ended(life, exit_)

    def on_failed_start(self, life: Life, error: Exception) -> None:
        """An instance could not be started: on the first start of the tree, that ends it."""
        self.children[life.index].note_start(0)
        reason = f"cannot be started: {error}"
        self._note_exit(life, Exit(False, _NOT_STARTED, reason))
        self._top.failed_start(error)
        self._ended(life, Exit(False, _NOT_STARTED, reason))

    def on_ended(self, life: Life, exit_: Exit) -> None:
        """An instance has ended."""
        if life.started_ns:
            self._note_exit(life, exit_)
        self._ended(life, exit_)

    def _note_exit(self, life: Life, exit_: Exit) -> None:
        status, now_ns = self.children[life.index], self.now()
        status.pid, status.last_exit = None, exit_.reason
        orphans = getattr(life.runner, "orphans", 0)
        if orphans:
            self._emit(OrphansEnded(child=life.path, count=orphans))
        uptime = (now_ns - life.started_ns) / _NS if life.started_ns else 0.0
        self._emit(
            ChildExited(
                level="info" if life.asked_ns or exit_.ok else "warning",
                child=life.path,
                pid=life.runner.pid,
                code=exit_.code,
                reason=exit_.reason,
                uptime=uptime,
                lines=life.runner.lines(),
            )
        )
        if life.asked_ns:
            seconds = round((now_ns - life.asked_ns) / _NS, 6)
            self._emit(ChildStopped(child=life.path, seconds=seconds, forced=life.forced))

    def _ended(self, life: Life, exit_: Exit) -> None:
        prng = self._here().prng
        self.apply(self.core.ended(life.index, life.instance, exit_, self.now(), prng))


class Top:
    """What the supervisors of one tree share: marks for processes, the first start, changes."""

    def __init__(self, mark: str = "", name: str = "") -> None:
        self.mark = mark
        self.name = name
        self.error: Exception | None = None
        self._made = 0

    def next_mark(self) -> str:
        """Return a mark for the next process."""
        self._made += 1
        return f"{self.mark}{self._made};"

    def failed_start(self, error: Exception) -> None:
        """A child could not be started at all."""

    def changed(self) -> None:
        """Something may be in another state than before."""


class BranchRunner(Runner):
    """A supervisor as a child of another one."""

    def __init__(self, branch: Branch, world: World, top: Top, path: str) -> None:
        self._branch = branch
        self._world = world
        self._top = top
        self._path = path
        self.stamp = [0]

    def launch(self) -> None:
        """Start its children in order."""
        self._branch.begin(self._world, self._top, self._path)

    async def ready(self) -> None:
        """Wait until its children are up."""
        if self._branch.up is not None:
            await asyncio.wait([self._branch.up])

    async def wait(self) -> Exit:
        """Wait for its end. One that ended for good is not to be started again."""
        branch = self._branch
        await branch.finished.wait()
        ending, rule = branch.ending, branch.core.ending
        if ending is None or rule is None or not ending.failed:
            return Exit(True, 0, "stopped" if ending is None else ending.reason)
        return Exit(False, 1, ending.reason, final=not rule.escalate)

    def ask(self, grace: Grace) -> None:
        """Stop its children in order."""
        self._branch.shut()

    def kill(self) -> bool:
        """End all of them at once."""
        self._branch.kill()
        return True

    def drop(self) -> None:
        """Start nobody any more: each child hears of the end of the loop itself."""
        self._branch.drop()
