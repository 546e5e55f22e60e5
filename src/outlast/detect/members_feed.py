"""Who is told of changes: readers of events at their own pace, and callbacks."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from itertools import count
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from outlast.detect.core.swim.api import Member
from outlast.detect.members_events import EventsMissed
from outlast.kernel import Event

REJECTED_EVERY_NS: Final = 10_000_000_000
"""Packets dropped for one reason are told at most so often, with their number."""


class EventFeed(AsyncIterator[Event]):
    """Events in their order, from the moment at which it was made; ends when the member does.

    Whoever reads too slowly loses the oldest, and is told how many by an
    :class:`~outlast.detect.EventsMissed` in their place. For one reader.
    """

    __slots__ = ("__weakref__", "_ended", "_missed", "_node", "_queue", "_wake")

    def __init__(self, node: str, size_max: int) -> None:
        self._node = node
        self._queue: deque[Event] = deque(maxlen=size_max)
        self._missed = 0
        self._ended = False
        self._wake: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Add an event, in the place of the oldest if there is no room."""
        self._missed += len(self._queue) == self._queue.maxlen
        self._queue.append(event)
        self._rouse()

    def end(self) -> None:
        """No more will come; what is there can still be read."""
        self._ended = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event, waiting for it."""
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        if self._missed:
            missed, self._missed = self._missed, 0
            return EventsMissed(node=self._node, count=missed)
        return self._queue.popleft()


class Audience:
    """All who listen to one member. A reader that nobody holds any more is forgotten."""

    __slots__ = ("_feeds", "_node", "_numbers", "_size_max", "_watchers")

    def __init__(self, node: str, size_max: int) -> None:
        self._node = node
        self._size_max = size_max
        self._numbers = count()
        self._feeds: WeakValueDictionary[int, EventFeed] = WeakValueDictionary()
        self._watchers: dict[int, Callable[[Member], None]] = {}

    def feed(self) -> EventFeed:
        """Return a new reader."""
        made = EventFeed(self._node, self._size_max)
        self._feeds[next(self._numbers)] = made
        return made

    def watch(self, callback: Callable[[Member], None]) -> Callable[[], None]:
        """Add a callback; return what removes it."""
        number = next(self._numbers)
        self._watchers[number] = callback

        def remove() -> None:
            self._watchers.pop(number, None)

        return remove

    def tell(self, event: Event) -> None:
        """Hand ``event`` to all. A callback that raises is removed, and the loop told of it."""
        for feed in list(self._feeds.values()):
            feed.put(event)
        member = getattr(event, "member", None)
        if not isinstance(member, Member):
            return
        for number, callback in list(self._watchers.items()):
            try:
                callback(member)
            except Exception as error:
                self._watchers.pop(number, None)
                context: dict[str, Any] = {
                    "message": f"a callback of Members {self._node} raised, and is removed",
                    "exception": error,
                }
                asyncio.get_running_loop().call_exception_handler(context)

    def end(self) -> None:
        """Nothing more will come."""
        for feed in list(self._feeds.values()):
            feed.end()
        self._watchers.clear()


class Seldom:
    """Lets something of each kind be told at most every so often, and counts in between.

    Args:
        every_ns: The least time between two of a kind.
        kinds_max: How many kinds are known; further ones share one count.
    """

    __slots__ = ("_every_ns", "_kinds_max", "_told")

    def __init__(self, every_ns: int, kinds_max: int = 32) -> None:
        self._every_ns = every_ns
        self._kinds_max = kinds_max
        self._told: dict[Hashable, tuple[int, int]] = {}

    def note(self, kind: Hashable, now_ns: int) -> int:
        """Count one; return how many there were since the last telling, 0 for: not now."""
        if kind not in self._told and len(self._told) >= self._kinds_max:
            kind = None
        due_ns, number = self._told.get(kind, (now_ns, 0))
        number += 1
        if now_ns < due_ns:
            self._told[kind] = (due_ns, number)
            return 0
        self._told[kind] = (now_ns + self._every_ns, 0)
        return number
