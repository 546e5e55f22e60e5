"""One drill from start to verdict: lab, load, nemesis, healing, final reads, judgement."""

import asyncio
import gc
import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from outlast.check import check, history_of
from outlast.drill.api import Drill, workloads_of
from outlast.drill.core import schedule
from outlast.drill.core.detection import sign, who_leads
from outlast.drill.core.timeline import Done, Window, recovered
from outlast.drill.core.witness import Spans, Witness
from outlast.drill.lab import Lab
from outlast.drill.nemesis import Injected, Nemesis
from outlast.drill.report import InvariantReport, NodeState, Report, WorkloadReport
from outlast.drill.summary import Found, summarise
from outlast.drill.target import make_target
from outlast.drill.volumes import make_volumes
from outlast.drill.workload import Running, by_name
from outlast.inject import Journal, heal, parse_faults
from outlast.kernel import ConfigError, Fault, HistoryEvent, Prng, World

_NS = 1_000_000_000
_LOOK_SECONDS = 0.12
_LOOK_AROUND_EVERY = 4
_POLL = 0.02
_FINAL_SECONDS = 15.0
_JUDGE_SECONDS = 60.0
_PARTITION_NODES = 2
_ERRORS_MAX = 5
_PROCESSES = 1_000_000
"""Process numbers of a history set aside for each workload."""


@dataclass(slots=True)
class NodeView:
    """One node while the drill runs."""

    name: str
    state: NodeState = "up"
    term: int | None = None
    applied: int | None = None
    starts: int = 1


