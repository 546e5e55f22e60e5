"""Promise 6: a trim is a permission, and respects holds and what is committed."""

import asyncio

from outlast.kernel import LogIndex, TrimmedError
from outlast.log.api import Hold, Log
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

ENDLESS = 1 << 60


async def written(fixture: LogFixture, log: Log) -> dict[int, bytes]:
    """Append more than twice what makes a trim drop something."""
    size = min(log.traits.entry_bytes_max, max(64, fixture.trim_bytes // 16))
    return await fill_in(fixture, log, 40, size=size, tag="trim")


async def trim(fixture: LogFixture, log: Log, before: int) -> LogIndex:
    """Trim, and check that what it returns is true."""
    old = log.first
    first = await fixture.soon(log.trim(LogIndex(before)), "trim")
    require(first == log.first, f"trim returned {first}, but first is {log.first}")
    require(first >= old, f"first went back from {old} to {first}")
    require(
        first <= max(before, old), f"trimmed to {first}, permitted were entries below {before}"
    )
    return first


async def require_trimmed(fixture: LogFixture, log: Log, start: int) -> None:
    """Reading a trimmed index is refused, with the first index that can be read."""
    try:
        batch = await fixture.soon(anext(log.read(LogIndex(start))), f"read at {start}")
    except TrimmedError as error:
        require(
            error.first == log.first, f"TrimmedError.first is {error.first}, first is {log.first}"
        )
    else:
        require(False, f"{start} is below first ({log.first}), but a read gave {batch.first}")


@check(6)
async def check_trim_drops_a_prefix(fixture: LogFixture) -> None:
    """Trimmed entries are refused by name; all others stay, and the log goes on."""
    log = await fixture.make()
    kept = await written(fixture, log)
    start = log.first
    first = await trim(fixture, log, sorted(kept)[-3])
    require(first > start, f"{fixture.trim_bytes} bytes were trimmable; first is still {first}")
    await require_trimmed(fixture, log, first - 1)
    await require_trimmed(fixture, log, start)
    rest = {index: entry for index, entry in kept.items() if index >= first}
    require_same(await contents(fixture, log), rest, "after a trim")
    rest[await put(fixture, log, entry_of(1, tag="on"))] = entry_of(1, tag="on")
    require(await trim(fixture, log, start) == first, "a lower permission moved first")
    require_same(await contents(fixture, log), rest, "after an append behind a trim")


@check(6)
async def check_trim_stops_at_the_tail(fixture: LogFixture) -> None:
    """Permission above the tail drops nothing that comes later, and no index is given again."""
    log = await fixture.make()
    kept = await written(fixture, log)
    tail = await tail_of(fixture, log)
    first = await fixture.soon(log.trim(LogIndex(tail + 1000)), "trim above the tail")
    require(first <= tail, f"first is {first}, above the tail {tail}")
    require(first == log.first, f"trim returned {first}, but first is {log.first}")
    index = await put(fixture, log, entry_of(7, tag="new"))
    require(index > max(kept), f"index {index} was given again after a trim")
    found = await collect(fixture, log, max(log.first, max(kept) + 1), index + 1)
    require_same(found, {index: entry_of(7, tag="new")}, "behind a trim above the tail")


@check(6)
async def check_trim_respects_holds(fixture: LogFixture) -> None:
    """Nothing at or above the lowest hold is dropped; moved or released holds let go."""
    log = await fixture.make()
    kept = await written(fixture, log)
    order = sorted(kept)
    start = log.first
    low, high = order[len(order) // 2], order[-2]
    log.hold(Hold("slow", LogIndex(order[1]), ENDLESS))
    log.hold(Hold("quick", LogIndex(high), ENDLESS))
    tail = await tail_of(fixture, log)
    first = await trim(fixture, log, tail)
    require(first <= order[1], f"trimmed to {first} past a hold at {order[1]}")
    rest = {index: entry for index, entry in kept.items() if index >= order[1]}
    found = await collect(fixture, log, order[1], tail)
    require_same(found, rest, "behind a hold")
    log.hold(Hold("slow", LogIndex(low), ENDLESS))
    first = await trim(fixture, log, tail)
    require(first <= low, f"trimmed to {first} past a hold moved to {low}")
    log.release("slow")
    log.release("nobody")
    moved = await trim(fixture, log, tail)
    require(moved <= high, f"trimmed to {moved} past the other hold at {high}")
    require(moved > start, f"with the hold released nothing was dropped; first is {moved}")
    rest = {index: entry for index, entry in kept.items() if index >= moved}
    require_same(await contents(fixture, log), rest, "after the release")


@check(6)
async def check_a_hold_below_first_is_refused(fixture: LogFixture) -> None:
    """A hold on what is gone is refused, with the first index that can be held."""
    log = await fixture.make()
    await written(fixture, log)
    first = await trim(fixture, log, await tail_of(fixture, log))
    require(first > 1, "nothing was trimmed")
    try:
        log.hold(Hold("late", LogIndex(first - 1), ENDLESS))
    except TrimmedError as error:
        require(error.first == first, f"TrimmedError.first is {error.first}, first is {first}")
    else:
        require(False, f"a hold at {first - 1} was taken although first is {first}")


@check(6)
async def check_a_hold_past_its_limit_is_released(fixture: LogFixture) -> None:
    """A hold that would keep more than ``bytes_max`` is released, and its reader is told."""
    log = await fixture.make()
    kept = await written(fixture, log)
    start = sorted(kept)[0]
    log.hold(Hold("forgotten", LogIndex(start), 10))
    first = await trim(fixture, log, await tail_of(fixture, log))
    require(first > start, f"a hold of 10 bytes keeps everything; first is {first}")
    names = [type(event).__name__ for event in fixture.events]
    require("HoldReleased" in names, f"no HoldReleased event; there were {sorted(set(names))}")
    await require_trimmed(fixture, log, start)


@check(6)
async def check_a_hold_within_its_limit_stays(fixture: LogFixture) -> None:
    """A hold whose limit is larger than what it keeps is respected."""
    log = await fixture.make()
    kept = await written(fixture, log)
    start = sorted(kept)[0]
    log.hold(Hold("honest", LogIndex(start), 4 * sum(map(len, kept.values()))))
    first = await trim(fixture, log, await tail_of(fixture, log))
    require(first <= start, f"trimmed to {first} past a hold at {start} within its limit")
    names = [type(event).__name__ for event in fixture.events]
    require("HoldReleased" not in names, "a hold within its limit was released")


@check(6)
async def check_a_trimmed_reader_is_told(fixture: LogFixture) -> None:
    """A reader that is overtaken by a trim gets ``TrimmedError``, and no gap."""
    log = await fixture.make()
    await written(fixture, log)
    reader = log.read(log.first)
    start = log.first
    first = await trim(fixture, log, await tail_of(fixture, log))
    require(first > start, "nothing was trimmed")
    try:
        batch = await fixture.soon(anext(reader), "a reader overtaken by a trim")
    except TrimmedError as error:
        require(error.first == first, f"TrimmedError.first is {error.first}, first is {first}")
    else:
        require(False, f"an overtaken reader was given a batch from {batch.first}")


@check(6, Capability.REOPEN)
async def check_reopening_keeps_the_trim(fixture: LogFixture) -> None:
    """After a trim and reopening the rest is there, and no index is given again."""
    log = await fixture.make()
    kept = await written(fixture, log)
    first = await trim(fixture, log, await tail_of(fixture, log))
    tail = await tail_of(fixture, log)
    log = await fixture.reopen(log)
    require(log.first >= first, f"first went back from {first} to {log.first} by reopening")
    require(log.first <= tail, f"first went from {first} to {log.first} by reopening")
    rest = {index: entry for index, entry in kept.items() if index >= log.first}
    require_same(await contents(fixture, log), rest, "reopened after a trim")
    await require_trimmed(fixture, log, log.first - 1)
    index = await put(fixture, log, entry_of(3, tag="again"))
    require(index >= tail, f"index {index} was given again: the tail was {tail}")


@check(6)
async def check_trim_and_append_may_race(fixture: LogFixture) -> None:
    """Trims among appends drop nothing above what was permitted."""
    log = await fixture.make()
    kept: dict[int, bytes] = {}
    for round_ in range(4):
        before = max(kept, default=0)
        more, _ = await asyncio.gather(
            fill_in(fixture, log, 12, size=max(64, fixture.trim_bytes // 24), tag=f"w{round_}"),
            fixture.soon(log.trim(LogIndex(before)), "trim"),
        )
        kept.update(more)
        require(log.first <= max(1, before), f"first is {log.first}, permitted was {before}")
        rest = {index: entry for index, entry in kept.items() if index >= log.first}
        require_same(await contents(fixture, log), rest, f"round {round_}")
