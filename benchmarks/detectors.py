"""Failure detectors on the same heartbeats: how soon they notice a stop, how often they are wrong.

    python -m benchmarks.detectors [--quick] [--json] [--svg FILE] [--seed N]
    python -m benchmarks.detectors --record        # a new recording; five minutes

Detection time (T_D) is from the arrival of the last beat to ``evict``, as if the sender had
stopped just after it: over all beats, the median and the 99th percentile. A mistake is a sender
that was suspected and lived. Beats come every 100 ms. Traces: see ``benchmarks.detector_traces``.
"""

import argparse
import copy
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import detector_traces as traces
from benchmarks.common import machine, percentile
from benchmarks.detector_traces import MS, STEP, Trace
from outlast.check.core import svg
from outlast.detect import (
    Bertier,
    Chen,
    Detector,
    Fixed,
    LocalHealth,
    PhiAccrual,
    Quantile,
    score,
)
from outlast.detect.core.local_health import LocalHealthCore, Readings
from outlast.host import default_world

SKIP = 50
Make = Callable[[], Detector]
NO_CAP = 1e5


def akka() -> Detector:
    """Akka's defaults, scaled from its beat a second to ours of 100 ms, and its rule."""
    return PhiAccrual(pause=0.3, floor=0.01, window=1000, learn_level=8.0, cap=NO_CAP)


DETECTORS: dict[str, tuple[Make, float]] = {
    "fixed 0.5 s": (lambda: Fixed(0.5), 8.0),
    "fixed 1 s": (lambda: Fixed(1.0), 8.0),
    "Chen, margin 0.1 s": (lambda: Chen(0.1), 8.0),
    "Chen, margin 0.4 s": (lambda: Chen(0.4), 8.0),
    "Bertier": (Bertier, 8.0),
    "phi as in the paper, 3": (lambda: PhiAccrual(pause=0.0, learn="all", cap=NO_CAP), 3.0),
    "phi as in the paper, 8": (lambda: PhiAccrual(pause=0.0, learn="all", cap=NO_CAP), 8.0),
    "phi, floor 0.1 s, 8": (
        lambda: PhiAccrual(pause=0.0, floor=0.1, learn="all", cap=NO_CAP), 8.0),
    "phi, pause 0.3 s, learns all": (lambda: PhiAccrual(learn="all", cap=NO_CAP), 8.0),
    "phi as Akka has it, to scale": (akka, 8.0),
    "phi exponential, 3": (
        lambda: PhiAccrual(shape="exponential", pause=0.0, learn="all", cap=NO_CAP), 3.0),
    "phi exponential, 8": (
        lambda: PhiAccrual(shape="exponential", pause=0.0, learn="all", cap=NO_CAP), 8.0),
    "3 x q0.99, learns all": (lambda: Quantile(learn="all", cap=NO_CAP), 8.0),
    "3 x q0.99": (Quantile, 8.0),
    "OURS: PhiAccrual()": (PhiAccrual, 8.0),
    "OURS, level watch": (PhiAccrual, 1.0),
}  # fmt: skip
OURS = "OURS: PhiAccrual()"

SWEEPS: dict[str, list[tuple[Make, float]]] = {
    "fixed": [(lambda t=t: Fixed(t), 8.0)
              for t in (0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)],
    "Chen": [(lambda m=m: Chen(m), 8.0)
             for m in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2)],
    "Bertier": [(lambda p=p: Bertier(phi=p), 8.0) for p in (1, 2, 4, 8, 16, 32, 64, 100)],
    "phi as in the paper": [
        (lambda: PhiAccrual(pause=0.0, learn="all", cap=NO_CAP), level)
        for level in (0.5, 1, 2, 3, 5, 8, 12, 20, 40, 80, 160)],
    "phi exponential": [
        (lambda: PhiAccrual(shape="exponential", pause=0.0, learn="all", cap=NO_CAP), level)
        for level in (0.5, 0.8, 1, 1.5, 2, 3, 4, 5, 6)],
    "k x q0.99": [(lambda k=k: Quantile(factor=k, learn="all", cap=NO_CAP), 8.0)
                  for k in (1.1, 1.3, 1.6, 2, 3, 4, 6, 8)],
    "ours, by its pause": [(lambda p=p: PhiAccrual(pause=p), 8.0)
                    for p in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)],
}  # fmt: skip


