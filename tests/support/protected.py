"""Protected calls in virtual time: a stage that remembers events, for threads and for tasks."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from outlast import sim
from outlast.kernel import Event, EventBus, Prng, current_world, reset_world, use_world
from outlast.testing import virtual_time

NS = 1_000_000_000


class Stage:
    """What a test sees of the world in which it makes calls."""

    def __init__(self) -> None:
        self.world = current_world()
        self.events: list[Event] = []
        self.begun_ns = self.world.clock.monotonic_ns()
        self.world.events.subscribe(self._hear)  # type: ignore[attr-defined]
        self._at: list[float] = []

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._at.append(self.now)

    @property
    def now(self) -> float:
        """Virtual seconds since the stage was set up."""
        return round((self.world.clock.monotonic_ns() - self.begun_ns) / NS, 4)

    def pause(self, seconds: float) -> None:
        """Let time pass, in a thread."""
        self.world.clock.pause(seconds)

    def told(self) -> list[str]:
        """Return the names of the events so far."""
        return [type(event).__name__ for event in self.events]

    def story(self) -> list[tuple[Any, ...]]:
        """Return the events so far with all that they say, and when."""
        return [
            (
                at,
                type(event).__name__,
                *(_plain(getattr(event, each.name)) for each in fields(event)),
            )
            for at, event in zip(self._at, self.events, strict=True)
        ]

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def _plain(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


@contextmanager
def stage(seed: int = 1) -> Iterator[Stage]:
    """Run blocking code in virtual time, with random numbers from ``seed``."""
    with virtual_time(), _world(seed) as here:
        yield here


def play(main: Callable[[Stage], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    """Run a coroutine in the simulator, with the same clock and random numbers."""

    async def played() -> Any:
        with _world(seed) as here:
            return await main(here)

    return sim.run(played)


@contextmanager
def _world(seed: int) -> Iterator[Stage]:
    token = use_world(replace(current_world(), events=EventBus(), prng=Prng(seed)))
    try:
        yield Stage()
    finally:
        reset_world(token)
