"""The demonstration: a cluster under load loses its leader again and again, and is judged.

This is the first, small form of a drill: workload, nemesis, evidence, judgement. What is shown
while it runs and what stands in the result is one view model, :class:`DemoView`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from outlast.cluster import Client, LocalCluster
from outlast.drill.bank import BankWorkload
from outlast.drill.core.gaps import percentile
from outlast.drill.core.ledger import Judgement
from outlast.kernel import HistoryEvent, OutlastError, Verdict, World

_NS = 1_000_000_000
_SETTLE = 4.0


@dataclass(slots=True)
class FaultRow:
    """One fault: what was done, what shows it, and how long writes stood still."""

    name: str
    victims: tuple[str, ...]
    at_ns: int
    evidence: str = ""
    gap_ms: float | None = None


@dataclass(slots=True)
class NodeRow:
    """One node as its status says; ``state`` is what the supervisor knows."""

    node: str
    pid: int = 0
    state: str = "starting"
    role: str = ""
    term: int = 0
    applied: int = 0
    restarts: int = 0


@dataclass(slots=True)
class DemoView:
    """All that is shown: live table, and at the end the result."""

    seconds: float
    elapsed: float = 0.0
    nodes: list[NodeRow] = field(default_factory=list)
    faults: list[FaultRow] = field(default_factory=list)
    acknowledged: int = 0
    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    phase: str = "starting the cluster"
    verdict: Verdict | None = None
    judgement: Judgement | None = None
    why: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the result with plain values, for ``--json``."""
        judgement = self.judgement
        gaps = sorted(f.gap_ms for f in self.faults if f.gap_ms is not None)
        return {
            "schema": 1,
            "verdict": self.verdict,
            "why": self.why,
            "seconds": self.seconds,
            "operations": self.counts,
            "acknowledged": judgement.acknowledged if judgement else 0,
            "lost": judgement.lost if judgement else None,
            "applied_twice": judgement.applied_twice if judgement else None,
            "money_in": judgement.money_in if judgement else None,
            "money_found": judgement.money_found if judgement else None,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "gap_ms_median": gaps[len(gaps) // 2] if gaps else None,
            "faults": [
                {
                    "name": fault.name,
                    "victims": list(fault.victims),
                    "evidence": fault.evidence,
                    "gap_ms": fault.gap_ms,
                }
                for fault in self.faults
            ],
        }


@dataclass(slots=True)
class Demo:
    """Runs the demonstration on a cluster that it starts and stops.

    Args:
        world: The real world.
        cluster: The local cluster, not yet started.
        connect: Makes one client of it.
        seconds: How long the load runs.
        clients: How many callers transfer money.
        every: Seconds between faults.
        show: Called with the view about four times a second.
        record: Called with each history event.
    """

    world: World
    cluster: LocalCluster
    connect: Callable[[], Client[Any]]
    seconds: float = 30.0
    clients: int = 16
    every: float = 4.0
    show: Callable[[DemoView], None] = lambda _: None
    record: Callable[[HistoryEvent], None] | None = None
    view: DemoView = field(init=False)
    _watch: Client[Any] = field(init=False)

    async def run(self) -> DemoView:
        """Run from start to verdict; the cluster is stopped whatever happens."""
        self.view = DemoView(self.seconds)
        try:
            await self.cluster.start()
            self._watch = self.connect()
            async with self._watch:
                await self._act()
        finally:
            await self.cluster.stop()
        return self.view

    async def _act(self) -> None:
        view = self.view
        await self.cluster.ready()
        workload = BankWorkload(self.world, self.connect, self.clients, record=self.record)
        await workload.start()
        view.phase = "under load"
        start = self.world.clock.monotonic_ns()
        due = self.every
        killed_all = False
        while (elapsed := self._since(start)) < self.seconds:
            view.elapsed = elapsed
            await self._look(workload)
            if elapsed >= due and elapsed < self.seconds - _SETTLE:
                if not killed_all and elapsed > self.seconds * 0.6:
                    killed_all = True
                    await self._kill_all()
                    due = elapsed + self.every * 1.5
                else:
                    await self._kill_leader()
                    due = elapsed + self.every
            await self.world.timers.sleep(0.25)
        view.phase = "judging"
        view.elapsed = self.seconds
        await self._look(workload)
        try:
            view.judgement = await workload.finish()
        except (OutlastError, OSError) as error:
            view.why.append(f"the cluster did not answer after the last fault: {error}")
        self._conclude(workload)
        self.show(view)

    def _since(self, start_ns: int) -> float:
        return (self.world.clock.monotonic_ns() - start_ns) / _NS

    # --- nemesis -----------------------------------------------------------------------------

    async def _kill_leader(self) -> None:
        leader = await self._leader()
        if leader is None:
            return
        await self._kill("crash@leader", (leader,))

    async def _kill_all(self) -> None:
        await self._kill("crash@all", tuple(self.cluster.nodes))

    async def _kill(self, name: str, victims: tuple[str, ...]) -> None:
        fault = FaultRow(name, victims, self.world.clock.monotonic_ns())
        pids = [self.cluster.kill(victim) for victim in victims]
        gone = [pid for pid in pids if pid and await self.cluster.gone(pid)]
        if len(gone) == len(victims):
            fault.evidence = "kill -9, pid gone: " + ", ".join(map(str, gone))
        self.view.faults.append(fault)

    async def _leader(self) -> str | None:
        for row in self.view.nodes:
            if row.role == "leader" and row.state == "running":
                return row.node
        return None

    # --- watching ----------------------------------------------------------------------------

    async def _look(self, workload: BankWorkload) -> None:
        view = self.view
        now = self.world.clock.monotonic_ns()
        rows = []
        for node in self.cluster.nodes:
            child = self.cluster.child(node)
            row = NodeRow(node, child.pid, child.state, restarts=child.restarts)
            facts = await self._status(node) if child.state == "running" else None
            if facts is not None:
                row.role = str(facts.get("role", ""))
                row.term = int(facts.get("term", 0))
                row.applied = int(facts.get("applied_index", 0))
            rows.append(row)
        view.nodes = rows
        view.acknowledged = workload.counts.ok
        view.rate = workload.acks.rate(now)
        recent = workload.latencies_ns[-2_000:]
        view.p50_ms = percentile(recent, 50) / 1e6
        view.p99_ms = percentile(recent, 99) / 1e6
        self._measure(workload)
        self.show(view)

    def _measure(self, workload: BankWorkload) -> None:
        now = self.world.clock.monotonic_ns()
        ends = [*(fault.at_ns for fault in self.view.faults), now][1:]
        for fault, until in zip(self.view.faults, ends, strict=True):
            fault.gap_ms = workload.acks.longest_gap_ns(fault.at_ns, until) / 1e6

    async def _status(self, node: str) -> dict[str, Any] | None:
        from outlast.protect import deadline

        try:
            with deadline(0.2):
                return await self._watch.status(self.cluster.address(node))
        except (OutlastError, OSError):
            return None

    # --- verdict -----------------------------------------------------------------------------

    def _conclude(self, workload: BankWorkload) -> None:
        view = self.view
        judgement = view.judgement
        counts = workload.counts
        view.counts = {"ok": counts.ok, "fail": counts.fail, "info": counts.info}
        if judgement is not None:
            view.why.extend(judgement.problems)
        view.verdict = verdict_of(judgement, view.faults, counts.ok, counts.info)
        view.phase = "done"


def verdict_of(
    judgement: Judgement | None, faults: list[FaultRow], ok: int, info: int
) -> Literal["survived", "failed", "void", "unknown"]:
    """Return the verdict: nothing proves nothing.

    ``failed`` when a promise was broken or the cluster never answered again, ``void`` without
    evidence for each fault, ``unknown`` when nothing was acknowledged or more than a fifth of
    the operations have no known outcome.
    """
    if judgement is None or not judgement.survived:
        return "failed"
    if not faults or any(not fault.evidence for fault in faults):
        return "void"
    if ok == 0 or info * 5 > ok + info:
        return "unknown"
    return "survived"
