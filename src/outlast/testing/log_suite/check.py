"""The table of checks, and small steps that several checks take."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from outlast.kernel import LogIndex
from outlast.log.api import Batch, Log
from outlast.testing.log_suite.fixture import Capability, LogFixture, require

CheckFunction = Callable[[LogFixture], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One behaviour that every engine must show.

    Args:
        name: The function's name without ``check_``.
        promise: Number of the promise in ``outlast.log.api``; 0 for the rest of the interface.
        run: The check itself.
        needs: What the fixture must be able to do.
    """

    name: str
    promise: int
    run: CheckFunction
    needs: frozenset[Capability]

    def applies(self, fixture: LogFixture | type[LogFixture]) -> bool:
        """Whether the fixture can do what this check needs."""
        return self.needs <= fixture.capabilities


REGISTERED: list[Check] = []


def check(promise: int, *needs: Capability) -> Callable[[CheckFunction], CheckFunction]:
    """Put a function into the table."""

    def add(function: CheckFunction) -> CheckFunction:
        name = function.__name__.removeprefix("check_")
        REGISTERED.append(Check(name, promise, function, frozenset(needs)))
        return function

    return add


def entry_of(number: int, size: int = 24, tag: str = "e") -> bytes:
    """Return an entry that can be told from every other, of at least ``size`` bytes."""
    head = f"{tag}:{number}:{size}:".encode()
    pattern = bytes((number + place) % 251 for place in range(251))
    missing = max(0, size - len(head))
    return head + (pattern * (missing // len(pattern) + 1))[:missing]


async def put(fixture: LogFixture, log: Log, entry: bytes) -> LogIndex:
    """Append one entry that must be taken."""
    return await fixture.soon(log.append(entry, deadline=fixture.deadline()), "append")


async def fill_in(
    fixture: LogFixture, log: Log, count: int, *, size: int = 24, tag: str = "e"
) -> dict[int, bytes]:
    """Append ``count`` entries, several at a time, and return them by index."""
    entries = [entry_of(number, size, tag) for number in range(count)]
    kept: dict[int, bytes] = {}
    for start in range(0, count, 16):
        part = entries[start : start + 16]
        indices = await asyncio.gather(*(put(fixture, log, entry) for entry in part))
        require(len(set(indices)) == len(part), f"one index was given twice: {indices}")
        kept.update(zip(indices, part, strict=True))
    require(len(kept) == count, "an index was given to two entries")
    return kept


async def tail_of(fixture: LogFixture, log: Log) -> LogIndex:
    """Ask for the tail, which must be told."""
    return await fixture.soon(log.tail(deadline=fixture.deadline()), "tail")


def check_batch(batch: Batch, position: int) -> None:
    """A batch begins where the reader stands or later, and moves it on."""
    require(batch.first >= position, f"asked for {position}, got a batch from {batch.first}")
    require(
        batch.through >= batch.first + len(batch.entries) - 1,
        f"batch of {len(batch.entries)} from {batch.first} says it goes through {batch.through}",
    )
    require(batch.through >= position, f"a batch through {batch.through} is before {position}")


async def collect(fixture: LogFixture, log: Log, start: int, end: int) -> dict[int, bytes]:
    """Read from ``start`` until the reader stands at ``end`` or the log ends."""
    found: dict[int, bytes] = {}
    reader = log.read(LogIndex(start))
    position = start
    while position < end:
        try:
            batch = await fixture.soon(anext(reader), f"read at {position} of {end}")
        except StopAsyncIteration:
            break
        check_batch(batch, position)
        for index, entry in enumerate(batch.entries, batch.first):
            require(index not in found, f"index {index} was read twice")
            found[index] = entry
        position = batch.through + 1
    return found


async def contents(fixture: LogFixture, log: Log) -> dict[int, bytes]:
    """Read everything that is committed now."""
    return await collect(fixture, log, log.first, await tail_of(fixture, log))


def require_kept(found: dict[int, bytes], kept: dict[int, bytes], where: str) -> None:
    """Every entry of ``kept`` was found, at its index."""
    for index in sorted(kept):
        require(index in found, f"{where}: entry {index} is missing")
        require(
            found[index] == kept[index],
            f"{where}: entry {index} is {found[index][:40]!r}, not {kept[index][:40]!r}",
        )


def require_same(found: dict[int, bytes], kept: dict[int, bytes], where: str) -> None:
    """The log holds ``kept`` and nothing else."""
    require_kept(found, kept, where)
    extra = sorted(set(found) - set(kept))
    require(not extra, f"{where}: entries that nobody appended: {extra[:5]}")


def require_once(found: dict[int, bytes], entries: Iterable[bytes], where: str) -> None:
    """Each of ``entries`` is there at most once, and nothing else is."""
    wanted = set(entries)
    values = list(found.values())
    strange = [entry[:40] for entry in values if entry not in wanted]
    require(not strange, f"{where}: entries that nobody appended: {strange[:3]}")
    require(len(values) == len(set(values)), f"{where}: an entry is there twice")
