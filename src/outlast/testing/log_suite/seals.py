"""Promise 5: a seal is final, the first one wins, and everybody is told the same."""

import asyncio
from collections.abc import Iterable

from outlast.kernel import SealedError
from outlast.log.api import Batch, Log
from outlast.testing.log_suite.check import (
    check,
    collect,
    contents,
    entry_of,
    fill_in,
    put,
    require_same,
    tail_of,
)
from outlast.testing.log_suite.fixture import Capability, LogFixture, require


async def seal(fixture: LogFixture, log: Log, next: bytes) -> tuple[int, bytes]:
    """Seal, which must end."""
    return await fixture.soon(log.seal(next, deadline=fixture.deadline()), "seal")


async def require_refused(fixture: LogFixture, log: Log, next: bytes, where: str) -> None:
    """An append finds the seal, and is told its ``next``."""
    try:
        index = await log.append(entry_of(0, tag="late"), deadline=fixture.deadline())
    except SealedError as error:
        require(error.next == next, f"{where}: SealedError.next is {error.next!r}, not {next!r}")
    else:
        require(False, f"{where}: an append to a sealed log returned {index}")


def require_above(tail: int, indices: Iterable[int]) -> None:
    """The seal's tail is above everything that was acknowledged."""
    top = max(indices, default=0)
    require(tail > top, f"sealed at {tail}, but entry {top} was acknowledged")


@check(5)
async def check_a_seal_ends_the_log(fixture: LogFixture) -> None:
    """After a seal appends are refused, and readers end after the last entry."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 9)
    start = log.first
    waiting = asyncio.ensure_future(anext(log.read(await tail_of(fixture, log))))
    await fixture.turns(3)
    tail, next = await seal(fixture, log, b"go to B")
    require(next == b"go to B", f"the seal says next is {next!r}")
    require_above(tail, kept)
    for _ in range(2):
        await require_refused(fixture, log, b"go to B", "after the seal")
    (ended,) = await fixture.soon(
        asyncio.gather(waiting, return_exceptions=True), "a reader that waited at the seal"
    )
    if isinstance(ended, Batch):
        require(not ended.entries, "a reader saw an entry that nobody appended")
    else:
        honest = isinstance(ended, StopAsyncIteration)
        require(honest, f"a reader that waited at the seal was told {ended!r}")
    require_same(await contents(fixture, log), kept, "a sealed log")
    await _read_to_the_end(fixture, log, start, kept)


async def _read_to_the_end(
    fixture: LogFixture, log: Log, start: int, kept: dict[int, bytes]
) -> None:
    """Read until the log says that it has ended; it must, and must not lose the end."""
    found = await collect(fixture, log, start, end=1 << 62)
    require_same(found, kept, "a sealed log, read to its end")


@check(5)
async def check_the_first_seal_wins(fixture: LogFixture) -> None:
    """A second seal, with another ``next``, is answered with the first one's."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 3)
    first = await seal(fixture, log, b"first")
    for next in (b"second", b"first", b"", b"third"):
        again = await seal(fixture, log, next)
        require(again == first, f"sealed as {first}, then told {again}")
    await require_refused(fixture, log, b"first", "after several seals")
    tail = await tail_of(fixture, log)
    require(tail >= first[0], f"tail {tail} is below the seal's {first[0]}")
    require_same(await contents(fixture, log), kept, "after several seals")


@check(5)
async def check_racing_seals_agree(fixture: LogFixture) -> None:
    """Seals that race are all told the same winner, which is one of them."""
    log = await fixture.make()
    await fill_in(fixture, log, 3)
    nexts = [f"n{number}".encode() for number in range(6)]
    told = await asyncio.gather(*(seal(fixture, log, next) for next in nexts))
    require(len(set(told)) == 1, f"racing seals were told different things: {set(told)}")
    require(told[0][1] in nexts, f"the winner {told[0][1]!r} is none of those that raced")
    await require_refused(fixture, log, told[0][1], "after racing seals")


