"""Damaged files of one node: it stops and says where, the others go on, and it can come back."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import outlast
from outlast.cluster.layout import hash_seed_of
from outlast.state.ready.bank import Bank
from outlast.state.snapshot_store import chunk_sum
from tests.support.nodes import Nodes, complaint, until
from tests.support.nodes import outlast as run

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
LIMITS = {"OUTLAST_TEST_LIMITS": json.dumps({"checkpoint_entries": 40})}


def fill(nodes: Nodes, *, rounds: int = 60) -> dict[str, int]:
    """Make deposits one after the other, one entry each; return what is acknowledged."""
    told: dict[str, int] = {}

    async def use() -> None:
        async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
            for number in range(rounds):
                account = f"account-{number % 7}"
                told[account] = await bank.call(Bank.deposit, account, 1)

    asyncio.run(use())
    return told


def balances(nodes: Nodes) -> dict[str, int]:
    async def use() -> dict[str, int]:
        async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
            return await bank.call(Bank.balances)

    return asyncio.run(use())


def flip(path: Path, offset: int) -> None:
    """Change one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x55]))


def applied_alike(nodes: Nodes) -> None:
    def equal() -> bool:
        facts = [nodes.status(name) or {} for name in nodes.names]
        return all(facts) and len({(f["applied_index"], f["digest"]) for f in facts}) == 1

    until(equal, "equal digests")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path, program="tests.support.limited_node", environment=LIMITS)
    try:
        made.init().start().serving()
        made.leader()
        yield made
    finally:
        made.close()


def test_a_damaged_middle_of_the_log_stops_that_node_only(nodes: Nodes) -> None:
    fill(nodes, rounds=30)
    victim = nodes.leader()
    nodes.kill(victim)
    wal = nodes.data(victim) / "log" / "wal"
    segment = min(wal.glob("*.seg"))
    offset = 4096 + 3 * 512 + 100  # behind the header, in a frame that others follow
    flip(segment, offset)

    nodes.start(victim)
    assert nodes.ended(victim) == 2
    said = complaint(nodes.log(victim))
    assert segment.name in said
    found = re.search(r"frame at byte (\d+)", said)
    assert found is not None, said
    named = int(found[1])
    assert named <= offset < named + 8192
    nodes.start(victim)  # nothing was cut off: it says the same again
    assert nodes.ended(victim) == 2
    assert complaint(nodes.log(victim)) == said

    code, out, _ = run("data", "check", str(nodes.data(victim)))
    assert code == 1
    assert segment.name in out
    assert str(named) in out

    told = fill(nodes, rounds=7)
    assert {name: balances(nodes)[name] for name in told} == told

    shutil.rmtree(nodes.data(victim))
    nodes.start(victim).serving(victim)
    applied_alike(nodes)
    until(lambda: (nodes.status(victim) or {}).get("incarnation") == 2, "the next incarnation")
    assert {name: balances(nodes)[name] for name in told} == told


def snapshots(data: Path) -> list[Path]:
    """Published snapshots, the oldest first."""
    return sorted(path.parent for path in (data / "snapshots").glob("*/MANIFEST"))


def test_a_damaged_snapshot_costs_time_and_no_data(nodes: Nodes) -> None:
    told = fill(nodes, rounds=120)
    victim = nodes.names[0]
    until(lambda: len(snapshots(nodes.data(victim))) == 2, "two snapshots")
    until(lambda: (nodes.status(victim) or {}).get("applied_index", 0) >= 120, "all applied")
    nodes.signal(signal.SIGTERM, victim)
    nodes.ended(victim)
    newer = snapshots(nodes.data(victim))[-1]
    flip(newer / "chunk-000000", 40)
    nodes.start(victim).serving(victim)
    applied_alike(nodes)
    assert "SnapshotRefused" in nodes.log(victim)
    assert newer.name in nodes.log(victim)
    assert balances(nodes) == told

    nodes.kill(victim)  # both: the log still holds everything, so it is replayed from there
    for path in snapshots(nodes.data(victim)):
        flip(path / "chunk-000000", 40)
    nodes.start(victim).serving(victim)
    applied_alike(nodes)
    assert nodes.log(victim).count("SnapshotRefused") == 2
    assert balances(nodes) == told


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Nodes]:
    """One stopped node with snapshots."""
    made = Nodes(tmp_path, count=1, program="tests.support.limited_node", environment=LIMITS)
    try:
        made.init().start().serving()
        fill(made, rounds=60)
        until(lambda: snapshots(made.data("n1")), "a snapshot")
        made.signal(signal.SIGTERM, "n1")
        assert made.ended("n1") == 0
        yield made
    finally:
        made.close()


def test_a_snapshot_of_a_newer_format_or_of_another_cluster_is_refused(alone: Nodes) -> None:
    newest = snapshots(alone.data("n1"))[-1]
    before = (newest / "MANIFEST").read_bytes()
    fields = msgspec.msgpack.decode(before[16:])
    body = msgspec.msgpack.encode([99, *fields[1:]])
    (newest / "MANIFEST").write_bytes(chunk_sum(body) + body)
    alone.start()
    assert alone.ended("n1") == 2
    said = complaint(alone.log("n1"))
    assert f"{newest.name}: format 99 is newer" in said
    assert "upgrade outlast" in said
    (newest / "MANIFEST").write_bytes(before)

    other = Nodes(alone.folder / "other", count=1, program=alone.program, environment=LIMITS)
    other.cluster = "c-other"
    other.environment = {**other.environment, "PYTHONHASHSEED": str(hash_seed_of("c-other"))}
    other.folder.mkdir()
    shutil.rmtree(alone.data("n1") / "log")  # nothing but the snapshots
    other.init()
    shutil.copytree(alone.data("n1") / "snapshots", other.data("n1") / "snapshots")
    other.start()
    try:
        assert other.ended("n1") == 2
        said = complaint(other.log("n1"))
        assert "snapshot of cluster 'c-test'; this one is 'c-other'" in said
    finally:
        other.close()