@dataclass(slots=True)
class View:
    """What is shown while a drill runs."""

    name: str
    seconds: float
    phase: str = "starting the nodes"
    elapsed: float = 0.0
    fault: str = ""
    victims: tuple[str, ...] = ()
    injected: int = 0
    planned: int = 0
    ok: int = 0
    fail: int = 0
    info: int = 0
    rate: float = 0.0
    nodes: list[NodeView] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Lines about faults that are over, the newest last."""


@dataclass(slots=True)
class DrillRun:
    """Runs one drill.

    Args:
        world: The real world.
        drill: What people wrote.
        seconds: How long the load runs.
        seed: Of schedule and operations.
        faults: Names; those of the drill by default.
        home: Where the processes run: the directory of the drill's file.
        command: What repeats the drill, for the report.
        show: Called with the view a few times a second.
        record: Called with the workload's name, its header and each history event.

    Raises:
        ConfigError: Definite. A fault is unknown, too many for the time, not possible on this
            machine, or the target did not start.
    """

    world: World
    drill: Drill
    seconds: float
    seed: int
    faults: Sequence[str] = ()
    home: str = "."
    command: str = ""
    show: Callable[[View], None] = lambda _: None
    record: Callable[[str, Mapping[str, Any], HistoryEvent], None] | None = None
    view: View = field(init=False)
    _parsed: tuple[Fault, ...] = ()
    _plan: tuple[schedule.Planned, ...] = ()
    _lab: Lab = field(init=False)
    _running: Mapping[str, Running] = field(default_factory=dict)
    _nemesis: Nemesis = field(init=False)
    _witness: Witness = field(default_factory=Witness)
    _spans: Spans = field(default_factory=Spans)
    _statuses: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    _signs: dict[int, tuple[int, str]] = field(default_factory=dict)
    _terms: dict[int, int] = field(default_factory=dict)
    _leader: str = ""
    _term: int = 0
    _stall_ns: int = 0
    _began_ns: int = 0

    def __post_init__(self) -> None:
        """Check everything that can be checked before anything is started."""
        if not self.seconds > 0:
            message = f"--seconds {self.seconds:g}: give more than 0"
            raise ConfigError(message)
        if not hasattr(type(self.drill), "nodes"):
            message = f'{type(self.drill).__name__}: no nodes; write nodes = drill.Nodes("…")'
            raise ConfigError(message)
        names = list(self.faults or type(self.drill).faults)
        self._parsed = parse_faults(names)
        count = type(self.drill).nodes.count
        for fault in self._parsed:
            if fault.kind == "partition" and count < _PARTITION_NODES:
                message = f"{fault}: needs at least {_PARTITION_NODES} nodes; there is {count}"
                raise ConfigError(message)
        self._plan = schedule.plan(self._parsed, self.seconds, self.seed)
        self._running = by_name(
            [
                Running(self.world, workload, (), self.seed * 1_000 + number, number * _PROCESSES)
                for number, workload in enumerate(workloads_of(self.drill))
            ]
        )
        self.view = View(self.name, self.seconds, planned=len(self._plan))

    @property
    def name(self) -> str:
        """Of the drill."""
        return type(self.drill).name or type(self.drill).__name__

    async def run(self) -> Report:
        """Run from start to verdict; whatever happens, nothing is left on this machine."""
        self.show(self.view)
        await asyncio.to_thread(heal, self.world)
        async with AsyncExitStack() as stack:
            journal = Journal.open(self.world)
            stack.push_async_callback(asyncio.to_thread, journal.close)
            stack.push_async_callback(asyncio.to_thread, journal.undo)
            await self._start(stack, journal, journal.make_directory())
            found = await self._load()
        self._tell("judging the histories")
        return await self._judge(found)

    # --- start -----------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack, journal: Journal, folder: str) -> None:
        target = make_target(self.world, type(self.drill).nodes, folder, self.home)
        volumes, prefix = await make_volumes(self.world, stack, journal, target, self._parsed)
        self._lab = Lab(
            self.world,
            target,
            folder,
            self.home,
            Prng(self.seed),
            environment=journal.environment,
            prefix=prefix,
        )
        stack.push_async_callback(self._lab.stop)
        await self._lab.start()
        self._nemesis = Nemesis(
            self.world,
            self._lab,
            self._plan,
            0,
            lambda: self._leader,
            self._progress,
            journal,
            volumes,
        )
        names = list(self._lab.nodes)
        for running in self._running.values():
            running.nodes = [self._lab.client_node(name, pinned=False) for name in names]
            running.pinned = [self._lab.client_node(name, pinned=True) for name in names]
            running.answered = self._answered
            running.bytes_from = self._lab.bytes_to_pinned
            self._nemesis.pinned |= bool(running.pinned_count)
            if self.record is not None:
                running.record = _recorder(self.record, running)
        self._tell("preparing")
        for running in self._running.values():
            await running.setup()

    # --- load ------------------------------------------------------------------------------------

    async def _load(self) -> Found:
        self._began_ns = began_ns = self.world.clock.monotonic_ns()
        started = datetime.fromtimestamp(self.world.clock.wall_ns() / _NS, UTC)
        self._nemesis.began_ns = began_ns
        for running in self._running.values():
            running.began_ns = began_ns
        await self._look(0)
        for running in self._running.values():
            running.start()
        self._tell("under load")
        watching = asyncio.ensure_future(self._watch())
        breaking = asyncio.ensure_future(self._break())
        # A full collection would stop clients and proxies together: a fault nobody injected.
        gc.collect()
        gc.freeze()
        try:
            await asyncio.wait({watching, breaking}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            breaking.result()
            load_ns = self._now()
            self._tell("final reads")
            for running in self._running.values():
                await running.stop(running.workload.timeout + 2.0)
            final_ns = self._now()
            problems, invariants = await self._finish()
        finally:
            gc.unfreeze()
            for task in (watching, breaking):
                task.cancel()
            await asyncio.gather(watching, breaking, return_exceptions=True)
        return Found(
            started=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            load_ns=load_ns,
            final_ns=final_ns,
            injected=self._nemesis.injected,
            signs=self._signs,
            running=list(self._running.values()),
            invariants=(*self._own_invariants(problems), *invariants),
            around=tuple(self._lab.around),
            spans=self._spans.finish(load_ns),
            stall_ns=self._stall_ns,
        )

    async def _break(self) -> None:
        """Carry out the plan, then go on with the load until its time is over."""
        await self._nemesis.run()
        left = self.seconds - self._now() / _NS
        if left > 0:
            await self.world.timers.sleep(left)

    async def _finish(self) -> tuple[list[str], list[InvariantReport]]:
        """Wait until everything serves again, read everything once more, check invariants."""
        problems: list[str] = []
        invariants: list[InvariantReport] = []
        try:
            await self._lab.ready(self._lab.target.start_seconds)
        except ConfigError as error:
            problems.append(str(error))
        for running in self._running.values():
            problems += await running.final(_FINAL_SECONDS)
        for running in self._running.values():
            try:
                invariants += await running.verify()
            except ConfigError:
                raise
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                problems.append(f"{running.name}: verify ended with {said}")
        await self._look(1)
        return problems, invariants

    def _own_invariants(self, problems: Sequence[str]) -> list[InvariantReport]:
        found = [
            InvariantReport(
                "every node serves and every final read is answered",
                not problems,
                "; ".join(problems),
            )
        ]
        if not type(self.drill).may_exit:
            exits = self._lab.exits
            found.append(
                InvariantReport("no node ends by itself", not exits, "; ".join(exits[:3]))
            )
        if self._witness.observations:
            detail = f"{self._witness.observations:,} observations of term, vote and leader"
            found.append(
                InvariantReport(
                    "terms never go back, votes are never changed, one leader in a term",
                    not self._witness.problems,
                    "; ".join(self._witness.problems[:3]) or detail,
                )
            )
        return found

    # --- watching --------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.world.clock.monotonic_ns() - self._began_ns

    async def _watch(self) -> None:
        number = 0
        while True:
            number += 1
            await self._look(number)
            began_ns = self.world.clock.monotonic_ns()
            await self.world.timers.sleep(_LOOK_SECONDS)
            late_ns = self.world.clock.monotonic_ns() - began_ns - int(_LOOK_SECONDS * _NS)
            self._stall_ns = max(self._stall_ns, late_ns)

    async def _look(self, number: int) -> None:
        """Ask the nodes, note what they say, and show it."""
        for running in self._running.values():
            running.check()
        self._statuses = await self._lab.statuses()
        now = self._now()
        leader, term = who_leads(self._statuses)
        self._leader, self._term = leader, max(term, self._term)
        for name, facts in self._statuses.items():
            if facts is not None:
                self._witness.observe(facts)
            self._spans.sample(name, self._state(name, facts), max(0, now))
        self._notice(now)
        if number % _LOOK_AROUND_EVERY == 1:
            self._lab.look_around()
        self._refresh(now)

    def _state(self, name: str, facts: Mapping[str, Any] | None) -> NodeState:
        node = self._lab.nodes[name]
        if not node.running:
            return "down"
        if node.paused:
            return "paused"
        current = self._nemesis.current
        if current is not None and current.cuts_off and name in current.aim.victims:
            return "cut"
        role = str(facts.get("role", "")) if facts is not None else ""
        if role in {"leader", "follower", "candidate"}:
            return role  # type: ignore[return-value]
        return "up"

    def _notice(self, now: int) -> None:
        """Remember the first sign that the target noticed the fault in force."""
        number = len(self._nemesis.injected) - 1
        if number < 0 or number in self._signs:
            return
        one = self._nemesis.injected[number]
        term = self._terms.setdefault(number, self._term)
        found = sign(self._statuses, one.aim.victims, one.leader, term)
        if found and one.active:
            self._signs[number] = (now - one.start_ns, found)

    def _answered(self, node: str, answered: bool) -> None:
        """A pinned client of ``node`` has had an answer, or none in time."""
        current = self._nemesis.current
        if answered and current is not None and node in current.asked:
            current.asked[node] += 1

    async def _progress(self, at_ns: int) -> int | None:
        """Wait until every workload has succeeded in every way since ``at_ns``."""
        within = type(self.drill).recover_within
        needed = [kind for running in self._running.values() for kind in running.needed]
        seen: list[Done] = []
        counted = {name: len(running.done) for name, running in self._running.items()}
        self._report_last()
        while self._now() < at_ns + int(within * _NS):
            for name, running in self._running.items():
                seen += running.done[counted[name] :]
                counted[name] = len(running.done)
            found = recovered(seen, needed, at_ns)
            if found is not None:
                return found
            await self.world.timers.sleep(_POLL)
        return None

    def _report_last(self) -> None:
        one = self._nemesis.injected[-1]
        fault = one.planned.fault
        self.view.said.append(
            f"{fault} at {one.start_ns / _NS:.1f} s on {' '.join(one.aim.victims)}:"
            f" {one.evidence or 'NO EVIDENCE'}"
        )

    def _tell(self, phase: str) -> None:
        self.view.phase = phase
        self.show(self.view)

    def _refresh(self, now: int) -> None:
        view = self.view
        elapsed = max(0.0, now / _NS)
        view.elapsed = min(elapsed, self.seconds)
        for kind in ("ok", "fail", "info"):
            setattr(view, kind, sum(r.counts[kind] for r in self._running.values()))
        view.rate = view.ok / elapsed if elapsed > 0 else 0.0
        current: Injected | None = self._nemesis.current
        view.fault = str(current.planned.fault) if current is not None else ""
        view.victims = current.aim.victims if current is not None else ()
        view.injected = len(self._nemesis.injected)
        view.nodes = [self._node_view(name, facts) for name, facts in self._statuses.items()]
        self.show(view)

    def _node_view(self, name: str, facts: Mapping[str, Any] | None) -> NodeView:
        known = facts or {}
        return NodeView(
            name,
            self._state(name, facts),
            known.get("term"),
            known.get("applied_index"),
            self._lab.nodes[name].starts,
        )

    # --- judging ---------------------------------------------------------------------------------

    async def _judge(self, found: Found) -> Report:
        reports = [await asyncio.to_thread(judge_workload, running) for running in found.running]
        return summarise(
            found,
            tuple(reports),
            name=self.name,
            target=self._lab.target.name,
            promise=type(self.drill).promise(),
            nodes=tuple(self._lab.nodes),
            seed=self.seed,
            seconds=self.seconds,
            recover_within=type(self.drill).recover_within,
            serves_with=type(self.drill).serves_with,
            command=self.command,
            versions=versions(),
        )


def judge_workload(running: Running) -> WorkloadReport:
    """Judge the history of one workload."""
    result = check(
        history_of(running.events, running.header), running.model, seconds=_JUDGE_SECONDS
    )
    picture = drawing = ""
    if result.counterexample is not None:
        from outlast.check.picture import svg

        picture, drawing = svg(result.counterexample), result.counterexample.text()
    return WorkloadReport(
        name=running.name,
        model=running.model,
        ok=running.counts["ok"],
        fail=running.counts["fail"],
        info=running.counts["info"],
        verdict=result.verdict,
        how=_how(result.how, running),
        why=result.why,
        seconds=round(result.seconds, 3),
        picture=picture,
        drawing=drawing,
        refused=running.refused,
        errors=dict(Counter(running.errors).most_common(_ERRORS_MAX)),
    )


def _how(how: str, running: Running) -> str:
    if not running.refused:
        return how
    return f"{how}; {running.refused:,} reads not served by the node they were pinned to"


def versions() -> dict[str, str]:
    """Return what took part, for the report."""
    from importlib.metadata import version

    return {
        "outlast": version("outlast"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": str(os.cpu_count()),
    }


def _recorder(
    record: Callable[[str, Mapping[str, Any], HistoryEvent], None], running: Running
) -> Callable[[HistoryEvent], None]:
    return lambda event: record(running.name, running.header, event)


__all__ = ["DrillRun", "NodeView", "View", "Window"]
