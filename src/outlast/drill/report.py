"""What a drill found: one value that the table, the JSON and the page are drawn from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from outlast.kernel import Verdict

SCHEMA = 1

NodeState = Literal["leader", "follower", "candidate", "up", "down", "paused", "cut"]
"""What a node was: a role where the target tells it, ``up`` where it does not."""


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One fault. Times are seconds since the load began.

    Attributes:
        name: Such as ``crash@leader``.
        victims: The nodes that it was aimed at.
        start: When it was injected.
        end: When it was undone, or expired.
        evidence: What shows that it happened, in words; empty when nothing does.
        facts: The same as numbers.
        gap_ms: Longest time without an acknowledged write that touches it.
        detected_ms: From injection to the first sign that the target noticed: a change of leader,
            a node reported unreachable. ``None`` when not known; ``detected_why`` says why.
        detected_why: Why ``detected_ms`` is not known, or what the sign was.
        recovered_ms: From ``end`` until every workload had a read and a write acknowledged.
        verdict: Of this fault alone.
        why: What is wrong, empty when nothing is.
    """

    name: str
    victims: tuple[str, ...]
    start: float
    end: float
    evidence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    gap_ms: float | None = None
    detected_ms: float | None = None
    detected_why: str = ""
    recovered_ms: float | None = None
    verdict: Verdict = "unknown"
    why: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """One workload: what its clients were told, and how its history was judged.

    Attributes:
        name: Such as ``kv``.
        model: The model of ``outlast check`` that judged it.
        ok: Operations that were acknowledged.
        fail: Operations that surely had no effect.
        info: Operations that may have happened.
        refused: Reads that nodes did not serve to the clients that are pinned to them, because
            they did not lead or were down. Not among ``fail``.
        errors: What operations that did not succeed raised, the commonest first, with counts.
        verdict: Of its history.
        how: How it was judged, such as ``linearizable per key: 312 keys``.
        why: What is wrong, or which limit was reached; empty when nothing is.
        seconds: How long judging took.
        picture: The counter-example as SVG, empty without one.
        drawing: The counter-example as text, empty without one.
    """

    name: str
    model: str
    ok: int
    fail: int
    info: int
    verdict: Literal["valid", "invalid", "unknown"]
    how: str = ""
    why: str = ""
    seconds: float = 0.0
    picture: str = field(default="", repr=False)
    drawing: str = field(default="", repr=False)
    refused: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InvariantReport:
    """One invariant of the target beside the histories: money conserved, no vote cast twice.

    Attributes:
        name: What must hold, as a statement.
        holds: Whether it does; ``None`` when that could not be found out.
        detail: What was compared, or what is wrong.
        lost: Acknowledged writes that it found missing.
        doubled: Writes that it found to have taken effect more than once.
    """

    name: str
    holds: bool | None
    detail: str = ""
    lost: int = 0
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class NodeSpan:
    """What one node was from ``start`` to ``end``, in seconds since the load began."""

    node: str
    start: float
    end: float
    state: NodeState


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of acknowledged operations in one phase, reads and writes together."""

    count: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """Acknowledged operations of one kind in one slot of ``Series.step`` seconds."""

    at: float
    kind: Literal["read", "write"]
    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Series:
    """The run over time, in slots of ``step`` seconds from 0.

    ``ok``, ``fail`` and ``info`` hold one count per slot for each workload, by its name.
    """

    step: float = 0.5
    ok: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fail: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    info: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    latency: tuple[LatencyPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a drill. ``str(report)`` is the command line's table.

    Attributes:
        name: Of the drill.
        target: What it ran against.
        verdict: ``survived``, ``failed``, ``void`` or ``unknown``; only the first is green.
        why: The reasons for any other verdict, one line each.
        seed: The only input of schedule and workload.
        seconds: How long the load ran, without start and judging.
        nodes: Names of the nodes.
        clients: How many clients ran.
        promise: What the drill says the target keeps, in one sentence.
        faults: In order of injection.
        workloads: What ran side by side.
        invariants: Checked beside the histories.
        operations: Sums over the workloads: ``ok``, ``fail``, ``info``.
        lost: Acknowledged writes that are not there, as far as sets and ids of transfers tell;
            ``None`` when they tell nothing and a history has no order.
        doubled: Writes that took effect more than once.
        linearizable: Whether every history was; ``None`` when undecided.
        invariant: Whether every invariant held; ``None`` when undecided.
        availability: Share of whole seconds in which a write was acknowledged, 0 to 1.
        availability_per_second: Share of the operations of each second that were acknowledged.
        latency: By phase: ``before``, ``during`` and ``after`` faults.
        series: The run over time.
        spans: What each node was, over time.
        command: What repeats the drill.
        started: Wall time of the start, ISO 8601 in UTC.
        versions: Of what took part.
        settings: Limits and choices that matter for the verdict.
    """

    name: str
    target: str
    verdict: Verdict
    seed: int
    seconds: float
    nodes: tuple[str, ...]
    clients: int = 0
    promise: str = ""
    why: tuple[str, ...] = ()
    faults: tuple[FaultReport, ...] = ()
    workloads: tuple[WorkloadReport, ...] = ()
    invariants: tuple[InvariantReport, ...] = ()
    operations: Mapping[str, int] = field(default_factory=dict)
    lost: int | None = None
    doubled: int | None = None
    linearizable: bool | None = None
    invariant: bool | None = None
    availability: float = 0.0
    availability_per_second: tuple[float, ...] = ()
    latency: Mapping[str, Latency] = field(default_factory=dict)
    series: Series = field(default_factory=Series, repr=False)
    spans: tuple[NodeSpan, ...] = field(default=(), repr=False)
    command: str = ""
    started: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for ``--json``: what the design promises, and the rest."""
        return {"schema": SCHEMA, **asdict(self)}

    def __str__(self) -> str:
        """Return the table of the command line."""
        from outlast.drill.core.table import table

        return table(self)
