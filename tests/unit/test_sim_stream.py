"""Simulated TCP: what it keeps in order, whom it makes wait, and how it ends."""

import asyncio
import socket
from typing import Any

import pytest

from tests.support.simnet import (
    Recorder,
    both,
    connect,
    current,
    network,
    now,
    serve_echo,
    serve_silent,
    simulate,
    start,
)


def test_what_is_written_in_one_callback_arrives_as_one_piece() -> None:
    async def main() -> Any:
        pieces: list[bytes] = []

        class Pieces(Recorder):
            def data_received(self, data: bytes) -> None:
                pieces.append(data)

        loop = asyncio.get_running_loop()
        server = await loop.create_server(Pieces, "0.0.0.0", 9)
        transport, _ = await connect("localhost", 9)
        for _ in range(5):
            transport.write(b"ab")
        await asyncio.sleep(1)
        server.close()
        return pieces

    assert simulate(main) == [b"ababababab"]


def test_one_write_may_arrive_in_two_pieces() -> None:
    async def main() -> int:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        pieces = 0
        reader, writer = await asyncio.open_connection("api", 7)
        for _ in range(200):
            writer.write(b"a request")
            got = b""
            while len(got) < 9:
                got += await reader.read(100)
                pieces += 1
            assert got == b"a request"
        writer.close()
        return pieces

    assert simulate(main) > 200


def test_bytes_stay_in_order_through_loss_jitter_and_a_narrow_line() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        both("test", "api", loss_ppm=200_000, jitter_ns=50_000_000, bytes_per_second=500_000)
        reader, writer = await asyncio.open_connection("api", 7)
        sent = b"".join(number.to_bytes(4, "big") for number in range(20_000))
        for begin in range(0, len(sent), 1000):
            writer.write(sent[begin : begin + 1000])
            await asyncio.sleep(0.001)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()
        tally = network().way("test", "api").tally
        assert tally.lost > 0
        assert tally.delayed > 0
        assert now() > len(sent) / 500_000
        assert current().notes["segment retransmitted"] > 0

    simulate(main)


def test_a_reader_that_pauses_stops_the_writer_until_it_reads() -> None:
    async def main() -> None:
        accepted: list[Recorder] = []

        async def serve() -> None:
            def make() -> Recorder:
                accepted.append(Recorder())
                return accepted[-1]

            await asyncio.get_running_loop().create_server(make, "0.0.0.0", 7)
            await asyncio.Event().wait()

        start("api", serve)
        await asyncio.sleep(0.1)
        _, writer = await asyncio.open_connection("api", 7)
        await asyncio.sleep(0.1)
        accepted[0].transport.pause_reading()
        writer.write(bytes(1_000_000))
        drain = asyncio.create_task(writer.drain())
        await asyncio.sleep(60)
        assert not drain.done()
        assert writer.transport.get_write_buffer_size() == 1_000_000 - 256 * 1024
        accepted[0].transport.resume_reading()
        await drain
        await asyncio.sleep(1)
        assert len(accepted[0].data) == 1_000_000
        assert current().notes["writer paused"] == 1
        writer.close()

    simulate(main)


def test_a_host_that_is_paused_takes_connections_and_data_but_answers_later() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        current().pause(api)
        reader, writer = await asyncio.open_connection("api", 7)
        writer.write(b"hello")
        asked = asyncio.create_task(reader.read(5))
        await asyncio.sleep(30)
        assert not asked.done()
        current().resume(api)
        assert await asked == b"hello"
        writer.close()

    simulate(main)


