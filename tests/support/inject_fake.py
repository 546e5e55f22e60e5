"""A connection through the proxy without sockets: virtual time, and transports that remember."""

import heapq
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from outlast.inject.core.linkfault import LinkFault
from outlast.inject.proxy import Link
from outlast.inject.relay import Connection, Side
from outlast.kernel import Prng

FAR_FUTURE = 1 << 60


@dataclass(order=True)
class Timer:
    at_ns: int
    order: int
    callback: Callable[[], None] = field(compare=False)
    off: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.off = True


class Time:
    """Clock and timers; nothing happens until :meth:`advance`."""

    def __init__(self) -> None:
        self.now_ns = 1
        self._timers: list[Timer] = []
        self._order = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        self._order += 1
        timer = Timer(when_ns, self._order, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, ns: int) -> None:
        end = self.now_ns + ns
        while self._timers and self._timers[0].at_ns <= end:
            timer = heapq.heappop(self._timers)
            self.now_ns = max(self.now_ns, timer.at_ns)
            if not timer.off:
                timer.callback()
        self.now_ns = end


class FakeTransport:
    """The proxy's end of one socket. ``unread`` is what the system holds for the proxy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.written = bytearray()
        self.unread: list[bytes] = []
        self.reading = True
        self.ended = False
        self.closed = False
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        ports = {"sockname": ("fake", 1), "peername": ("fake", 2)}
        return ports.get(name, default)

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.aborted
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class FakeLab:
    """One connection through one link."""

    def __init__(
        self, seed: int = 1, buffer_bytes: int = 1000, *, cut_first: bool = False
    ) -> None:
        self.time = Time()
        self.near, self.far = FakeTransport("near"), FakeTransport("far")

        async def connect(handler: Callable[[], Side], *_: Any, **__: Any) -> Any:
            side = handler()
            side.connection_made(self.far)
            return side

        def run_now(coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
            try:
                coroutine.send(None)
            except StopIteration:
                return
            raise AssertionError(f"{name} waits, and nothing here ends a wait")

        world: Any = SimpleNamespace(
            clock=self.time,
            timers=self.time,
            network=SimpleNamespace(connect=connect),
            spawn=SimpleNamespace(task=run_now),
        )
        self.link = Link(
            world,
            Prng(seed),
            "c-s",
            source="c",
            target="s",
            host="fake",
            upstream=("fake", 1),
            buffer_bytes=buffer_bytes,
        )
        if cut_first:
            self.link.set("both", LinkFault(cut=True), 3_000_000_000)
        accepted: Any = self.link._accept()
        self.connection: Connection = accepted.connection
        accepted.connection_made(self.near)

    def send(self, transport: FakeTransport, data: bytes) -> None:
        """The party behind ``transport`` sends; the proxy reads if it wants to."""
        transport.unread.append(data)
        self.settle()

    def settle(self) -> None:
        """Hand over what waits in the system, while the proxy reads."""
        for transport, side in (
            (self.near, self.connection.near),
            (self.far, self.connection.far),
        ):
            while transport.unread and transport.reading and side.transport is not None:
                side.data_received(transport.unread.pop(0))

    def break_link(self, way: Any, fault: LinkFault, ns: int = FAR_FUTURE) -> None:
        self.link.set(way, fault, self.time.now_ns + ns)
        self.settle()

    def advance(self, ns: int) -> None:
        self.time.advance(ns)
        self.settle()
