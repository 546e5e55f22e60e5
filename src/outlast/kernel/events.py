"""Typed events: what a room says has happened, for whoever listens.

An event is a frozen dataclass named in the past tense, with one docstring line that the
reference page prints. Emitting is a plain call that must not wait and must not raise.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
    to stop what it observes. Not thread-safe: emit from one thread.
    """

    __slots__ = ("_subscribers", "dropped")

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []
        self.dropped: list[BaseException] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Add ``subscriber`` and return a function that removes it again."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Hand ``event`` to every subscriber."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                self._subscribers.remove(subscriber)
                self.dropped.append(error)


class NullEvents:
    """Forgets every event."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        """Do nothing."""
