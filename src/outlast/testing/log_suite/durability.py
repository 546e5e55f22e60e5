"""Promise 1, durable on return, and promise 3, whole."""

import asyncio

from outlast.kernel import LogIndex
from outlast.testing.log_suite.check import (
    check,
    collect,
    contents,
    entry_of,
    fill_in,
    put,
    require_kept,
    require_once,
    require_same,
    tail_of,
)
from outlast.testing.log_suite.fixture import Capability, LogFixture, require


@check(1)
async def check_durable_on_return(fixture: LogFixture) -> None:
    """What was acknowledged is readable at its index, on every replica."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, fixture.entry_count)
    end = await tail_of(fixture, log)
    for number, replica in enumerate(fixture.replicas(log)):
        found = await collect(fixture, replica, replica.first, end)
        require_same(found, kept, f"replica {number}")


@check(1, Capability.REOPEN)
async def check_reopening_keeps_everything(fixture: LogFixture) -> None:
    """After a clean close and open the same entries are at the same indices, and it goes on."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, fixture.entry_count)
    for round_ in range(2):
        log = await fixture.reopen(log)
        require_same(await contents(fixture, log), kept, f"reopened {round_ + 1} times")
        more = await fill_in(fixture, log, 3, tag=f"r{round_}")
        require(min(more) > max(kept), f"index {min(more)} was given again after reopening")
        kept.update(more)
    require_same(await contents(fixture, log), kept, "after appending to a reopened log")


@check(1, Capability.CRASH)
async def check_acknowledged_survives_a_crash(fixture: LogFixture) -> None:
    """A power cut right after an acknowledgement loses nothing that was acknowledged."""
    log = await fixture.make()
    kept: dict[int, bytes] = {}
    for round_ in range(3):
        kept.update(await fill_in(fixture, log, 10, tag=f"c{round_}"))
        log = await fixture.crash(log)
        require_same(await contents(fixture, log), kept, f"after crash {round_ + 1}")


@check(3, Capability.CRASH)
async def check_a_crash_leaves_no_part_of_an_entry(fixture: LogFixture) -> None:
    """What was under way at a crash is there whole or not at all, below nothing that is gone."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 5)
    pending = [entry_of(number, 3000, "p") for number in range(30)]
    tasks = [
        asyncio.ensure_future(log.append(entry, deadline=fixture.deadline())) for entry in pending
    ]
    await fixture.turns(3)
    told = [(task, entry) for task, entry in zip(tasks, pending, strict=True) if task.done()]
    kept.update({task.result(): entry for task, entry in told if task.exception() is None})
    log = await fixture.crash(log)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result, entry in zip(results, pending, strict=True):
        if isinstance(result, int):
            kept[result] = entry
    found = await contents(fixture, log)
    require_kept(found, kept, "after the crash")
    require_once(found, [*kept.values(), *pending], "after the crash")


@check(1, Capability.STALL)
async def check_nothing_is_acknowledged_before_it_is_durable(fixture: LogFixture) -> None:
    """While no write can become durable, no append returns and no tail or reader moves."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 3)
    before = await tail_of(fixture, log)
    reader = log.read(before)
    pull = asyncio.ensure_future(anext(reader))
    await fixture.stall()
    tasks = [
        asyncio.ensure_future(put(fixture, log, entry_of(number, tag="s"))) for number in range(5)
    ]
    try:
        await fixture.turns()
        require(not any(task.done() for task in tasks), "an append returned before it was durable")
        require(not pull.done(), "a reader saw an entry before it was durable")
        tail = await tail_of(fixture, log)
        require(tail == before, f"the tail moved from {before} to {tail} before it was durable")
    finally:
        await fixture.resume()
    for number, task in enumerate(tasks):
        kept[await fixture.soon(task, "append after the stall")] = entry_of(number, tag="s")
    await fixture.soon(pull, "reader after the stall")
    require_same(await contents(fixture, log), kept, "after the stall")


@check(3)
async def check_entries_are_whole(fixture: LogFixture) -> None:
    """Entries of every size come back as one piece, byte by byte, with their own index."""
    log = await fixture.make()
    largest = log.traits.entry_bytes_max
    sizes = [1, 2, 7, 8, 9, 63, 64, 255, 256, 511, 512, 513, 4095, 4096, 4097, 70_000]
    entries = [entry_of(size, size)[:size] for size in sizes if size <= largest]
    entries = [*entries, bytes(40), b"\xff" * 40, entry_of(1, largest)[:largest]]
    kept: dict[int, bytes] = {}
    for entry in entries:
        kept[await put(fixture, log, entry)] = entry
    require_same(await contents(fixture, log), kept, "entries of many sizes")


@check(0)
async def check_traits_are_sensible(fixture: LogFixture) -> None:
    """The traits name an engine and a limit, and an empty log begins at its tail."""
    log = await fixture.make()
    traits = log.traits
    require(traits.engine, "traits.engine is empty")
    require(traits.entry_bytes_max >= 1024, f"entry_bytes_max is {traits.entry_bytes_max}")
    require(traits.reply_quorum >= 1, f"reply_quorum is {traits.reply_quorum}")
    require(log.first >= 1, f"first is {log.first}; the first index is 1")
    tail = await tail_of(fixture, log)
    require(log.first <= tail, f"first is {log.first}, above the tail {tail}")
    require(not await contents(fixture, log), "a new log holds entries")
    if traits.durable:
        require(Capability.CRASH in fixture.capabilities, "durable, but no crash to show it")
    await put(fixture, log, entry_of(0))
    require(await tail_of(fixture, log) >= LogIndex(tail + 1), "the tail did not move")
