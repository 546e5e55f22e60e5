"""What protection costs: ``python -m benchmarks.protect [--quick] [--json] [--only NAME ...]``.

Ours beside every peer that has the same policy, on the path of success, for functions and for
coroutines: first as a multiple of a bare wrapper (a closure with try/except and a counter), then
in ns. Then four threads on one instance, bytes per breaker, and the time of the import. At the
end one line for each bar: met, or not. ``benchmarks/protect_measure.py`` says how it is measured.

NAME is one of the groups (retry, breaker, slow-call, bulkhead, rate, timeout, hedge, fallback,
cache, adaptive, retry+breaker, ...), sync, async, contention, memory or import.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import protect_measure as measure
from benchmarks.common import machine
from benchmarks.peers.calls import BARE, FOUR, GROUPS, OURS, THREE, Case
from benchmarks.peers.calls_async import ASYNC
from benchmarks.peers.calls_sync import SYNC
from benchmarks.protect_measure import Row

SECTIONS = ("contention", "memory", "import")
KINDS = ("sync", "async")
CONTENDED = ("retry", "breaker", "slow-call", "bulkhead", "rate", "adaptive", THREE)
CEILINGS = (
    ("sync", "retry", 1.5), ("sync", THREE, 7.0), ("async", THREE, 5.0), ("async", FOUR, 9.0),
)  # fmt: skip
"""Bars of cost, as multiples of the bare wrapper."""
AIM = 4.0
NOISE = 1.05
"""Costs closer than this are told as equal, since rounds differ by more."""
CONTENTION_MAX = 2.0
BREAKER_BYTES_MAX = 1024
IMPORT_MS_MAX = 15.0

Found = dict[str, Any]


def cost(kinds: Sequence[str], groups: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Measure the groups, each beside its own bare wrapper."""
    rows: list[Row] = []
    for kind in kinds:
        table = ASYNC if kind == "async" else SYNC
        run = measure.cost_awaited if kind == "async" else measure.cost_blocking
        floor: list[Case] = table.of("bare")
        for group in groups:
            found = run([*floor, *table.of(group)], rounds, seconds)
            rows += [row for row in found if row.group == group or not rows_have(rows, kind)]
            print(f"{kind} {group}: measured", file=sys.stderr)
    return rows


def rows_have(rows: Sequence[Row], kind: str) -> bool:
    """Whether the bare wrapper of this kind is among the rows."""
    return any(row.kind == kind and row.who == BARE for row in rows)


# --- bars --------------------------------------------------------------------------------------


def bar(name: str, found: str, met: bool | None) -> Found:
    """One bar: what is asked, what was found, and whether that is enough (None: not measured)."""
    return {"bar": name, "found": found, "met": met}


def bars(rows: Sequence[Row], found: Found) -> list[Found]:
    """Judge what was measured."""
    bars = [against_peers(kind, group, rows) for kind in KINDS for group in GROUPS]
    for kind, group, ceiling in CEILINGS:
        ours = ours_of(rows, kind, group)
        aim = f" (aim {AIM:g} x)" if (kind, group) == ("sync", THREE) else ""
        bars.append(bar(
            f"{kind} {group} costs at most {ceiling:g} x a bare wrapper{aim}",
            f"{ours.ratio:.2f} x" if ours else "-", ours.ratio <= ceiling if ours else None,
        ))  # fmt: skip
    return [one for one in bars if one is not None] + bars_of_sections(found)


def ours_of(rows: Sequence[Row], kind: str, group: str, who: str = OURS) -> Row | None:
    """Our row of a group, if it was measured."""
    for row in rows:
        if (row.kind, row.group, row.who) == (kind, group, who) and not row.missing:
            return row
    return None


def against_peers(kind: str, group: str, rows: Sequence[Row]) -> Found | None:
    """Whether ours is the cheapest of a group; None if nobody else has it, or all is missing."""
    theirs = [
        row for row in rows
        if (row.kind, row.group) == (kind, group) and not row.ours and not row.missing
        and not row.who.startswith("asyncio.")  # parts of the standard library, as a bound
    ]  # fmt: skip
    name = f"{kind} {group} is cheaper than every peer's"
    # Every peer's timeout of a plain function is a worker thread: so is the one of ours compared.
    threads = kind == "sync" and group in {"timeout", FOUR}
    ours = ours_of(rows, kind, group, f"{OURS} Hard" if threads else OURS)
    if not theirs:
        return None
    best = min(theirs, key=lambda row: row.ratio)
    if ours is None:
        return bar(name, f"- (best peer {best.who} {best.ratio:.2f} x)", None)
    close = (
        " (equal within noise)" if best.ratio / NOISE <= ours.ratio < best.ratio * NOISE else ""
    )
    return bar(
        name, f"{ours.ratio:.2f} x, {best.who} {best.ratio:.2f} x{close}",
        ours.ratio < best.ratio or bool(close),
    )  # fmt: skip


