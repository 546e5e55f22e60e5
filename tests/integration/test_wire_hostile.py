"""Strangers and broken peers on a real socket: refused or cut off, nothing reaches a handler.

Every story gets a World and uses its network alone, so that it can run on another one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from outlast.host import make_world
from outlast.kernel import (
    ConfigError,
    ConnectionLostError,
    HandshakeError,
    OverloadedError,
    RejectedError,
    UnavailableError,
    World,
)
from outlast.wire import (
    Connection,
    FrameDecoder,
    HandshakeRefused,
    Identity,
    Limits,
    ProtocolBroken,
    Scope,
    Security,
    WireListener,
    dial,
    encode_frame,
    parse_tokens,
)
from outlast.wire.core.frame import HELLO, REFUSE, WELCOME
from outlast.wire.core.handshake import Refuse, decode_message, encode_message, hello_of

pytestmark = pytest.mark.timeout(120)

CLIENT_TOKEN = "client-0123456789abcdef"
PEER_TOKEN = "peer-0123456789abcdef"
TOKENS = parse_tokens(f"app client {CLIENT_TOKEN}\nnode peer {PEER_TOKEN}")
N1 = Identity(cluster="blue", node="n1", incarnation=1, hash_seed=0)
N2 = Identity(cluster="blue", node="n2", incarnation=2, hash_seed=0)


class Echo:
    """Server side of a channel: sends each frame back and remembers it."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.ended: list[BaseException | None] = []

    def opened(self, connection: Connection) -> None:
        self.connection = connection

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        self.frames.append((kind, stream, body))
        self.connection.send(kind, stream, body)

    def closed(self, error: BaseException | None) -> None:
        self.ended.append(error)


class Caller:
    """Client side of a channel: a queue of frames, and how it ended."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self.ended: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future()
        )

    def opened(self, connection: Connection) -> None:
        self.connection = connection

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        self.frames.put_nowait((kind, stream, body))

    def closed(self, error: BaseException | None) -> None:
        self.ended.set_result(error)


class Tap:
    """A raw connection: what a stranger's program would be."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    @property
    def refusal(self) -> str | None:
        frames = FrameDecoder(Limits()).feed(self.received)
        if not frames:
            return None
        assert len(frames) == 1
        assert frames[0][0] == REFUSE
        reason = decode_message(Refuse, frames[0][2]).reason
        assert "\n" not in reason
        assert len(reason) <= 500
        return reason


class Node:
    """A listener with two channels, and all that ever reached them."""

    def __init__(
        self, world: World, security: Security | None = None, limits: Limits | None = None
    ) -> None:
        self.world = world
        self.handlers: list[Echo] = []
        self.events: list[Any] = []
        world.events.subscribe(self.events.append)  # type: ignore[attr-defined]
        self.listener = WireListener(world, N1, security, limits)
        self.listener.register("app", self._accept, Scope.CLIENT)
        self.listener.register("raft", self._accept, Scope.PEER)

    def _accept(self, connection: Connection) -> Echo:
        if connection.peer.purpose == "unwelcome":
            raise RejectedError("not now")
        if connection.peer.node == "n9":
            raise HandshakeError("node 'n9' is not a member; members: n1, n2")
        self.handlers.append(Echo())
        return self.handlers[-1]

    async def start(self) -> "Node":
        self.port = await self.listener.start("127.0.0.1", 0)
        return self

    async def tap(self) -> Tap:
        made = await self.world.network.connect(Tap, "127.0.0.1", self.port, timeout=5)
        assert isinstance(made, Tap)
        return made

    async def dial(self, handler: Any = None, **given: Any) -> Connection:
        arguments: dict[str, Any] = {"channel": "app", "identity": Identity(), **given}
        return await dial(
            self.world, "127.0.0.1", self.port, handler=handler or Caller(), **arguments
        )

    async def works(self, **given: Any) -> None:
        """Check that a good caller is served."""
        caller = Caller()
        connection = await self.dial(caller, **given)
        connection.send(7, 8, b"still here")
        assert await caller.frames.get() == (7, 8, b"still here")
        connection.close()
        await caller.ended

    def received(self) -> list[tuple[int, int, bytes]]:
        return [f for h in self.handlers for f in h.frames if f[2] != b"still here"]

    def refusals(self) -> list[str]:
        return [e.reason for e in self.events if isinstance(e, HandshakeRefused)]


