"""Clusters and nodes stop, are killed, come back and catch up, with what they promised."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from outlast.cluster.connect import connect
from outlast.drill.replicas import compare_digests
from outlast.host import make_world
from tests.support.cluster import WAIT, Lab, member_row, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


# --- outlast serve -----------------------------------------------------------------------------


@dataclass
class Serving:
    """A running ``outlast serve``."""

    process: asyncio.subprocess.Process
    facts: dict[str, Any]

    @property
    def addresses(self) -> list[str]:
        return list(self.facts["addresses"].values())

    def nodes(self) -> dict[str, psutil.Process]:
        """Return the node processes by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                line = child.cmdline()
                if "--id" in line:
                    found[line[line.index("--id") + 1]] = child
        return found

    async def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), WAIT)


async def begin(data: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outlast", "serve", "bank", "--data", str(data), "--json",
        "--port", "0", "--http-port", "0", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def served(data: Path, *options: str) -> AsyncIterator[Serving]:
    process = await begin(data, *options)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WAIT)
        assert line, (await process.communicate())[1]
        yield Serving(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), WAIT)


async def deposit(addresses: list[str], amount: int) -> int:
    async with connect(None, addresses, timeout=WAIT) as client:
        return int(await client.call_json("deposit", {"account": "alice", "amount": amount}))


async def eventually(what: str, look: Any, within: float = WAIT) -> Any:
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not (found := look()):
        assert loop.time() < end, what
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_serve_stops_with_its_nodes_and_a_second_start_continues(
    tmp_path: Path, number: int, code: int
) -> None:
    async with served(tmp_path) as first:
        assert first.facts["new"]
        assert await deposit(first.addresses, 30) == 30
        nodes = first.nodes()
        assert sorted(nodes) == ["n1", "n2", "n3"]
        assert await first.stop(number) == code
        assert first.process.stderr is not None
        assert b"Traceback" not in await first.process.stderr.read()
    assert not [name for name, process in nodes.items() if process.is_running()]
    async with served(tmp_path) as second:
        assert not second.facts["new"]
        assert second.facts["addresses"] == first.facts["addresses"]
        assert await deposit(second.addresses, 5) == 35
        assert await second.stop(signal.SIGTERM) == 0
    for name in nodes:
        log = (tmp_path / f"{name}.log").read_text()
        assert "Traceback" not in log
        assert log.count("NodeStopped") == 2


async def test_nodes_end_with_a_serve_that_was_killed(tmp_path: Path) -> None:
    async with served(tmp_path) as first:
        assert await deposit(first.addresses, 30) == 30
        nodes = first.nodes()
        assert await first.stop(signal.SIGKILL) == -signal.SIGKILL
        await eventually(
            "no node outlives serve",
            lambda: not any(process.is_running() for process in nodes.values()),
        )
    async with served(tmp_path) as second:
        assert await deposit(second.addresses, 5) == 35


async def test_a_killed_node_is_started_again_and_catches_up(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        pids = []
        for turn in range(3):
            victim = serving.nodes()["n2"]
            pids.append(victim.pid)
            victim.kill()
            assert await deposit(serving.addresses, 1) == turn + 1

            def again() -> bool:
                found = serving.nodes().get("n2")
                return found is not None and found.pid not in pids

            await eventually("n2 is started again", again)
        assert await compare_digests(make_world(), serving.addresses, WAIT) == []


async def test_a_second_serve_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as first:
        second = await begin(tmp_path)
        out, err = await asyncio.wait_for(second.communicate(), WAIT)
        assert second.returncode == 2
        assert out == b""
        lines = err.decode().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"outlast: {tmp_path}: another process runs the cluster")
        assert await deposit(first.addresses, 1) == 1


async def test_a_second_process_for_one_node_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as lab:
        first = lab.processes.pop("n1")
        try:
            address = lab.addresses["n1"]
            lab.new_node("n1")  # the same directory at another address
            await lab.start("n1")
            assert await lab.ended("n1") == 2
            last = lab.log_text("n1").splitlines()[-1]
            assert last.startswith("outlast: ")
            assert str(lab.directory("n1")) in last
            assert await deposit([address], 1) == 1
        finally:
            first.kill_group()
            await first.wait()


# --- far behind --------------------------------------------------------------------------------

EVERY = 24  # entries, of a quarter of a megabyte
VALUE = "x" * 60_000


async def write(lab: Lab, count: int, keys: int) -> None:
    """Write ``count`` large values in ``keys`` keys, 4 at a time."""
    async with lab.client() as client:
        for start in range(0, count, 4):
            await asyncio.gather(
                *(
                    client.call_json("put", {"key": f"k{n % keys}", "value": f"{n}{VALUE}"})
                    for n in range(start, min(start + 4, count))
                )
            )


