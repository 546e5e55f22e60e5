"""One membership node, and a bench to play the others by hand."""

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import (
    Effects,
    Me,
    PacketReceived,
    Started,
    StreamReceived,
    TimerFired,
)
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.kernel import Prng

S, MS = 1_000_000_000, 1_000_000


def accused(*by: str, refused: bool = False, observers: int = 0) -> list[wire.Accusation]:
    return [wire.Accusation(one, refused, 1000, 3, 3, observers, 0) for one in by]


class Bench:
    """One node, and what it sends; the others are played by the test."""

    def __init__(self, *names: str, **changes: object) -> None:
        self.now_ns = S
        self.node = SwimNode(SwimSettings.lan(**changes), Me("a", "a:1"), Prng(7))
        self.node.step(Started(()), self.now_ns)
        self.events: list[object] = []
        self.news(*(self.alive(name) for name in names))
        self.events.clear()

    def alive(self, name: str, incarnation: int = 1, **changes: object) -> wire.AliveNews:
        fields = {"address": f"{name}:1", "session": 7, "metadata": {}} | changes
        return wire.AliveNews(name, incarnation=incarnation, **fields)  # type: ignore[arg-type]

    def step(self, event: object) -> Effects:
        effects = self.node.step(event, self.now_ns)  # type: ignore[arg-type]
        self.events += effects.events
        return effects

    def packet(self, message: wire.Message, source: str = "x:1") -> Effects:
        return self.step(PacketReceived(wire.encode(message), source))

    def news(self, *news: wire.News) -> Effects:
        return self.packet(wire.Gossip("x", 0, list(news)))

    def body(self, body: wire.StreamBody, request: int | None = None) -> Effects:
        return self.step(StreamReceived(wire.encode(body), "x:1", request))

    def timer(self) -> Effects:
        """Go to the next deadline, and take it."""
        self.now_ns = self.node.deadline_ns
        return self.step(TimerFired())

    def until(self, kind: type, most: int = 400) -> wire.Message:
        """Go on until a packet of ``kind`` is sent, and return it."""
        for _ in range(most):
            for packet in self.timer().packets:
                message = wire.decode_packet(packet.data)
                if isinstance(message, kind):
                    return message  # type: ignore[no-any-return]
        raise AssertionError(f"no {kind.__name__} in {most} steps")

    def state(self, name: str) -> tuple[str, int]:
        member = self.node.member(name)
        assert member is not None
        return member.state.value, member.incarnation

    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


def entry(name: str, state: int, incarnation: int = 1, **changes: object) -> wire.Entry:
    fields = {"address": f"{name}:1", "session": 7, "metadata": {}, "accusations": []} | changes
    return wire.Entry(name, incarnation=incarnation, state=state, **fields)  # type: ignore[arg-type]