def run(story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await story(make_world(seed=1))

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> int:
    """Let the loop turn until it holds; the story's own timeout bounds it."""
    turns = 0
    while not condition():
        await asyncio.sleep(0)
        turns += 1
    return turns


def good_hello(**changes: Any) -> bytes:
    given = {"channel": "app", "token": None, "cluster": "", "expect_node": None} | changes
    return encode_frame(HELLO, 0, encode_message(hello_of(Identity(), **given)))


GARBAGE = {
    "nothing like it": b"\xde\xad\xbe\xef" * 100,
    "http": b"GET /readyz HTTP/1.1\r\nHost: n1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "oversized length": (0xFFFF_FFFF).to_bytes(4, "little") + bytes(12),
    "a frame of the channel": encode_frame(1, 1, b"give me your data"),
    "hello that is no message": encode_frame(HELLO, 0, b"\xc1\xc1\xc1"),
    "hello of deep nesting": encode_frame(HELLO, 0, b"\x91" * 4000),
    "hello then frames": good_hello() + encode_frame(1, 1, b"smuggled"),
    "two hellos": good_hello() * 2,
    "welcome from a caller": encode_frame(WELCOME, 0, b"\x80"),
    "unknown channel": good_hello(channel="x\n\x1b[2J" * 100),
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_before_the_handshake(name: str) -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        tap = await node.tap()
        tap.transport.write(GARBAGE[name])
        await tap.ended
        assert tap.refusal
        assert node.handlers == []
        assert len(node.refusals()) == 1
        assert "\n" not in node.refusals()[0]
        await node.works()
        assert len(node.listener.connections) <= 1
        await node.listener.close()

    run(story)


def test_bit_flips_anywhere_in_a_hello_are_refused() -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        hello = good_hello()
        taps = []
        for bit in range(0, len(hello) * 8, 7):
            flipped = bytearray(hello)
            flipped[bit // 8] ^= 1 << bit % 8
            taps.append(await node.tap())
            taps[-1].transport.write(bytes(flipped))
            taps[-1].transport.write_eof()  # it may seem to be a longer one
        for tap in taps:
            await tap.ended
        assert node.handlers == []
        assert len(node.refusals()) == len(taps)
        await node.works()
        await node.listener.close()

    run(story)


def test_bit_flips_after_the_handshake_change_no_frame() -> None:
    async def story(world: World) -> None:
        node = await Node(world, limits=Limits(frame_bytes_max=4096)).start()
        frames = encode_frame(1, 1, b"first") + encode_frame(1, 2, b"second" * 9)
        rng = random.Random(5)
        for _ in range(60):
            tap = await node.tap()
            tap.transport.write(good_hello())
            flipped = bytearray(frames)
            bit = rng.randrange(len(frames) * 8)
            flipped[bit // 8] ^= 1 << bit % 8
            await until(partial(getattr, tap, "received"))
            tap.transport.write(bytes(flipped))
            tap.transport.close()
            await tap.ended
        await until(lambda: all(handler.ended for handler in node.handlers))
        assert len(node.handlers) == 60
        assert [h.frames for h in node.handlers if len(h.frames) > 1] == []
        assert all(f == (1, 1, b"first") for f in node.received())
        assert all(isinstance(h.ended[0], Exception) for h in node.handlers)
        assert [e for e in node.events if isinstance(e, ProtocolBroken)]
        await node.works()
        await node.listener.close()

    run(story)


class HandTimers:
    """Timers that ring when they are told to, however slow the machine is."""

    def __init__(self) -> None:
        self.armed: list[tuple[int, asyncio.Handle]] = []

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> asyncio.Handle:
        handle = asyncio.Handle(callback, (), asyncio.get_running_loop())
        self.armed.append((when_ns, handle))
        return handle

    def ring(self) -> None:
        for _, handle in list(self.armed):
            if not handle.cancelled():
                handle._run()


def test_a_slow_loris_is_cut_off_and_others_are_served_meanwhile() -> None:
    async def story(world: World) -> None:
        timers = HandTimers()
        slow = replace(world, timers=timers)  # type: ignore[arg-type]
        node = await Node(slow, limits=Limits(handshake_timeout=0.3)).start()
        before_ns = world.clock.monotonic_ns()
        taps = [await node.tap() for _ in range(20)]
        for tap in taps:
            tap.transport.write(good_hello()[:9])
        await until(lambda: len(node.listener.connections) == len(taps))
        after_ns = world.clock.monotonic_ns()
        for when_ns, _ in timers.armed:
            assert before_ns <= when_ns - 300_000_000 <= after_ns
        await node.works()
        assert not any(tap.ended.done() for tap in taps)
        timers.ring()
        for tap in taps:
            await tap.ended
        assert node.refusals() == [
            f"{_name(tap)}: no complete handshake within 0.3 s" for tap in taps
        ]
        await node.listener.close()

    run(story)


def _name(tap: Tap) -> str:
    host, port = tap.transport.get_extra_info("sockname")[:2]
    return f"{host}:{port}"


def test_a_flood_of_connections_is_bounded_and_passes() -> None:
    async def story(world: World) -> None:
        limits = Limits(connections_max=10, handshake_timeout=30.0)
        node = await Node(world, limits=limits).start()
        taps = [await node.tap() for _ in range(60)]
        await asyncio.gather(*(tap.ended for tap in taps[10:]))
        assert len(node.listener.connections) == 10
        with pytest.raises(OverloadedError, match="10 connections are open"):
            await node.dial()
        for tap in taps[:10]:
            tap.transport.abort()
        await until(lambda: not node.listener.connections)
        await node.works()
        await node.listener.close()

    run(story)


def test_a_flood_of_bytes_is_not_kept() -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        tap = await node.tap()
        tap.transport.write(bytes(32 << 20))
        await tap.ended
        assert node.handlers == []
        await node.works()
        await node.listener.close()

    run(story)


def test_a_caller_that_never_reads_is_cut_at_the_bound() -> None:
    async def story(world: World) -> None:
        limits = Limits(frame_bytes_max=1 << 20, send_buffer_bytes_max=2 << 20)
        node = await Node(world, limits=limits).start()
        tap = await node.tap()
        tap.transport.write(good_hello())
        await until(lambda: tap.received)
        tap.transport.pause_reading()
        body = bytes(1 << 20)
        (handler,) = node.handlers
        most = 0
        for _ in range(100):
            if not handler.connection.send(1, 1, body):
                break
            await asyncio.sleep(0)
            most = max(most, handler.connection.buffered_bytes)
        await until(lambda: handler.ended)
        assert isinstance(handler.ended[0], OverloadedError)
        assert most <= 2 << 20
        tap.transport.abort()
        await node.works()
        await node.listener.close()

    run(story)


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"expect_cluster": "green"}, "cluster: yours 'green', ours 'blue'"),
    ({"expect_node": "n3"}, "node: you expected 'n3', this is 'n1'"),
    ({"channel": "nope"}, "channel 'nope' is not served here; served: app, raft"),
    ({"identity": Identity(versions=(5, 6))}, "versions: yours (5, 6), ours (1, 1)"),
    ({"identity": Identity(hash_seed=3)}, "PYTHONHASHSEED: yours 3, ours 0"),
    ({"channel": "raft"}, "cluster: yours '', ours 'blue'"),
    ({"channel": "raft", "identity": N1}, "'n1', which is this node"),
    ({"identity": Identity(node="n9")}, "node 'n9' is not a member; members: n1, n2"),
]


@pytest.mark.parametrize(("given", "says"), MISFITS)
def test_misfits_are_refused_with_both_values_on_both_sides(
    given: dict[str, Any], says: str
) -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        with pytest.raises(HandshakeError) as caught:
            await node.dial(**given)
        assert says in str(caught.value)
        assert f"127.0.0.1:{node.port}" in str(caught.value)
        assert caught.value.happened == "no"
        assert says in node.refusals()[0]
        assert node.handlers == []
        await node.works()
        await node.listener.close()

    run(story)


def test_an_accept_may_say_not_now() -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        with pytest.raises(OverloadedError, match="not now"):
            await node.dial(identity=Identity(purpose="unwelcome"))
        await node.works()
        await node.listener.close()

    run(story)


@pytest.mark.parametrize(
    ("channel", "token", "says"),
    [
        ("app", None, "none shown"),
        ("app", "client-0123456789abcdeX", "not one of ours"),
        ("raft", CLIENT_TOKEN, "needs scope peer; the scope shown is client"),
        ("app", CLIENT_TOKEN, None),
        ("raft", PEER_TOKEN, None),
    ],
)
def test_tokens_decide_by_scope_and_are_never_shown(
    channel: str, token: str | None, says: str | None
) -> None:
    async def story(world: World) -> None:
        node = await Node(world, Security(tokens=TOKENS)).start()
        given: dict[str, Any] = {
            "channel": channel, "security": Security(token=token), "identity": N2,
        }  # fmt: skip
        if says is None:
            await node.works(**given)
            assert node.handlers[0].connection.peer == N2
        else:
            with pytest.raises(HandshakeError, match=says) as caught:
                await node.dial(**given)
            text = f"{caught.value} {node.events}"
            assert node.handlers == []
            for secret in (CLIENT_TOKEN, PEER_TOKEN, "abcdeX"):
                assert secret not in text
        await node.listener.close()

    run(story)


def test_without_tls_or_token_nothing_but_loopback_is_bound_or_dialled() -> None:
    async def story(world: World) -> None:
        node = Node(world)
        with pytest.raises(ConfigError, match=r"listen on '0\.0\.0\.0': .* give TLS"):
            await node.listener.start("0.0.0.0", 0)
        with pytest.raises(ConfigError, match=r"connect to '10\.0\.0\.1': .* give TLS"):
            await dial(world, "10.0.0.1", 1, channel="app", identity=N2, handler=Caller())

    run(story)


def test_the_dialler_judges_the_listener() -> None:
    class Liar(Tap):
        answer = b""

        def data_received(self, data: bytes) -> None:
            self.transport.write(self.answer)

    async def story(world: World) -> None:
        listener = await world.network.listen(Liar, "127.0.0.1", 0)
        caller = Caller()
        for answer, kind, says in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", HandshakeError, "looks like HTTP"),
            (encode_frame(1, 0, b"x"), HandshakeError, "expected a welcome"),
            (encode_frame(WELCOME, 0, b"\x80"), HandshakeError, "cannot be read"),
            (encode_frame(WELCOME, 0, b"\xc1"), HandshakeError, "cannot be read"),
            (bytes(16), HandshakeError, "checksum|reserved|expected"),
            (b"", UnavailableError, "no welcome within 0.5 s"),
        ):
            Liar.answer = answer
            with pytest.raises(kind, match=says) as caught:
                await dial(
                    world, "127.0.0.1", listener.port, channel="app", identity=N2,
                    handler=caller, timeout=30.0 if answer else 0.5,
                )  # fmt: skip
            assert caught.value.happened == "no"  # type: ignore[attr-defined]
        assert caller.frames.empty()
        await listener.close()

    run(story)


