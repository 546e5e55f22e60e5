"""Promise 7: an append ends honestly. A definite error leaves nothing behind, for ever."""

import asyncio
from collections.abc import Awaitable

from outlast.kernel import (
    ConfigError,
    DeadlineError,
    DefiniteError,
    LogFailedError,
    RejectedError,
    TooLateError,
    happened,
)
from outlast.log.api import Log
from outlast.testing.log_suite.check import (
    check,
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


async def require_raises(
    call: Awaitable[object], kind: type[Exception], what: str, fixture: LogFixture
) -> None:
    """``call`` is refused with ``kind``, which says that nothing happened."""
    try:
        result = await fixture.soon(call, what)
    except kind as error:
        require(happened(error) == "no", f"{what}: {error!r} says happened={happened(error)!r}")
    else:
        require(False, f"{what}: returned {result!r}, not {kind.__name__}")


@check(7)
async def check_empty_and_oversized_entries_are_refused(fixture: LogFixture) -> None:
    """An empty entry and one byte too many are ``ConfigError``, and leave nothing."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 2)
    limit = log.traits.entry_bytes_max
    for entry, what in ((b"", "an empty entry"), (bytes(limit + 1), "an oversized entry")):
        call = log.append(entry, deadline=fixture.deadline())
        await require_raises(call, ConfigError, what, fixture)
    largest = entry_of(1, limit)[:limit]
    kept[await put(fixture, log, largest)] = largest
    require_same(await contents(fixture, log), kept, "after refusals")


@check(7)
async def check_a_passed_deadline_is_too_late(fixture: LogFixture) -> None:
    """With a deadline that has passed nothing is appended and nothing sealed."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 2)
    for number in range(3):
        call = log.append(entry_of(number, tag="late"), deadline=fixture.passed())
        await require_raises(call, TooLateError, "an append that is too late", fixture)
    sealing = log.seal(b"late", deadline=fixture.passed())
    await require_raises(sealing, TooLateError, "a seal that is too late", fixture)
    kept[await put(fixture, log, entry_of(5, tag="on"))] = entry_of(5, tag="on")
    require_same(await contents(fixture, log), kept, "after calls that were too late")
    if Capability.REOPEN in fixture.capabilities:
        log = await fixture.reopen(log)
        require_same(await contents(fixture, log), kept, "reopened after late calls")


@check(7, Capability.STALL)
async def check_a_deadline_under_way_is_indefinite(fixture: LogFixture) -> None:
    """A deadline that passes under way is ``DeadlineError``; the entry is there once or not."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 2)
    await fixture.stall()
    entry = entry_of(1, tag="slow")
    try:
        result = await fixture.soon(
            log.append(entry, deadline=fixture.deadline(0.2)), "an append past its deadline"
        )
    except DeadlineError as error:
        require(happened(error) == "maybe", f"{error!r} says happened={happened(error)!r}")
    else:
        require(False, f"an append that was not durable by its deadline returned {result}")
    finally:
        await fixture.resume()
    kept[await put(fixture, log, entry_of(2, tag="next"))] = entry_of(2, tag="next")
    found = await contents(fixture, log)
    require_kept(found, kept, "after the stall")
    require_once(found, [*kept.values(), entry], "after the stall")


@check(7)
async def check_cancelled_appends_are_whole_or_absent(fixture: LogFixture) -> None:
    """Appends cancelled at any step are there once or not at all, and the log goes on."""
    log = await fixture.make()
    kept: dict[int, bytes] = {}
    cancelled: list[bytes] = []
    for steps in range(20):
        entry = entry_of(steps, tag="x")
        task = asyncio.ensure_future(log.append(entry, deadline=fixture.deadline()))
        other = asyncio.ensure_future(put(fixture, log, entry_of(steps, tag="y")))
        await fixture.turns(steps)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, int):
            kept[result] = entry
        else:
            cancelled.append(entry)
        kept[await fixture.soon(other, "the append beside a cancelled one")] = entry_of(
            steps, tag="y"
        )
    await put(fixture, log, end := entry_of(99, tag="z"))
    found = await contents(fixture, log)
    require_kept(found, kept, "beside cancelled appends")
    require_once(found, [*kept.values(), *cancelled, end], "beside cancelled appends")


@check(7, Capability.STALL)
async def check_a_full_queue_refuses(fixture: LogFixture) -> None:
    """While nothing becomes durable the queue fills, then refuses, saying when to come back."""
    log = await fixture.make()
    size = min(log.traits.entry_bytes_max, 256 * 1024)
    await fixture.stall()
    entries: list[bytes] = []
    tasks: list[asyncio.Task[int]] = []
    refused: dict[bytes, RejectedError] = {}
    try:
        for number in range(4000):
            entries.append(entry_of(number, size, "full"))
            tasks.append(asyncio.create_task(_append(fixture, log, entries[-1])))
            await fixture.turns(1)
            error = tasks[-1].exception() if tasks[-1].done() else None
            if error is not None:
                require(isinstance(error, RejectedError), f"a full queue refused with {error!r}")
                refused[entries[-1]] = error  # type: ignore[assignment]
                break
        else:
            require(False, f"{4000 * size} bytes were queued without a refusal")
    finally:
        await fixture.resume()
    for refusal in refused.values():
        require(refusal.retry_after, f"the refusal does not say when to come back: {refusal!r}")
    kept = {}
    results = await fixture.soon(
        asyncio.gather(*tasks, return_exceptions=True), "appends after the stall"
    )
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, int):
            kept[result] = entry
        else:
            require(isinstance(result, DefiniteError), f"after the stall: {result!r}")
    kept[await put(fixture, log, entry_of(1, tag="on"))] = entry_of(1, tag="on")
    require_same(await contents(fixture, log), kept, "after a full queue")


@check(7, Capability.FULL)
async def check_a_full_disk_refuses_and_recovers(fixture: LogFixture) -> None:
    """Without space appends are refused definitely and reads go on; with space it goes on."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 3)
    size = min(log.traits.entry_bytes_max, 128 * 1024)
    await fixture.fill()
    refusals = 0
    unknown: set[bytes] = set()  # under way when the disk turned out to be full
    for number in range(2000):
        entry = entry_of(number, size, "full")
        try:
            deadline = fixture.deadline(fixture.patience / 10)
            index = await fixture.soon(log.append(entry, deadline=deadline), "append")
            require(index not in kept, f"index {index} was given twice on a full disk")
            kept[index] = entry
        except DeadlineError:
            unknown.add(entry)
            require(len(unknown) <= 5, "a disk that is known to be full takes more and more")
        except RejectedError as error:
            require(error.retry_after, f"it does not say when to come back: {error!r}")
            refusals += 1
            if refusals == 3:
                break
    require(refusals == 3, "the disk is full and nothing was refused")
    require_same(await _without(fixture, log, unknown), kept, "on a full disk")
    burst = [entry_of(number, size, "burst") for number in range(40)]
    results = await fixture.soon(
        asyncio.gather(*(_append(fixture, log, one) for one in burst), return_exceptions=True),
        "many appends on a full disk",
    )
    for entry, result in zip(burst, results, strict=True):
        if isinstance(result, int):
            kept[result] = entry
        else:
            require(isinstance(result, RejectedError), f"a full disk refused with {result!r}")
    await fixture.free()
    freed = entry_of(1, tag="freed")
    kept[await fixture.soon(_append_at_last(fixture, log, freed), "an append with space")] = freed
    kept.update(await fill_in(fixture, log, 5, tag="on"))
    require_same(await _without(fixture, log, unknown), kept, "with space again")
    if Capability.REOPEN in fixture.capabilities:
        log = await fixture.reopen(log)
        require_same(await _without(fixture, log, unknown), kept, "reopened after a full disk")


async def _without(fixture: LogFixture, log: Log, unknown: set[bytes]) -> dict[int, bytes]:
    """Return what the log holds but for entries of which nobody knows whether it does."""
    held = await contents(fixture, log)
    return {index: entry for index, entry in held.items() if entry not in unknown}


async def _append_at_last(fixture: LogFixture, log: Log, entry: bytes) -> int:
    """Append, coming back as often and as late as the refusals say."""
    while True:
        try:
            return await _append(fixture, log, entry)
        except RejectedError as error:
            await fixture.world.timers.sleep(error.retry_after or 0.001)


async def _append(fixture: LogFixture, log: Log, entry: bytes) -> int:
    return await log.append(entry, deadline=fixture.deadline())


@check(7, Capability.FAIL_SYNC, Capability.CRASH)
async def check_a_failed_fsync_is_never_retried(fixture: LogFixture) -> None:
    """After a failed fsync what was pending is unknown, and nothing is taken any more.

    A second fsync can succeed without the data (Rebello et al., USENIX ATC 2020), so an
    engine that tries again acknowledges what is lost.
    """
    log = await fixture.make()
    kept = await fill_in(fixture, log, 5)
    await fixture.fail_sync()
    pending = [entry_of(number, tag="f") for number in range(4)]
    results = await fixture.soon(
        asyncio.gather(*(_append(fixture, log, one) for one in pending), return_exceptions=True),
        "appends whose fsync fails",
    )
    for result in results:
        require(isinstance(result, LogFailedError), f"its fsync failed and it ended as {result!r}")
    for number in range(3):
        (result,) = await fixture.soon(
            asyncio.gather(
                _append(fixture, log, entry_of(number, tag="g")), return_exceptions=True
            ),
            "an append to a failed log",
        )
        refused = isinstance(result, DefiniteError | LogFailedError)
        require(refused, f"after a failed fsync an append ended as {result!r}")
    log = await fixture.crash(log)
    found = await contents(fixture, log)
    require_kept(found, kept, "after the failed log was started again")
    require_once(found, [*kept.values(), *pending], "after the failed log was started again")


@check(7, Capability.CRASH)
async def check_refused_entries_never_appear(fixture: LogFixture) -> None:
    """What was refused is not in the log after a crash either."""
    log = await fixture.make()
    kept = await fill_in(fixture, log, 4)
    for number in range(4):
        late = log.append(entry_of(number, tag="late"), deadline=fixture.passed())
        await require_raises(late, TooLateError, "an append that is too late", fixture)
        kept[await put(fixture, log, entry_of(number, tag="ok"))] = entry_of(number, tag="ok")
    await fixture.soon(log.seal(b"end", deadline=fixture.deadline()), "seal")
    sealed = log.append(entry_of(1, tag="sealed"), deadline=fixture.deadline())
    await require_raises(sealed, DefiniteError, "an append to a sealed log", fixture)
    tail = await tail_of(fixture, log)
    log = await fixture.crash(log)
    require_same(await contents(fixture, log), kept, "after the crash")
    require(await tail_of(fixture, log) >= max(kept) + 1, f"the tail was {tail}")
