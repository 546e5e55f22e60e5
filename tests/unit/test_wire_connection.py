"""One connection on a fake transport and clock: writes, bounds, silence, and bad handlers."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from outlast.host import make_world
from outlast.kernel import (
    ConnectionLostError,
    Event,
    HandshakeError,
    OutlastError,
    OverloadedError,
    ProtocolError,
    World,
)
from outlast.wire import (
    Connection,
    ConnectionClosed,
    FrameDecoder,
    Identity,
    Limits,
    ProtocolBroken,
    Scope,
    Security,
    Token,
    WireListener,
    encode_frame,
)
from outlast.wire.core.frame import HELLO, PING

NS = 1_000_000_000


class FakeTime:
    """A clock and its timers, moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.waiting: list[FakeTimer] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_id(self) -> str:
        return ""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> "FakeTimer":
        timer = FakeTimer(self, when_ns, callback)
        self.waiting.append(timer)
        return timer

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        end = self.now_ns + int(seconds * NS)
        while due := [t for t in self.waiting if t.when_ns <= end]:
            timer = min(due, key=lambda t: t.when_ns)
            self.waiting.remove(timer)
            self.now_ns = max(self.now_ns, timer.when_ns)
            timer.callback()
        self.now_ns = end


class FakeTimer:
    def __init__(self, time: FakeTime, when_ns: int, callback: Callable[[], None]) -> None:
        self.time, self.when_ns, self.callback = time, when_ns, callback

    def cancel(self) -> None:
        if self in self.time.waiting:
            self.time.waiting.remove(self)


class FakeTransport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.stuck = False
        self.closed = self.aborted = self.reading_paused = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes)) if self.stuck else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False


class FakeGreeter:
    def __init__(self) -> None:
        self.greetings: list[tuple[int, bytes, bool]] = []
        self.failures: list[OutlastError] = []
        self.gone_count = 0

    def began(self, connection: Connection) -> None:
        pass

    def greeted(self, connection: Connection, kind: int, body: bytes, more: bool) -> None:
        self.greetings.append((kind, body, more))
        if kind != HELLO:
            raise ProtocolError("not a hello")

    def failed(self, connection: Connection, error: OutlastError) -> None:
        self.failures.append(error)

    def gone(self, connection: Connection) -> None:
        self.gone_count += 1


class Recorder:
    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.ended: list[BaseException | None] = []
        self.on_frame: Callable[[], None] = lambda: None

    def opened(self, connection: Connection) -> None:
        self.connection = connection

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        self.frames.append((kind, stream, body))
        self.on_frame()

    def closed(self, error: BaseException | None) -> None:
        self.ended.append(error)


class Bench:
    """A connection with everything around it fake, inside a running loop."""

    def __init__(self, limits: Limits | None = None, *, is_open: bool = True) -> None:
        self.time = FakeTime()
        self.world: World = replace(make_world(seed=1), clock=self.time, timers=self.time)
        self.events: list[Event] = []
        self.world.events.subscribe(self.events.append)  # type: ignore[attr-defined]
        self.transport = FakeTransport()
        self.greeter = FakeGreeter()
        self.handler = Recorder()
        self.connection = Connection(self.world, limits or Limits(), self.greeter, node="n1")
        self.connection.connection_made(self.transport)
        if is_open:
            self.connection.establish(self.handler, Identity(node="n2"), "raft")

    def lose(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)


def run(story: Callable[[], Any]) -> None:
    async def main() -> None:
        await story()

    asyncio.run(main())


async def turn() -> None:
    await asyncio.sleep(0)


def test_all_sends_of_a_turn_go_out_in_one_write() -> None:
    async def story() -> None:
        bench = Bench()
        sent = [(1, n, b"x" * n) for n in range(5)]
        assert all(bench.connection.send(*frame) for frame in sent)
        assert bench.transport.writes == []
        assert bench.connection.buffered_bytes == sum(16 + n for n in range(5))
        await turn()
        assert len(bench.transport.writes) == 1
        assert FrameDecoder(Limits()).feed(bench.transport.writes[0]) == sent
        assert bench.connection.buffered_bytes == 0

    run(story)


def test_replies_to_one_read_go_out_in_one_write_without_waiting() -> None:
    async def story() -> None:
        bench = Bench()
        bench.handler.on_frame = lambda: bench.connection.send(2, 0, b"reply") and None
        bench.connection.data_received(encode_frame(1, 0, b"a") * 3)
        assert bench.transport.writes == [encode_frame(2, 0, b"reply") * 3]
        await turn()
        assert len(bench.transport.writes) == 1

    run(story)


def test_a_full_send_buffer_cuts_the_connection_and_says_so() -> None:
    async def story() -> None:
        bench = Bench(Limits(frame_bytes_max=1000, send_buffer_bytes_max=2000))
        bench.transport.stuck = True
        assert bench.connection.send(1, 0, bytes(900))
        await turn()
        assert bench.connection.send(1, 0, bytes(900))
        assert not bench.connection.send(1, 0, bytes(900))
        assert bench.transport.aborted
        assert not bench.connection.send(1, 0, b"")
        bench.lose()
        (error,) = bench.handler.ended
        assert isinstance(error, OverloadedError)
        assert "2748 bytes unsent, at most 2000" in str(error)
        await turn()
        assert len(bench.transport.writes) == 1

    run(story)