@dataclass
class Row:
    """One detector on one trace. Times in milliseconds."""

    detector: str
    trace: str
    detection: float
    detection_p99: float
    mistakes: int
    mistakes_per_day: float
    mistake_lasts: float | None


class Gate:
    """``LocalHealth`` replayed from the ticks that the observer recorded."""

    def __init__(self, ticks: list[traces.Tick]) -> None:
        core = LocalHealthCore(STEP, 3 * STEP, 0.5)
        self._at: list[int] = []
        self._states: list[LocalHealthCore] = []
        for at, delay, throttled, pressure, asleep in ticks:
            core.tick(at, Readings(delay, throttled, pressure, asleep))
            self._at.append(at)
            self._states.append(copy.deepcopy(core))

    def __call__(self, due_ns: int) -> int:
        """Return when an accusation that is due would be made."""
        while True:
            index = bisect_right(self._at, due_ns) - 1
            if index < 0 or index == len(self._at) - 1:
                return due_ns  # not recorded
            state = self._states[index]
            if state.may_accuse(due_ns):
                return due_ns
            due_ns = state.retry_ns(due_ns)


def row(name: str, make: Make, level: float, trace: Trace, gate: Gate | None = None) -> Row:
    made = score(trace.beats, make(), level=level, skip=SKIP, postpone=gate)
    assert made.detection is not None
    assert made.detection_p99 is not None
    return Row(
        name, trace.name, made.detection * 1e3, made.detection_p99 * 1e3, made.mistakes,
        made.mistakes_per_day or 0.0, None if made.duration is None else made.duration * 1e3,
    )  # fmt: skip


def curve(points: list[tuple[Make, float]], pool: list[Trace]) -> list[tuple[float, float]]:
    """Return detection time in seconds and mistakes per hour, over a pool of traces.

    The time is that within which 99 of 100 stops are noticed on the worst of them: a detector that
    has learnt freezes must not hide behind traces that have none.
    """
    made = []
    for make, level in points:
        worst, mistakes, seconds = 0.0, 0, 0.0
        for trace in pool:
            one = score(trace.beats, make(), level=level, skip=SKIP)
            worst = max(worst, one.detection_p99 or 0.0)
            mistakes += one.mistakes
            seconds += one.seconds
        made.append((worst, mistakes * 3600 / seconds))
    return sorted(made)


def costs(rounds: int) -> dict[str, float]:
    """Microseconds per call, the best of five."""

    def best(call: Callable[[int], object]) -> float:
        took = []
        for _ in range(5):
            begun = time.perf_counter_ns()
            for n in range(rounds):
                call(n)
            took.append((time.perf_counter_ns() - begun) / rounds / 1000)
        return round(min(took), 2)

    made = {}
    for name, (make, level) in DETECTORS.items():
        if name not in {OURS, "fixed 0.5 s", "Chen, margin 0.4 s", "3 x q0.99"}:
            continue
        detector, clock = make(), [0]

        def beat(_: int, detector: Detector = detector, clock: list[int] = clock) -> None:
            clock[0] += STEP + clock[0] % 7 * MS
            detector.beat(None, clock[0])

        made[f"{name}: beat"] = best(beat)
        now = clock[0] + 3 * STEP
        made[f"{name}: suspicion"] = best(lambda n, d=detector, t=now: d.suspicion(t + n))
        made[f"{name}: deadline"] = best(lambda _, d=detector, v=level: d.deadline_ns(v))
    with LocalHealth(60.0, machine=True) as local:
        time.sleep(0.05)
        world = default_world()
        made["LocalHealth: tick"] = best(lambda _: local._tick(world))
        made["LocalHealth: may_accuse"] = best(lambda _: local.may_accuse())
    return made


