"""Our own cluster in the simulator: real nodes, clients and disks, every fault, many checks.

``Spine(lab).run()`` is one life of a cluster, drawn from the lab's seed: a few seconds of load
under faults, then healing, progress, final reads and judgement. Black-box checks are histories,
acknowledged writes, invariants of the machine, equal digests and progress; beside them a
:class:`tests.support.spine_watch.Watch` looks into the nodes after every step, unless
``OUTLAST_SPINE=black-box``.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from outlast import sim
from outlast.cluster import administer, draw_cluster_id
from outlast.cluster.connect import connect
from outlast.cluster.identity import load_identity
from outlast.cluster.layout import init_node
from outlast.cluster.node import Node as ClusterNode
from outlast.cluster.process import run as run_node
from outlast.cluster.settings import NodeSettings
from outlast.drill import Node
from outlast.drill.cluster_drill import Counter, Map, Members, Transfers
from outlast.drill.core.losses import set_losses
from outlast.drill.judging import judge_workload
from outlast.drill.machine import Proving
from outlast.drill.replicas import LAB, compare_digests
from outlast.drill.workload import Running
from outlast.kernel import NodeId, OutlastError, Prng, current_world
from outlast.log.engines.raft import RaftSettings
from outlast.log.wal import WalSettings
from outlast.protect import deadline
from outlast.state import ReplicaSettings
from outlast.state.core.limits import Limits
from tests.support.spine_chase import Chase
from tests.support.spine_watch import Watch, watching

PORT = 7400
DATA = "/data"
FAULTS = (
    "crash", "crash@leader", "crash@all", "power-cut", "power-cut@all", "pause", "pause@leader",
    "partition:halves", "partition:isolate@leader", "partition:one-way@leader",
    "partition:bridge", "partition:flapping", "link:slow", "link:jitter", "link:loss",
    "link:reset", "link:drop", "link:bandwidth", "disk:full", "disk:slow", "disk:eio",
    "clock:skew", "clock:jump", "clock:drift", "slow",
)  # fmt: skip
_START_SECONDS = 30.0
_BACK_SECONDS = 40.0
_FINAL_SECONDS = 20.0
_SAMPLE_SECONDS = 0.1


class _Map(Map):
    clients = 4
    rate = 5.0


class _Transfers(Transfers):
    clients = 3
    rate = 5.0


class _Members(Members):
    clients = 2
    rate = 5.0


class _Counter(Counter):
    clients = 1
    rate = 5.0


class Spine:
    """One life of a cluster.

    Args:
        lab: Of the simulation.
        count: How many nodes; drawn by default.
        seconds: How long the load runs under faults; drawn by default.
        changes: Whether members come and go.
        plain: Whether nodes keep their default settings, and no client is pinned to one of
            them: ten clients with five operations a second each.
    """

    def __init__(
        self,
        lab: sim.Lab,
        *,
        count: int | None = None,
        seconds: float | None = None,
        changes: bool = True,
        plain: bool = False,
    ) -> None:
        prng = Prng(lab.seed ^ 0x5350494E45)
        self.lab = lab
        self.world = lab.world()
        self.prng = prng
        self.count = count or prng.choice((3, 3, 3, 5))
        self.seconds = seconds or prng.between(4, 10)
        self.changes = changes and prng.chance(1, 2)
        self.black_box = os.environ.get("OUTLAST_SPINE") == "black-box"
        self.names = [f"n{number}" for number in range(1, self.count + 1)]
        self.spare = f"n{self.count + 1}"
        self.joined = False
        self.emptied: dict[str, None] = {}
        self.usurped = not plain and prng.chance(1, 3)
        self.nodes: dict[str, ClusterNode] = {}
        self.cluster = draw_cluster_id(prng)
        self.addresses: dict[NodeId, str] = {}
        self.raft, self.replica, self.wal = _settings(prng)
        self.plain = plain
        if plain:
            self.raft, self.replica = RaftSettings(), ReplicaSettings()
        self.running: list[Running] = []
        self._paused_until: dict[str, float] = {}

    # --- nodes ---------------------------------------------------------------------------------

    def _host(self, name: str, *, founding: bool) -> None:
        async def main() -> None:
            world, node = current_world(), NodeId(name)
            new = founding and name not in self.emptied
            if new and load_identity(world.storage, DATA) is None:
                init_node(world.storage, DATA, node, dict(self._founders), cluster=self.cluster)
            settings = NodeSettings(
                node=node,
                data=DATA,
                listen=self.addresses[node],
                peers=dict(self.addresses),
                cluster=self.cluster,
                security=LAB,
                raft=self.raft,
                replica=self.replica,
                wal=self.wal,
            )
            made = ClusterNode(world, Proving, settings)
            self.nodes[name] = made
            self._listen_to(name, world)
            bad = _disk_errors(host)
            try:
                failure = await run_node(made, until=asyncio.Event())
            except Exception as error:
                failure = error
            excused = _disk_errors(host) > bad or not founding or self._excuses(name, failure)
            if not excused:
                self.lab.sim.problem(f"{name} ended by itself: {failure!r}")

        host = self.lab.host(name, main, restart=True, may_exit=not founding)
        self.addresses[NodeId(name)] = f"{host.address}:{PORT}"

    def _excuses(self, name: str, failure: BaseException | None) -> bool:
        """Whether a node may end like this; looks after it if so."""
        return False

    def _others(self) -> list[Coroutine[Any, Any, None]]:
        """Return what else goes on under faults, and is cancelled before healing."""
        return [self._usurp(self.prng.fork())] if self.usurped else []

    async def _usurp(self, prng: Prng) -> None:
        """Cut the leader off from its followers, not from the clients, until another leads."""
        while True:
            await self.lab.sleep(prng.between(400, 3000) / 1000)
            lasts = prng.between(600, 1500) / 1000
            self.lab.inject("partition:isolate@leader", lasts=lasts)
            await self.lab.sleep(lasts)

    def _listen_to(self, name: str, world: Any) -> None:
        """Count what should happen sometimes, by the events of a node."""

        def heard(event: Any) -> None:
            kind = type(event).__name__
            if kind == "LogTruncated":
                self.lab.sim.count("uncommitted entries truncated")
            elif kind == "TornTailCut":
                self.lab.sim.count("torn tail cut")
            elif kind == "SnapshotOffered":
                self.lab.sim.count("snapshot sent")
            elif kind == "LeaderSteppedDown" and self._was_paused(name):
                self.lab.sim.count("leadership lost by a pause")
            elif kind == "MembersChanged" and self._is_cut():
                self.lab.sim.count("member change during a cut")

        world.events.subscribe(heard)

    def _going_on(self) -> list[Any]:
        return [event for event in self.lab.events if event.until is None]

    def _is_cut(self) -> bool:
        return any(event.fault.startswith("partition") for event in self._going_on())

    def _was_paused(self, name: str) -> bool:
        recent = self.lab.now - 3.0
        return any(
            event.fault.startswith("pause")
            and name in event.victims
            and (event.until is None or event.until > recent)
            for event in self.lab.events
        )

    def roles(self) -> dict[str, str]:
        """Return who leads and who follows, as the nodes see it."""
        found = {}
        for name, node in self.nodes.items():
            log = node._log
            if self.lab.hosts[name].up and log is not None:
                found[name] = "leader" if log.authority.mine else "follower"
        return found

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run from the first start to the verdict."""
        with ExitStack() as stack:
            if not self.black_box:
                watch = Watch(self.lab.sim.problem, self.lab.sim.count)
                stack.enter_context(watching(watch))
            await self._run()

    async def _run(self) -> None:
        lab = self.lab
        lab.roles = self.roles
        self._founders = {
            NodeId(name): f"10.0.0.{number}:{PORT}" for number, name in enumerate(self.names, 2)
        }
        for name in self.names:
            self._host(name, founding=True)
        nodes = [
            Node(name, address.rpartition(":")[0], PORT, dict(self.addresses), pinned=False)
            for name, address in self.addresses.items()
        ]
        for number, workload in enumerate((_Map(), _Transfers(), _Members(), _Counter())):
            workload.pinned = workload.pinned and not self.plain
            one = Running(
                self.world, workload, nodes, lab.seed * 1000 + number, number * 1_000_000,
            )  # fmt: skip
            one.pinned = [
                Node(node.name, node.host, PORT, node.everyone, pinned=True) for node in nodes
            ]
            one.began_ns = self.world.clock.monotonic_ns()
            self.running.append(one)
        await asyncio.gather(*(self._insist_on_setup(one) for one in self.running))
        for one in self.running:
            one.start()
        looking = asyncio.ensure_future(self._look())
        chase = Chase(self.addresses, self.prng.fork(), lab.sleep)
        chasing = None if self.plain else asyncio.ensure_future(chase.run())
        others = [*self._others(), *([self._change()] if self.changes else [])]
        going = [asyncio.ensure_future(other) for other in others]
        await lab.sleep(self.seconds)
        for task in going:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await lab.heal()
        for name in self.nodes:  # a program that ended by itself, by its disk, is not down
            if not lab.hosts[name].up and (name != self.spare or self.joined):
                lab.restart(name)
        await self._progress()
        for one in self.running:
            await one.stop(5.0)
        looking.cancel()
        if chasing is not None:
            chasing.cancel()
            with suppress(asyncio.CancelledError):
                await chasing
        assert not chase.problems, "; ".join(chase.problems[:3])
        await self._judge()

    async def _insist_on_setup(self, one: Running) -> None:
        end = self.lab.now + _START_SECONDS
        while True:
            try:
                return await one.setup()
            except Exception:
                if self.lab.now > end:
                    raise
                await self.lab.sleep(0.2)

    async def _progress(self) -> None:
        """Wait until every workload has succeeded since healing."""
        since = self.world.clock.monotonic_ns()
        end = self.lab.now + _BACK_SECONDS
        for one in self.running:
            while not any(
                done.end_ns + one.began_ns > since and done.outcome == "ok" for done in one.done
            ):
                assert self.lab.now < end, (
                    f"no progress: {one.name} did nothing within {_BACK_SECONDS:.0f} s of healing;"
                    f" {self._describe()}"
                )
                await self.lab.sleep(0.05)

    def _describe(self) -> str:
        return "; ".join(
            f"{name}: {node._phase}, {node._log!r}" for name, node in self.nodes.items()
        )

    # --- changes -------------------------------------------------------------------------------

    async def _change(self) -> None:
        """Hand leadership over, add a member and remove one, at drawn moments."""
        prng = self.prng.fork()
        while True:
            await self.lab.sleep(prng.between(200, 2500) / 1000)
            what = prng.choice(("transfer", "transfer", "add", "remove"))
            with suppress(OutlastError, OSError):
                if what == "transfer":
                    await self._administer("transfer", prng.choice(self.names))
                elif what == "add" and not self.joined:
                    if self.spare not in self.addresses:
                        self._host(self.spare, founding=False)
                    self.joined = True
                    at = self.addresses[NodeId(self.spare)]
                    await self._administer("member-add", self.spare, at)
                    self.lab.restart(self.spare)
                elif what == "remove" and self.joined:
                    await self._administer("member-remove", self.spare)
                    self.joined = False
                    self.lab.crash(self.spare)  # and comes back with an empty directory
                    self.lab.hosts[self.spare].disk.rmtree(DATA)

    async def _administer(self, op: str, node: str, address: str = "") -> None:
        await administer(
            self.world, list(self.addresses.values()), op, node, address=address, security=LAB,
            timeout=5.0,
        )  # fmt: skip

    # --- checks --------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Compare the indices of every node, again and again."""
        while not self.black_box:
            await self.lab.sleep(_SAMPLE_SECONDS)
            for name, node in self.nodes.items():
                replica, log = node._replica, node._log
                if replica is None or log is None or not self.lab.hosts[name].up:
                    continue
                if node._phase != "serving":
                    continue  # its snapshot may not be loaded yet
                commit, applied = int(log.commit_index), int(replica.applied)
                if not int(log.first) - 1 <= applied <= commit:
                    self.lab.sim.problem(
                        f"{name}: trimmed below {log.first}, applied {applied}, commit {commit}:"
                        " purged <= applied <= committed does not hold"
                    )

    async def _members(self) -> Sequence[str]:
        """Return the addresses of the members, as the leader knows them."""
        async with connect(
            None, list(self.addresses.values()), timeout=10.0, security=LAB
        ) as client:
            end = self.lab.now + _BACK_SECONDS
            while self.lab.now < end:
                for address in self.addresses.values():
                    with suppress(OutlastError, OSError), deadline(1.0):
                        facts = await client.status(address)
                        if facts.get("role") == "leader":
                            members: Any = facts["members"]
                            return list(dict.fromkeys(member["address"] for member in members))
                await self.lab.sleep(0.1)
        raise AssertionError(f"nobody leads after healing; {self._describe()}")

    async def _judge(self) -> None:
        final_ns = self.world.clock.monotonic_ns()
        problems: list[str] = []
        for one in self.running:
            problems += await one.final(_FINAL_SECONDS)
        assert not problems, "; ".join(problems)
        for one in self.running:
            for found in await one.verify():
                assert found.holds, f"{one.name}: {found.name}: {found.detail}"
            if one.model == "set":
                lost = set_losses(one.events, final_ns - one.began_ns)
                assert lost in {None, (0, 0)}, f"set: lost and doubled: {lost}"
        different = await compare_digests(self.world, await self._members(), _FINAL_SECONDS)
        assert not different, "; ".join(different)
        for one in self.running:
            judged = judge_workload(one)
            assert judged.verdict == "valid", f"{one.name}: {judged.verdict}\n{judged.drawing}"


def _disk_errors(host: sim.Host) -> int:
    tally = host.disk.tally
    return tally.eio + tally.enospc + tally.erofs


def _settings(prng: Prng) -> tuple[RaftSettings, ReplicaSettings, WalSettings]:
    """Draw settings that bring borders near: small segments, frequent checkpoints."""
    small = prng.chance(2, 3)
    raft = RaftSettings(
        lease_reads=prng.chance(1, 4),
        chunk_window=prng.choice((1, 2, 8)),
        append_bytes_max=prng.choice((4096, 1 << 20)),
        entry_bytes_max=1 << 18,
    )
    limits = Limits(
        checkpoint_entries=prng.choice((20, 60, 200)) if small else 100_000,
        session_reply_bytes_max=prng.choice((2_000, 1 << 20)),
        session_ttl_ns=prng.choice((1, 600, 600)) * 1_000_000_000,
    )
    wal = WalSettings(
        segment_bytes=512 << 10,
        first_segment_bytes=512 << 10,
        frame_bytes_max=128 << 10,
        hard_state_reserve_bytes=16 << 10,
        disk_reserve_bytes=0,
    )
    return raft, ReplicaSettings(limits=limits, entry_bytes_max=64 << 10), wal
