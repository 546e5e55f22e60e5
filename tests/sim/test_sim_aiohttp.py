"""An unmodified aiohttp server and client: what they do in the simulator, through its faults."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from outlast import sim
from tests.support.programs import notes
from tests.support.sim_programs import assert_repeatable, found, real_process, stop_process

SEEDS = 200
BASE, SECURED = "http://notes:8080", "https://notes:8080"
FAULTS = [
    "crash", "power-cut", "partition:halves", "link:reset", "link:loss", "dns:nxdomain",
    "disk:full",
]  # fmt: skip
PATIENT = aiohttp.ClientTimeout(total=60)
pytestmark = pytest.mark.timeout(120)


async def ready(lab: sim.Lab, **options: Any) -> None:
    lab.host("notes", partial(notes.main, **options))
    await lab.sleep(0.1)


def run(test: Callable[[sim.Lab], Any], **options: Any) -> Any:
    return sim.run(test, files=True, **options)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return those of a server called ``notes`` and of its clients."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("notes").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


SERVER_AND_CLIENT = contexts()


# --- the same program ----------------------------------------------------------------------------


def test_it_is_the_same_program_on_the_real_loop(tmp_path: Path) -> None:
    async def simulated(lab: sim.Lab) -> Any:
        await ready(lab)
        seen = await notes.tour(BASE)
        await lab.stop("notes")
        assert lab.exits == [("notes", "it returned")]
        return seen

    with real_process(notes.__name__, "--data", str(tmp_path)) as (port, process):
        real = asyncio.run(notes.tour(f"http://127.0.0.1:{port}"))
        assert stop_process(process) == 0
    assert run(simulated) == real


def test_over_tls_too() -> None:
    server, client = SERVER_AND_CLIENT

    async def secured(lab: sim.Lab) -> Any:
        await ready(lab, tls=server)
        seen = await notes.tour(SECURED, tls=client)
        async with notes.connect(SECURED) as stranger:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await stranger.get("/notes")
        return seen

    async def plain(lab: sim.Lab) -> Any:
        await ready(lab)
        return await notes.tour(BASE)

    assert run(secured) == run(plain)


# --- acknowledged data ---------------------------------------------------------------------------


async def keep_notes(lab: sim.Lab, *, early: bool = False, secured: bool = False) -> None:
    server, client = SERVER_AND_CLIENT if secured else (None, None)
    await ready(lab, early=early, tls=server)
    acked = set()
    async with notes.connect(SECURED if secured else BASE, tls=client) as session:
        for n in range(20):
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.put(f"/notes/{n}", data=str(n).encode()) as answer:
                    if answer.status == 201:
                        acked.add(str(n))
    await lab.heal()
    async with notes.connect(SECURED if secured else BASE, tls=client, timeout=60) as session:
        async with session.get("/notes") as answer:
            assert acked <= set(await answer.json())
        for name in sorted(acked):
            async with session.get(f"/notes/{name}") as answer:
                assert await answer.text() == name


@sim.test(seeds=20, faults=FAULTS)
async def test_acknowledged_notes_survive(lab: sim.Lab) -> None:
    await keep_notes(lab)


@sim.test(seeds=10, faults=FAULTS)
async def test_acknowledged_notes_survive_over_tls(lab: sim.Lab) -> None:
    await keep_notes(lab, secured=True)


def test_a_server_that_acknowledges_before_it_writes_is_found() -> None:
    @sim.test(seeds=SEEDS, faults=["power-cut"])
    async def kept(lab: sim.Lab) -> None:
        await keep_notes(lab, early=True)

    found(kept)


def payment_test(seeds: int, *, careless: bool) -> Callable[..., None]:
    @sim.test(seeds=seeds, faults=["link:reset", "crash", "partition:isolate"])
    async def paid_once(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE) as session:
            for _ in range(10):
                await notes.pay(session, 1, careless=careless)
            await lab.heal()
            async with session.get("/payments", timeout=PATIENT) as answer:
                assert await answer.json() == 10

    return paid_once


def test_a_client_that_makes_another_payment_of_each_attempt_is_found() -> None:
    found(payment_test(SEEDS, careless=True))


def test_a_client_that_keeps_the_id_of_its_payment_pays_once() -> None:
    payment_test(30, careless=False)()


# --- connections that break ----------------------------------------------------------------------


def test_a_pooled_connection_that_a_crash_has_broken_is_not_used_again() -> None:
    async def broken(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE) as session:
            await notes.pay(session, 1)
            assert session.connector is not None
            lab.restart("notes")
            await lab.sleep(1)
            async with session.post("/payments", json={"id": "two", "amount": 1}) as answer:
                assert answer.status == 200  # not idempotent: aiohttp would not repeat it
            async with session.get("/payments") as answer:
                assert await answer.json() == 2

    run(broken)


def test_a_crash_breaks_a_request_at_once_and_a_power_cut_does_not() -> None:
    async def asks(lab: sim.Lab, end: Callable[[str], None]) -> tuple[type[Exception], float]:
        await ready(lab)
        async with notes.connect(BASE, timeout=4) as session:
            asking = asyncio.create_task(session.get("/slow?seconds=60"))
            await lab.sleep(1)
            start = lab.now
            end("notes")
            with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
                await asking
            return type(caught.value), lab.now - start

    kind, seconds = run(lambda lab: asks(lab, lab.crash))
    assert issubclass(kind, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    assert seconds < 0.1
    kind, seconds = run(lambda lab: asks(lab, lab.power_cut))
    assert issubclass(kind, TimeoutError)
    assert seconds == pytest.approx(3, abs=0.01)


def test_timeouts_end_when_they_should_in_virtual_time() -> None:
    async def cut_off(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE) as session:
            await notes.pay(session, 1)
            lab.cut("notes")
            for total in (0.5, 3, 4.75):
                start = lab.now
                timeout = aiohttp.ClientTimeout(total=total)
                with pytest.raises(TimeoutError):
                    await session.get("/notes", timeout=timeout)
                assert lab.now - start == pytest.approx(total, abs=0.001)
            start = lab.now
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.get("/notes", timeout=aiohttp.ClientTimeout(sock_connect=2))
            assert lab.now - start == pytest.approx(2, abs=0.001)
            await lab.heal()
            async with session.get("/payments") as answer:
                assert await answer.json() == 1

    run(cut_off)


def test_bad_names_are_told_as_such() -> None:
    async def lost(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE) as session:
            with lab.dns("nxdomain"), pytest.raises(aiohttp.ClientConnectorDNSError):
                await session.get("/notes")
            with lab.dns("timeout"), pytest.raises(TimeoutError):
                await session.get("/notes")
            await lab.sleep(5)  # that look-up goes on, and aiohttp lets others wait for it
            with pytest.raises(aiohttp.ClientConnectorDNSError):
                await session.get("http://nobody:8080/notes")
            async with session.get("/notes") as answer:
                assert answer.status == 200

    run(lost)


# --- bodies and sockets --------------------------------------------------------------------------


def test_a_reader_that_stops_holds_up_the_writer() -> None:
    total = 400 * len(notes.CHUNK)

    async def slow_reader(lab: sim.Lab) -> None:
        await ready(lab)
        async with (
            notes.connect(BASE, timeout=600) as session,
            session.get("/stream", params={"chunks": 400}) as answer,
        ):
            first = await answer.content.readexactly(1000)
            await lab.sleep(60)
            async with session.get("/progress") as progress:
                sent = await progress.json()
            assert 0 < sent < total / 10
            rest = await answer.content.read()
            assert first + rest == notes.CHUNK * 400
            async with session.get("/progress") as progress:
                assert await progress.json() == total

    run(slow_reader)


def test_a_chunked_upload_arrives_whole_over_a_bad_link() -> None:
    async def upload(lab: sim.Lab) -> list[float]:
        await ready(lab)
        took = []
        wanted = hashlib.sha256(notes.CHUNK * 50).hexdigest()
        weathers: list[dict[str, Any]] = [
            {}, {"loss": 0.1}, {"delay": 0.2, "jitter": 0.3}, {"bytes_per_second": 2**20}
        ]  # fmt: skip
        for weather in weathers:
            with lab.slow("notes", **weather):
                start = lab.now
                async with (
                    notes.connect(BASE, timeout=600) as session,
                    session.post("/upload", data=notes.chunks(50)) as answer,
                ):
                    assert (await answer.json())["sha256"] == wanted
                took.append(lab.now - start)
        return took

    calm, lossy, late, narrow = run(upload)
    assert calm < 0.1
    assert lossy > calm
    assert late > 0.4
    assert narrow == pytest.approx(50 / 16, rel=0.1)


def test_a_websocket_notices_by_its_heartbeat_that_nobody_is_there() -> None:
    async def silent(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE, timeout=600) as session:
            socket = await session.ws_connect("/echo", heartbeat=8)
            await socket.send_str("ab")
            assert await socket.receive_str() == "ba"
            await lab.sleep(100)
            await socket.send_str("cd")
            assert await socket.receive_str() == "dc"  # pings have kept it
            start = lab.now
            lab.cut("notes")
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.ERROR
            assert 4 <= lab.now - start <= 8 + 4 + 1
            await lab.heal()
            async with session.ws_connect("/echo") as again:
                await again.send_str("ef")
                assert await again.receive_str() == "fe"

    run(silent)


def test_a_websocket_notices_a_crash_at_once() -> None:
    async def crashed(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE) as session, session.ws_connect("/echo") as socket:
            lab.crash("notes")
            start = lab.now
            await socket.receive()
            assert socket.closed
            assert socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
            assert lab.now - start < 0.1

    run(crashed)


# --- the end -------------------------------------------------------------------------------------


def test_a_graceful_stop_answers_what_was_asked_before() -> None:
    async def stopped(lab: sim.Lab) -> None:
        await ready(lab)
        async with notes.connect(BASE, timeout=30) as session:
            asking = asyncio.create_task(session.get("/slow?seconds=2"))
            await lab.sleep(0.5)
            start = lab.now
            await lab.stop("notes")
            assert lab.now - start == pytest.approx(1.5, abs=0.1)
            answer = await asking
            assert await answer.text() == "done"
            assert lab.exits == [("notes", "it returned")]
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("/notes")

    run(stopped)


# --- repeatable ----------------------------------------------------------------------------------


def test_a_seed_is_one_run_in_every_process() -> None:
    assert_repeatable(f"{__name__}:test_acknowledged_notes_survive")


def test_so_it_is_over_tls_whatever_the_keys() -> None:
    """Each process has certificates of its own, and OpenSSL its own random numbers."""
    assert_repeatable(f"{__name__}:test_acknowledged_notes_survive_over_tls")
