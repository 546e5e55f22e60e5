"""Limits that adapt, on a simulated service whose capacity is known.

    python -m benchmarks.adaptive [--json] [--svg FILE] [--seed N]

The service has a number of workers, one queue before them, and a network on the way. More calls
than it can take are always waiting, so that the limit alone decides how many it is given. After a
third of the time half of the workers go; after another third they return. Time is that of the
events: a run of minutes takes seconds, and one seed gives one result.

The best fixed limit is found by trying all of them: the smallest one that reaches 99 % of the
goodput that any limit has with 99 of 100 calls ending in time.
"""

import argparse
import heapq
import json
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from outlast.check.core import svg
from outlast.kernel import Prng
from outlast.protect.core.adaptive import AIMD, Algorithm, Gradient, LimitState, Vegas

NS = 1_000_000_000
MS = 1_000_000


class Fixed:
    """A limit that stays."""

    def __init__(self, limit: int) -> None:
        self.limit = float(limit)
        self.rtt_ns = 0

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        return self

    def bound(self, low: int, high: int) -> int:
        return int(self.limit)

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        return int(self.limit)


class Gradient2AsPublished:
    """Netflix concurrency-limits, ``Gradient2Limit`` behind ``WindowedLimit``, with its defaults.

    Written from its description, to compare: long average over 600 windows of at least a second
    and ten calls, tolerance 1.5, queue of 4, smoothing 0.2.
    """

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        return _Gradient2State(limit, low, high)


class _Gradient2State:
    def __init__(self, limit: int, low: int, high: int) -> None:
        self.limit = float(limit)
        self.rtt_ns = 0
        self._low, self._high = low, high
        self._long, self._windows = 0.0, 0
        self._sum, self._count, self._peak, self._ends_ns = 0, 0, 0, 0

    def bound(self, low: int, high: int) -> int:
        self._low, self._high = low, high
        return int(self.limit)

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        self._sum += rtt_ns
        self._count += 1
        self._peak = max(self._peak, in_flight)
        if now_ns >= self._ends_ns and self._count >= 10:
            self._window(self._sum / self._count, self._peak)
            self._sum = self._count = self._peak = 0
            self._ends_ns = now_ns + NS
        return int(self.limit)

    def _window(self, short: float, in_flight: int) -> None:
        self._windows += 1
        if self._windows <= 10:
            self._long += (short - self._long) / self._windows
        else:
            self._long += (short - self._long) * 2 / 601
        if self._long / short > 2:
            self._long *= 0.95
        if in_flight < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long / short))
        wanted = self.limit * 0.8 + (self.limit * gradient + 4) * 0.2
        self.limit = max(self._low, min(self._high, wanted))


@dataclass
class Service:
    """What is simulated. Times in nanoseconds."""

    workers: int = 40
    service_ns: int = 50 * MS
    network_ns: int = 5 * MS
    seconds: int = 180
    bound_ns: int = 400 * MS
    shape: int = 2  # service times are a sum of so many exponential ones
    slower: bool = False  # instead of losing half of the workers, all take twice as long