def bars_of_sections(found: Found) -> list[Found]:
    """Judge contention, memory and import."""
    judged = [
        bar(
            f"{row['group']}: four threads on one instance cost at most {CONTENTION_MAX:g} x one",
            f"{row['ratio']:.2f} x", row["ratio"] <= CONTENTION_MAX,
        )
        for row in found.get("contention", ()) if row["who"] == OURS and "ratio" in row
    ]  # fmt: skip
    for row in found.get("memory", ()):
        if row["who"] == OURS and "bytes" in row:
            judged.append(bar(
                f"a breaker takes at most {BREAKER_BYTES_MAX} bytes", f"{row['bytes']:.0f}",
                row["bytes"] <= BREAKER_BYTES_MAX,
            ))  # fmt: skip
    for row in found.get("import", ()):
        if row["who"] == OURS and "ms" in row:
            judged += [
                bar(f"the import takes at most {IMPORT_MS_MAX:g} ms", f"{row['ms']:.1f} ms",
                    row["ms"] <= IMPORT_MS_MAX),
                bar("the import loads nothing of cluster, command line or web",
                    ", ".join(row["foreign"]) or "nothing", not row["foreign"]),
            ]  # fmt: skip
    return judged


# --- tables ------------------------------------------------------------------------------------


def show_costs(rows: Sequence[Row]) -> list[str]:
    """Lines of the tables of cost, cheapest first."""
    lines: list[str] = []
    for kind in KINDS:
        for group in ("bare", *GROUPS):
            chosen = [row for row in rows if (row.kind, row.group) == (kind, group)]
            if not chosen:
                continue
            lines.append(f"\n{kind}, {group}")
            for row in sorted(chosen, key=lambda row: (bool(row.missing), row.ratio)):
                mark = "*" if row.ours else " "
                if row.missing:
                    lines.append(f" {mark}{'-':>8}   {'-':>11}     {row.who:26} {row.missing}")
                else:
                    lines.append(
                        f" {mark}{row.ratio:8.2f} x {row.ns:11,.0f} ns  {row.who:26} {row.note}"
                    )
    return lines


def show_sections(found: Found) -> list[str]:
    """Lines of contention, memory and import."""
    lines: list[str] = []
    for name, title, figures in (
        ("contention", "four threads on one instance, by the clock", contention_figures),
        ("memory", "bytes per breaker", lambda row: f"{row['bytes']:12,.0f}"),
        ("import", "import beyond the standard library",
         lambda row: f"{row['ms']:8.1f} ms {row['modules']:4d} modules"),
    ):  # fmt: skip
        if name not in found:
            continue
        lines.append(f"\n{title}")
        for row in found[name]:
            who = f"{row['group']}, {row['who']}" if "group" in row else row["who"]
            told = row["missing"] if "missing" in row else figures(row)
            lines.append(f" {'*' if row['who'].startswith(OURS) else ' '} {who:44} {told}")
    return lines


def contention_figures(row: Found) -> str:
    """Ratio first."""
    return f"{row['ratio']:6.2f} x {row['alone_ns']:11,.0f} -> {row['threads_ns']:,.0f} ns"


def show_bars(judged: Sequence[Found]) -> list[str]:
    """One line for each bar."""
    words = {True: "met", False: "NOT MET", None: "not measured"}
    return [
        "\nbars",
        *(f"  {words[one['met']]:13} {one['bar']}: {one['found']}" for one in judged),
    ]


# --- running -----------------------------------------------------------------------------------


def run(only: Sequence[str], quick: bool) -> tuple[list[Row], Found]:
    """Measure what was asked for."""
    rounds, seconds = (5, 0.01) if quick else (15, 0.03)
    kinds = [kind for kind in KINDS if kind in only] or list(KINDS)
    groups = [group for group in GROUPS if group in only]
    sections = [section for section in SECTIONS if section in only]
    if not groups and (not only or any(kind in only for kind in KINDS)):
        groups = list(GROUPS)
    if not only:
        sections = list(SECTIONS)
    rows = cost(kinds, groups, rounds, seconds)
    found: Found = {}
    if "contention" in sections:
        cases = [case for group in ("bare", *CONTENDED) for case in SYNC.of(group)]
        found["contention"] = measure.contention(
            [case for case in cases if case.who != "direct"], 3 if quick else 5, seconds * 5
        )
    if "memory" in sections:
        found["memory"] = measure.memory()
    if "import" in sections:
        found["import"] = measure.imports(5 if quick else 15)
    return rows, found


def main() -> int:
    """Run as asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", choices=(*GROUPS, *KINDS, *SECTIONS)
    )
    given = parser.parse_args()
    rows, found = run(given.only, given.quick)
    judged = bars(rows, found)
    if given.json:
        costs = [{**asdict(row), "ours": row.ours} for row in rows]
        print(json.dumps({"machine": machine(), "cost": costs, **found, "bars": judged}))
        return 0
    print(machine())
    print("\n".join([*show_costs(rows), *show_sections(found), *show_bars(judged)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
