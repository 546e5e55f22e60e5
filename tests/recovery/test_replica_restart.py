"""Restart, restore, power cut: what was acknowledged is there, and once."""

import asyncio
import itertools
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast.host import HostStorage
from outlast.host.lossy import LossyStorage
from outlast.kernel import Deadline, DivergedError, LogIndex, Offload, Prng, TrimmedError
from outlast.log import Hold, Log
from outlast.log.engines.file import FileLog
from outlast.state import Limits, Replica
from outlast.state.events import (
    DigestDiffered,
    EntryPoisoned,
    EntrySkipped,
    SnapshotFailed,
    SnapshotLoaded,
    SnapshotRefused,
    SnapshotTaken,
)
from tests.support.marker import mark_death
from tests.support.state_bank import NEVER, Host, add, args, caught_up, send, turns, value

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


async def started(host: Host, log: Log, **settings: object) -> Replica:
    replica = host.replica(log, **settings)  # type: ignore[arg-type]
    await replica.start()
    return await caught_up(replica)


async def fill(replica: Replica, session: int, first: int, last: int) -> None:
    names = {seq: add(session, seq, f"n{seq % 7}", ack_below=first) for seq in range(first, last)}
    replies = await asyncio.gather(*(send(replica, body) for body in names.values()))
    assert all(reply.status == 0 for reply in replies)


async def counts(replica: Replica) -> dict[str, int]:
    found = {}
    for n in range(7):
        found[f"n{n}"] = value(await replica.query("get", args("get", f"n{n}")))
    return found


@pytest.mark.parametrize("through", ["log", "snapshot"])
async def test_256_requests_in_flight_repeated_out_of_order_run_once_each(
    tmp_path: Path, through: str
) -> None:
    prng = Prng(7)
    host = Host(str(tmp_path / "snap"))
    log = host.log()
    first = await started(host, log)
    session = await first.register()
    bodies = {seq: add(session, seq, f"r{seq}") for seq in range(1, 257)}
    early = list(bodies)
    prng.shuffle(early)
    replies = {seq: await send(first, bodies[seq]) for seq in early[:128]}
    if through == "snapshot":
        await first.checkpoint()
    await first.stop()

    second = await started(host, log, me="n1#2")
    assert bool(host.told(SnapshotLoaded)) is (through == "snapshot")
    again = list(bodies) * 3
    prng.shuffle(again)
    pending = [(seq, send(second, bodies[seq])) for seq in again]
    for seq, future in pending:
        reply = await future
        assert value(reply) == 1, "applied more than once"
        assert replies.setdefault(seq, reply) == reply, "another answer than before"
    assert len(replies) == 256
    await second.stop()
    await log.close()


async def test_replicas_write_snapshots_of_equal_bytes_at_equal_indices(tmp_path: Path) -> None:
    limits = Limits(checkpoint_entries=20)
    one, two = Host(str(tmp_path / "one")), Host(str(tmp_path / "two"))
    log = one.log()
    log.hold(Hold("second", LogIndex(1), 1 << 30))
    first = await started(one, log, limits=limits)
    session = await first.register()
    for seq in range(1, 60):
        await send(first, add(session, seq, f"n{seq % 7}"))
        if seq % 10 == 0:
            await turns(50)
    second = await started(two, log, me="n2#1")
    ref = await second.checkpoint()
    await caught_up(first)
    while not first.status().snapshot or first.status().snapshot_busy:
        await turns(1)
    taken = {event.index for event in one.told(SnapshotTaken)}
    assert {event.index for event in two.told(SnapshotTaken)} & taken
    stores = [host.store() for host in (one, two)]
    assert stores[0].latest() == stores[1].latest() == ref
    assert list(stores[0].chunks(ref)) == list(stores[1].chunks(ref))
    assert not one.told(DigestDiffered)
    for replica in (first, second):
        await replica.stop()
    await log.close()


