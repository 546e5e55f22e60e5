"""The table of verdicts: on the terminal, as data beside the table of mutants, and as a page."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.mutants.copy import ROOT
from tools.mutants.rows import GROUPS, ROWS
from tools.mutants.run import Verdict, shortened
from tools.mutants.table import Level, Mutant

CAUGHT = Path(__file__).resolve().parent / "caught.json"
PAGE = ROOT / "docs" / "explanation" / "mutants.md"

Caught = dict[str, dict[str, dict[str, Any]]]
"""By mutant, then by mode (``node``, ``cluster black-box``, …): facts of the verdict."""

HEAD = """\
# Mutants

A check that never failed may be one that cannot fail. So known bugs are planted, one at a time,
in a copy of the source, and the campaigns of the simulator have to find each of them within 500
seeds, or, for protected calls and detection, the tests of the part that was broken. Nothing in
the product can switch one on: a mutant is a small textual change that is applied to a copy and run
from there.

- **node**: protocol, log rules and state, driven directly, with the invariants of Raft compared
  after every step. Each seed is two lives of a cluster: a random one, and one in which the rare
  constellations of the papers (figure 8, a split vote with repeated answers, an election in the
  middle of a change of members, …) are set up on purpose.
- **cluster**: real nodes, clients and disks on a simulated network.
- **damage**: the same, and one disk is lost or rots.
- **protect**: the parts that protect calls, judged by their own unit and property tests; the
  number is how many tests ran until one failed. Here *black box* is a simulated fleet: services
  that fail, and clients behind whole policies with drawn settings, under faults of the network,
  crashes, pauses and cancellations. It looks at nothing but what both sides did: who ran when,
  under which key, with which outcome.
- **detect**: detectors, membership, health, watchdogs, supervision and pools, and the patience
  that Raft learns, judged in the same way by their own unit and property tests. There is no black
  box here.
- **black box**: the same runs judged by outcomes alone: the history of the clients, acknowledged
  writes, the digests of the replicas, and progress once everything is healed. A run in which the
  product itself notices that something is wrong, and stops, does not count here.

The numbers are of the recorded run: how many seeds it took, beginning with seed 0. Before a run
the product without a mutant has to pass the same seeds; if it fails, nothing is proven.

```sh
make mutants                                            # all, as recorded below
.venv/bin/python -m tools.mutants --level protect       # those of protected calls
.venv/bin/python -m tools.mutants --level detect        # those of detection and pools
.venv/bin/python -m tools.mutants vote-not-persisted    # one
.venv/bin/python -m tools.mutants --list                # what there is
```

<!-- Written by python -m tools.mutants --write-docs -->
"""


def mode(level: Level, *, black_box: bool) -> str:
    """Return the key of a mode.

    >>> mode("node", black_box=True)
    'node black-box'
    """
    return f"{level} black-box" if black_box else level


def load(path: Path = CAUGHT) -> Caught:
    """Return the verdicts recorded so far."""
    if not path.exists():
        return {}
    found: Caught = json.loads(path.read_text(encoding="utf-8"))
    return found


def record(caught: Caught, name: str, how: str, verdict: Verdict) -> None:
    """Put a verdict in its place."""
    caught.setdefault(name, {})[how] = {
        key: value for key, value in verdict.as_facts().items() if value not in (None, "", 0)
    }


def save(caught: Caught, path: Path = CAUGHT) -> None:
    """Write the verdicts of the mutants that there are, in their order."""
    kept = {row.name: dict(sorted(caught[row.name].items())) for row in ROWS if row.name in caught}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page(caught: Caught) -> str:
    """Return the page for ``caught``."""
    parts = [HEAD]
    for title, rows in GROUPS.items():
        parts.append(
            f"\n## {title}\n\n| mutant | breaks | caught by | seeds | black box |\n"
            "| --- | --- | --- | --- | --- |\n"
        )
        parts += [_row(row, caught.get(row.name, {})) for row in rows]
    parts.append(f"\n{_summary(caught)}\n")
    return "".join(parts)


def _row(row: Mutant, found: dict[str, dict[str, Any]]) -> str:
    blind = found.get(mode(row.level, black_box=True)) or _best(found, black_box=True)
    seen = found.get(row.level) or _best(found, black_box=False)
    by = seen or blind
    cells = (
        f"`{row.name}`", f"{row.breaks} ({row.section})", _cell(by.get("by", "")) if by else "",
        f"{_seeds(seen)}, {row.level}" if seen else f"{row.level}, not recorded",
        _seeds(blind) or ("not recorded" if row.black_box else ""),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def _best(found: dict[str, dict[str, Any]], *, black_box: bool) -> dict[str, Any] | None:
    for how, facts in sorted(found.items()):
        if how.endswith("black-box") == black_box and facts["status"] == "caught":
            return facts
    return None


def _seeds(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return ""
    if facts["status"] == "caught":
        return str(facts["seeds"])
    return f"{facts['status']} ({facts.get('seeds', 0)})"


def _cell(text: str) -> str:
    """Text that cannot end its table cell or begin markup."""
    return f"``{shortened(text, 80).replace('`', chr(39)).replace('|', '/')}``" if text else ""


def _summary(caught: Caught) -> str:
    seen = [row for row in ROWS if _best(caught.get(row.name, {}), black_box=False)]
    blind = [row for row in ROWS if _best(caught.get(row.name, {}), black_box=True)]
    return (
        f"{len(ROWS)} mutants; {len(seen)} caught with all checks, {len(blind)} by outcomes alone."
    )


def text_table(rows: Iterable[tuple[Mutant, str, Verdict]]) -> str:
    """Return the table that the terminal shows."""
    lines = [f"{'mutant':36} {'level':18} {'seeds':>6} {'s':>6}  caught by"]
    for row, how, verdict in rows:
        by = verdict.by if verdict.status == "caught" else f"{verdict.status.upper()} {verdict.by}"
        lines.append(f"{row.name:36} {how:18} {verdict.seeds:6} {verdict.seconds:6.1f}  {by}")
    return "\n".join(lines)
