"""Members that read their messages late: whom do they get removed? SWIM, Lifeguard and ours.

    python -m benchmarks.lifeguard [--quick | --beyond | --figures FILE] [--json] [--svg FILE] …

The setting is that of the Lifeguard paper (arXiv 1707.00788, section V): 128 members, of which C
neither send nor read for D seconds, then deal with what waited for I seconds, over and over, while
their timers run. A removal of a member that is not one of the C is a false positive: *FP* if any
member believes it, *FP-* if a healthy one does. A second part takes the power from one member,
with and without slow ones, and measures when the first and when the last of the others has removed
it.

All run the same machine-independent simulation (``tests/support/swim_sim.py``) in virtual time, so
that one seed gives one result and load on this machine changes nothing. "SWIM" has our periods and
our shortest suspicion as its only one; "SWIM, 1 s" has the periods of the paper and a suspicion of
10.5 s.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import percentile
from outlast.check.core import svg
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import MemberDead, MemberSuspected
from outlast.kernel import Prng
from tests.support.swim_sim import SECOND, Swim

SIZE = 128
SECONDS = 70
VARIANTS: dict[str, SwimSettings] = {
    "SWIM": SwimSettings.plain(),
    "SWIM, 1 s": SwimSettings.plain(
        probe_interval=1.0, probe_timeout=0.5, gossip_interval=0.2, silence=8.9, sync_interval=30.0
    ),
    "Lifeguard": SwimSettings.lan(guard=False, refusals=False),
    "ours": SwimSettings.lan(),
}


@dataclass(frozen=True)
class Cell:
    """One run of the first part."""

    variant: str
    slow: int
    blocked: float
    open: float
    seed: int
    seconds: int = SECONDS


@dataclass
class Count:
    """What one run of the first part counted."""

    slow: int
    variant: str
    fp: int
    fp_healthy: int
    suspicions: int
    removed_slow: int
    bytes_per_second: float


@dataclass(frozen=True)
class Death:
    """One run of the second part. ``refuses``: the process is killed, and its machine says so."""

    variant: str
    slow: int
    refuses: bool
    seed: int


@dataclass
class Times:
    """Seconds until the first and the last healthy member had removed the dead one."""

    variant: str
    slow: int
    refuses: bool
    first: float
    last: float


def count(cell: Cell) -> Count:
    """Let some be slow, over and over, and count who is removed."""
    sim = Swim(SIZE, VARIANTS[cell.variant], seed=cell.seed, keep=(MemberDead, MemberSuspected))
    slow = draw_slow(cell.slow, cell.seed)
    names = {f"n{index}" for index in slow}
    sim.start_joined()
    sim.run(5 * SECOND)
    sim.said.clear()
    sim.bytes = 0
    end = sim.now_ns + cell.seconds * SECOND
    while sim.now_ns < end:
        for index in slow:
            sim.slow_down(index, int(cell.blocked * SECOND))
        sim.run(int((cell.blocked + cell.open) * SECOND))
    sim.run(5 * SECOND)
    dead = sim.events(MemberDead)
    wrong = [one for one in dead if name_of(one.event) not in names]
    return Count(
        cell.slow,
        cell.variant,
        len(wrong),
        sum(one.by not in names for one in wrong),
        sum(name_of(one.event) not in names for one in sim.events(MemberSuspected)),
        len(dead) - len(wrong),
        sim.bytes / SIZE / cell.seconds,
    )


def die(death: Death) -> Times:
    """Let one die, and measure who notices when."""
    sim = Swim(SIZE, VARIANTS[death.variant], seed=death.seed, keep=(MemberDead,))
    slow = draw_slow(death.slow, death.seed)
    sim.start_joined()
    prng = Prng(death.seed).fork()
    sim.run(4 * SECOND + prng.below(2 * SECOND))
    for index in slow:
        sim.slow_down(index, 20 * SECOND)
    victim = next(one for one in iter(lambda: prng.below(SIZE), -1) if one not in slow)
    began = sim.now_ns
    sim.kill(victim, refuses=death.refuses)
    sim.run(20 * SECOND - 1)
    ignored = {f"n{index}" for index in slow}
    times = [
        (one.at_ns - began) / 1e9
        for one in sim.events(MemberDead, f"n{victim}")
        if one.by not in ignored
    ]
    assert len(times) == SIZE - 1 - len(slow), f"noticed by {len(times)} only: {death}"
    return Times(death.variant, death.slow, death.refuses, min(times), max(times))


def draw_slow(number: int, seed: int) -> list[int]:
    order = list(range(SIZE))
    Prng(seed + 1000).shuffle(order)
    return sorted(order[:number])


def name_of(event: object) -> str:
    return str(event.member.name)  # type: ignore[attr-defined]


# --- the picture -----------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 920.0, 420.0, 84.0, 66.0, 56.0
MIDDLE, RIGHT = 540.0, 30.0
SHEET = """
svg { --ink: #1f2933; --faint: #cbd2d9; --back: #ffffff; background: var(--back);
  --c0: #b44d12; --c1: #8a2d8a; --c2: #52606d; --c3: #0b69a3; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7eb; --faint: #3e4c59; --back: #1f2933;
  --c0: #f7a072; --c1: #e38ae3; --c2: #9aa5b1; --c3: #5ed0fa; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.title { font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--faint); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; } .healthy { stroke-dasharray: 3 4; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); }
.c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); }
circle.c2 { fill: var(--c2); } circle.c3 { fill: var(--c3); }
"""


def draw(figures: dict[str, Any]) -> str:
    """Return false positives by the number of slow members, beside detection times, as SVG."""
    label = (
        "Left: healthy members removed by mistake, by the number of members that read late; "
        "right: seconds until a dead member is removed everywhere"
    )
    root = svg.picture(WIDTH, HEIGHT, label=label)
    svg.style(root, SHEET)
    _draw_mistakes(root, {(one["variant"], one["slow"]): one for one in figures["by_slow"]})
    _draw_times(root, figures["detection"])
    return svg.markup(root)


def _draw_mistakes(root: svg.Element, rows: dict[tuple[str, int], Any]) -> None:
    slows = sorted({slow for _, slow in rows})
    floor, right = HEIGHT - BOTTOM, MIDDLE - 76
    across = svg.logarithmic(slows[0], slows[-1], LEFT + 14, right - 14)
    decades = len(str(max(row["fp"] for row in rows.values())))
    up = svg.logarithmic(1, 10**decades, floor - 26, TOP)

    def height(value: int) -> float:
        return up(value) if value else floor

    svg.text(root, 12, 22, "Removals of healthy members", "title")
    svg.text(root, 12, 40, "solid: seen by any member · dotted: by healthy ones")
    for tick in [0, *(10**one for one in range(decades + 1))]:
        svg.line(root, (LEFT, height(tick)), (right, height(tick)), "grid")
        svg.text(root, LEFT - 8, height(tick) + 4, f"{tick:,}", "end")
    for slow in slows:
        svg.text(root, across(slow), floor + 20, slow, "middle")
    svg.text(root, (LEFT + right) / 2, floor + 42, "members of 128 that read late", "middle")
    labels: list[tuple[float, str]] = []
    for index, variant in enumerate(VARIANTS):
        for key, cls in (("fp_healthy", " healthy"), ("fp", "")):
            points = [(across(slow), height(rows[variant, slow][key])) for slow in slows]
            svg.path(root, points, f"curve c{index}{cls}")
        labels.append((points[-1][1], variant))
    placed = -1e9
    for y, variant in sorted(labels):
        placed = max(y + 4, placed + 17)
        svg.text(root, right + 6, placed, variant)


def _draw_times(root: svg.Element, rows: list[Any]) -> None:
    left, floor = MIDDLE + 150, HEIGHT - BOTTOM
    most = max(row["all_p99"] for row in rows)
    across = svg.linear(0, most * 1.05, left, WIDTH - RIGHT)
    svg.text(root, MIDDLE + 34, 22, "Until all have removed a dead member", "title")
    svg.text(root, MIDDLE + 34, 40, "dot: median · line: to the 99th percentile")
    for tick in range(0, int(most * 1.05) + 1, 5):
        svg.line(root, (across(tick), TOP), (across(tick), floor), "grid")
        svg.text(root, across(tick), floor + 20, f"{tick} s", "middle")
    cases = sorted({(row["refuses"], row["slow"]) for row in rows})
    step = (floor - TOP) / len(cases)
    for place, (refuses, slow) in enumerate(cases):
        y = TOP + place * step
        words = "killed, port refuses" if refuses else "no power"
        svg.text(root, left - 12, y + step / 2 - (4 if slow else -4), words, "end")
        if slow:
            svg.text(root, left - 12, y + step / 2 + 13, f"{slow} others slow", "end")
        for index, variant in enumerate(VARIANTS):
            at = y + (index + 1) * step / (len(VARIANTS) + 1)
            for row in rows:
                if (row["variant"], row["refuses"], row["slow"]) == (variant, refuses, slow):
                    ends = across(row["all_median"]), across(row["all_p99"])
                    svg.line(root, (ends[0], at), (ends[1], at), f"curve c{index}")
                    svg.circle(root, ends[0], at, 4, f"c{index}")


# --- the figures -----------------------------------------------------------------------------


def totals(counts: list[Count]) -> dict[tuple[str, int], Count]:
    """Add up the runs of each variant at each number of slow members."""
    made: dict[tuple[str, int], Count] = {}
    for one in counts:
        total = made.setdefault(
            (one.variant, one.slow), Count(one.slow, one.variant, 0, 0, 0, 0, 0.0)
        )
        total.fp += one.fp
        total.fp_healthy += one.fp_healthy
        total.suspicions += one.suspicions
        total.removed_slow += one.removed_slow
        total.bytes_per_second = max(total.bytes_per_second, one.bytes_per_second)
    return made


def plan(quick: bool) -> tuple[list[Cell], list[Death]]:
    """Return all runs."""
    slows = (1, 8) if quick else (1, 4, 8, 16, 32)
    blocked = (8.0,) if quick else (2.0, 8.0, 24.0)
    opened = (0.5,) if quick else (0.1, 1.0)
    cells = [
        Cell(variant, slow, closed, free, seed=slow * 100 + round(closed * 10))
        for slow, closed, free, variant in product(slows, blocked, opened, VARIANTS)
    ]
    repeats = range(3 if quick else 20)
    deaths = [
        Death(variant, slow, refuses, seed)
        for (slow, refuses), seed, variant in product(
            [(0, False), (8, False), (0, True)], repeats, VARIANTS
        )
    ]
    return cells, deaths


def beyond(jobs: int) -> None:
    """Block longer than a node doubts itself (``isolated``, 60 s): where our zero ends."""
    cells = [
        Cell(variant, 8, blocked, 1.0, seed=7, seconds=2 * round(blocked + 1))
        for blocked, variant in product((55.0, 70.0, 100.0), ("SWIM, 1 s", "Lifeguard", "ours"))
    ]
    with ProcessPoolExecutor(jobs) as pool:
        for cell, one in zip(cells, pool.map(count, cells), strict=True):
            print(
                f"8 slow, blocked {cell.blocked:3.0f} s  {cell.variant:12}"
                f"FP {one.fp:7,}  FP- {one.fp_healthy:7,}"
            )


def report(counts: list[Count], times: list[Times]) -> dict[str, Any]:
    """Return the figures: sums, ratios to SWIM, medians and 99th percentiles."""
    sums = {
        variant: {
            "fp": sum(one.fp for one in counts if one.variant == variant),
            "fp_healthy": sum(one.fp_healthy for one in counts if one.variant == variant),
            "suspicions_of_healthy": sum(
                one.suspicions for one in counts if one.variant == variant
            ),
            "slow_removed": sum(one.removed_slow for one in counts if one.variant == variant),
            "bytes_per_second_max": round(
                max(one.bytes_per_second for one in counts if one.variant == variant)
            ),
        }
        for variant in VARIANTS
    }
    for row in sums.values():
        row["fp_of_swim"] = round(row["fp"] / max(1, sums["SWIM"]["fp"]), 6)  # type: ignore[assignment]
    detection = []
    for refuses, slow in sorted({(one.refuses, one.slow) for one in times}):
        for variant in VARIANTS:
            found = [
                one
                for one in times
                if (one.variant, one.refuses, one.slow) == (variant, refuses, slow)
            ]
            first = sorted(one.first for one in found)
            last = sorted(one.last for one in found)
            detection.append(
                {
                    "variant": variant,
                    "refuses": refuses,
                    "slow": slow,
                    "runs": len(found),
                    "first_median": round(percentile(first, 0.5), 2),
                    "first_p99": round(percentile(first, 0.99), 2),
                    "all_median": round(percentile(last, 0.5), 2),
                    "all_p99": round(percentile(last, 0.99), 2),
                }
            )
    by_slow = [asdict(one) for one in totals(counts).values()]
    return {"members": SIZE, "sums": sums, "by_slow": by_slow, "detection": detection}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few runs only, about a minute")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw them")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--figures", metavar="FILE", type=Path, help="show what --json wrote")
    parser.add_argument("--beyond", action="store_true", help="only: blocked for a minute or so")
    chosen = parser.parse_args(arguments)
    if chosen.beyond:
        beyond(chosen.jobs)
        return 0
    figures = (
        json.loads(chosen.figures.read_text())
        if chosen.figures
        else measure(chosen.quick, chosen.jobs)
    )
    if chosen.svg:
        chosen.svg.write_text(draw(figures))
    if chosen.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return 0
    show(figures)
    return 0


def measure(quick: bool, jobs: int) -> dict[str, Any]:
    """Run everything."""
    cells, deaths = plan(quick)
    with ProcessPoolExecutor(jobs) as pool:
        counted = [pool.submit(count, cell) for cell in cells]
        measured = [pool.submit(die, death) for death in deaths]
        return report([one.result() for one in counted], [one.result() for one in measured])


def show(figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{'':12}{'FP':>9}{'FP-':>9}{'of SWIM':>10}{'suspicions':>12}{'bytes/s max':>13}")
    for variant, row in figures["sums"].items():
        print(
            f"{variant:12}{row['fp']:9,}{row['fp_healthy']:9,}{row['fp_of_swim']:10.5f}"
            f"{row['suspicions_of_healthy']:12,}{row['bytes_per_second_max']:13,}"
        )
    print("\nseconds to remove a dead member: first median, p99; all median, p99")
    for row in figures["detection"]:
        how = "killed" if row["refuses"] else "no power"
        print(
            f"{how:9} {row['slow']:2} slow  {row['variant']:12}"
            f"{row['first_median']:7.2f}{row['first_p99']:7.2f}"
            f"{row['all_median']:8.2f}{row['all_p99']:7.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
