"""The client's session over a courier whose answers the test decides."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from outlast.cluster import Client
from outlast.cluster.messages import Kind, Resolve
from outlast.host import make_world
from outlast.kernel import BarredError, Deadline, DeadlineError, SessionExpiredError
from outlast.state import Reply
from outlast.state.core.envelope import decode_command

pytestmark = pytest.mark.anyio

NOTHING = msgspec.msgpack.encode(None)


class Cluster:
    """Stands for the courier: answers each request as the test says."""

    closed = False

    def __init__(self) -> None:
        self.sessions = iter((100, 199))
        self.links = self
        self.barred: list[tuple[int, int]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    def look(self) -> None:
        """Nothing to look for."""

    def close(self) -> None:
        self.closed = True

    async def ended(self) -> None:
        """No sockets to wait for."""

    async def request(
        self, kind: Kind, body: Callable[[], bytes], deadline: Deadline, **_: Any
    ) -> Reply:
        raw = body()
        if kind == Kind.REGISTER:
            return Reply(0, 1, b"", msgspec.msgpack.encode(next(self.sessions)))
        if kind == Kind.RESOLVE:
            ask = msgspec.msgpack.decode(raw, type=Resolve)
            await self.hold.wait()
            self.barred.append((ask.session, ask.seq))
            raise BarredError("it will never run")
        command = decode_command(raw)
        if command.name == "lost":
            raise DeadlineError("no answer")
        if command.name == "expired" and command.session == 100:
            raise SessionExpiredError("gone")
        return Reply(0, 1, b"", NOTHING)


async def test_what_was_given_up_is_settled_also_in_the_session_opened_meanwhile():
    """Else its number would block the new session's window for ever."""
    client = Client(None, ["127.0.0.1:1"], world=make_world())
    cluster: Any = Cluster()
    client._courier = cluster
    async with client:
        cluster.hold.clear()
        with pytest.raises(DeadlineError):
            await client.call_json("lost")
        await client.call_json("expired")
        with pytest.raises(DeadlineError):
            await client.call_json("lost")
        cluster.hold.set()
        session = client._session
        assert session is not None
        assert session.id == 199
        while (settling := client._settling) is not None:
            await asyncio.wait_for(settling, 5)  # type: ignore[arg-type]
        assert cluster.barred == [(100, 1), (199, 2)]
        assert session.ack_below == 3
