"""Typed events: what a room says has happened, for whoever listens.

An event is a frozen dataclass named in the past tense, with one docstring line that the
reference page prints. Emitting is a plain call that must not wait and must not raise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal, Protocol

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``level`` is fixed per class, ``node`` names where it happened."""

    level: "Level" = "info"
    node: str = ""


class Events(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None:
        """Hand ``event`` to every listener. Never waits, never raises."""
        ...


class EventBus:
    """Calls each subscriber with each event, in the order of subscription.

    A subscriber that raises is dropped after the first time: an observer must not be able
    to stop what it observes. Threads may emit, subscribe and unsubscribe at the same time
    without a lock: an event goes to those who are subscribed when it is emitted, and a
    subscriber that was just removed may still see one that is under way.
    """

    __slots__ = ("_entries", "_numbers", "_subscribers", "dropped")

    def __init__(self) -> None:
        self._numbers = count()
        # Each step on the dict is atomic; emitting reads the tuple, which is only ever replaced.
        self._entries: dict[int, Callable[[Event], None]] = {}
        self._subscribers: tuple[Callable[[Event], None], ...] = ()
        self.dropped: list[BaseException] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Add ``subscriber`` and return a function that removes it again."""
        number = next(self._numbers)
        self._entries[number] = subscriber
        self._publish()

        def unsubscribe() -> None:
            if self._entries.pop(number, None) is not None:
                self._publish()

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Hand ``event`` to every subscriber."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:
                self._drop(subscriber, error)

    def _publish(self) -> None:
        """Put the tuple in place, and again if another thread has changed the dict meanwhile.

        Whoever changes the dict last also compares last, so that no older tuple stays.
        """
        while True:
            entries = self._entries.copy()
            self._subscribers = tuple(entries.values())
            if tuple(self._entries) == tuple(entries):
                return

    def _drop(self, subscriber: Callable[[Event], None], error: BaseException) -> None:
        for number, one in self._entries.copy().items():
            if one is subscriber and self._entries.pop(number, None) is not None:
                self.dropped.append(error)
                break
        self._publish()


class NullEvents:
    """Forgets every event."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        """Do nothing."""
