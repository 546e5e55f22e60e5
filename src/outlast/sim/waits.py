"""Finds the waits of a program that nothing ends: every ``await`` should have a deadline.

A peer that goes silent, a disk that never answers, a task that never ends: whoever awaits one of
them without a limit waits for ever, and no test that is friendly shows it. :class:`Waits` looks
at each task of a simulation whenever it is suspended over a step of time. The wait is bounded if

* a timer of the program wakes or cancels the task, the future that it waits for, or a task that
  would cancel it (``asyncio.timeout``, ``wait_for``, ``sleep``, a callback of your own); one that
  goes off while the wait goes on was no limit, or
* a function on the way there has been given a :class:`outlast.kernel.Deadline`. That is a claim,
  and it is checked: the wait must be over within a second after it, or
* it is for other tasks, whose own waits are looked at; it may last for ``patience`` seconds.

Everything else is a wait without an end, even where the answer came at once in this run. This is
why the check is made at run time and not on the source: what bounds a wait is mostly set by a
caller, or by one timer for a thousand waits, and a reader of ``await future`` cannot tell. What
the source alone could say is which waits were never met; the price is that a wait counts only
where a scene comes by. Timers of the simulator and of test code bound nothing, and the network
and the disk answer only as long as they like.
"""

import asyncio
import sys
import weakref
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from heapq import heappop
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from outlast.kernel import ConfigError, Deadline
from outlast.sim.bounds import Bounds, pending, waits_for_tasks, went_off
from outlast.sim.core.waits import LATE, LONG, OPEN, Allowed, explain_wait
from outlast.sim.frames import awaited, frames_of, held_by, module_of
from outlast.sim.hosts import LIFE, Life
from outlast.sim.loop import SimLoop
from outlast.sim.tasks import SimTask

_NS: Final = 1_000_000_000
_SWEEP_NS: Final = _NS
_GRACE_NS: Final = _NS
_OURS: Final = ("outlast.sim", "outlast.testing")
_BOTTOM: Final = SimLoop._run_on.__code__
_FOR_TASKS: Final = (
    asyncio.tasks._wait.__code__,  # type: ignore[attr-defined]
    asyncio.TaskGroup.__aexit__.__code__,
)


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait without an end.

    Attributes:
        place: ``module:function: expression``, the same whatever stands around it.
        why: What is wrong with it.
        host: Whose program waited so.
        seconds: The virtual time at which that was seen first.
        stack: The way there: ``module:function:line``, the innermost last.
    """

    place: str
    why: str
    host: str
    seconds: float
    stack: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line: where, why, and what would be right."""
        return explain_wait(self.place, self.why, host=self.host, seconds=self.seconds)


class Waits:
    """Lets runs fail in which code of some packages waits without an end.

    Give it to ``@sim.test(waits=…)`` or ``Options``; one object may watch many runs.

    Args:
        packages: Whose code: ``"shop"`` is that module and all below it.
        allowed: Waits that may go on for ever: places, and the reason for each.
        through: Functions (``module:function``) that only wait on behalf of their caller: such a
            wait is known by the place of the call.
        patience: Virtual seconds for which a task may wait for other tasks.

    Attributes:
        met: In how many runs a task was seen to wait at each place, bounded or not.
        patience_ns: For how long a task may wait for others.

    Raises:
        ConfigError: Definite. No package, or an allowed wait that is no place or has no reason.
    """

    def __init__(
        self,
        packages: str | Iterable[str],
        *,
        allowed: Mapping[str, str] | None = None,
        through: Iterable[str] = (),
        patience: float = 60.0,
    ) -> None:
        self.packages = (packages,) if isinstance(packages, str) else tuple(packages)
        if not self.packages:
            raise ConfigError("sim.Waits: packages is empty; name the package that is looked at")
        self.met: dict[str, int] = {}
        self._allowed = Allowed(allowed or {})
        self._through = frozenset(through)
        self.patience_ns = round(patience * _NS)
        self._below = tuple(f"{package}." for package in self.packages)

    def stale(self) -> list[str]:
        """Return the allowed places that no run has met: to be taken off the list."""
        return self._allowed.stale()

    # --- what the loop asks --------------------------------------------------------------------

    def ours(self, frame: FrameType) -> bool:
        """Whether a frame runs code that is looked at."""
        module = module_of(frame)
        return (module in self.packages or module.startswith(self._below)) and not (
            module.startswith(_OURS)
        )

    def depth(self, frames: list[FrameType]) -> int:
        """Return the index of the frame that waits; -1 if none is looked at."""
        for index in range(len(frames) - 1, -1, -1):
            frame = frames[index]
            if self.ours(frame) and _name_of(frame) not in self._through:
                return index
        return -1

    def allows(self, place: str) -> bool:
        """Whether a wait may go on for ever there."""
        return self._allowed.covers(place)


