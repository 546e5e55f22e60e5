"""``python -m tools.mutants [NAME…]``: plant bugs, run campaigns or tests, print what caught each.

Exit code 0: all caught, and the product itself passes. 1: one survived, or the product fails.
2: a name is unknown, or a mutant does not fit the source any more.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.mutants import report
from tools.mutants.copy import ROOT, StaleMutantError, make_copy
from tools.mutants.rows import ROWS
from tools.mutants.run import Campaign, Verdict, judge_all, judge_product
from tools.mutants.table import LEVELS, Level, Mutant


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    names = {row.name: row for row in ROWS}
    unknown = [name for name in options.names if name not in names]
    if unknown:
        sys.stderr.write(f"no mutant {unknown[0]!r}; --list prints what there is\n")
        return 2
    rows = [names[name] for name in options.names]
    if not rows:
        rows = [row for row in ROWS if options.level in {None, row.level}]
    if options.list:
        for row in rows:
            sys.stdout.write(f"{row.name:38} {row.level:8} {row.breaks}\n")
        return 0
    try:
        # One moment of the tree for all: what is proven of the product holds for each copy.
        with tempfile.TemporaryDirectory(prefix="mutant-base-") as folder:
            options.root = make_copy(Path(folder).resolve(), root=options.tree)
            return _judge(rows, options)
    except StaleMutantError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants; all by default")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument(
        "--level", choices=LEVELS, help="only those of this level; with NAMEs, at this level"
    )
    parser.add_argument(
        "--mode", choices=("all", "black-box", "both"), default="both",
        help="all checks, outcomes alone, or one after the other (both)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=500, help="at most so many each (500)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--workers", type=int, default=2, help="campaigns at once (2)")
    parser.add_argument("--seconds", type=float, default=900.0, help="at most for one (900)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to copy; this one")
    parser.add_argument("--unproven", action="store_true", help="do not run the product first")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write-docs", action="store_true", help="record, and write the page")
    return parser


def _judge(rows: list[Mutant], options: argparse.Namespace) -> int:
    results: list[tuple[Mutant, str, Verdict]] = []
    failing: list[str] = []
    for level in LEVELS:
        own = [row for row in rows if (options.level or row.level) == level]
        for black_box in (False, True):
            if options.mode not in {"both", "black-box" if black_box else "all"}:
                continue
            if black_box and level == "detect":
                continue  # its tests are all the judges that it has
            wanted = [row for row in own if row.black_box or not black_box or options.names]
            if wanted:
                failing += _judge_mode(wanted, level, black_box, options, results)
    survivors = [
        (row, how) for row, how, verdict in results
        if verdict.status != "caught" and (row.black_box or "black-box" not in how)
    ]  # fmt: skip
    _tell(results, failing, options)
    if options.write_docs:
        caught = report.load()
        for row, how, verdict in results:
            report.record(caught, row.name, how, verdict)
        report.save(caught)
        report.PAGE.write_text(report.page(caught), encoding="utf-8")
    return 1 if survivors or failing else 0


def _judge_mode(
    rows: list[Mutant], level: Level, black_box: bool, options: argparse.Namespace,
    results: list[tuple[Mutant, str, Verdict]],
) -> list[str]:  # fmt: skip
    how = report.mode(level, black_box=black_box)
    campaign = Campaign(
        level=level, seeds=options.seeds, first=options.first, black_box=black_box,
        seconds_max=options.seconds,
        tests=tuple(sorted({pattern for row in rows for pattern in row.tests})),
    )  # fmt: skip
    if not options.unproven:
        amount = f"{campaign.seeds} seeds" if campaign.seeded else "all its tests"
        sys.stderr.write(f"{how}: without a mutant, {amount}\n")
        for verdict in judge_product(campaign, workers=options.workers, root=options.root):
            if verdict.status != "survived" or verdict.refused:
                where = verdict.status if verdict.seed is None else f"seed {verdict.seed}"
                failing = f"{how}: without a mutant, {where}: {verdict.by}"
                sys.stderr.write(f"{failing}\n")
                return [failing]

    def told(row: Mutant, verdict: Verdict) -> None:
        sys.stderr.write(f"{how}: {row.name}: {verdict.status}, {verdict.seeds}, {verdict.by}\n")

    found = judge_all(rows, campaign, workers=options.workers, root=options.root, told=told)
    results += [(row, how, verdict) for row, verdict in found]
    return []


def _tell(
    results: list[tuple[Mutant, str, Verdict]], failing: list[str], options: argparse.Namespace
) -> None:
    if options.json:
        facts = {
            "schema": 1,
            "failing": failing,
            "mutants": [
                {"name": row.name, "mode": how, **verdict.as_facts()}
                for row, how, verdict in results
            ],
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    sys.stdout.write(report.text_table(results) + "\n")
    for line in failing:
        sys.stdout.write(f"nothing is proven: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
