"""How ``benchmarks.protect`` measures: cost of a call, contention, memory, import.

A cost is the CPU time of the process per call on the path of success, so that other programs on
the machine do little to it. All cases of a group take turns, round by round, and each is divided
by the bare wrapper of the same round; the figure is the median of these ratios. Imports are CPU
time, too; contention is by the clock.
"""

import asyncio
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from benchmarks.common import ROOT
from benchmarks.peers import calls_async, calls_sync
from benchmarks.peers.breakers import breakers
from benchmarks.peers.calls import BARE, OURS, Case, Function

WARM_UP = 300
TURN = 100
"""Calls between two turns of the loop, so that cancelled timers can go."""
INSTANCES = 1000
THREADS = 4
STANDARD = (
    "asyncio, collections.abc, contextlib, contextvars, dataclasses, datetime, enum, functools, "
    "inspect, itertools, logging, random, threading, time, types, typing, warnings, weakref"
)
"""What programs with asyncio have loaded already."""
IMPORTS = {
    OURS: "from outlast import Policy, Retry, CircuitBreaker, Bulkhead",
    "tenacity": "import tenacity", "stamina": "import stamina", "backoff": "import backoff",
    "pybreaker": "import pybreaker", "circuitbreaker": "import circuitbreaker",
    "purgatory": "import purgatory",
    "hyx": "import hyx.retry, hyx.circuitbreaker, hyx.bulkhead, hyx.timeout",
    "nopanic": "import nopanic", "interlock": "import interlock",
    "pyresilience": "import pyresilience", "redress": "import redress",
    "aioresilience": "import aioresilience", "fluxgate": "import fluxgate",
    "resilient-circuit": "import resilient_circuit", "limits": "import limits",
    "aiolimiter": "import aiolimiter", "pyrate-limiter": "import pyrate_limiter",
}  # fmt: skip
FOREIGN = (
    "outlast.cluster", "outlast.cli", "outlast.state", "outlast.log", "outlast.wire",
    "outlast.sim", "outlast.drill", "outlast.testing", "outlast.detect", "msgspec", "cyclopts",
    "starlette", "uvicorn", "rich", "aiohttp", "httpx", "redis", "sqlite3", "prometheus_client",
)  # fmt: skip
"""What ``IMPORTS[OURS]`` must not load."""


@dataclass
class Row:
    """One case: its cost, or why there is none."""

    kind: str
    group: str
    who: str
    ratio: float = 0.0
    """Cost by that of the bare wrapper."""
    ns: float = 0.0
    note: str = ""
    missing: str = ""

    @property
    def ours(self) -> bool:
        return self.who.startswith(OURS)


@dataclass
class Candidate:
    """A case that could be built."""

    row: Row
    call: Function
    calls: int = 0
    costs: list[float] = field(default_factory=list)