async def test_the_log_goes_below_the_older_of_two_snapshots_only(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = host.log()
    replica = await started(host, log)
    session = await replica.register()
    await fill(replica, session, 1, 50)
    first = await replica.checkpoint()
    assert log.first == 1
    await fill(replica, session, 50, 60)
    await replica.checkpoint()
    assert log.first == first.index + 1
    await replica.stop()
    await log.close()


def damage_newest(directory: Path) -> str:
    newest = sorted(directory.glob("0*"))[-1]
    chunk = newest / "chunk-000000"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    return newest.name


async def test_a_damaged_newest_snapshot_costs_time_and_not_data(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = host.log()
    replica = await started(host, log)
    session = await replica.register()
    for at in range(3):
        await fill(replica, session, 1 + 50 * at, 51 + 50 * at)
        await replica.checkpoint()
    expected = await counts(replica)
    await replica.stop()
    name = damage_newest(tmp_path)

    again = await started(host, log)
    assert host.told(SnapshotRefused)[0].name == name
    assert again.status().log_first <= host.told(SnapshotLoaded)[-1].index + 1
    assert await counts(again) == expected
    reply = await send(again, add(session, 150, "n3"))
    assert value(reply) == expected["n3"], "the repeat of the last request was applied"
    await again.stop()
    await log.close()


async def test_commands_go_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = host.log()
    replica = await started(host, log)
    session = await replica.register()
    for at in range(40):
        batch = [
            add(session, at * 100 + n, f"k{at}-{n}", ack_below=at * 100) for n in range(1, 101)
        ]
        await asyncio.gather(*(send(replica, body) for body in batch))
    digest_at_cut = asyncio.ensure_future(replica.checkpoint())
    seq, during = 4001, 0
    while not digest_at_cut.done():
        reply = await send(replica, add(session, seq, "k0-1", ack_below=seq))
        assert reply.status == 0
        during += replica.status().snapshot_busy
        seq += 1
    assert during > 3, "no command was applied while the checkpoint was written"
    ref = await digest_at_cut
    other = Host(str(tmp_path / "other"))
    restored = other.replica(other.log(), store=host.store())
    assert restored._snapshotter is not None
    restored._snapshotter.adopt(restored._snapshotter.read(ref))
    assert restored.system.index == ref.index
    now = value(await replica.query("get", args("get", "k0-1")))
    assert restored._runner.machine.counts["k0-1"] < now, "later commands leaked into it"
    await replica.stop()
    await log.close()


# --- power cuts ----------------------------------------------------------------------------------


class PowerCutError(OSError):
    """The power goes at a fault point."""


async def power_cut_run(tmp_path: Path, at: int, seed: int) -> bool:
    """Cut the power at the ``at``-th fault point of a checkpoint; tell if it came."""
    directory = tmp_path / f"cut{at}-{seed}"
    storage = LossyStorage(HostStorage(), Prng(seed))
    host = Host(str(directory / "snap"), storage)
    log = await FileLog.open(host.world, str(directory / "log"))
    replica = await started(host, log)
    session = await replica.register()
    await fill(replica, session, 1, 30)
    await replica.checkpoint()
    await fill(replica, session, 30, 60)
    await replica.checkpoint()
    await fill(replica, session, 60, 90)
    expected = await counts(replica)
    passed = itertools.count()
    reached = False

    def act() -> None:
        nonlocal reached
        if next(passed) >= at:
            reached = True
            raise PowerCutError("the power went")

    class Faults:
        def fault_point(self, name: str) -> None:
            if name.startswith("snapshot."):
                act()

    object.__setattr__(host.world, "faults", Faults())
    try:
        await asyncio.wait_for(replica.checkpoint(), 60)
    except PowerCutError:
        assert host.told(SnapshotFailed)
    await replica.stop()
    await log.close()
    storage.power_cut(Prng(seed))

    again = Host(str(directory / "snap"), LossyStorage(HostStorage(), Prng(seed)))
    log = await FileLog.open(again.world, str(directory / "log"))
    restored = await started(again, log)
    assert await counts(restored) == expected
    assert (await send(restored, add(session, 61, "n5", ack_below=60))).status == 0
    assert await counts(restored) == expected, "a repeat was applied again"
    assert restored.status().log_first <= again.told(SnapshotLoaded)[0].index + 1
    await restored.checkpoint()
    await restored.stop()
    await log.close()
    return reached


@pytest.mark.slow
async def test_a_power_cut_at_every_step_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    for at in itertools.count():
        reached = [await power_cut_run(tmp_path, at, seed) for seed in (1, 2)]
        if not any(reached):
            assert at >= 4
            return


# --- entries that kill ---------------------------------------------------------------------------


async def test_an_entry_that_killed_twice_waits_for_an_agreed_skip(tmp_path: Path) -> None:
    one, two = Host(str(tmp_path / "one")), Host(str(tmp_path / "two"))
    log = one.log()
    first = await started(one, log)
    session = await first.register()
    await fill(first, session, 1, 10)
    poison = (await send(first, add(session, 10, "n0"))).index
    await send(first, add(session, 11, "n1"))

    mark_death(tmp_path / "two", poison, 1)
    second = await started(two, log, me="n2#1")
    assert not two.told(EntryPoisoned), "one death may be anybody's"
    await second.stop()

    mark_death(tmp_path / "two", poison, 2)
    second = two.replica(log, me="n2#2")
    await second.start()
    while not second.status().poisoned:
        await turns(1)
    assert second.applied == poison - 1
    assert (await second.query("get", args("get", "n0"), "stale")).status == 0

    await first.skip(poison)
    await caught_up(second)
    assert two.told(EntrySkipped)[0].index == poison
    assert second.status().poisoned == 0
    skipped = await counts(second)

    # The one that executed it is now the odd one out, says so, and starts again without it.
    assert isinstance(await first.failed, DivergedError)
    await first.stop()
    again = await started(one, log, me="n1#2")
    assert await counts(again) == skipped
    await caught_up(second)
    assert again.system.skipped == second.system.skipped == [poison]
    assert again.status().digest == second.status().digest
    for replica in (again, second):
        await replica.stop()
    await log.close()


async def test_a_replica_that_holds_alone_goes_on_when_told_to_try_again(tmp_path: Path) -> None:
    one, two = Host(str(tmp_path / "one")), Host(str(tmp_path / "two"))
    log = one.log()
    first = await started(one, log)
    assert await first.retry_held() == 0
    session = await first.register()
    await fill(first, session, 1, 10)
    suspect = (await send(first, add(session, 10, "n0"))).index
    await send(first, add(session, 11, "n1"))

    mark_death(tmp_path / "two", suspect, 2)
    second = two.replica(log, me="n2#1")
    await second.start()
    while not second.status().poisoned:
        await turns(1)
    waiting = asyncio.ensure_future(caught_up(second))
    await turns()
    assert second.applied == suspect - 1
    assert not waiting.done()
    assert await second.retry_held() == suspect
    await waiting
    assert second.status().poisoned == 0
    assert await counts(second) == await counts(first)
    assert second.status().digest == first.status().digest
    assert await second.retry_held() == 0
    await second.stop()

    again = two.replica(log, me="n2#2")
    await again.start()
    await caught_up(again)
    assert len(two.told(EntryPoisoned)) == 1, "the deaths were not forgotten for good"
    for replica in (first, again):
        await replica.stop()
    assert await again.retry_held() == 0
    await log.close()


# --- snapshots from elsewhere --------------------------------------------------------------------


async def test_a_replica_that_is_far_behind_takes_a_snapshot_and_goes_on(tmp_path: Path) -> None:
    one, two = Host(str(tmp_path / "one")), Host(str(tmp_path / "two"))
    log = one.log()
    ahead = await started(one, log)
    session = await ahead.register()
    await fill(ahead, session, 1, 40)
    behind_store = two.store()
    behind = two.replica(log, me="n2#1", store=behind_store)
    await behind.start()
    await caught_up(behind)
    await behind._applier.stop()
    await fill(ahead, session, 40, 80)
    await fill(ahead, session, 80, 90)
    ref = await ahead.checkpoint()
    await fill(ahead, session, 90, 95)

    lost = send(behind, add(session, 79, "n2", ack_below=79))
    kept = send(behind, add(session, 85, "n1", ack_below=80))
    await turns()
    sink = behind_store.receive(ref)
    source = one.store()
    for number in range(ref.chunk_count):
        await sink.write(number, source.read_chunk(ref, number))
    await behind_store.install(await sink.finish())
    await caught_up(behind)
    assert behind.applied == ahead.applied
    assert await counts(behind) == await counts(ahead)
    assert behind.status().digest == ahead.status().digest
    assert (await lost).status == 3, "acknowledged long ago: nobody can tell any more"
    assert (await kept).status == 0
    for replica in (ahead, behind):
        await replica.stop()
    await log.close()


class Beside:
    """Runs blocking calls, and looks at what queries see when each has ended beside the loop."""

    def __init__(self, inner: Offload) -> None:
        self._inner = inner
        self.look: Callable[[], Awaitable[None]] | None = None

    async def run(self, lane: str, call: Callable[[], Any]) -> Any:
        result = await self._inner.run(lane, call)
        if self.look is not None:
            await self.look()
        return result


async def test_stale_queries_see_the_old_state_until_all_of_a_received_one_is_read(
    tmp_path: Path,
) -> None:
    one, two = Host(str(tmp_path / "one")), Host(str(tmp_path / "two"))
    beside = Beside(two.world.offload)
    two.world = replace(two.world, offload=beside)
    log = one.log()
    ahead = await started(one, log)
    session = await ahead.register()
    await fill(ahead, session, 1, 8)
    store = two.store()
    behind = two.replica(log, me="n2#1", store=store)
    await behind.start()
    await caught_up(behind)
    await behind._applier.stop()
    before = behind.applied, behind.system.index, behind.system.digest
    await fill(ahead, session, 8, 22)
    ref = await ahead.checkpoint()
    sink = store.receive(ref)
    await sink.write(0, one.store().read_chunk(ref, 0))
    await sink.finish()
    seen = []

    async def look() -> None:
        reply = await behind.query("get", args("get", "n0"), "stale")
        seen.append(value(reply))
        assert (reply.index, behind.system.index, reply.digest) == before

    beside.look = look
    await store.install(ref)
    beside.look = None
    assert seen == [1]
    assert behind.system.index >= ref.index
    assert await counts(behind) == await counts(ahead)
    for replica in (ahead, behind):
        await replica.stop()
    await log.close()


async def test_a_trimmed_log_without_its_snapshot_stops_the_replica(tmp_path: Path) -> None:
    host = Host(str(tmp_path / "one"))
    log = host.log()
    replica = await started(host, log)
    session = await replica.register()
    await fill(replica, session, 1, 10)
    await log.trim(LogIndex(replica.applied))
    await replica.stop()
    empty = Host(str(tmp_path / "two")).replica(log, me="n2#1")
    await empty.start()
    assert isinstance(await empty.failed, TrimmedError)
    await empty.stop()
    await log.close()


async def test_a_deadline_bounds_the_wait_for_a_checkpoint(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = host.log()
    replica = await started(host, log)
    with pytest.raises(Exception, match="deadline"):
        await replica.checkpoint(deadline=Deadline(1))
    assert (await replica.checkpoint(deadline=NEVER)).index > 0
    assert Tally(type(event) for event in host.events)[SnapshotTaken] == 1
    await replica.stop()
    await log.close()