def test_the_backlog_of_a_paused_host_is_bounded() -> None:
    async def main() -> None:
        async def serve() -> None:
            await asyncio.get_running_loop().create_server(Recorder, "0.0.0.0", 7, backlog=2)
            await asyncio.Event().wait()

        api = start("api", serve)
        await asyncio.sleep(0.1)
        current().pause(api)
        tasks = [asyncio.create_task(connect("api")) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert sum(task.done() for task in tasks) == 2
        current().resume(api)
        for task in tasks:
            transport, _ = await task  # SYNs are sent again
            transport.close()
        assert current().notes["backlog full"] >= 3

    simulate(main)


def test_connecting_where_nobody_listens_is_refused_after_a_round_trip() -> None:
    async def main() -> float:
        current().add_host("api")
        begin = now()
        with pytest.raises(ConnectionRefusedError):
            await connect("10.0.0.2")
        assert network().way("test", "api").tally.refused == 1
        return now() - begin

    assert 100e-6 < simulate(main) < 12e-3


def test_connecting_through_a_cut_or_to_a_host_without_power_ends_after_two_minutes() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        both("test", "api", cut=True)
        begin = now()
        with pytest.raises(TimeoutError):
            await connect("api")
        assert 126 < now() - begin < 129
        network().clear()
        current().end_life(api, power=True)
        begin = now()
        with pytest.raises(TimeoutError):
            await connect("api")
        assert 126 < now() - begin < 129

    simulate(main)


def test_a_connection_attempt_goes_on_when_the_cut_heals() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        network().way("api", "test").cut = True
        task = asyncio.create_task(connect("api"))
        await asyncio.sleep(10)
        assert not task.done()
        network().clear()
        transport, _ = await task
        assert now() < 20
        transport.close()

    simulate(main)


def test_a_connection_attempt_that_is_cancelled_leaves_nothing_behind() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        network().way("api", "test").delay_ns = 1_000_000_000
        task = asyncio.create_task(connect("api"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(10)
        kernels = network().endpoints
        assert not kernels["test"].ends
        assert not kernels["api"].ends

    simulate(main)


def test_a_socket_object_that_is_thrown_away_closes_its_connection() -> None:
    async def main() -> None:
        accepted: list[Recorder] = []

        def make() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        loop = asyncio.get_running_loop()
        await loop.create_server(make, "127.0.0.1", 7)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("localhost", 7))
        await asyncio.sleep(0.1)
        accepted[0].transport.write(b"x")
        assert await loop.sock_recv(sock, 10) == b"x"
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await loop.sock_recv(sock, 10)
        del sock
        await accepted[0].lost

    simulate(main)


def test_a_call_on_a_socket_object_waits_for_room_and_learns_of_a_reset() -> None:
    async def main() -> None:
        api = start("api", serve_silent)
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("api", 7))
            await loop.sock_sendall(sock, bytes(1_000_000))
            await asyncio.sleep(0.1)
            current().pause(api)
            sending = asyncio.create_task(loop.sock_sendall(sock, bytes(1_000_000)))
            reading = asyncio.create_task(loop.sock_recv(sock, 1))
            await asyncio.sleep(10)
            assert not sending.done()
            current().end_life(api)
            with pytest.raises(ConnectionResetError):
                await sending
            with pytest.raises(ConnectionResetError):
                await reading

    simulate(main)


def test_a_cut_holds_what_is_sent_and_healing_lets_it_go_on() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("api", 7)
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        network().way("test", "api").cut = True
        writer.write(b"second")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 60)
        assert network().way("test", "api").tally.held > 0
        begin = now()
        network().way("test", "api").cut = False
        assert await reader.readexactly(6) == b"second"
        assert now() - begin < 1.1
        writer.close()

    simulate(main)


def test_a_cut_holds_what_is_under_way() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("api", 7)
        network().way("test", "api").delay_ns = 1_000_000_000
        writer.write(b"under way")
        await asyncio.sleep(0.5)
        network().way("test", "api").cut = True
        await asyncio.sleep(10)
        network().clear()
        begin = now()
        assert await reader.readexactly(9) == b"under way"
        assert now() - begin < 1.1
        writer.close()

    simulate(main)


@pytest.mark.parametrize("direction", ["to", "from"])
def test_a_sender_gives_up_when_nothing_is_acknowledged_for_two_minutes(direction: str) -> None:
    async def main() -> None:
        start("api", serve_silent)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        pair = ("test", "api") if direction == "to" else ("api", "test")
        network().way(*pair).cut = True
        await asyncio.sleep(300)  # nothing was sent: nothing is noticed
        assert client.told == ["made"]
        begin = now()
        transport.write(b"anybody?")
        error = await client.lost
        assert isinstance(error, TimeoutError)
        assert 119 < now() - begin < 121

    simulate(main)