def why_missing(error: Exception) -> str:
    """Say in a line why a case cannot be measured."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0].partition(" (/")[0]


def blocking_candidates(cases: Sequence[Case]) -> tuple[list[Candidate], list[Row]]:
    """Build what can be built, call it once, and name what cannot."""
    built, missing = [], []
    for case in cases:
        row = Row("sync", case.group, case.who, note=case.note)
        try:
            call = case.build(calls_sync.work)
            if call(1) != 1:
                raise ValueError("the result is not the function's")
            built.append(Candidate(row, call))
        except Exception as error:
            row.missing = why_missing(error)
            missing.append(row)
    return built, missing


async def awaited_candidates(cases: Sequence[Case]) -> tuple[list[Candidate], list[Row]]:
    """The same for coroutine functions."""
    built, missing = [], []
    for case in cases:
        row = Row("async", case.group, case.who, note=case.note)
        try:
            call = case.build(calls_async.work)
            if await call(1) != 1:
                raise ValueError("the result is not the function's")
            built.append(Candidate(row, call))
        except Exception as error:
            row.missing = why_missing(error)
            missing.append(row)
    return built, missing


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Collect garbage now, and not in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --- cost of a call ----------------------------------------------------------------------------


def time_blocking(call: Function, calls: int) -> float:
    """CPU time of one call in ns."""
    with without_collection():
        began = time.process_time_ns()
        for _ in repeat(None, calls):
            call(1)
        return (time.process_time_ns() - began) / calls


async def time_awaited(call: Function, calls: int) -> float:
    """CPU time of one awaited call in ns, and a share of a turn of the loop."""
    with without_collection():
        began = time.process_time_ns()
        for _ in repeat(None, max(calls // TURN, 1)):
            await asyncio.sleep(0)
            for _ in repeat(None, TURN):
                await call(1)
        return (time.process_time_ns() - began) / (max(calls // TURN, 1) * TURN)


def settle(built: Sequence[Candidate], missing: list[Row]) -> list[Row]:
    """Turn costs into rows: medians of ratios within a round."""
    base = next(one for one in built if one.row.who == BARE)
    for one in built:
        one.row.ns = statistics.median(one.costs)
        one.row.ratio = statistics.median(
            cost / floor for cost, floor in zip(one.costs, base.costs, strict=True)
        )
    return [one.row for one in built] + missing


def calls_for(cost_ns: float, seconds: float) -> int:
    """How many calls fill ``seconds``."""
    return max(TURN, min(int(seconds * 1e9 / max(cost_ns, 1.0)), 200_000))


def cost_blocking(cases: Sequence[Case], rounds: int, seconds: float) -> list[Row]:
    """Measure blocking cases, which take turns."""
    built, missing = blocking_candidates(cases)
    for one in built:
        one.calls = calls_for(time_blocking(one.call, WARM_UP), seconds)
    for _ in range(rounds):
        for one in built:
            one.costs.append(time_blocking(one.call, one.calls))
    return settle(built, missing)


def cost_awaited(cases: Sequence[Case], rounds: int, seconds: float) -> list[Row]:
    """Measure coroutine cases, which take turns in one loop of asyncio."""

    async def story() -> list[Row]:
        built, missing = await awaited_candidates(cases)
        for one in built:
            one.calls = calls_for(await time_awaited(one.call, WARM_UP), seconds)
        for _ in range(rounds):
            for one in built:
                one.costs.append(await time_awaited(one.call, one.calls))
        return settle(built, missing)

    return asyncio.run(story())


# --- contention --------------------------------------------------------------------------------


def wall(call: Function, calls: int, threads: int) -> float:
    """Time by the clock of one call in ns, when ``threads`` share one instance."""
    barrier = threading.Barrier(threads + 1)
    share = calls // threads

    def caller() -> None:
        barrier.wait()
        for _ in repeat(None, share):
            call(1)

    running = [threading.Thread(target=caller) for _ in range(threads)]
    for thread in running:
        thread.start()
    barrier.wait()
    began = time.perf_counter_ns()
    for thread in running:
        thread.join()
    return (time.perf_counter_ns() - began) / (share * threads)


def contention(cases: Sequence[Case], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """How much dearer a call is when four threads share one instance."""
    built, missing = blocking_candidates(cases)
    pairs: dict[int, list[tuple[float, float]]] = {id(one): [] for one in built}
    for one in built:
        one.calls = calls_for(time_blocking(one.call, WARM_UP), seconds)
    for _ in range(rounds):
        for one in built:
            pairs[id(one)].append(
                (wall(one.call, one.calls, 1), wall(one.call, one.calls, THREADS))
            )
    rows: list[dict[str, Any]] = []
    for one in built:
        alone, together = (statistics.median(part) for part in zip(*pairs[id(one)], strict=True))
        ratio = statistics.median(four / single for single, four in pairs[id(one)])
        rows.append({
            "group": one.row.group, "who": one.row.who, "ratio": ratio, "alone_ns": alone,
            "threads_ns": together,
        })  # fmt: skip
    rows += [{"group": row.group, "who": row.who, "missing": row.missing} for row in missing]
    return rows


# --- memory and import -------------------------------------------------------------------------


def bytes_each(make: Callable[[], Any]) -> float:
    """Traced bytes that each of many instances holds."""
    keep: list[Any] = [make()]  # what the first one loads is not counted
    keep += [None] * INSTANCES
    with without_collection():
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for place in range(1, INSTANCES + 1):
                keep[place] = make()
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / INSTANCES
        finally:
            tracemalloc.stop()


def memory() -> list[dict[str, Any]]:
    """Bytes for each breaker, by library."""
    rows: list[dict[str, Any]] = []
    for who, make in breakers().items():
        try:
            rows.append({"who": who, "bytes": bytes_each(make)})
        except Exception as error:
            rows.append({"who": who, "missing": why_missing(error)})
    return rows


PROGRAM = """
import sys
{standard}
from time import process_time_ns
before = set(sys.modules)
began = process_time_ns()
try:
    {statement}
except ImportError as error:
    print("missing", error)
else:
    took = process_time_ns() - began
    print(took / 1e6, ",".join(sorted(set(sys.modules) - before)))
"""


def import_once(statement: str) -> tuple[float, set[str], str]:
    """CPU milliseconds of an import in a process of its own, what it loaded, and why it failed."""
    program = PROGRAM.format(standard=f"import {STANDARD}", statement=statement)
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users import what is compiled already
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    first, _, rest = done.stdout.strip().partition(" ")
    if done.returncode != 0 or first in {"", "missing"}:
        return 0.0, set(), rest or (done.stderr.strip().splitlines() or ["nothing"])[-1]
    return float(first), set(rest.split(",")), ""


def imports(rounds: int) -> list[dict[str, Any]]:
    """CPU milliseconds of each import beyond the standard library, in turns."""
    times: dict[str, list[float]] = {who: [] for who in IMPORTS}
    loaded: dict[str, set[str]] = {}
    missing: dict[str, str] = {}
    for statement in IMPORTS.values():
        import_once(statement)  # compiles it
    for _ in range(rounds):
        for who, statement in IMPORTS.items():
            if who in missing:
                continue
            took, modules, reason = import_once(statement)
            if reason:
                missing[who] = reason
            else:
                times[who].append(took)
                loaded[who] = modules
    rows: list[dict[str, Any]] = []
    for who in IMPORTS:
        if who in missing:
            rows.append({"who": who, "missing": missing[who]})
            continue
        foreign = [
            name for name in FOREIGN
            if any(one == name or one.startswith(f"{name}.") for one in loaded[who])
        ] if who == OURS else []  # fmt: skip
        rows.append({
            "who": who, "ms": statistics.median(times[who]), "best_ms": min(times[who]),
            "modules": len(loaded[who]), "foreign": foreign,
        })  # fmt: skip
    return rows