# --- the picture -----------------------------------------------------------------------------

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP = 900.0, 440.0, 62.0, 110.0, 70.0, 60.0
SHEET = """
svg { --ink: #1f2933; --soft: #52606d; --faint: #d9dfe5; --back: #ffffff; background: var(--back);
  --c0: #7b8794; --c1: #0b69a3; --c2: #b44d12; --c3: #8a2d8a; --c4: #b58a00; --c5: #2f7d4f;
  --c6: #d0021b; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7eb; --soft: #9aa5b1; --faint: #3e4c59;
  --back: #1f2933; --c0: #9aa5b1; --c1: #5ed0fa; --c2: #f7a072; --c3: #e38ae3; --c4: #f0c24b;
  --c5: #7bd39b; --c6: #ff7b7b; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); } .end { text-anchor: end; } .middle { text-anchor: middle; }
.title { font-weight: 600; }
.grid { stroke: var(--faint); stroke-width: 1; }
.curve { fill: none; stroke-width: 1.7; stroke-linejoin: round; } .ours { stroke-width: 3; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.c6 { stroke: var(--c6); }
.dot0 { fill: var(--c0); } .dot1 { fill: var(--c1); } .dot2 { fill: var(--c2); }
.dot3 { fill: var(--c3); } .dot4 { fill: var(--c4); } .dot5 { fill: var(--c5); }
.dot6 { fill: var(--c6); } .ring { fill: none; stroke: var(--ink); stroke-width: 1.5; }
"""
SLOWEST = 2.0
MOST, LEAST = 8_000.0, 3.0
"""Mistakes an hour at the top, and where a curve without any is drawn."""


def draw(panels: dict[str, dict[str, list[tuple[float, float]]]],
         default: dict[str, tuple[float, float]]) -> str:  # fmt: skip
    """Return detection time against mistakes, a curve per detector, as SVG."""
    words = "Detection time against mistakes an hour: a curve per failure detector"
    root = svg.picture(WIDTH, HEIGHT, label=words)
    svg.style(root, SHEET)
    wide = (WIDTH - LEFT - 20 - GAP) / 2
    up = svg.logarithmic(LEAST, MOST, HEIGHT - BOTTOM, TOP)
    svg.text(root, 12, 22, "mistakes an hour: a living sender was suspected", "soft")
    for index, (title, curves) in enumerate(panels.items()):
        left = LEFT + index * (wide + GAP)
        across = svg.linear(0, SLOWEST, left, left + wide)
        svg.text(root, left + wide / 2, 46, title, "title middle")
        for tick, label in ((LEAST, "none"), (10, "10"), (100, "100"), (1000, "1,000")):
            svg.line(root, (left, up(tick)), (left + wide, up(tick)), "grid")
            svg.text(root, left - 7, up(tick) + 4, label, "end soft")
        for tenth in range(0, round(SLOWEST * 10) + 1, 4):
            at = across(tenth / 10)
            svg.line(root, (at, HEIGHT - BOTTOM), (at, HEIGHT - BOTTOM + 5), "grid")
            svg.text(root, at, HEIGHT - BOTTOM + 19, f"{tenth / 10:g}", "middle soft")
        svg.text(root, left + wide / 2, HEIGHT - BOTTOM + 38,
                 "seconds from the last beat to evict (99 % of stops)", "middle soft")  # fmt: skip
        for number, points in enumerate(curves.values()):
            seen = [(across(took), up(rate)) for took, rate in points if took <= SLOWEST]
            ours = number == len(curves) - 1
            svg.path(root, seen, f"curve c{number}" + (" ours" if ours else ""))
            for x, y in seen:
                svg.circle(root, x, y, 3.2 if ours else 2.2, f"dot{number}")
        took, rate = default[title]
        svg.circle(root, across(took), up(rate), 8, "ring")
    for number, name in enumerate(next(iter(panels.values()))):
        x = LEFT + number % 4 * 190
        y = HEIGHT - 42 + number // 4 * 22
        svg.line(root, (x, y - 4), (x + 24, y - 4),
                 f"curve c{number}" + (" ours" if name.startswith("ours") else ""))  # fmt: skip
        svg.text(root, x + 31, y, name)
    x, y = LEFT + 3 * 190, HEIGHT - 42 + 22
    svg.circle(root, x + 12, y - 4, 7, "ring")
    svg.text(root, x + 31, y, "our default")
    return svg.markup(root)