class WaitingLoop(SimLoop):
    """A simulated loop that looks at what its tasks wait for. It changes nothing of a run.

    Args:
        waits: What is looked for.
        seed: As :class:`SimLoop` takes it, like the rest.
    """

    def __init__(self, waits: Waits, seed: int = 0, **options: Any) -> None:
        super().__init__(seed, **options)
        self._waits = waits
        self._bounds = Bounds()
        self._stirred: dict[SimTask, Life] = {}
        # Weak, so that a task that nobody can wake is collected as it would be without us.
        self._since: dict[weakref.ref[SimTask], _Since] = {}
        self._swept_ns = 0
        self._found: dict[tuple[CodeType, int, str], _Found] = {}
        self._passed: dict[tuple[CodeType, int, str], None] = {}

    # --- what the program does -------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run ``callback`` soon; if that is a step of a task, look at the task after it."""
        owner = getattr(callback, "__self__", None)
        if type(owner) is SimTask:
            life = LIFE.get(None) if context is None else context.get(LIFE)
            self._stirred[owner] = life or self._test
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` then, and remember whom it bounds."""
        handle = super().call_at(when, callback, *args, context=context)
        if self._by_the_program():
            self._bounds.add(handle, callback, args)
        return handle

    def schedule(
        self,
        when_ns: int,
        life: Life | None,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
    ) -> asyncio.Handle:
        """Run ``callback`` then, and remember whom it bounds, if the program has asked for it."""
        handle = super().schedule(when_ns, life, callback, args, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        module = getattr(callback, "__module__", None) or ""
        if life is not None and not module.startswith("outlast.sim") and self._by_the_program():
            self._bounds.add(handle, callback, args)
        return handle

    def _by_the_program(self) -> bool:
        """Whether code that is looked at is what asks for this timer."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code is not _BOTTOM:
            if self._waits.ours(frame):
                return True
            frame = frame.f_back
        return False

    # --- looking ---------------------------------------------------------------------------------

    def _jump(self) -> None:
        """Look at all that waits over this step of time, then let it pass."""
        until_ns = self._next_ns()
        if self._stirred:
            stirred, self._stirred = self._stirred, {}
            for task, life in stirred.items():
                self._look(task, life, until_ns)
        if until_ns - self._swept_ns >= _SWEEP_NS:
            self._swept_ns = until_ns
            for reference, since in list(self._since.items()):
                if (one := reference()) is None:
                    del self._since[reference]
                else:
                    self._look(one, since.life, until_ns)
        super()._jump()

    def _next_ns(self) -> int:
        """Return the moment to which time will jump, now if there is none."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._cancelled = max(self._cancelled - 1, 0)
        return min(timers[0][0], self._limit_ns) if timers else self.sim.now_ns

    def _spin(self) -> None:
        """Let a little time pass; what is due by then is due for us as well."""
        super()._spin()
        for handle in self._soon:
            handle._scheduled = False

    def _look(self, task: SimTask, life: Life, until_ns: int) -> None:
        waiting: Future[Any] | None = task._fut_waiter  # type: ignore[attr-defined]
        reference = weakref.ref(task)
        if waiting is None or waiting.done() or not life.alive:
            self._since.pop(reference, None)
            return
        if life.host.blocked and any(map(_is_due, life.host.backlog)):
            return  # a timer may be among what could not run yet
        frames = frames_of(task)
        depth = self._waits.depth(frames)
        if depth < 0:
            return
        here = frames[depth]
        self._passed[here.f_code, here.f_lasti, _name_of(here)] = None
        since = self._since.get(reference)
        if since is None or since.waiting() is not waiting:
            since = _Since(weakref.ref(waiting), self.sim.now_ns, life)
            since.ends = self._ends(task, waiting, frames[depth + 1 :])
            self._since[reference] = since
        elif not since.void and not any(map(pending, since.ends)):
            # One that has come and has ended nothing was no limit, even if it was set again.
            since.void = any(map(went_off, since.ends))
            below = frames[depth + 1 :]
            since.ends = [] if since.void else self._ends(task, waiting, below)
        if since.ends:
            return
        why = self._judge(waiting, frames, since, until_ns)
        if why == OPEN or (why is not None and not life.host.blocked):
            self._note(frames, depth, why, life)

    def _ends(
        self, task: SimTask, waiting: "Future[Any]", below: list[FrameType]
    ) -> list[asyncio.Handle]:
        """Return the timers that end a wait: also those of the event or queue that it is for."""
        bounds = self._bounds
        found = bounds.ending(waiting) + bounds.ending(task)
        for frame in below:
            found += bounds.of(frame.f_locals.get("self"))
        return found

    def _judge(
        self, waiting: "Future[Any]", frames: list[FrameType], since: "_Since", until_ns: int
    ) -> str | None:
        """Say what is wrong with a wait that no timer bounds, if anything."""
        ends_ns = [
            deadline.at_ns
            for frame in frames
            if self._waits.ours(frame)
            for deadline in held_by(frame, Deadline)
            if not deadline.endless
        ]
        if ends_ns:
            ended_ns = since.life.host.clock.monotonic_ns(until_ns)
            return LATE if ended_ns > min(ends_ns) + _GRACE_NS else None
        if waits_for_tasks(waiting) or frames[-1].f_code in _FOR_TASKS:
            return LONG if until_ns - since.since_ns > self._waits.patience_ns else None
        return OPEN

    def _note(self, frames: list[FrameType], depth: int, why: str, life: Life) -> None:
        frame = frames[depth]
        key = (frame.f_code, frame.f_lasti, why)
        if key not in self._found:
            self._found[key] = _Found(
                _name_of(frame), life.host.name, self.sim.now_ns / _NS,
                tuple(f"{_name_of(one)}:{one.f_lineno}" for one in frames),
            )  # fmt: skip

    def unbounded(self) -> list[Wait]:
        """Return the waits without an end that were seen and are not allowed.

        To be called after the run: it reads the source of the program.
        """
        for code, instruction, name in self._passed:
            place = f"{name}: {awaited(code, instruction)}"
            self._waits.met[place] = self._waits.met.get(place, 0) + 1
        waits = [
            Wait(f"{found.name}: {awaited(code, instruction)}", why, *found[1:])
            for (code, instruction, why), found in self._found.items()
        ]
        return [wait for wait in waits if not self._waits.allows(wait.place)]


@dataclass(slots=True)
class _Since:
    waiting: "weakref.ref[Future[Any]]"
    since_ns: int
    life: Life
    ends: list[asyncio.Handle] = field(default_factory=list)
    void: bool = False


class _Found(NamedTuple):
    name: str
    host: str
    seconds: float
    stack: tuple[str, ...]


def _is_due(handle: asyncio.Handle) -> bool:
    return getattr(handle, "_scheduled", None) is False


def _name_of(frame: FrameType) -> str:
    return f"{module_of(frame)}:{frame.f_code.co_qualname}"