def test_nobody_there() -> None:
    async def story(world: World) -> None:
        listener = await world.network.listen(Tap, "127.0.0.1", 0)
        port = listener.port
        await listener.close()
        with pytest.raises(UnavailableError, match=f"n1 at 127.0.0.1:{port}: cannot connect"):
            await dial(
                world, "127.0.0.1", port, channel="app", identity=N2, handler=Caller(),
                expect_node="n1",
            )  # fmt: skip

    run(story)


def test_a_cancelled_dial_leaves_no_connection() -> None:
    async def story(world: World) -> None:
        taps: list[Tap] = []

        def make() -> Tap:
            taps.append(Tap())
            return taps[-1]

        listener = await world.network.listen(make, "127.0.0.1", 0)
        task = asyncio.ensure_future(
            dial(world, "127.0.0.1", listener.port, channel="app", identity=N2, handler=Caller())
        )
        await until(lambda: taps and taps[0].received)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await taps[0].ended
        await listener.close()

    run(story)


def test_many_frames_both_ways_and_an_orderly_end() -> None:
    async def story(world: World) -> None:
        node = await Node(world).start()
        caller = Caller()
        connection = await node.dial(caller, identity=N2, channel="raft", expect_node="n1")
        sent = [(n % 200, n, bytes(n * 7 % 5000)) for n in range(500)]
        sent += [(1, 0, bytes(8 << 20)), (2, 0, b"")]
        for frame in sent:
            assert connection.send(*frame)
        assert [await caller.frames.get() for _ in sent] == sent
        assert connection.peer == N1
        assert connection.version == 1
        await node.listener.close()
        error = await caller.ended
        assert isinstance(error, ConnectionLostError)
        assert error.happened == "maybe"
        await until(lambda: node.handlers[0].ended)
        assert node.handlers[0].ended == [None]

    run(story)
