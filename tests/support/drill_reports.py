"""Made-up reports of drills, drawn from a seed: one for each verdict, and odd ones.

They look like real ones, so that the page can be judged by looking at it, but nothing ran.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from outlast.check import CounterExample, Operation, svg
from outlast.drill.report import (
    FaultReport,
    InvariantReport,
    Latency,
    LatencyPoint,
    NodeSpan,
    NodeState,
    Report,
    Series,
    WorkloadReport,
)

STEP = 0.5
NODES = ("n1", "n2", "n3")
SCHEDULE = (
    ("crash@leader", 0.0, 1.4),
    ("crash@follower", 0.0, 1.2),
    ("pause@leader", 4.0, 0.0),
    ("partition:halves", 4.5, 0.0),
    ("partition:isolate@leader", 4.0, 0.0),
    ("partition:one-way@leader", 3.5, 0.0),
    ("link:slow@one", 4.0, 0.0),
    ("partition:flapping@leader", 4.5, 0.0),
    ("crash@all", 0.0, 1.8),
)
RATES = {"kv": 240.0, "bank": 150.0, "set": 70.0, "counter": 55.0}
MODELS = {"kv": "kv", "bank": "bank", "set": "set", "counter": "counter"}
HOW = {
    "kv": "linearizable per key: 312 keys",
    "bank": "totals and ids: 9,120 transfers, each applied exactly once",
    "set": "every acknowledged value is in the last read",
    "counter": "linearizable: one counter, 3,310 operations",
}

WRITE_4 = Operation(
    index=0, process=3, f="put", key="k17", value=4, output=None, kind="ok",
    start=0, end=2, start_ns=27_510_000_000, end_ns=27_514_000_000,
)  # fmt: skip
WRITE_9 = Operation(
    index=1, process=7, f="put", key="k17", value=9, output=None, kind="ok",
    start=1, end=4, start_ns=27_512_000_000, end_ns=28_310_000_000,
)  # fmt: skip
STALE = Operation(
    index=2, process=1, f="get", key="k17", value=None, output=4, kind="ok",
    start=5, end=6, start_ns=28_400_000_000, end_ns=28_402_000_000,
)  # fmt: skip
FOUND = CounterExample(
    "kv", "k17", (WRITE_4, WRITE_9, STALE), STALE,
    "no order explains get -> 4 of process 1 after put 9 was acknowledged",
    ((WRITE_4, "4"), (WRITE_9, "9")),
)  # fmt: skip


@dataclass(slots=True)
class Story:
    """One made-up run, told second by second."""

    seed: int
    seconds: float
    nodes: tuple[str, ...] = NODES
    faults: list[FaultReport] = field(default_factory=list)
    spans: list[NodeSpan] = field(default_factory=list)

    def tell(self) -> Report:
        """Draw faults, then what nodes and clients saw of them."""
        draw = Random(self.seed)
        self._inject(draw)
        series = self._measure(draw)
        ok = {name: sum(series.ok[name]) for name in RATES}
        fail = {name: sum(series.fail[name]) for name in RATES}
        info = {name: sum(series.info[name]) for name in RATES}
        seconds = int(self.seconds)
        return Report(
            name="bank",
            target="local cluster of 3 nodes",
            verdict="survived",
            seed=self.seed,
            seconds=self.seconds,
            nodes=self.nodes,
            clients=18,
            promise="No acknowledged write is lost or applied twice, reads are linearizable, and "
            "the cluster serves again within 5 s of healing.",
            faults=tuple(self.faults),
            workloads=tuple(
                WorkloadReport(
                    name, MODELS[name], ok[name], fail[name], info[name], "valid", HOW[name],
                    seconds=round(draw.uniform(0.1, 1.4), 2),
                )
                for name in RATES
            ),
            invariants=(
                InvariantReport("money conserved", True, "1,600 paid in, 1,600 found"),
                InvariantReport("replicas agree", True, "one digest at index 41,207 on 3 nodes"),
            ),
            operations={
                "ok": sum(ok.values()), "fail": sum(fail.values()), "info": sum(info.values())
            },
            lost=0, doubled=0, linearizable=True, invariant=True,
            availability=round(1 - 4 / max(seconds, 5), 4),
            availability_per_second=tuple(
                round(draw.uniform(0.97, 1.0), 3) for _ in range(seconds)
            ),
            latency={
                "before": Latency(2_210, 1.9, 6.4, 14.2),
                "during": Latency(15_402, 2.6, 310.0, 2_140.0),
                "after": Latency(11_377, 2.0, 7.1, 61.0),
            },
            series=series,
            spans=tuple(self.spans),
            command=f"outlast drill bank --nodes 3 --seconds {seconds} --seed {self.seed}",
            started="2026-03-14T09:26:53Z",
            versions={"outlast": "0.1.0", "Python": "3.11.7", "Linux": "6.18.1", "engine": "raft"},
            settings={
                "clients": "18, one pinned to each node",
                "election timeout": "300 ms",
                "limit to recover": "5 s",
                "limit of the judge": "60 s, 1 GB",
            },
        )  # fmt: skip

    def _inject(self, draw: Random) -> None:
        slot = (self.seconds - 3.0) / len(SCHEDULE)
        leader = 0
        held = dict.fromkeys(self.nodes, 0.0)
        state: dict[str, NodeState] = dict.fromkeys(self.nodes, "follower")
        state[self.nodes[leader]] = "leader"

        def become(node: str, at: float, now: NodeState) -> None:
            if at > held[node]:
                self.spans.append(NodeSpan(node, round(held[node], 3), round(at, 3), state[node]))
            held[node] = max(at, held[node])
            state[node] = now

        for i, (name, length, down) in enumerate(SCHEDULE):
            start = round(2.0 + slot * i + draw.uniform(0.0, 0.4), 3)
            end = round(start + (length or down), 3)
            gap = draw.uniform(350, 1_300)
            victims = self._victims(name, leader)
            hit = "down" if down else "paused" if name.startswith("pause") else "cut"
            if not name.startswith("link"):
                for node in victims:
                    become(node, start, hit)  # type: ignore[arg-type]
            detected: float | None = round(draw.uniform(180, 420), 1)
            if "@leader" in name or name == "crash@all":
                leader = (leader + 1) % len(self.nodes)
                if name != "crash@all":
                    become(self.nodes[leader], start + 0.45, "leader")
            for node in victims:
                if not name.startswith("link"):
                    become(node, end, "follower")
            if name == "crash@all":
                become(self.nodes[leader], end + 0.5, "leader")
                gap = (end - start) * 1000 + 640
            quiet = name.startswith(("link", "crash@follower"))
            if quiet:
                gap, detected = draw.uniform(30, 90), None
            self.faults.append(
                FaultReport(
                    name, victims, start, end, *evidence(name, draw), gap_ms=round(gap, 1),
                    detected_ms=detected,
                    detected_why="" if detected else "nothing to notice: the leader went on",
                    recovered_ms=round(draw.uniform(40, 700), 1), verdict="survived",
                )
            )  # fmt: skip
        for node in self.nodes:
            become(node, self.seconds, state[node])

    def _victims(self, name: str, leader: int) -> tuple[str, ...]:
        if name == "crash@all":
            return self.nodes
        if "@leader" in name:
            return (self.nodes[leader],)
        return (self.nodes[(leader + 1) % len(self.nodes)],)

    def _measure(self, draw: Random) -> Series:
        slots = int(self.seconds / STEP)
        ok: dict[str, list[int]] = {name: [] for name in RATES}
        fail: dict[str, list[int]] = {name: [] for name in RATES}
        info: dict[str, list[int]] = {name: [] for name in RATES}
        points: list[LatencyPoint] = []
        for slot in range(slots):
            at = slot * STEP
            stall, slow = self._trouble(at)
            for name, rate in RATES.items():
                full = draw.gauss(rate, rate * 0.05) * STEP
                ok[name].append(max(0, round(full * (1 - stall) * (0.45 if slow else 1))))
                fail[name].append(draw.randint(0, 6) if stall > 0.3 else 0)
                info[name].append(draw.randint(0, 3) if stall > 0.3 else 0)
            done = sum(ok[name][-1] for name in RATES)
            if not done:
                continue
            worse = 1 + 30 * stall + (12 if slow else 0)
            for kind, base in (("read", 1.1), ("write", 2.6)):
                p50 = base * draw.uniform(0.9, 1.15) * (1 + (worse - 1) * 0.12)
                p99 = p50 * draw.uniform(2.2, 3.6) * (1 + (worse - 1) * 0.4)
                top = p99 * draw.uniform(1.05, 2.6) + 900 * stall
                points.append(
                    LatencyPoint(
                        at, kind, done // 2, round(p50, 2), round(p99, 2), round(top, 2)  # type: ignore[arg-type]
                    )
                )  # fmt: skip
        return Series(
            STEP,
            {name: tuple(values) for name, values in ok.items()},
            {name: tuple(values) for name, values in fail.items()},
            {name: tuple(values) for name, values in info.items()},
            tuple(points),
        )

    def _trouble(self, at: float) -> tuple[float, bool]:
        """Share of the slot without answers, and whether a slow link is in the way."""
        stall, slow = 0.0, False
        for fault in self.faults:
            stop = fault.start + (fault.gap_ms or 0) / 1000
            if (fault.gap_ms or 0) > 100:
                overlap = min(at + STEP, stop) - max(at, fault.start)
                stall = max(stall, overlap / STEP)
            slow = slow or (fault.name.startswith("link") and fault.start <= at < fault.end)
        return max(0.0, min(1.0, stall)), slow


def evidence(name: str, draw: Random) -> tuple[str, dict[str, Any]]:
    """What shows that a made-up fault happened."""
    if name.startswith("crash"):
        pid = draw.randint(2_000, 60_000)
        return f"kill -9, pid gone: {pid}", {"pid": pid}
    if name.startswith("pause"):
        return "state T in 16 of 16 looks over 4.0 s", {"stopped_looks": 16}
    if name.startswith("link"):
        held = draw.randint(500, 2_000)
        return f"{held:,} chunks held for 80 ms; round trip 161 ms", {"chunks": held}
    held = draw.randint(40_000, 400_000)
    return f"{held:,} bytes held back on 4 links", {"bytes": held, "links": 4}


def survived(seed: int = 7, seconds: float = 60.0) -> Report:
    """All went well."""
    return Story(seed, seconds).tell()


def failed(seed: int = 8, seconds: float = 60.0) -> Report:
    """A read from a deposed leader: not linearizable, and three writes lost."""
    report = survived(seed, seconds)
    why = f"key k17: {FOUND.reason}"
    workloads = tuple(
        replace(w, verdict="invalid", why=why, picture=svg(FOUND), drawing=FOUND.text())
        if w.name == "kv" else w
        for w in report.workloads
    )  # fmt: skip
    faults = tuple(
        replace(f, verdict="failed", why="a stale read while the old leader was cut off")
        if f.name == "partition:isolate@leader" else f
        for f in report.faults
    )  # fmt: skip
    return replace(
        report,
        target="broken-stale-reads",
        verdict="failed",
        why=(f"kv: not linearizable: {why}", "set: 3 acknowledged values are not there"),
        workloads=workloads, faults=faults, lost=3, linearizable=False,
        command=f"outlast drill bank --target broken-stale-reads --seed {seed}",
    )  # fmt: skip


def void(seed: int = 9, seconds: float = 60.0) -> Report:
    """A fault that left no trace."""
    report = survived(seed, seconds)
    faults = tuple(
        replace(
            f, evidence="", facts={}, verdict="void", why="no byte passed the proxy while cut",
            detected_ms=None, detected_why="nothing was cut", recovered_ms=None,
        )
        if f.name == "partition:halves" else f
        for f in report.faults
    )  # fmt: skip
    why = "partition:halves at 22.9 s: nothing shows that it happened; node n2 bypassed the proxy"
    return replace(report, verdict="void", why=(why,), faults=faults)


def unknown(seed: int = 10, seconds: float = 60.0) -> Report:
    """The judge gave up at its limit."""
    report = survived(seed, seconds)
    why = "limit of 1 GB reached after 41 s; fewer operations per key would help"
    workloads = tuple(
        replace(w, verdict="unknown", why=why, seconds=41.0) if w.name == "counter" else w
        for w in report.workloads
    )
    invariants = (*report.invariants, InvariantReport("no vote cast twice", None, "not looked at"))
    return replace(
        report, verdict="unknown", why=(f"counter: {why}",), workloads=workloads,
        invariants=invariants, linearizable=None, invariant=None, lost=None,
    )  # fmt: skip


def empty() -> Report:
    """A report with nothing in it but what must be."""
    return Report("none", "nothing", "unknown", seed=0, seconds=0.0, nodes=())


def crowded(seed: int = 11) -> Report:
    """Ten minutes, 120 faults, 7 nodes with long names: the most that must still be readable."""
    names = tuple(f"node-{i}.rack-{i % 3}.example" for i in range(7))
    report = Story(seed, 600.0, names).tell()
    base = report.faults
    faults = tuple(
        replace(base[i % len(base)], start=4.0 + i * 4.9, end=4.0 + i * 4.9 + 3.5)
        for i in range(120)
    )
    spans = tuple(
        NodeSpan(node, i * 1.5, i * 1.5 + 1.5, ("leader", "follower", "cut")[(i + n) % 3])
        for n, node in enumerate(names)
        for i in range(400)
    )
    return replace(report, faults=faults, spans=spans)


SAMPLES = {
    "survived": survived,
    "failed": failed,
    "void": void,
    "unknown": unknown,
    "empty": empty,
    "crowded": crowded,
}
