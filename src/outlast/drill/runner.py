"""One drill from start to verdict: lab, load, nemesis, healing, final reads, judgement."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from outlast.drill.api import Drill, check_drill, workloads_of
from outlast.drill.core import schedule
from outlast.drill.core.timeline import Done, recovered
from outlast.drill.judging import judge_workload, versions
from outlast.drill.lab import Breaker, Ground, Lab
from outlast.drill.nemesis import Nemesis
from outlast.drill.process_ground import ProcessGround
from outlast.drill.report import InvariantReport, Report
from outlast.drill.summary import Found, summarise
from outlast.drill.watching import View, Watcher
from outlast.drill.workload import Running, by_name
from outlast.inject import parse_faults
from outlast.kernel import ConfigError, Fault, HistoryEvent, World

_NS = 1_000_000_000
_POLL = 0.02
_FINAL_SECONDS = 15.0
_PARTITION_NODES = 2
_SECONDS_MAX = 7 * 24 * 3600
_PROCESSES = 1_000_000
"""Process numbers of a history set aside for each workload."""


@dataclass(slots=True)
class DrillRun:
    """Runs one drill.

    Args:
        world: The real world, or that of the simulation's own host.
        drill: What people wrote.
        seconds: How long the load runs.
        seed: Of schedule and operations.
        faults: Names; those of the drill by default.
        home: Where the processes run: the directory of the drill's file.
        command: What repeats the drill, for the report.
        show: Called with the view a few times a second.
        record: Called with the workload's name, its header and each history event.
        ground: Where it runs; on real processes by default.
        only: Numbers of the faults of the plan that are injected; ``None`` for all.

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
    ground: Ground | None = None
    only: frozenset[int] | None = None
    view: View = field(init=False)
    _parsed: tuple[Fault, ...] = ()
    _plan: tuple[schedule.Planned, ...] = ()
    _lab: Lab = field(init=False)
    _running: Mapping[str, Running] = field(default_factory=dict)
    _nemesis: Nemesis = field(init=False)
    _watcher: Watcher = field(init=False)
    _began_ns: int = 0

    def __post_init__(self) -> None:
        """Check everything that can be checked before anything is started."""
        if not 0 < self.seconds <= _SECONDS_MAX:
            limit = f"at most {_SECONDS_MAX}" if self.seconds > 0 else "more than 0"
            message = f"--seconds {self.seconds:g}: give {limit}"
            raise ConfigError(message)
        check_drill(type(self.drill))
        self._parsed = parse_faults(
            self.faults or type(self.drill).faults, simulated=self.ground is not None
        )
        count = type(self.drill).nodes.count
        for fault in self._parsed:
            if fault.kind == "partition" and count < _PARTITION_NODES:
                message = f"{fault}: needs at least {_PARTITION_NODES} nodes; there is {count}"
                raise ConfigError(message)
        self._plan = tuple(
            planned
            for planned in schedule.plan(self._parsed, self.seconds, self.seed)
            if self.only is None or planned.number in self.only
        )
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
        found = await self.find()
        self._watcher.tell("judging the histories")
        return await asyncio.to_thread(self.judge, found)

    async def find(self) -> Found:
        """Run from start to the final reads, and take everything away again."""
        self.show(self.view)
        ground = self.ground or ProcessGround(
            self.world, type(self.drill).nodes, self._parsed, self.seed, self.home
        )
        async with AsyncExitStack() as stack:
            self._lab, breaker = await ground.open(stack)
            await self._lab.start()
            await self._start(breaker)
            return await self._load(ground)

    # --- start -----------------------------------------------------------------------------------

    async def _start(self, breaker: Breaker) -> None:
        running_all = list(self._running.values())
        self._watcher = Watcher(self.world, self._lab, running_all, self.view, self.show)
        self._nemesis = Nemesis(
            self.world,
            self._lab,
            self._plan,
            0,
            lambda: self._watcher.leader,
            self._progress,
            breaker,
        )
        self._watcher.injected = self._nemesis.injected
        names = list(self._lab.nodes)
        for running in running_all:
            running.nodes = [self._lab.client_node(name, pinned=False) for name in names]
            running.pinned = [self._lab.client_node(name, pinned=True) for name in names]
            running.answered = self._watcher.answered
            running.bytes_from = self._lab.bytes_to_pinned
            running.spawn = self._lab.spawn_client
            self._nemesis.pinned |= bool(running.pinned_count)
            if self.record is not None:
                running.record = _recorder(self.record, running)
        self._watcher.tell("preparing")
        for running in running_all:
            await running.setup()

    # --- load ------------------------------------------------------------------------------------

    async def _load(self, ground: Ground) -> Found:
        self._began_ns = began_ns = self.world.clock.monotonic_ns()
        started = datetime.fromtimestamp(self.world.clock.wall_ns() / _NS, UTC)
        self._nemesis.began_ns = self._watcher.began_ns = began_ns
        for running in self._running.values():
            running.began_ns = began_ns
        await self._watcher.look(around=False)
        for running in self._running.values():
            running.start()
        self._watcher.tell("under load")
        watching = asyncio.ensure_future(self._watcher.run())
        breaking = asyncio.ensure_future(self._break())
        ground.begin()
        try:
            await asyncio.wait({watching, breaking}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            breaking.result()
            load_ns = self._now()
            self._watcher.tell("final reads")
            for running in self._running.values():
                await running.stop(running.workload.timeout + 2.0)
            final_ns = self._now()
            problems, invariants = await self._finish()
        finally:
            ground.ended()
            for task in (watching, breaking):
                task.cancel()
            await asyncio.gather(watching, breaking, return_exceptions=True)
        return Found(
            started=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            load_ns=load_ns,
            final_ns=final_ns,
            injected=self._nemesis.injected,
            signs=self._watcher.signs,
            running=list(self._running.values()),
            invariants=(*self._own_invariants(problems), *invariants),
            around=tuple(self._lab.around),
            spans=self._watcher.spans.finish(load_ns),
            stall_ns=self._watcher.stall_ns,
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
            await self._lab.ready(self._lab.start_seconds)
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
        invariants += await self._lab.verify()
        await self._watcher.look(around=True)
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
        if self._watcher.witness.observations:
            detail = (
                f"{self._watcher.witness.observations:,} observations of term, vote and leader"
            )
            found.append(
                InvariantReport(
                    "terms never go back, votes are never changed, one leader in a term",
                    not self._watcher.witness.problems,
                    "; ".join(self._watcher.witness.problems[:3]) or detail,
                )
            )
        return found

    # --- waiting ---------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.world.clock.monotonic_ns() - self._began_ns

    async def _progress(self, at_ns: int) -> int | None:
        """Wait until every workload has succeeded in every way since ``at_ns``."""
        within = type(self.drill).recover_within
        needed = [kind for running in self._running.values() for kind in running.needed]
        seen: list[Done] = []
        counted = {name: len(running.done) for name, running in self._running.items()}
        self._watcher.say_last()
        while self._now() < at_ns + int(within * _NS):
            for name, running in self._running.items():
                seen += running.done[counted[name] :]
                counted[name] = len(running.done)
            found = recovered(seen, needed, at_ns)
            if found is not None:
                return found
            await self.world.timers.sleep(_POLL)
        return None

    # --- judging ---------------------------------------------------------------------------------

    def judge(self, found: Found) -> Report:
        """Judge what was found."""
        reports = [judge_workload(running) for running in found.running]
        return summarise(
            found,
            tuple(reports),
            name=self.name,
            target=self._lab.target_name,
            promise=type(self.drill).promise(),
            nodes=tuple(self._lab.nodes),
            seed=self.seed,
            seconds=self.seconds,
            recover_within=type(self.drill).recover_within,
            serves_with=type(self.drill).serves_with,
            command=self.command,
            versions=versions(),
        )


def _recorder(
    record: Callable[[str, Mapping[str, Any], HistoryEvent], None], running: Running
) -> Callable[[HistoryEvent], None]:
    return lambda event: record(running.name, running.header, event)