def test_what_arrived_but_could_not_be_acknowledged_counts_as_not_arrived() -> None:
    async def main() -> None:
        start("api", serve_silent)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        await asyncio.sleep(0.1)
        transport.write(b"arrives")
        network().way("api", "test").cut = True
        assert isinstance(await client.lost, TimeoutError)
        assert 119 < now() < 122

    simulate(main)


def test_acknowledgements_that_do_not_come_back_fill_the_window() -> None:
    async def main() -> None:
        start("api", serve_silent)
        await asyncio.sleep(0.1)
        _transport, writer = await asyncio.open_connection("api", 7)
        network().way("api", "test").cut = True
        for _ in range(100):
            writer.write(bytes(10_000))
            await asyncio.sleep(0.01)
        assert network().way("test", "api").tally.bytes == 256 * 1024
        network().clear()
        await writer.drain()
        await asyncio.sleep(1)
        assert network().way("test", "api").tally.bytes == 1_000_000
        writer.close()

    simulate(main)


def test_a_crash_is_told_to_the_other_side_by_the_kernel() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        _, idle = await connect("api")
        sender, under_way = await connect("api", keep_open=True)
        transport, unread = await connect("api")
        await asyncio.sleep(0.1)
        current().pause(api)
        transport.write(b"not read")
        await asyncio.sleep(0.1)
        sender.write(b"under way")
        current().end_life(api)
        assert await idle.lost is None
        assert idle.told == ["made", "eof", "lost NoneType"]
        assert isinstance(await unread.lost, ConnectionResetError)
        await asyncio.sleep(0.1)
        assert under_way.told == ["made", "eof"]
        sender.write(b"more")
        assert isinstance(await under_way.lost, ConnectionResetError)
        with pytest.raises(ConnectionRefusedError):
            await connect("api")
        assert current().notes["reset in flight"] == 1

    simulate(main)


def test_a_crash_behind_a_cut_is_noticed_when_it_heals() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        _, client = await connect("api")
        both("test", "api", cut=True)
        current().end_life(api)
        await asyncio.sleep(30)
        assert client.told == ["made"]
        network().clear()
        await client.lost
        assert now() < 32

    simulate(main)


def test_a_power_cut_is_silent_and_the_next_life_answers_with_a_reset() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        _, idle = await connect("api")
        current().end_life(api, power=True)
        await asyncio.sleep(20)
        assert client.told == ["made"]
        transport.write(b"anybody?")
        await asyncio.sleep(20)
        assert client.told == ["made"]
        start("api", serve_echo)
        assert isinstance(await client.lost, ConnectionResetError)
        assert now() < 42
        await asyncio.sleep(1000)
        assert idle.told == ["made"]  # it has sent nothing

    simulate(main)


def test_a_power_cut_without_return_ends_in_a_timeout() -> None:
    async def main() -> None:
        api = start("api", serve_echo)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        current().end_life(api, power=True)
        transport.write(b"anybody?")
        assert isinstance(await client.lost, TimeoutError)
        assert 119 < now() < 122

    simulate(main)


def test_nothing_of_an_ended_life_runs_and_its_connections_do_not_reach_the_next_one() -> None:
    async def main() -> list[str]:
        told: list[str] = []

        async def program() -> None:
            life = current().life.number

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    while data := await reader.read(100):
                        told.append(f"{life} {data.decode()}")
                finally:
                    told.append(f"{life} finally")

            server = await asyncio.start_server(handle, "0.0.0.0", 7)
            await server.serve_forever()

        api = start("api", program)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        transport.write(b"one")
        await asyncio.sleep(0.1)
        transport.write(b"two")
        current().end_life(api)
        start("api", program)
        await client.lost
        again, _ = await connect("api")
        again.write(b"three")
        await asyncio.sleep(0.1)
        return list(told)  # what happens when all is thrown away does not count

    assert simulate(main) == ["2 one", "3 three"]