async def until_trimmed(lab: Lab, behind: str, index: int) -> None:
    """Wait until no other node can send ``behind`` the entry after ``index``.

    And until all others have the same snapshot, with room before the next one, so that a
    transfer can go on from any of them. One that was busy leaves a snapshot out: then write on.
    """
    looks = 0

    async def look() -> bool:
        nonlocal looks
        looks += 1
        found = [await lab.status(node) for node in lab.processes if node != behind]
        facts = [fact for fact in found if fact is not None]
        if len(facts) < len(found):
            return False
        trimmed = all(fact["first_index"] > index + 1 for fact in facts)
        newest = max(fact["applied_index"] for fact in facts)
        room = (newest - 1) % EVERY < EVERY // 2
        taken = {fact["snapshot_index"] for fact in facts}
        if trimmed and room and len(taken) == 1 and newest - max(taken) < EVERY // 2:
            return True
        if not room or looks % 10 == 0:
            await client.call_json("put", {"key": "last", "value": looks})
        return False

    async with lab.client() as client:
        await lab.until(f"what {behind} lacks is trimmed", look, within=60.0)


async def caught_up(lab: Lab, node: str) -> dict[str, Any]:
    addresses = [lab.addresses[name] for name in lab.processes]
    assert await compare_digests(lab.world, addresses, WAIT) == [], await lab.picture()
    return await lab.facts(node)


async def left_far_behind(lab: Lab, *, keys: int) -> tuple[str, int]:
    """Stop a follower and write until the others have trimmed what it lacks."""
    behind = await lab.follower()
    await write(lab, 20, keys)
    facts = await lab.facts(behind)
    assert await lab.end(behind, signal.SIGTERM) == 0
    await write(lab, 420, keys)
    await until_trimmed(lab, behind, facts["applied_index"])
    return behind, facts["applied_index"]


async def test_a_node_that_is_far_behind_is_caught_up_by_a_snapshot(tmp_path: Path) -> None:
    options = ("--snapshot-entries", str(EVERY))
    async with running(tmp_path, machine="kv", options=options) as lab:
        behind, index = await left_far_behind(lab, keys=16)
        await lab.start(behind)
        facts = await caught_up(lab, behind)
        assert facts["first_index"] > index + 1
        assert facts["snapshot_index"] > index
        # What it was sent is durable: it starts again from it, without the others.
        await lab.end(behind)
        await lab.start(behind)
        again = await caught_up(lab, behind)
        assert again["applied_index"] >= facts["applied_index"]
        await lab.voters("n1", "n2", "n3")


Chunks = dict[Path, tuple[int, int]]
"""Inode and time of chunks, by path."""


async def sender_killed(lab: Lab, behind: str) -> tuple[str, Chunks]:
    """Start ``behind`` and kill who sends it a snapshot; return that node, and what had come.

    Nothing, if the snapshot was whole before the kill, as it may be where others are busy.
    """
    snapshots = lab.directory(behind) / "snapshots"
    before = set(snapshots.glob("*/MANIFEST"))

    def chunks() -> Chunks:
        found = snapshots.rglob("chunk-*")
        part = {p: p.stat() for p in found if not (p.parent / "MANIFEST").exists()}
        return {p: (s.st_ino, s.st_mtime_ns) for p, s in part.items() if len(part) >= 3}

    async def begun() -> bool:
        return bool(chunks()) or set(snapshots.glob("*/MANIFEST")) > before

    await lab.start(behind)
    leader = await lab.leader()
    await lab.until(f"{behind} has some chunks", begun)
    received = chunks()
    await lab.end(leader)
    return leader, received if 3 <= len(chunks()) < 20 else {}


async def test_a_snapshot_goes_on_when_its_sender_is_killed(tmp_path: Path) -> None:
    options = ("--snapshot-entries", str(EVERY))
    async with running(tmp_path, machine="kv", options=options) as lab:
        for _ in range(5):
            behind, index = await left_far_behind(lab, keys=400)
            leader, received = await sender_killed(lab, behind)
            if received:
                break
            await lab.start(leader)
            await caught_up(lab, behind)
        assert received, "it was always whole before its sender was killed"
        await lab.leader(*(node for node in lab.addresses if node != leader))
        facts = await caught_up(lab, behind)
        assert facts["snapshot_index"] > index
        kept = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in received if p.exists()}
        assert kept == received, "chunks that were there were sent again"
        await lab.start(leader)
        await caught_up(lab, leader)
        row = member_row(await lab.facts(await lab.leader()), behind)
        assert row["voter"]
