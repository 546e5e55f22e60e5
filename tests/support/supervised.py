"""Functions that are supervised in tests, importable by name; events that can be awaited."""

import asyncio
import os
import signal
import sys
import time
from typing import Any

from outlast.detect import progress_stamp
from outlast.host import make_world
from outlast.kernel import Event, EventBus, World


class Heard:
    """A world whose events are kept, and can be awaited."""

    def __init__(self, world: World | None = None) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()
        bus = EventBus()
        bus.subscribe(self._hear)
        self.world = make_world(seed=1, events=bus) if world is None else world

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[Event], count: int = 1) -> Any:
        """Wait until there are so many of a kind; return the last of them."""
        while len(self.of(kind)) < count:
            self._more.clear()
            await self._more.wait()
        return self.of(kind)[count - 1]


def say_and_wait(text: str, path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    print(f"{text} {os.getpid()} {sys.stdin.read()!r}", flush=True)
    signal.pause()


def fail(text: str) -> None:
    raise ValueError(text)


def finish(code: int) -> None:
    print("finished", flush=True)
    raise SystemExit(code)


def stamp_once_and_hang() -> None:
    progress_stamp()
    hang_here()


def hang_here() -> None:
    while True:
        time.sleep(60)


def stamp_for_ever() -> None:
    while True:
        progress_stamp()
        time.sleep(0.01)
