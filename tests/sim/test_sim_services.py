"""Small services with a bug that production finds once a year: a simulation finds it within 200
seeds, and passes the service once it is right."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outlast import sim

SEEDS = 200
"""Within so many seeds a planted bug is found."""
SURVIVED = 60
"""Seeds of the programs without it; ``outlast sim`` goes on from there."""
PORT = 7000
pytestmark = pytest.mark.timeout(240)


async def serve(handle: Callable[[list[str]], Awaitable[str]]) -> None:
    """Answer each line with a line."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(f"{await handle(line.decode().split())}\n".encode())

    server = await asyncio.start_server(connected, None, PORT)
    await server.serve_forever()


async def ask(host: str, *words: object, within: float = 2.0) -> str:
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection(host, PORT)
        with contextlib.closing(writer):
            writer.write((" ".join(map(str, words)) + "\n").encode())
            line = await reader.readline()
            if not line:
                raise ConnectionResetError
            return line.decode().strip()


async def try_to_ask(host: str, *words: object) -> str | None:
    try:
        return await ask(host, *words)
    except (OSError, TimeoutError):
        return None


def found(test: Callable[..., None]) -> BaseException:
    """Return the error with which the test fails; it names the seed and how to repeat it."""
    with pytest.raises(AssertionError) as caught:
        test()
    notes = "\n".join(caught.value.__notes__)
    assert "--sim-seed" in notes
    assert "NOT REPEATABLE" not in notes, notes
    return caught.value


# --- a store that forgets fsync ------------------------------------------------------------------