def test_resetting_aborts_connections_that_exist_and_those_that_are_made() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        _, client = await connect("api")
        network().way("test", "api").reset = True
        assert isinstance(await client.lost, ConnectionResetError)
        with pytest.raises(ConnectionResetError):
            await connect("api")
        assert network().way("test", "api").tally.reset >= 2
        network().clear()
        transport, _ = await connect("api")
        transport.close()

    simulate(main)


def test_dropped_bytes_are_gone_and_the_connection_is_reset_when_dropping_ends() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        network().way("test", "api").drop = True
        transport.write(b"into the void")
        await asyncio.sleep(1000)
        assert client.told == ["made"]
        assert network().way("test", "api").tally.dropped == 1
        network().way("test", "api").drop = False
        assert isinstance(await client.lost, ConnectionResetError)

    simulate(main)


def test_dropping_the_last_segment_leaves_the_other_side_half_open() -> None:
    async def main() -> None:
        accepted: list[Recorder] = []

        async def serve() -> None:
            def make() -> Recorder:
                accepted.append(Recorder())
                return accepted[-1]

            await asyncio.get_running_loop().create_server(make, "0.0.0.0", 7)
            await asyncio.Event().wait()

        start("api", serve)
        await asyncio.sleep(0.1)
        transport, _ = await connect("api")
        await asyncio.sleep(0.1)
        network().way("test", "api").drop = True
        transport.close()
        await asyncio.sleep(500)
        assert accepted[0].told == ["made"]
        network().clear()
        accepted[0].transport.write(b"still there?")
        assert isinstance(await accepted[0].lost, ConnectionResetError)

    simulate(main)


def test_writing_to_a_closed_connection_warns_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        transport, _ = await connect("api")
        transport.close()
        for _ in range(6):
            transport.write(b"x")

    simulate(main)
    assert "socket.send() raised exception." in caplog.text


def test_limits_of_the_write_buffer_hold() -> None:
    async def main() -> None:
        start("api", serve_silent)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        transport.set_write_buffer_limits(high=10, low=5)
        assert transport.get_write_buffer_limits() == (5, 10)
        transport.write(bytes(256 * 1024 + 10))
        assert client.told == ["made"]
        transport.write(b"x")
        assert client.told == ["made", "pause"]
        await asyncio.sleep(1)
        assert client.told == ["made", "pause", "resume"]

    simulate(main)


def test_the_socket_of_a_transport_looks_like_one() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        transport, client = await connect("api")
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getpeername() == ("10.0.0.2", 7) == transport.get_extra_info("peername")
        assert sock.getsockname() == transport.get_extra_info("sockname")
        assert sock.getsockname()[0] == "10.0.0.1"
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert sock.fileno() > 1 << 25
        assert sock.gettimeout() == 0.0
        transport.close()
        await client.lost
        assert sock.fileno() == -1

    simulate(main)


def test_servers_of_several_addresses_and_shared_ports() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, ["127.0.0.1", "10.0.0.1"], 7)
        assert [sock.getsockname() for sock in server.sockets] == [
            ("127.0.0.1", 7),
            ("10.0.0.1", 7),
        ]
        with pytest.raises(OSError, match="cannot assign"):
            await loop.create_server(Recorder, "10.0.0.77", 8)
        first = await loop.create_server(Recorder, None, 9, reuse_port=True)
        second = await loop.create_server(Recorder, None, 9, reuse_port=True)
        for _ in range(4):
            await connect("localhost", 9)
        await asyncio.sleep(0.1)
        assert len(first._transports) == len(second._transports) == 2
        first.close_clients()
        second.abort_clients()
        await asyncio.sleep(0.1)
        assert not first._transports
        assert not second._transports
        for one in (server, first, second):
            one.close()
            await one.wait_closed()
        six = await loop.create_server(Recorder, "::1", 7)
        transport, _ = await connect("::1")
        assert transport.get_extra_info("peername") == ("::1", 7, 0, 0)
        six.close()

    simulate(main)


def test_a_server_on_the_loopback_is_not_reached_from_other_hosts() -> None:
    async def main() -> None:
        async def serve() -> None:
            server = await asyncio.start_server(lambda r, w: None, "localhost", 7)
            await server.serve_forever()

        start("api", serve)
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            await connect("api")

    simulate(main)