def test_a_buffer_that_drained_is_not_counted_again() -> None:
    async def story() -> None:
        bench = Bench(Limits(frame_bytes_max=1000, send_buffer_bytes_max=2000))
        for _ in range(20):
            bench.transport.stuck = True
            assert bench.connection.send(1, 0, bytes(900))
            await turn()
            bench.transport.stuck = False  # drained, without a resume_writing
            bench.transport.writes.clear()
        assert bench.connection.is_open

    run(story)


def test_a_frame_that_breaks_a_limit_is_refused_and_the_connection_stays() -> None:
    async def story() -> None:
        bench = Bench(Limits(frame_bytes_max=1000))
        with pytest.raises(ProtocolError, match="1001 bytes"):
            bench.connection.send(1, 0, bytes(1001))
        with pytest.raises(ProtocolError, match="kind 240"):
            bench.connection.send(0xF0, 0, b"")
        assert bench.connection.send(0xEF, 0, bytes(1000))

    run(story)


def test_damage_reaches_no_handler_and_ends_the_connection() -> None:
    async def story() -> None:
        bench = Bench()
        damaged = bytearray(encode_frame(1, 0, b"abc"))
        damaged[-1] ^= 1
        bench.connection.data_received(bytes(damaged))
        assert bench.transport.aborted
        bench.connection.data_received(encode_frame(1, 0, b"later"))
        bench.lose()
        assert bench.handler.frames == []
        assert isinstance(bench.handler.ended[0], ProtocolError)
        assert [type(e) for e in bench.events[1:]] == [ProtocolBroken, ConnectionClosed]

    run(story)


def test_a_hello_after_the_handshake_ends_the_connection() -> None:
    async def story() -> None:
        bench = Bench()
        bench.connection.data_received(encode_frame(HELLO, 0, b"") + encode_frame(1, 0, b"x"))
        assert bench.transport.aborted
        assert bench.handler.frames == []

    run(story)


def test_a_handler_that_closes_gets_no_more_frames() -> None:
    async def story() -> None:
        bench = Bench()
        bench.handler.on_frame = bench.connection.close
        bench.connection.data_received(encode_frame(1, 0, b"a") * 3)
        assert len(bench.handler.frames) == 1
        bench.lose()
        assert bench.handler.ended == [None]
        assert bench.greeter.gone_count == 1

    run(story)


def test_a_handler_that_raises_loses_its_connection_only() -> None:
    async def story() -> None:
        bench = Bench()
        seen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: seen.append(c))

        def fail() -> None:
            raise ValueError("bug")

        bench.handler.on_frame = fail
        bench.connection.data_received(encode_frame(1, 0, b"a") * 2)
        assert bench.transport.aborted
        assert len(bench.handler.frames) == 1
        assert "'raft'" in seen[0]["message"]
        bench.lose()
        assert isinstance(bench.handler.ended[0], ValueError)

    run(story)


def test_close_sends_what_is_queued_and_has_an_end() -> None:
    async def story() -> None:
        bench = Bench(Limits(close_timeout=3.0))
        bench.connection.send(1, 0, b"last")
        bench.connection.close()
        assert bench.transport.writes == [encode_frame(1, 0, b"last")]
        assert bench.transport.closed
        assert not bench.transport.aborted
        bench.time.advance(3.0)
        assert bench.transport.aborted

    run(story)


def test_silence_is_broken_by_pings_and_ends_the_other_side() -> None:
    async def story() -> None:
        bench = Bench(Limits(keepalive=5.0, idle_timeout=20.0))
        bench.time.advance(19.0)
        assert bench.transport.writes == [encode_frame(PING, 0, b"")] * 3
        assert not bench.transport.aborted
        bench.time.advance(1.0)
        assert bench.transport.aborted
        bench.lose()
        assert isinstance(bench.handler.ended[0], ConnectionLostError)
        assert "no complete frame on channel 'raft' for 20.0 s" in str(bench.handler.ended[0])

    run(story)


def test_pings_keep_a_quiet_connection_and_reach_no_handler() -> None:
    async def story() -> None:
        bench = Bench()
        for _ in range(50):
            bench.time.advance(5.0)
            bench.connection.data_received(encode_frame(PING, 0, b""))
        assert bench.connection.is_open
        assert bench.handler.frames == []

    run(story)


def test_a_frame_that_never_ends_does_not_count_as_life() -> None:
    async def story() -> None:
        bench = Bench()
        bench.connection.data_received(encode_frame(1, 0, bytes(1000))[:20])
        for _ in range(5):
            bench.time.advance(5.0)
            bench.connection.data_received(b"\0")
        assert bench.transport.aborted

    run(story)


