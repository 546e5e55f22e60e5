"""Who is told what about a proposal, from the raft engine's book of open ones."""

import asyncio

import pytest

from outlast.kernel import (
    DeadlineError,
    LogFailedError,
    LogIndex,
    LostError,
    OutlastError,
    SealedError,
)
from outlast.log.engines.raft.core.types import Entry, EntryKind
from outlast.log.engines.raft.pending import Pending, Waiter
from outlast.log.engines.raft.reader import batch_of

pytestmark = pytest.mark.anyio
FAR = 1 << 60


def add(pending: Pending, ticket: int, *, deadline_ns: int = FAR) -> asyncio.Future[LogIndex]:
    future: asyncio.Future[LogIndex] = asyncio.get_running_loop().create_future()
    pending.add(Waiter(ticket, future, 10, deadline_ns))
    return future


async def test_a_commit_resolves_what_is_there_in_its_own_term() -> None:
    pending = Pending()
    futures = [add(pending, ticket) for ticket in range(4)]
    for ticket in range(4):
        pending.place(ticket, 5 + ticket, 2)
    pending.commit(6, {5: 2, 6: 2}.get, None)
    assert [future.done() for future in futures] == [True, True, False, False]
    assert futures[1].result() == 6
    assert pending.size_bytes == 20
    pending.commit(8, {7: 2, 8: 3}.get, None)
    assert futures[2].result() == 7
    with pytest.raises(LostError):
        futures[3].result()
    assert pending.size_bytes == 0


async def test_truncation_decides_nothing_before_the_commit() -> None:
    pending = Pending()
    kept, lost = add(pending, 1), add(pending, 2)
    pending.place(1, 5, 2)
    pending.place(2, 6, 2)
    pending.truncate(5)
    again = add(pending, 3)
    pending.place(3, 5, 4)  # leads again: a lower place than those in doubt
    assert not kept.done()
    pending.commit(6, {5: 2, 6: 7}.get, None)
    assert kept.result() == 5
    for future in (lost, again):
        with pytest.raises(LostError):
            future.result()
    assert (len(pending), pending.size_bytes) == (0, 0)


async def test_after_a_reset_nobody_is_told_more_than_is_known() -> None:
    pending = Pending()
    future = add(pending, 1)
    pending.place(1, 5, 2)
    pending.reset()
    with pytest.raises(LogFailedError) as told:
        future.result()
    assert told.value.happened == "maybe"


async def test_what_lies_behind_a_seal_is_refused_once_and_counted_once() -> None:
    pending = Pending()
    sealing, behind = add(pending, 1), add(pending, 2)
    pending.place(1, 5, 2)
    pending.place(2, 6, 2)
    pending.refuse(2, SealedError(next=b"on"))
    pending.commit(6, {5: 2, 6: 2}.get, (LogIndex(5), b"on"))
    assert sealing.result() == 5
    with pytest.raises(SealedError):
        behind.result()
    assert pending.size_bytes == 0


async def test_a_deadline_ends_the_wait_and_keeps_the_count() -> None:
    pending = Pending()
    early, late = add(pending, 1, deadline_ns=100), add(pending, 2, deadline_ns=900_000_000)
    pending.place(1, 5, 2)
    assert pending.expire(99) is not None
    assert not early.done()
    again = pending.expire(100)
    with pytest.raises(DeadlineError):
        early.result()
    assert not late.done()
    assert pending.size_bytes == 20
    assert again is not None
    assert again >= 900_000_000
    pending.commit(5, {5: 2}.get, None)
    assert pending.size_bytes == 10


async def test_a_failure_gives_each_an_error_of_its_own() -> None:
    pending = Pending()
    futures = [add(pending, ticket) for ticket in range(3)]
    pending.place(0, 5, 2)
    pending.place(1, 6, 2)
    pending.truncate(6)
    pending.fail(lambda: LogFailedError("gone"))
    errors = [future.exception() for future in futures]
    assert all(isinstance(error, OutlastError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert (len(pending), pending.size_bytes) == (0, 0)


def entry(index: int, kind: EntryKind = EntryKind.NORMAL) -> Entry:
    return Entry(index, 1, kind, str(index).encode())


@pytest.mark.parametrize(
    ("kinds", "first", "payloads", "through"),
    [
        ("nnn", 1, [b"1", b"2", b"3"], 3),
        ("on", 2, [b"2"], 2),
        ("oo", 1, [], 2),
        ("no", 1, [b"1"], 2),
        ("noon", 1, [b"1"], 3),
        ("oonno", 3, [b"3", b"4"], 5),
    ],
)
async def test_a_batch_passes_over_the_engines_own_entries(
    kinds: str, first: int, payloads: list[bytes], through: int
) -> None:
    entries = [
        entry(index, EntryKind.NOOP if kind == "o" else EntryKind.NORMAL)
        for index, kind in enumerate(kinds, 1)
    ]
    batch = batch_of(entries)
    assert (batch.first, batch.entries, batch.through) == (first, payloads, through)