# --- the tables ------------------------------------------------------------------------------


def table(rows: Iterable[Row], names: list[str]) -> str:
    """Return T_D median/p99 in ms and mistakes, a column per trace."""
    by: dict[str, dict[str, Row]] = {}
    for one in rows:
        by.setdefault(one.detector, {})[one.trace] = one
    lines = [f"{'T_D median / p99 in ms, mistakes':34}" + "".join(f"{n:>22}" for n in names)]
    for detector, cells in by.items():
        line = f"{detector:34}"
        for name in names:
            one = cells.get(name)
            text = "" if one is None else (
                f"{one.detection:5.0f} /{one.detection_p99:5.0f} {one.mistakes:6}"
            )  # fmt: skip
            line += f"{text:>22}"
        lines.append(line)
    return "\n".join(lines)


def measure(quick: bool, seed: int) -> dict[str, Any]:
    """Score all detectors on all traces."""
    made_on, recorded = traces.load()
    generated = traces.drawn(1500 if quick else 6000, seed)
    rows = [row(name, make, level, trace)
            for trace in [*recorded, *generated]
            for name, (make, level) in DETECTORS.items()]  # fmt: skip
    gated = [row(f"{name}, gated", *DETECTORS[name], trace, Gate(trace.ticks))
             for trace in recorded
             for name in (OURS, "fixed 0.5 s", "Chen, margin 0.4 s")]  # fmt: skip
    gaps = {}
    for trace in [*recorded, *generated]:
        times = trace.gaps_ms()
        gaps[trace.name] = {
            "beats": len(trace.beats), "max": round(times[-1], 1),
            "p50": round(percentile(times, 0.5), 1), "p99": round(percentile(times, 0.99), 1),
        }  # fmt: skip
    return {
        "machine": machine(),
        "recorded_on": made_on,
        "seed": seed,
        "gaps_ms": gaps,
        "rows": [asdict(one) for one in rows + gated],
        "microseconds": costs(2000 if quick else 20_000),
        "recorded": [one.name for one in recorded],
        "generated": [one.name for one in generated],
    }


def picture(quick: bool, seed: int) -> str:
    """Sweep each detector over its parameter and draw the curves."""
    _, recorded = traces.load()
    pools = {
        "recorded: idle, loaded, frozen sender": recorded[:3],
        "drawn: steady to pauses, 5 % lost": traces.drawn(1000 if quick else 3000, seed),
    }
    panels = {title: {name: curve(points, pool) for name, points in SWEEPS.items()}
              for title, pool in pools.items()}  # fmt: skip
    default = {title: curve([DETECTORS[OURS]], pool)[0] for title, pool in pools.items()}
    return draw(panels, default)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer beats")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument(
        "--svg", metavar="FILE", type=Path, help="draw detection time and mistakes"
    )
    parser.add_argument("--record", action="store_true", help="make a new recording first")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        return traces.child(chosen.child)
    if chosen.record:
        short = {name: 20.0 for name in traces.SECONDS} if chosen.quick else traces.SECONDS
        traces.record(short, chosen.seed)
    if chosen.svg:
        chosen.svg.write_text(picture(chosen.quick, chosen.seed))
    figures = measure(chosen.quick, chosen.seed)
    if chosen.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return 0
    rows = [Row(**one) for one in figures["rows"]]
    print(f"this machine: {figures['machine']}\nrecorded on:  {figures['recorded_on']}")
    for group in ("recorded", "generated"):
        names = figures[group]
        for name in names:
            gaps = figures["gaps_ms"][name]
            print(f"  {name:16} {gaps['beats']:5} beats, intervals p50 {gaps['p50']} ms,"
                  f" p99 {gaps['p99']} ms, longest {gaps['max']} ms")  # fmt: skip
        print(table([one for one in rows if one.trace in names], names) + "\n")
    for name, took in figures["microseconds"].items():
        print(f"{name:40} {took:7.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