def test_no_ping_is_sent_where_frames_are() -> None:
    async def story() -> None:
        bench = Bench()
        for _ in range(4):
            bench.connection.send(1, 0, b"")
            await turn()
            bench.connection.data_received(encode_frame(1, 0, b""))
            bench.time.advance(5.0)
        assert bench.transport.writes == [encode_frame(1, 0, b"")] * 4

    run(story)


def test_who_paused_reading_does_not_complain_of_silence() -> None:
    async def story() -> None:
        bench = Bench()
        bench.connection.pause_reading()
        assert bench.transport.reading_paused
        bench.time.advance(60.0)
        assert bench.connection.is_open
        bench.connection.resume_reading()
        assert not bench.transport.reading_paused
        bench.time.advance(30.0)
        assert bench.transport.aborted

    run(story)


def test_slow_greetings_are_cut_off_at_the_timeout_however_they_drip() -> None:
    async def story() -> None:
        bench = Bench(Limits(handshake_timeout=5.0), is_open=False)
        hello = encode_frame(HELLO, 0, bytes(100))
        for n in range(9):
            bench.connection.data_received(hello[n : n + 1])
            bench.time.advance(0.5)
        assert not bench.transport.aborted
        bench.time.advance(0.5)
        assert bench.transport.aborted
        assert isinstance(bench.greeter.failures[0], HandshakeError)
        assert bench.greeter.greetings == []
        bench.lose()
        assert len(bench.greeter.failures) == 1

    run(story)


def test_an_oversized_greeting_is_refused_from_its_header() -> None:
    async def story() -> None:
        bench = Bench(Limits(handshake_bytes_max=4096), is_open=False)
        bench.connection.data_received(encode_frame(HELLO, 0, bytes(4097))[:16])
        assert isinstance(bench.greeter.failures[0], ProtocolError)
        assert bench.transport.closed
        for _ in range(100):
            bench.connection.data_received(bytes(65536))
        assert bench.connection._decoder.held_bytes == 0
        assert bench.greeter.greetings == []

    run(story)


def test_a_refused_caller_that_reads_nothing_is_cut_off() -> None:
    async def story() -> None:
        bench = Bench(Limits(handshake_timeout=5.0), is_open=False)
        bench.connection.data_received(encode_frame(1, 0, b"no hello"))
        assert bench.transport.closed
        assert not bench.transport.aborted
        bench.time.advance(5.0)
        assert bench.transport.aborted
        assert len(bench.greeter.failures) == 1

    run(story)


@pytest.mark.parametrize(
    ("host", "security", "refused"),
    [
        ("10.0.0.9", Security(), True),
        ("::ffff:10.0.0.9", Security(), True),
        ("127.0.0.1", Security(), False),
        ("::1", Security(), False),
        ("10.0.0.9", Security(unprotected=True), False),
        ("10.0.0.9", Security(tokens=(Token("a", Scope.CLIENT, "x" * 16),)), False),
    ],
)
def test_an_open_listener_accepts_loopback_callers_only(
    host: str, security: Security, refused: bool
) -> None:
    class Transport(FakeTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return (host, 5, 0, 0) if name == "peername" else default

    class Network:
        async def listen(self, handler: Any, *_: Any, **__: Any) -> Any:
            self.make = handler
            return self

        port = 1

    async def story() -> None:
        time, network = FakeTime(), Network()
        world = replace(make_world(), clock=time, timers=time, network=network)  # type: ignore[arg-type]
        listener = WireListener(world, Identity(cluster="c", node="n1"), security)
        await listener.start("127.0.0.1", 0)
        transport = Transport()
        network.make().connection_made(transport)
        assert transport.closed is refused
        assert (b"only loopback callers" in b"".join(transport.writes)) is refused

    run(story)


def test_what_comes_before_the_handshake_is_never_a_frame() -> None:
    async def story() -> None:
        bench = Bench(is_open=False)
        assert not bench.connection.send(1, 0, b"x")
        bench.connection.data_received(encode_frame(1, 0, b"early") * 3)
        assert bench.greeter.greetings == [(1, b"early", True)]
        assert bench.transport.closed
        assert bench.handler.frames == []

    run(story)


def test_drain_waits_while_paused_and_ends_with_the_connection() -> None:
    async def story() -> None:
        bench = Bench()
        told: list[bool] = []
        bench.connection.on_pause = told.append
        await bench.connection.drain()
        for end in (bench.connection.resume_writing, bench.lose):
            bench.connection.pause_writing()
            waiting = asyncio.ensure_future(bench.connection.drain())
            await turn()
            assert not waiting.done()
            end()
            await waiting
        assert told == [True, False, True]

    run(story)


def test_the_handler_is_told_how_it_ended() -> None:
    async def story() -> None:
        for exc, says in ((None, "closed channel 'raft'"), (ConnectionResetError("rst"), "rst")):
            bench = Bench()
            bench.lose(exc)
            (error,) = bench.handler.ended
            assert isinstance(error, ConnectionLostError)
            assert says in str(error)
            assert bench.time.waiting == []

    run(story)
