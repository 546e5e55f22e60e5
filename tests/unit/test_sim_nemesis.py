"""The nemesis: each fault by its name, with evidence, within its budget, until it is healed."""

import asyncio
import contextlib
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import current_world
from outlast.sim.core.plan import FAULT_KINDS, Plan, read_faults
from outlast.sim.levers import Levers
from outlast.sim.nemesis import Nemesis
from outlast.sim.running import Options, Outcome, run_case

PORT = 7000
NAMES = ("a", "b", "c", "d", "e")


async def member() -> None:
    """Writes to its disk, looks names up and talks to all others, whatever happens."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)

    async def talk(name: str) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.3):
                    reader, writer = await asyncio.open_connection(name, PORT)
                    with contextlib.closing(writer):
                        while True:
                            writer.write(b"x" * 500 + b"\n")
                            await reader.readline()
                            await asyncio.sleep(0.02)
            await asyncio.sleep(0.01)

    async def write() -> None:
        storage = current_world().storage
        storage.makedirs("/data")
        while True:
            with contextlib.suppress(OSError):
                file = storage.open("/data/log", create=True)
                file.pwrite(b"x" * 100, file.size())
                file.fsync()
                file.pread(100, 0)
                file.close()
                storage.fsync_dir("/data")
            await asyncio.sleep(0.01)

    server = await asyncio.start_server(connected, None, PORT)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve_forever())
        group.create_task(write())
        for name in NAMES[:3]:
            group.create_task(talk(name))


def outcome(
    main: Any, seed: int = 1, only: frozenset[int] | None = None, **options: Any
) -> Outcome:
    options["faults"] = read_faults(options.get("faults", ()))
    result = run_case(main, seed, Options(**options), only=only)
    if result.error is not None:
        raise result.error
    return result


@pytest.mark.parametrize("kind", FAULT_KINDS, ids=lambda kind: kind.name)
def test_each_fault_is_felt_and_ends_by_itself(kind: Any) -> None:
    async def main(lab: sim.Lab) -> list[sim.Injected]:
        for name in NAMES[:3]:
            lab.host(name, member)
        await lab.sleep(1)
        for _ in range(6):
            lab.inject(kind.name, lasts=0.5)
            await lab.sleep(1)
        await lab.heal()
        for a in lab.sim.hosts.values():
            assert a.up
            assert not a.paused
            assert a.step_ns == 0
            assert a.clock.drift_ppm == 0
        for way in lab.sim.network.ways():
            assert not any((way.cut, way.drop, way.reset, way.shapes))
        return lab.events

    records = outcome(main).value
    assert any(record.felt for record in records), [str(record) for record in records]
    for record in records:
        assert record.fault == f"{kind.name}@one"
        assert record.until is not None
        assert record.until - record.at == pytest.approx(0.5 if kind.lasting else 0.0)
        assert set(record.victims) < set(NAMES)


def test_a_partition_that_nobody_ran_into_is_not_felt() -> None:
    async def idle() -> None:
        await asyncio.Event().wait()

    async def main(lab: sim.Lab) -> sim.Injected | None:
        lab.host("a", idle)
        lab.host("b", idle)
        record = lab.inject("partition:halves", lasts=0.5)
        await lab.sleep(1)
        return record

    record = outcome(main).value
    assert not record.felt
    assert "not felt" in str(record)


def test_a_single_host_is_parted_from_the_test() -> None:
    async def main(lab: sim.Lab) -> bool:
        lab.host("a", member)
        lab.inject("partition:halves", lasts=0.5)
        return lab.sim.network.way("a", "test").cut

    assert outcome(main).value is True


def test_clients_reach_both_sides_of_a_partition_between_servers() -> None:
    async def main(lab: sim.Lab) -> list[bool]:
        for name in NAMES[:3]:
            lab.host(name, member)
        lab.inject("partition:isolate@b", lasts=0.5)
        way = lab.sim.network.way
        return [way("a", "b").cut, way("b", "c").cut, way("a", "c").cut, way("b", "test").cut]

    assert outcome(main).value == [True, True, False, False]


# --- budget --------------------------------------------------------------------------------------


def lost_at_once(hosts: int, faults: str, **options: Any) -> int:
    """Run a few seeds under heavy faults and return how many hosts were lost at the same time."""
    most = 0

    async def main(lab: sim.Lab) -> None:
        nonlocal most
        for name in NAMES[:hosts]:
            lab.host(name, member)
        for _ in range(100):
            await lab.sleep(0.01)
            lost = [host for host in lab.hosts.values() if not host.up or host.paused]
            most = max(most, len(lost))

    for seed in range(6):
        outcome(main, seed, faults=faults, length_ns=10**9, **options)
    return most


def test_no_more_than_a_minority_is_lost_at_the_same_time() -> None:
    assert lost_at_once(5, "crash@all,pause,power-cut@majority") == 5  # declared by its target
    assert lost_at_once(5, "crash,pause@minority,power-cut") == 2
    assert lost_at_once(3, "crash,pause@minority,power-cut") == 1


def test_the_only_host_may_be_lost() -> None:
    assert lost_at_once(1, "crash") == 1


def test_any_number_may_be_lost_if_that_is_declared() -> None:
    assert lost_at_once(3, "crash,pause,power-cut", budget="any") >= 2


def test_rot_never_hits_more_than_a_minority_in_all() -> None:
    async def main(lab: sim.Lab) -> list[int]:
        for name in NAMES[:3]:
            lab.host(name, member)
        await lab.sleep(0.5)
        for _ in range(30):
            lab.inject("disk:rot")
        return [host.disk.tally.rotted for host in lab.hosts.values()]

    rotted = outcome(main).value
    assert sum(1 for count in rotted if count) == 1
    assert sum(rotted) >= 1


# --- schedule ------------------------------------------------------------------------------------


async def busy(lab: sim.Lab) -> None:
    for name in NAMES[:3]:
        lab.host(name, member)
    await lab.sleep(1)


def steps(faulty: Outcome) -> list[tuple[int, str]]:
    return [(record.index, record.fault) for record in faulty.faults]


def test_the_faults_of_a_seed_are_always_the_same() -> None:
    options = {"faults": "crash,partition:halves,link:slow,disk:eio", "length_ns": 10**9}
    one, other = (outcome(busy, 3, **options) for _ in range(2))
    assert one.digest == other.digest
    assert [str(fault) for fault in one.faults] == [str(fault) for fault in other.faults]
    assert one.faults


def test_a_subset_of_the_steps_can_be_run_again() -> None:
    options = {"faults": "crash,link:slow", "length_ns": 10**9}
    whole = outcome(busy, 6, **options)
    assert len(whole.faults) >= 4
    chosen = steps(whole)[1::2]
    again = outcome(busy, 6, only=frozenset(index for index, _ in chosen), **options)
    assert steps(again) == chosen
    assert [record.at for record in again.faults] == [record.at for record in whole.faults][1::2]
    assert outcome(busy, 6, only=frozenset(), **options).faults == []


def test_no_more_faults_overlap_than_were_drawn() -> None:
    for seed in range(8):
        result = outcome(busy, seed, faults="pause,link:slow,clock:skew", length_ns=10**9)
        spans = [(record.at, record.until or 99.0) for record in result.faults]
        for at, _ in spans:
            going_on = [begin for begin, end in spans if begin <= at < end]
            assert len(going_on) <= int(result.options["overlap"])


def test_nothing_is_injected_after_heal() -> None:
    async def main(lab: sim.Lab) -> tuple[int, int]:
        await busy(lab)
        await lab.heal()
        count = len(lab.events)
        await lab.sleep(5)
        return count, len(lab.events)

    before, after = outcome(main, 3, faults="crash,pause", length_ns=10**9).value
    assert before == after > 0


def test_faults_begin_with_the_first_host() -> None:
    async def main(lab: sim.Lab) -> None:
        await lab.sleep(100)
        await busy(lab)

    result = outcome(main, 3, faults="crash", length_ns=10**9)
    assert result.faults
    assert all(record.at > 100 for record in result.faults)


# --- targets -------------------------------------------------------------------------------------


def test_a_leader_is_hit_when_the_lab_knows_it() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.roles = lambda: {"a": "follower", "b": "leader", "c": "follower"}
        await busy(lab)

    result = outcome(main, 3, faults="pause@leader", length_ns=10**9)
    assert {record.victims for record in result.faults} == {("b",)}


@pytest.mark.parametrize("fault", ["crash@leader", "crash@nobody"])
def test_a_target_that_nobody_is_fails_the_run(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"'{fault}' could hit nobody"):
        outcome(busy, 3, faults=fault, length_ns=10**9)


def test_a_lease_that_is_lifted_leaves_nothing_behind() -> None:
    """Levers keep no state of a fault that is over."""

    async def main(lab: sim.Lab) -> None:
        await busy(lab)
        levers = Levers(lab.sim)
        nemesis = Nemesis(levers, Plan((), 1, length_ns=1), roles=lambda: None)
        for n, kind in enumerate(FAULT_KINDS):
            nemesis.inject(read_faults(kind.name)[0], n, 10**7)
            await lab.sleep(0.02)
        assert not levers.leases._by_key
        assert not any((levers._down, levers._still, levers._undo))

    outcome(main)