async def store(*, fsync: bool, early: bool = False) -> None:
    """Keeps words in a file: ``put WORD``, ``all``."""
    path = Path("words.json")
    saving = asyncio.Lock()

    def save(words: list[str]) -> None:
        with open("words.new", "w", encoding="utf-8") as file:
            json.dump(words, file)
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        os.replace("words.new", path)
        if fsync:
            folder = os.open(".", os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    words: list[str] = json.loads(path.read_text()) if path.exists() else []  # noqa: ASYNC240
    later: set[Any] = set()

    async def write() -> None:
        async with saving:
            await asyncio.to_thread(save, list(words))

    async def handle(line: list[str]) -> str:
        if line[0] == "all":
            return " ".join(words) or "nothing"
        words.append(line[1])
        if early:
            later.add(asyncio.create_task(write()))
        else:
            await write()
        return "ok"

    await serve(handle)


def survives(test: Callable[..., None]) -> None:
    """Run a test of a correct program under fewer seeds: none of them fails early."""
    test.__outlast_sim__.seeds = SURVIVED  # type: ignore[attr-defined]
    test()


def store_test(fault: str, **options: bool) -> Callable[..., None]:
    @sim.test(seeds=SEEDS, faults=[fault])
    async def kept(lab: sim.Lab) -> None:
        lab.host("store", partial(store, **options))
        acked = set()
        for n in range(20):
            if await try_to_ask("store", "put", n) == "ok":
                acked.add(str(n))
        await lab.heal()
        assert acked <= set((await ask("store", "all")).split())

    return kept


def test_a_store_that_forgets_fsync_is_found_by_a_power_cut() -> None:
    found(store_test("power-cut", fsync=False))


def test_a_store_that_answers_before_it_has_written_is_found_by_a_crash() -> None:
    found(store_test("crash", fsync=True, early=True))


@pytest.mark.parametrize("fault", ["crash", "power-cut"])
def test_a_store_that_syncs_and_then_answers_survives(fault: str) -> None:
    survives(store_test(fault, fsync=True))


def test_a_crash_alone_does_not_find_a_missing_fsync() -> None:
    """The page cache outlives a process: a crash is not a power cut."""
    survives(store_test("crash", fsync=False))


# --- a lock that is lost in a pause --------------------------------------------------------------


async def locks() -> None:
    """Gives a lock for a second: ``take NAME`` answers a token, or ``no``."""
    holder, until, token = "", 0.0, 0

    async def handle(line: list[str]) -> str:
        nonlocal holder, until, token
        now = time.monotonic()
        if holder not in {"", line[1]} and now < until:
            return "no"
        if holder != line[1] or now >= until:
            token += 1
        holder, until = line[1], now + 1.0
        return str(token)

    await serve(handle)


async def disk(log: list[int], *, fenced: bool) -> None:
    """Takes writes with tokens; a fenced one refuses those of an earlier holder."""

    async def handle(line: list[str]) -> str:
        token = int(line[1])
        if fenced and log and token < max(log):
            return "no"
        log.append(token)
        return "ok"

    await serve(handle)


async def worker(name: str) -> None:
    while True:
        token = await try_to_ask("locks", "take", name)
        if token not in {None, "no"}:
            for _ in range(5):  # this takes less than the second for which the lock is ours
                await asyncio.sleep(0.05)
                await try_to_ask("disk", "write", token)
        await asyncio.sleep(0.05)


def lock_test(*, fenced: bool) -> Callable[..., None]:
    @sim.test(seeds=SEEDS, faults=["pause@w1", "pause@w2"])
    async def in_order(lab: sim.Lab) -> None:
        log: list[int] = []
        lab.host("locks", locks)
        lab.host("disk", partial(disk, log, fenced=fenced))
        lab.host("w1", partial(worker, "w1"))
        lab.host("w2", partial(worker, "w2"))
        await lab.sleep(4)
        await lab.heal()
        lab.sometimes("the lock changed hands", len(set(log)) > 1)
        assert log == sorted(log)

    return in_order


def test_a_lock_that_is_lost_in_a_pause_is_found() -> None:
    found(lock_test(fenced=False))


def test_a_fencing_token_makes_up_for_it() -> None:
    survives(lock_test(fenced=True))


# --- a program that assumes that names resolve ---------------------------------------------------


async def poller(seen: list[str], *, careful: bool) -> None:
    while True:
        try:
            seen.append(await ask("db", "ping"))
        except socket.gaierror:
            if not careful:
                raise
        except (OSError, TimeoutError):
            pass
        await asyncio.sleep(0.05)


def dns_test(*, careful: bool) -> Callable[..., None]:
    async def pong(line: list[str]) -> str:
        return "pong"

    @sim.test(
        seeds=SEEDS, faults=["dns:nxdomain@poller", "dns:timeout@poller", "dns:wrong@poller"]
    )
    async def goes_on(lab: sim.Lab) -> None:
        seen: list[str] = []
        lab.host("db", partial(serve, pong))
        lab.host("poller", partial(poller, seen, careful=careful))
        await lab.sleep(3)
        await lab.heal()
        before = len(seen)
        await lab.sleep(6)
        assert len(seen) > before

    return goes_on


def test_a_program_that_assumes_that_names_resolve_is_found() -> None:
    error = found(dns_test(careful=False))
    assert "poller ended with gaierror" in str(error)
    assert isinstance(error.__cause__, socket.gaierror)


def test_a_program_that_tries_again_survives_bad_names() -> None:
    survives(dns_test(careful=True))


# --- clocks of two hosts -------------------------------------------------------------------------


async def register(*, stamped: bool) -> None:
    """The last write wins: by the writers' clocks, or by the order in which they came."""
    value, newest = "", 0.0

    async def handle(line: list[str]) -> str:
        nonlocal value, newest
        if line[0] == "write" and (not stamped or float(line[2]) >= newest):
            value, newest = line[1], float(line[2])
        return value or "nothing"

    await serve(handle)


async def writer(turns: "asyncio.Queue[str]", done: "asyncio.Queue[str]") -> None:
    while True:
        value = await turns.get()
        await ask("register", "write", value, time.time())
        await done.put(value)


def clock_test(*, stamped: bool) -> Callable[..., None]:
    @sim.test(seeds=SEEDS, faults=["clock:skew", "clock:jump", "clock:drift"])
    async def last_write_wins(lab: sim.Lab) -> None:
        lab.host("register", partial(register, stamped=stamped))
        turns: dict[str, asyncio.Queue[str]] = {"a": asyncio.Queue(), "b": asyncio.Queue()}
        done: asyncio.Queue[str] = asyncio.Queue()
        for name, queue in turns.items():
            lab.host(name, partial(writer, queue, done))
        await lab.sleep(0.01)
        for n in range(20):
            await turns["ab"[n % 2]].put(str(n))
            await done.get()
            assert await ask("register", "read") == str(n)

    return last_write_wins


def test_a_register_that_compares_the_clocks_of_two_hosts_is_found() -> None:
    found(clock_test(stamped=True))


def test_a_register_that_counts_by_itself_survives_any_clock() -> None:
    survives(clock_test(stamped=False))