@check(5)
async def check_an_append_racing_a_seal_is_in_or_refused(fixture: LogFixture) -> None:
    """Of appends around a seal each is below the tail and readable, or refused and absent."""
    log = await fixture.make()
    kept: dict[int, bytes] = {}
    refused: list[bytes] = []

    async def produce(name: int) -> None:
        for number in range(1000):
            entry = entry_of(number, tag=f"q{name}")
            try:
                kept[await log.append(entry, deadline=fixture.deadline())] = entry
            except SealedError as error:
                require(error.next == b"over", f"SealedError.next is {error.next!r}")
                refused.append(entry)
                return

    producers = [asyncio.ensure_future(produce(name)) for name in range(6)]
    await fixture.turns(9)
    tail, _ = await seal(fixture, log, b"over")
    await fixture.soon(asyncio.gather(*producers), "producers after the seal")
    require_above(tail, kept)
    require(len(refused) == 6, f"{len(refused)} of 6 producers were refused")
    require_same(await contents(fixture, log), kept, "after the race")


@check(5)
async def check_an_append_begun_before_a_seal_is_below_it_or_refused(fixture: LogFixture) -> None:
    """Appends and a seal that begin in one turn of the loop: nothing lands behind the seal."""
    log = await fixture.make()
    entries = [entry_of(number, tag="turn") for number in range(4)]
    tasks = [
        asyncio.ensure_future(log.append(entry, deadline=fixture.deadline())) for entry in entries
    ]
    sealing = asyncio.ensure_future(seal(fixture, log, b"now"))
    results = await fixture.soon(
        asyncio.gather(*tasks, return_exceptions=True), "appends beside a seal"
    )
    tail, _ = await fixture.soon(sealing, "a seal beside appends")
    kept: dict[int, bytes] = {}
    for result, entry in zip(results, entries, strict=True):
        if isinstance(result, int):
            kept[result] = entry
        else:
            require(isinstance(result, SealedError), f"beside a seal: {result!r}")
    require_above(tail, kept)
    require_same(await contents(fixture, log), kept, "beside a seal")
    if Capability.REOPEN in fixture.capabilities:
        log = await fixture.reopen(log)
        require_same(await contents(fixture, log), kept, "reopened after a seal beside appends")
        await require_refused(fixture, log, b"now", "reopened after a seal beside appends")


async def _sealed_stays(fixture: LogFixture, how: Capability) -> None:
    log = await fixture.make()
    kept = await fill_in(fixture, log, 6)
    first = await seal(fixture, log, b"stays")
    for _ in range(2):
        log = await (fixture.reopen(log) if how is Capability.REOPEN else fixture.crash(log))
        await require_refused(fixture, log, b"stays", f"after {how}")
        again = await seal(fixture, log, b"other")
        require(again == first, f"sealed as {first}; after {how} told {again}")
        require_same(await contents(fixture, log), kept, f"after {how}")
        await _read_to_the_end(fixture, log, log.first, kept)


@check(5, Capability.REOPEN)
async def check_a_seal_survives_reopening(fixture: LogFixture) -> None:
    """A reopened log is still sealed, with the same ``(tail, next)``."""
    await _sealed_stays(fixture, Capability.REOPEN)


@check(5, Capability.CRASH)
async def check_a_seal_survives_a_crash(fixture: LogFixture) -> None:
    """A seal that returned is there after a power cut."""
    await _sealed_stays(fixture, Capability.CRASH)


@check(5, Capability.STALL)
async def check_a_seal_waits_until_it_is_durable(fixture: LogFixture) -> None:
    """While nothing can become durable neither a seal nor an append behind it is answered."""
    log = await fixture.make()
    index = await put(fixture, log, entry_of(1))
    await fixture.stall()
    try:
        sealing = asyncio.ensure_future(seal(fixture, log, b"slow"))
        await fixture.turns(3)
        behind = asyncio.ensure_future(log.append(entry_of(2), deadline=fixture.deadline()))
        await fixture.turns()
        require(not sealing.done(), "a seal returned before it was durable")
        require(not behind.done(), "an append was answered by a seal that was not durable")
    finally:
        await fixture.resume()
    tail, _ = await fixture.soon(sealing, "the seal after the stall")
    require_above(tail, [index])
    (result,) = await fixture.soon(
        asyncio.gather(behind, return_exceptions=True), "the append behind the seal"
    )
    require(isinstance(result, SealedError), f"the append behind the seal ended as {result!r}")
