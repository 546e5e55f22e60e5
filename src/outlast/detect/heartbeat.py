"""``Heartbeat``: sends beats at a steady pace, and says so when it could not."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from outlast.detect.core.scale import NS, nanoseconds
from outlast.detect.detectors_events import HeartbeatFailed, HeartbeatsMissed
from outlast.kernel import ConfigError, TaskHandle, World, current_world
from outlast.kernel.registry import watch


class Heartbeat:
    """Sends a beat every ``interval`` seconds, by whatever ``send`` does with its number.

    Beats keep to a fixed grid of instants, so that lateness does not add up. A beat whose time has
    passed is not sent later: its number is left out, and the event ``HeartbeatsMissed`` says so.
    Numbers grow with the wall clock, one each interval, from where it stands at the start: a
    sender that was started again goes on above where it ended, and an old beat is known as old.

    What ``send`` raises, or that it takes longer than an interval (it is cancelled then), is
    counted and told once, and the next beat is tried at its time. Belongs to one event loop.

    Args:
        send: Called with the number: a plain function that returns at once, or a coroutine
            function.
        interval: Seconds between beats. 0.001 to 3600.
        name: Shown in events; with one it is found by the metrics and the commands.
        world: Clock, timers and events; those of the context by default.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    def __init__(
        self,
        send: Callable[[int], Awaitable[object] | object],
        interval: float = 0.1,
        *,
        name: str = "",
        world: World | None = None,
    ) -> None:
        given: object = send
        if not callable(given):
            message = f"Heartbeat: send is {send!r}; a function of the beat's number"
            raise ConfigError(message)
        self.name = name
        self._send = send
        self._interval_ns = nanoseconds("Heartbeat", "interval", interval, 0.001, 3600.0)
        self._world = world
        self._task: TaskHandle | None = None
        self._turn = 0
        self._failing = False
        self.seq: int | None = None
        """The number of the last beat that was tried."""
        self.sent = 0
        self.missed = 0
        self.failed = 0
        if name:
            watch(self)

    def start(self) -> None:
        """Begin on the running loop, with the first beat at once.

        Raises:
            ConfigError: Definite. It runs already.
        """
        if self._task is not None:
            raise ConfigError(f"Heartbeat {self.name!r}: it runs already; stop() it first")
        world = self._world or current_world()
        self._turn += 1
        self._task = world.spawn.task(self._run(world, self._turn), name=f"heartbeat {self.name}")

    def stop(self) -> None:
        """End: no more beats. Nothing happens if it does not run."""
        if self._task is not None:
            self._turn += 1  # a ``send`` may swallow that it is cancelled
            self._task.cancel()
            self._task = None

    async def __aenter__(self) -> "Heartbeat":
        """Begin on the running loop."""
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self.stop()

    async def _run(self, world: World, turn: int) -> None:
        interval_ns = self._interval_ns
        start_ns = world.clock.monotonic_ns()
        first = world.clock.wall_ns() // interval_ns
        if self.seq is not None:
            first = max(first, self.seq + 1)
        count = 0
        while True:
            self.seq = first + count
            await self._beat(world, self.seq)
            if turn != self._turn:
                return
            now_ns = world.clock.monotonic_ns()
            count += 1
            behind = (now_ns - start_ns) // interval_ns - count
            if behind > 0:
                late = (now_ns - start_ns - count * interval_ns) / NS
                self.missed += behind
                world.events.emit(HeartbeatsMissed(heartbeat=self.name, count=behind, late=late))
                count += behind
            wait_ns = start_ns + count * interval_ns - now_ns
            await world.timers.sleep(max(0, wait_ns) / NS)

    async def _beat(self, world: World, seq: int) -> None:
        try:
            made = self._send(seq)
            if inspect.isawaitable(made):
                async with asyncio.timeout(self._interval_ns / NS):
                    await made
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # it is we who are cancelled, not what ``send`` has waited for
            self.failed += 1
            if not self._failing:
                text = f"{type(error).__name__}: {error}"
                world.events.emit(HeartbeatFailed(heartbeat=self.name, error=text[:500]))
            self._failing = True
        else:
            self.sent += 1
            self._failing = False

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {"kind": "Heartbeat", "name": self.name, "interval": self._interval_ns / NS}

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        return {
            "running": self._task is not None,
            "seq": self.seq,
            "sent": self.sent,
            "missed": self.missed,
            "failed": self.failed,
        }

    def __repr__(self) -> str:
        return f"<Heartbeat {self.name!r} seq={self.seq} sent={self.sent} missed={self.missed}>"
