"""A node's answers: bounded, and always given."""

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from outlast.cluster.messages import CLIENT_CHANNEL, Kind, Register
from outlast.cluster.service import Service
from outlast.host import make_world
from outlast.kernel import ConfigError, IndefiniteError, OverloadedError
from outlast.state import decode_reply, decode_reply_error

pytestmark = pytest.mark.anyio


class Link:
    """A client's connection to a service whose replica answers nothing until told to."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.wait = asyncio.Event()
        self.asked = 0
        ports: dict[str, Any] = {}
        listener: Any = SimpleNamespace(register=lambda name, make, _: ports.update({name: make}))
        authority = SimpleNamespace(term=1, holder=None, mine=True)
        log: Any = SimpleNamespace(authority=authority, membership=SimpleNamespace(members=()))
        me: Any = self
        Service(make_world(), listener, log, me, me, machine="Kv", machine_version=1)
        me.port = ports[CLIENT_CHANNEL](None)
        me.port.opened(self)
        self.sent.get_nowait()  # the view

    def send(self, kind: int, stream: int, body: bytes) -> bool:
        self.sent.put_nowait((stream, body))
        return True

    def submit(self, body: bytes, reply: object) -> None:
        """No commands here."""

    async def register(self, ttl: float) -> int:
        self.asked += 1
        await self.wait.wait()
        return int(ttl)

    def ask(self, stream: int, ttl: float) -> None:
        me: Any = self
        me.port.frame(Kind.REGISTER, stream, msgspec.msgpack.encode(Register(ttl)))

    async def error(self) -> Exception:
        _, body = await asyncio.wait_for(self.sent.get(), 5)
        return decode_reply_error(decode_reply(body))


@pytest.mark.parametrize("ttl", [float("inf"), float("nan"), 1e300, -1.0])
async def test_a_time_to_live_that_is_none_is_refused_and_not_left_unanswered(ttl: float):
    link = Link()
    link.ask(1, ttl)
    assert isinstance(await link.error(), ConfigError)
    assert link.asked == 0


async def test_one_connection_cannot_make_a_node_hold_any_number_of_requests():
    link = Link()
    for stream in range(1025):
        link.ask(stream, 1.0)
    assert link.sent.qsize() == 1
    assert isinstance(await link.error(), OverloadedError)
    link.wait.set()
    answered = [(await asyncio.wait_for(link.sent.get(), 5))[0] for _ in range(1024)]
    assert answered == list(range(1024))
    link.ask(2000, 1.0)
    assert decode_reply((await asyncio.wait_for(link.sent.get(), 5))[1]).status == 0


async def test_whoever_asked_is_answered_even_if_the_answer_was_a_bug():
    link = Link()
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))

    async def broken(ttl: float) -> int:
        raise LookupError("ours")

    link.register = broken  # type: ignore[method-assign]
    link.ask(1, 1.0)
    error = await link.error()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert isinstance(error, IndefiniteError)
    assert str(error) == "LookupError: ours"
    assert [type(one) for one in seen] == [LookupError]
