"""The courier over links that the test makes: one call never harms the others."""

import asyncio
from typing import Any

import pytest

from outlast.cluster.courier import Courier
from outlast.cluster.links import Link
from outlast.cluster.messages import Kind
from outlast.host import make_world
from outlast.kernel import Deadline, ProtocolError
from outlast.state import Reply, encode_reply

pytestmark = pytest.mark.anyio

WORLD = make_world()


def soon() -> Deadline:
    return Deadline.after(5.0, WORLD.clock.monotonic_ns())


class Wire:
    """An open connection whose frames take ten bytes."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send(self, kind: int, stream: int, body: bytes) -> bool:
        if len(body) > 10:
            raise ProtocolError("too large")
        self.sent.append(stream)
        return True

    def abort(self) -> None:
        """Nothing to do."""

    close = abort


def lead(courier: Courier, node: str, term: int) -> tuple[Link, Wire]:
    """Let ``node`` be reached and lead."""
    wire = Wire()
    connection: Any = wire
    link = Link(f"{node}:1", courier, node, connection)
    courier.links.by_address[link.address] = link
    courier.routing.learn(term, node, [])
    return link, wire


async def test_a_request_too_large_for_a_frame_ends_and_is_forgotten():
    courier = Courier(WORLD, ["127.0.0.1:1"])
    lead(courier, "n1", 1)
    courier._leader_link()
    with pytest.raises(ProtocolError):
        await courier.request(Kind.COMMAND, lambda: b"x" * 11, soon())
    assert courier.in_flight == 0
    courier.close()


async def test_a_request_too_large_keeps_no_other_from_the_next_leader():
    """It waited for a leader beside others; sending it must not break the link it came on."""
    courier = Courier(WORLD, ["127.0.0.1:1"])
    courier.links.want = lambda _: None  # type: ignore[method-assign]
    large = asyncio.ensure_future(courier.request(Kind.COMMAND, lambda: b"x" * 11, soon()))
    small = asyncio.ensure_future(courier.request(Kind.COMMAND, lambda: b"x", soon()))
    await asyncio.sleep(0)
    assert courier.in_flight == 2
    link, wire = lead(courier, "n1", 1)
    courier.link_up(link)
    with pytest.raises(ProtocolError):
        await large
    reply = encode_reply(Reply(0, 7, b"", b""))
    courier.link_frame(link, Kind.REPLY, wire.sent[0], reply)
    assert (await small).index == 7
    assert courier.in_flight == 0
    courier.close()
