"""What all benchmarks share: results, percentiles, CPU time of processes, the machine in a line.

A load is N callers in a closed loop: each sends its next operation when the last one answered. It
runs in a process of its own, so that its CPU is not the servers', and prints one JSON object.
"""

import asyncio
import contextlib
import itertools
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
VALUE_BYTES = 64
WARM_UP_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """One run of one system at one number of callers. Times are in seconds."""

    system: str
    client: str
    callers: int
    seconds: float
    operations: int
    errors: int
    rate: float
    p50: float
    p99: float
    gap: float
    """Longest time between two acknowledgements that follow each other, over all callers."""
    client_cpu: float = 0.0
    server_cpu: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Result":
        return cls(**json.loads(text))

    def line(self) -> str:
        """The figures for people."""
        per_operation = 1e6 / max(self.operations, 1)
        return (
            f"{self.system:24} {self.client:8} {self.callers:4d} callers {self.rate:9,.0f} op/s  "
            f"p50 {self.p50 * 1e3:7.2f} ms  p99 {self.p99 * 1e3:7.2f} ms  "
            f"gap {self.gap * 1e3:6.0f} ms  errors {self.errors}  CPU per op: "
            f"servers {self.server_cpu * per_operation:5.0f} us, "
            f"client {self.client_cpu * per_operation:5.0f} us"
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the sorted values do not exceed."""
    if not ordered:
        return 0.0
    rank = -int(-share * len(ordered) // 1)  # ceiling
    return ordered[min(len(ordered), max(rank, 1)) - 1]


def longest_gap(moments: Iterable[float]) -> float:
    """The longest time between neighbours, in the order of time."""
    ordered = sorted(moments)
    return max((b - a for a, b in itertools.pairwise(ordered)), default=0.0)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have used, from /proc; a process gone counts 0."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def own_cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def machine() -> str:
    """Processor, cores, memory, kernel and Python in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f}"
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where it is installed, as every client here does."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


@dataclass
class Load:
    """What a closed loop saw between the end of the warm-up and its own end."""

    begin: float
    end: float
    latencies: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    errors: int = 0
    client_cpu: float = 0.0
    server_cpu: float = 0.0

    def record(self, sent: float, answered: float) -> None:
        """Count an acknowledgement if it came inside the window."""
        if self.begin <= answered <= self.end:
            self.latencies.append(answered - sent)
            self.moments.append(answered)

    def result(self, system: str, client: str, callers: int, **extra: Any) -> Result:
        """The figures. The edges of the window count for the gap: a stop to the end is one."""
        seconds = self.end - self.begin
        ordered = sorted(self.latencies)
        return Result(
            system=system, client=client, callers=callers, seconds=seconds,
            operations=len(ordered), errors=self.errors, rate=len(ordered) / seconds,
            p50=percentile(ordered, 0.5), p99=percentile(ordered, 0.99),
            gap=longest_gap([self.begin, *self.moments, self.end]),
            client_cpu=self.client_cpu, server_cpu=self.server_cpu, extra=extra,
        )  # fmt: skip


async def closed_loop(
    operations: Sequence[Callable[[], Awaitable[object]]],
    seconds: float,
    *,
    warm_up: float = WARM_UP_SECONDS,
    pids: Sequence[int] = (),
) -> Load:
    """Let each operation be one caller that repeats it until the time is over.

    An operation that raises OSError (TimeoutError among them) counts as an error and is repeated
    after 2 ms; anything else stops the run. CPU time is that of the window.
    """
    start = time.monotonic()
    load = Load(start + warm_up, start + warm_up + seconds)

    async def caller(operation: Callable[[], Awaitable[object]]) -> None:
        while (sent := time.monotonic()) < load.end:
            try:
                await operation()
            except OSError:
                load.errors += sent >= load.begin
                await asyncio.sleep(0.002)
                continue
            load.record(sent, time.monotonic())

    async def cpu() -> None:
        await asyncio.sleep(load.begin - time.monotonic())
        own, servers = own_cpu_seconds(), cpu_seconds(pids)
        await asyncio.sleep(load.end - time.monotonic())
        load.client_cpu = own_cpu_seconds() - own
        load.server_cpu = cpu_seconds(pids) - servers

    async with asyncio.TaskGroup() as group:
        group.create_task(cpu())
        for operation in operations:
            group.create_task(caller(operation))
    return load


def start_load(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a load generator in a process of its own; its answer is read by finish_load."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish_load(process: subprocess.Popen[str], seconds: float) -> Result:
    """Wait for a load generator and return its result; raise with its last line if it failed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        lines = err.strip().splitlines() or ["no message"]
        raise RuntimeError(f"the load generator failed: {lines[-1]}")
    return Result.from_json(out)


def stop(process: subprocess.Popen[Any], seconds: float = 5.0) -> None:
    """End a process that we started, gently first, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
