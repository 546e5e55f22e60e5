"""What ends a wait by itself: the timers of a program, and whom each of them wakes or cancels.

A timer is looked at when it is made. It bounds the futures, tasks, events and queues that it was
given: as arguments, in the closure of its callback, as the object whose method that is, or as an
attribute of one of these. So ``asyncio.timeout`` (which keeps its task), ``asyncio.wait_for``, a
cancel scope of anyio and a callback of ours that fails a future are all seen, and no name of
theirs is built in.
"""

import asyncio
import functools
from asyncio import Future, Task
from collections.abc import Callable, Iterator
from typing import Any, Final

from outlast.sim.handles import SimHandle, SimTimer

_PRIMITIVES: Final = (
    asyncio.Event, asyncio.Condition, asyncio.Semaphore, asyncio.Lock, asyncio.Queue
)  # fmt: skip
_TARGETS: Final = (Future, *_PRIMITIVES)
_PURGE_EVERY: Final = 5_000
_DEPTH_MAX: Final = 8

Handle = asyncio.Handle


class Bounds:
    """The timers of one simulation, by what they bound."""

    __slots__ = ("_added", "_by_target")

    def __init__(self) -> None:
        self._added = 0
        self._by_target: dict[int, tuple[Any, list[Handle]]] = {}

    def add(self, handle: Handle, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Take a new timer in."""
        for given in _given(callback, args):
            if type(given).__module__ == "builtins":
                continue
            self._note(given, handle)
            for value in _attributes(given):
                if isinstance(value, _TARGETS):
                    self._note(value, handle)
        self._added += 1
        if self._added % _PURGE_EVERY == 0:
            self._purge()

    def of(self, target: object) -> list[Handle]:
        """Return the timers still to come that were given ``target``."""
        found = self._by_target.get(id(target))
        return [] if found is None else [one for one in found[1] if pending(one)]

    def ending(self, waiting: "Future[Any]", depth: int = 0) -> list[Handle]:
        """Return the timers that wake or cancel a future or task, or one that would cancel it."""
        found = self.of(waiting)
        if depth < _DEPTH_MAX:
            for one in _cancelled_by(waiting):
                found += self.ending(one, depth + 1)
        return found

    def _note(self, target: object, handle: Handle) -> None:
        found = self._by_target.get(id(target))
        if found is None:
            self._by_target[id(target)] = (target, [handle])  # held, so that no other gets its id
        else:
            found[1][:] = [*filter(pending, found[1]), handle]

    def _purge(self) -> None:
        kept = {}
        for key, (target, handles) in self._by_target.items():
            if left := list(filter(pending, handles)):
                kept[key] = (target, left)
        self._by_target = kept


def went_off(handle: Handle) -> bool:
    """Whether a timer has come, and was not taken back before."""
    return not handle._cancelled and not pending(handle)


def waits_for_tasks(waiting: "Future[Any]") -> bool:
    """Whether a future is a task, or what ``gather`` or ``shield`` has made of tasks."""
    if isinstance(waiting, Task | asyncio.tasks._GatheringFuture):  # type: ignore[attr-defined]
        return True
    return any(
        isinstance(one, Task)
        for callback in _callbacks(waiting)
        if getattr(callback, "__qualname__", "").startswith("shield.")
        for one in _given(callback, ())
    )


def pending(handle: Handle) -> bool:
    """Whether a timer is still to come."""
    if isinstance(handle, SimTimer | SimHandle):
        return not handle._cancelled and handle._scheduled
    return False


def _callbacks(waiting: "Future[Any]") -> Iterator[Callable[..., Any]]:
    for callback, *_ in waiting._callbacks or ():
        yield callback


def _cancelled_by(waiting: "Future[Any]") -> "Iterator[Future[Any]]":
    """Go through the tasks and futures whose cancellation is handed on to ``waiting``."""
    for callback in _callbacks(waiting):
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, Task):
            yield owner
        elif isinstance(owner, asyncio.TaskGroup):
            if owner._parent_task is not None:  # type: ignore[attr-defined]
                yield owner._parent_task  # type: ignore[attr-defined]
        elif isinstance(callback, functools.partial) or getattr(
            callback, "__qualname__", ""
        ).startswith("gather."):  # a partial is how wait_for listens
            for one in _given(callback, ()):
                if isinstance(one, Future) and one is not waiting:
                    yield one


def _given(callback: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    """Return what a callback gets: arguments, its object, its closure."""
    given = list(args)
    while isinstance(callback, functools.partial):
        given += (*callback.args, *callback.keywords.values())
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        given.append(owner)
    for cell in getattr(getattr(callback, "__func__", callback), "__closure__", None) or ():
        try:
            given.append(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    return given


def _attributes(one: object) -> Iterator[Any]:
    yield from getattr(one, "__dict__", {}).values()
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield getattr(one, f"_{kind.__name__.lstrip('_')}{name}" if private else name, None)