@dataclass
class Phase:
    """One third of a run."""

    limits: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    in_time: int = 0

    def mean_limit(self) -> float:
        return sum(self.limits) / len(self.limits)

    def p99_ms(self) -> float:
        return sorted(self.times_ns)[len(self.times_ns) * 99 // 100] / MS


@dataclass
class Run:
    """What came of it: each phase after a settling time, and the limit over time."""

    phases: list[Phase]
    trace: list[tuple[float, int]]
    settled: float  # seconds of each phase that count

    def goodput(self, phase: int) -> float:
        return self.phases[phase].in_time / self.settled


class Simulation:
    """Discrete events: a call begins, reaches the service, is served, comes back."""

    def __init__(self, service: Service, algorithm: Algorithm, seed: int, initial: int) -> None:
        self.service = service
        self.prng = Prng(seed)
        self.state = algorithm.begin(initial, 1, 400, Prng(seed + 1))
        self.limit = int(self.state.limit)
        self.heap: list[tuple[int, int, int, int]] = []  # when, order, what, began
        self.order = 0
        self.now_ns = 0
        self.in_flight = self.busy = 0
        self.queue: deque[int] = deque()
        self.draws = [self._exponential() for _ in range(4096)]

    def _exponential(self) -> float:
        """Draw from an exponential distribution of mean 1 by a sum of a Poisson clock's ticks."""
        total, chance = 0.0, 1 / 64
        while not self.prng.chance(1, 64):
            total += chance
        return total + chance * self.prng.below(1000) / 1000

    def at(self, after_ns: int, what: int, began: int) -> None:
        self.order += 1
        heapq.heappush(self.heap, (self.now_ns + after_ns, self.order, what, began))

    def workers(self) -> int:
        return (
            self.service.workers // 2
            if self.halved() and not self.service.slower
            else (self.service.workers)
        )

    def halved(self) -> bool:
        third = self.service.seconds * NS // 3
        return third <= self.now_ns < 2 * third

    def begin(self) -> None:
        while self.in_flight < self.limit:
            self.in_flight += 1
            self.at(self.service.network_ns, 0, self.now_ns)

    def serve(self) -> None:
        while self.queue and self.busy < self.workers():
            self.busy += 1
            began = self.queue.popleft()
            shape = self.service.shape
            mean = sum(self.prng.choice(self.draws) for _ in range(shape)) / shape
            slow = 2 if self.halved() and self.service.slower else 1
            self.at(int(self.service.service_ns * slow * mean), 1, began)

    def run(self) -> Run:
        end_ns = self.service.seconds * NS
        third = end_ns // 3
        settle_ns = third // 2
        run = Run([Phase(), Phase(), Phase()], [], (third - settle_ns) / NS)
        next_trace = 0
        self.begin()
        while self.heap and self.now_ns < end_ns:
            self.now_ns, _, what, began = heapq.heappop(self.heap)
            if self.now_ns >= next_trace:
                run.trace.append((self.now_ns / NS, self.limit))
                next_trace += NS // 4
            if what == 0:
                self.queue.append(began)
            elif what == 1:
                self.busy -= 1
                self.at(self.service.network_ns, 2, began)
            else:
                self._ended(began, run, third, settle_ns)
            self.serve()
        return run

    def _ended(self, began: int, run: Run, third: int, settle_ns: int) -> None:
        took = self.now_ns - began
        self.limit = self.state.on_sample(took, self.in_flight, True, self.now_ns)
        self.in_flight -= 1
        index, inside = divmod(self.now_ns, third)
        if index < 3 and inside >= settle_ns:
            phase = run.phases[index]
            phase.limits.append(self.limit)
            phase.times_ns.append(took)
            phase.in_time += took <= self.service.bound_ns
        self.begin()


def best_fixed(service: Service, seed: int, phase: int, limits: range) -> tuple[int, float, float]:
    """Return the best limit of one phase, its goodput and its 99th percentile."""
    rows = []
    for limit in limits:
        run = Simulation(service, Fixed(limit), seed, limit).run()
        p99 = run.phases[phase].p99_ms()
        if p99 * MS <= service.bound_ns:
            rows.append((limit, run.goodput(phase), p99))
    most = max(row[1] for row in rows)
    return next(row for row in rows if row[1] >= 0.99 * most)


ALGORITHMS: dict[str, Algorithm] = {
    "gradient": Gradient(),
    "vegas": Vegas(),
    "aimd": AIMD(threshold=0.2),
    "gradient2 as published": Gradient2AsPublished(),
}


# --- the picture -----------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860.0, 400.0, 60.0, 40.0, 210.0, 50.0
SHEET = """
svg { --ink: #1f2933; --faint: #cbd2d9; --back: #ffffff; background: var(--back);
  --c0: #0b69a3; --c1: #8a2d8a; --c2: #b44d12; --c3: #52606d; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7eb; --faint: #3e4c59; --back: #1f2933;
  --c0: #5ed0fa; --c1: #e38ae3; --c2: #f7a072; --c3: #9aa5b1; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--faint); stroke-width: 1; }
.best { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 6 4; }
.curve { fill: none; stroke-width: 1.8; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); }
.c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
"""


def draw(runs: dict[str, Run], best: list[int], seconds: int) -> str:
    """Return the limits over time, beside the best fixed one of each phase, as SVG."""
    words = "Concurrency limits over time on a service that loses half of its workers for a while"
    root = svg.picture(WIDTH, HEIGHT, label=words)
    svg.style(root, SHEET)
    most = max(max(limit for _, limit in run.trace) for run in runs.values()) + 5
    across = svg.linear(0, seconds, LEFT, WIDTH - RIGHT)
    up = svg.linear(0, most, HEIGHT - BOTTOM, TOP)
    for tick in range(0, most, 20):
        svg.line(root, (LEFT, up(tick)), (WIDTH - RIGHT, up(tick)), "grid")
        svg.text(root, LEFT - 8, up(tick) + 4, tick, "end")
    for tick in range(0, seconds + 1, seconds // 6):
        svg.text(root, across(tick), HEIGHT - BOTTOM + 20, f"{tick} s", "middle")
    svg.text(root, LEFT, 22, "calls allowed at a time")
    for index, (name, run) in enumerate(runs.items()):
        points = [(across(at), up(limit)) for at, limit in run.trace]
        svg.path(root, points, f"curve c{index}")
        y = TOP + 24 * index + 10
        svg.line(root, (WIDTH - RIGHT + 15, y), (WIDTH - RIGHT + 45, y), f"curve c{index}")
        svg.text(root, WIDTH - RIGHT + 52, y + 4, name)
    third = seconds / 3
    for phase, limit in enumerate(best):
        ends = across(phase * third), across((phase + 1) * third)
        svg.line(root, (ends[0], up(limit)), (ends[1], up(limit)), "best")
    y = TOP + 24 * len(runs) + 10
    svg.line(root, (WIDTH - RIGHT + 15, y), (WIDTH - RIGHT + 45, y), "best")
    svg.text(root, WIDTH - RIGHT + 52, y + 4, "best fixed limit")
    return svg.markup(root)


def measure(service: Service, seed: int, initial: int) -> tuple[dict[str, Run], dict[str, object]]:
    """Run all algorithms, find the best fixed limits, and return both with the ratios."""
    whole, half = service.workers, service.workers // 2
    sweep = Service(**{**vars(service), "seconds": min(service.seconds, 72)})
    best = [
        best_fixed(sweep, seed, phase, range(max(1, count - 2), count * 8 // 5 + 4))
        for phase, count in enumerate((whole, half, whole))
    ]
    runs = {
        name: Simulation(service, algorithm, seed, initial).run()
        for name, algorithm in ALGORITHMS.items()
    }
    rows = {
        name: [
            {
                "limit": round(phase.mean_limit(), 2),
                "of_best_limit": round(phase.mean_limit() / best[index][0], 3),
                "of_best_goodput": round(run.goodput(index) / best[index][1], 3),
                "p99_ms": round(phase.p99_ms(), 1),
            }
            for index, phase in enumerate(run.phases)
        ]
        for name, run in runs.items()
    }
    fixed = [
        {"limit": limit, "goodput": round(good, 1), "p99_ms": round(p99, 1)}
        for limit, good, p99 in best
    ]
    return runs, {"seed": seed, "service": vars(service), "best_fixed": fixed, "limits": rows}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw the limits over time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=180)
    chosen = parser.parse_args(arguments)
    service = Service(seconds=chosen.seconds)
    runs, figures = measure(service, chosen.seed, initial=20)
    best: list[dict[str, float]] = figures["best_fixed"]  # type: ignore[assignment]
    if chosen.svg:
        chosen.svg.write_text(draw(runs, [int(row["limit"]) for row in best], chosen.seconds))
    if chosen.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return 0
    print(f"{'':24}" + "".join(f"{phase:^30}" for phase in ("all workers", "half", "all again")))
    cells = (f"limit {row['limit']:3}  p99 {row['p99_ms']:5.0f} ms" for row in best)
    print(f"{'best fixed limit':24}" + "".join(f"{cell:^30}" for cell in cells))
    for name, phases in figures["limits"].items():  # type: ignore[attr-defined]
        cells = (
            f"{row['limit']:5.1f} ({row['of_best_limit']:.2f}x) p99 {row['p99_ms']:4.0f} ms"
            for row in phases
        )
        print(f"{name:24}" + "".join(f"{cell:^30}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
