"""Promise 2, total order, promise 4, the tail, and what readers see."""

import asyncio
from collections.abc import Awaitable

from outlast.kernel import Deadline, ElsewhereError, LogIndex
from outlast.log.api import Log
from outlast.testing.log_suite.check import (
    check,
    collect,
    contents,
    entry_of,
    fill_in,
    put,
    require_kept,
    require_same,
    tail_of,
)
from outlast.testing.log_suite.fixture import Capability, LogFixture, require


@check(2)
async def check_indices_grow(fixture: LogFixture) -> None:
    """Each append that begins after another returned gets a higher index."""
    log = await fixture.make()
    last = 0
    for number in range(fixture.entry_count):
        index = await put(fixture, log, entry_of(number))
        require(index > last, f"index {index} was given after {last}")
        last = index


@check(2)
async def check_readers_agree_under_concurrent_appends(fixture: LogFixture) -> None:
    """Readers during and after eight concurrent producers see one order, and each producer's."""
    log = await fixture.make()
    start = log.first
    per_producer = max(5, fixture.entry_count // 4)
    kept: dict[int, bytes] = {}
    watched = [asyncio.ensure_future(_watch(fixture, log, 8 * per_producer)) for _ in range(2)]

    async def produce(name: int) -> None:
        last = 0
        for number in range(per_producer):
            entry = entry_of(number, tag=f"p{name}")
            index = await put(fixture, log, entry)
            require(index > last, f"producer {name}: index {index} after {last}")
            require(index not in kept, f"index {index} was given twice")
            kept[index] = entry
            last = index

    await asyncio.gather(*(produce(name) for name in range(8)))
    end = await tail_of(fixture, log)
    for number, replica in enumerate(fixture.replicas(log)):
        require_same(await collect(fixture, replica, start, end), kept, f"replica {number}")
    for number, task in enumerate(watched):
        found = await fixture.soon(task, "a reader that began before the appends")
        require_same(found, kept, f"early reader {number}")
        require(list(found) == sorted(found), f"early reader {number} went back")


async def _watch(fixture: LogFixture, log: Log, count: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    async for batch in log.read(log.first):
        for index, entry in enumerate(batch.entries, batch.first):
            require(index not in found, f"index {index} was read twice")
            found[index] = entry
        if len(found) >= count:
            break
    return found


@check(2)
async def check_reading_may_begin_anywhere(fixture: LogFixture) -> None:
    """A reader that starts in the middle sees exactly the rest."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, fixture.entry_count)
    end = await tail_of(fixture, log)
    for start in range(log.first, end, max(1, (end - log.first) // 7)):
        rest = {index: entry for index, entry in kept.items() if index >= start}
        require_same(await collect(fixture, log, start, end), rest, f"read from {start}")


@check(2)
async def check_large_logs_come_in_many_batches(fixture: LogFixture) -> None:
    """A reader far behind gets everything, in batches that it pulls at its own pace."""
    log = await fixture.make()
    size = min(log.traits.entry_bytes_max, 64 * 1024)
    kept = await fill_in(fixture, log, 40, size=size)
    reader = log.read(log.first)
    batch = await fixture.soon(anext(reader), "the first batch")
    more = await fill_in(fixture, log, 3, tag="later")
    found = dict(enumerate(batch.entries, batch.first))
    end = await tail_of(fixture, log)
    position = batch.through + 1
    while position < end:
        batch = await fixture.soon(anext(reader), "the next batch")
        found.update(enumerate(batch.entries, batch.first))
        position = batch.through + 1
    require_same(found, {**kept, **more}, "a slow reader")


@check(4)
async def check_tail_is_above_what_returned(fixture: LogFixture) -> None:
    """``tail`` is above every append that returned before it was called, on any replica."""
    log = await fixture.make()

    async def look(index: int) -> None:
        for number, replica in enumerate(fixture.replicas(log)):
            try:
                tail = await tail_of(fixture, replica)
            except ElsewhereError:
                continue
            require(tail > index, f"replica {number}: tail {tail} after {index} was acknowledged")

    async def produce(name: int) -> None:
        for number in range(5):
            await look(await put(fixture, log, entry_of(number, tag=f"t{name}")))

    await asyncio.gather(*(produce(name) for name in range(6)))


@check(4)
async def check_the_tail_can_be_reached(fixture: LogFixture) -> None:
    """A reader reaches the tail without further appends, and waits there."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 7)
    end = await tail_of(fixture, log)
    require_same(await collect(fixture, log, log.first, end), kept, "up to the tail")
    pull = asyncio.ensure_future(anext(log.read(end)))
    await fixture.turns()
    waiting = not pull.done()
    pull.cancel()
    await asyncio.gather(pull, return_exceptions=True)
    require(waiting, f"a reader at the tail {end} did not wait")


@check(2)
async def check_waiting_readers_wake(fixture: LogFixture) -> None:
    """Every reader that waits at the tail is woken by each append."""
    log = await fixture.make()
    start = await tail_of(fixture, log)
    replicas = fixture.replicas(log)
    readers = [replica.read(start) for replica in replicas for _ in range(3)]
    for number in range(4):
        pulls = [asyncio.ensure_future(anext(reader)) for reader in readers]
        await fixture.turns(5)
        entry = entry_of(number)
        index = await put(fixture, log, entry)
        for reader, pull in zip(readers, pulls, strict=True):
            batch = await fixture.soon(pull, f"a waiting reader after append {number + 1}")
            while index > batch.through:
                batch = await fixture.soon(anext(reader), f"a reader of entry {index}")
            found = dict(enumerate(batch.entries, batch.first))
            require_kept(found, {index: entry}, "a woken reader")


@check(2)
async def check_a_cancelled_pull_loses_nothing(fixture: LogFixture) -> None:
    """Cancelling a pull that waits leaves the reader where it was."""
    log = await fixture.make()
    start = await tail_of(fixture, log)
    reader = log.read(start)
    pull = asyncio.ensure_future(anext(reader))
    await fixture.turns(3)
    pull.cancel()
    await asyncio.gather(pull, return_exceptions=True)
    entry = entry_of(1)
    index = await put(fixture, log, entry)
    try:
        batch = await fixture.soon(anext(reader), "the pull after a cancelled one")
        while index > batch.through:
            batch = await fixture.soon(anext(reader), "the pull after a cancelled one")
    except StopAsyncIteration:
        require(False, "after a cancelled pull the reader says that the log has ended")
        raise
    found = dict(enumerate(batch.entries, batch.first))
    require_kept(found, {index: entry}, "after a cancelled pull")


@check(2, Capability.REOPEN)
async def check_reading_goes_on_after_reopening(fixture: LogFixture) -> None:
    """A position taken before reopening is good after it; the old readers end with an error."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 10)
    end = await tail_of(fixture, log)
    middle = sorted(kept)[4]
    waiting = asyncio.ensure_future(anext(log.read(end)))
    await fixture.turns(3)
    log = await fixture.reopen(log)
    (ended,) = await fixture.soon(
        asyncio.gather(waiting, return_exceptions=True), "a reader of the closed log"
    )
    require(isinstance(ended, Exception), f"a reader of the closed log returned {ended!r}")
    kept.update(await fill_in(fixture, log, 5, tag="more"))
    rest = {index: entry for index, entry in kept.items() if index >= middle}
    found = await collect(fixture, log, middle, await tail_of(fixture, log))
    require_same(found, rest, "after reopening")


@check(0)
async def check_close_ends_what_waits(fixture: LogFixture) -> None:
    """After ``close`` nothing hangs: readers, appends and tails end; closing twice is harmless."""
    log = await fixture.make()
    await fill_in(fixture, log, 2)
    end = await tail_of(fixture, log)
    tasks = [
        asyncio.ensure_future(anext(log.read(end))),
        asyncio.ensure_future(log.append(entry_of(9), deadline=Deadline.never())),
    ]
    await fixture.turns(1)
    await fixture.soon(log.close(), "close")
    await fixture.soon(asyncio.gather(*tasks, return_exceptions=True), "what waited at close")
    for name in ("append", "tail"):
        late: Awaitable[int] = (
            log.append(entry_of(10), deadline=fixture.deadline())
            if name == "append"
            else log.tail(deadline=fixture.deadline())
        )
        (result,) = await fixture.soon(
            asyncio.gather(late, return_exceptions=True), f"{name} after close"
        )
        require(isinstance(result, Exception), f"{name} of a closed log answered {result!r}")
    await fixture.soon(log.close(), "the second close")


@check(2)
async def check_positions_are_stable(fixture: LogFixture) -> None:
    """Reading twice gives the same entries at the same indices, whatever was appended between."""
    log = await fixture.make()
    seen = dict(await fill_in(fixture, log, 6))
    for round_ in range(4):
        found = await contents(fixture, log)
        require_same(found, seen, f"reading {round_ + 1}")
        seen[await put(fixture, log, entry_of(round_, tag="next"))] = entry_of(round_, tag="next")
        require(LogIndex(max(seen)) >= max(found), "the newest entry is below an older one")
