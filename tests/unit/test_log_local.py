"""The local log over a medium whose answers the test gives."""

import asyncio

import pytest

from outlast.host import make_world
from outlast.kernel import Deadline, DiskFullError, LogFailedError, SealedError, UnavailableError
from outlast.log.api import FailureModel, LogTraits
from outlast.log.local import LocalLog
from outlast.log.medium import QueueLimits

FOREVER = Deadline.never()
pytestmark = pytest.mark.anyio


class ToldMedium:
    """Answers each write when and how it is told."""

    base = 0

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, bytes]] = []
        self.writes: list[tuple[int, list[bytes], int, asyncio.Future[None]]] = []

    @property
    def last(self) -> int:
        return len(self.rows)

    def write(self, first: int, payloads: list[bytes], kind: bytes) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writes.append((first, payloads, kind[0], future))
        return future

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, int, int, bytes]]:
        return self.rows[first - 1 : last]

    def trim(self, before: int) -> int:
        return 1

    async def close(self) -> None:
        return

    async def answer(self, error: Exception | None = None) -> None:
        """End the oldest write."""
        first, payloads, kind, future = self.writes.pop(0)
        if error is None:
            self.rows += [(first + n, 1, kind, one) for n, one in enumerate(payloads)]
            future.set_result(None)
        else:
            future.set_exception(error)
        await turns()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def made() -> tuple[ToldMedium, LocalLog]:
    medium = ToldMedium()
    traits = LogTraits("told", FailureModel.FAIL_STOP, False, False, 1000)
    return medium, LocalLog(make_world(), medium, traits, QueueLimits())


def begin(log: LocalLog, entry: bytes) -> "asyncio.Task[int]":
    async def run() -> int:
        return await log.append(entry, deadline=FOREVER)

    return asyncio.create_task(run())


async def test_refused_indices_are_given_again_once_all_that_followed_has_ended() -> None:
    medium, log = made()
    first = begin(log, b"first")
    await turns()
    second = begin(log, b"second")
    await turns()
    assert [write[0] for write in medium.writes] == [1, 2]
    await medium.answer(DiskFullError("full"))
    third = begin(log, b"third")
    await turns()
    assert [write[0] for write in medium.writes] == [2], "handed over before its index was known"
    with pytest.raises(DiskFullError):
        await log.seal(b"", deadline=FOREVER)
    await medium.answer(DiskFullError("full"))
    assert [write[:2] for write in medium.writes] == [(1, [b"third"])]
    await medium.answer()
    assert await third == 1
    for refused in (first, second):
        with pytest.raises(DiskFullError) as caught:
            await refused
        assert caught.value.retry_after


async def test_each_caller_gets_an_error_of_its_own() -> None:
    medium, log = made()
    tasks = [begin(log, b"a"), begin(log, b"b")]
    await turns()
    await medium.answer(DiskFullError("full"))
    one, other = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(one, DiskFullError)
    assert isinstance(other, DiskFullError)
    assert one is not other


async def test_a_seal_that_was_refused_leaves_the_log_open() -> None:
    medium, log = made()
    sealing = asyncio.create_task(log.seal(b"next", deadline=FOREVER))
    await turns()
    behind = begin(log, b"behind")
    await turns()
    assert len(medium.writes) == 1, "an append went on although a seal was being decided"
    await medium.answer(DiskFullError("full"))
    with pytest.raises(DiskFullError):
        await sealing
    await turns()
    await medium.answer()
    assert await behind == 1
    assert not log.ended


async def test_a_seal_that_failed_leaves_nothing_waiting() -> None:
    medium, log = made()
    sealing = asyncio.create_task(log.seal(b"next", deadline=FOREVER))
    await turns()
    behind = begin(log, b"behind")
    await turns()
    await medium.answer(OSError("broken"))
    with pytest.raises(LogFailedError, match="broken"):
        await sealing
    with pytest.raises(UnavailableError):
        await behind


async def test_an_append_behind_a_seal_waits_only_until_its_deadline() -> None:
    medium, log = made()
    sealing = asyncio.create_task(log.seal(b"next", deadline=FOREVER))
    await turns()
    world = make_world()
    soon = Deadline.after(0.01, world.clock.monotonic_ns())
    with pytest.raises(Exception, match="deadline had passed") as caught:
        await log.append(b"behind", deadline=soon)
    assert getattr(caught.value, "happened", "") == "no"
    await medium.answer()
    assert await sealing == (1, b"next")
    with pytest.raises(SealedError) as sealed:
        await log.append(b"late", deadline=FOREVER)
    assert sealed.value.next == b"next"


async def test_close_ends_what_the_medium_never_answered() -> None:
    _, log = made()
    pending = begin(log, b"pending")
    await turns()
    await log.close()
    with pytest.raises(LogFailedError, match="closed"):
        await pending


async def test_large_turns_become_runs_of_bounded_size() -> None:
    medium = ToldMedium()
    traits = LogTraits("told", FailureModel.FAIL_STOP, False, False, 1000)
    log = LocalLog(make_world(), medium, traits, QueueLimits(run_bytes_max=25))
    tasks = [begin(log, bytes([n]) * size) for n, size in enumerate((10, 10, 10, 30, 5))]
    await turns()
    assert [(write[0], len(write[1])) for write in medium.writes] == [
        (1, 2),
        (3, 1),
        (4, 1),
        (5, 1),
    ]
    while medium.writes:
        await medium.answer()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
