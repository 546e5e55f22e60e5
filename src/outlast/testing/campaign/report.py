"""What a campaign found, as text for people and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from outlast.testing.campaign.model import Difference, Explanation, SeedResult

Verdict = Literal["passed", "failed", "void"]
_NOTES_MAX = 20
_STEPS_MAX = 20
_SEEDS_MAX = 20
_HOUR = 3600.0


@dataclass(slots=True)
class Tally:
    """How often something happened, and in how many seeds.

    Attributes:
        times: In all.
        felt: How often with evidence; faults only.
        seeds: In how many seeds at least once.
        missed: In how many seeds it was said that it has not happened.
    """

    times: int = 0
    felt: int = 0
    seeds: int = 0
    missed: int = 0


@dataclass(slots=True)
class Report:
    """What the campaign of one test found; ``str(report)`` is the command line's text.

    Attributes:
        name: Of what ran.
        command: The command line that runs it, without options about seeds.
        only: Fault steps that were injected, if not all.
        first: The first seed.
        planned: How many seeds were to run; ``None``: until a failure, or until time is up.
        seeds: How many ran.
        failures: Those that failed, by seed.
        told: Of one failure of each kind, the smallest seed's, everything there is to say.
        faults: By name, what was injected.
        sometimes: By name, what should happen in some runs.
        checked: How many seeds were run again to see whether runs repeat.
        elsewhere: How many of them in other processes too, under other hash seeds.
        difference: Two runs of one seed that were not the same, if any were found.
        notes: What the program did outside the simulation, each once.
        voids: Why nothing is proven, if that is so.
    """

    name: str
    command: str
    only: tuple[int, ...] | None = None
    first: int = 0
    planned: int | None = None
    seeds: int = 0
    seconds: float = 0.0
    virtual_seconds: float = 0.0
    steps: int = 0
    failures: list[SeedResult] = field(default_factory=list)
    told: list[Explanation] = field(default_factory=list)
    faults: dict[str, Tally] = field(default_factory=dict)
    sometimes: dict[str, Tally] = field(default_factory=dict)
    checked: int = 0
    elsewhere: int = 0
    difference: Difference | None = None
    notes: list[str] = field(default_factory=list)
    voids: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """``failed``, else ``void`` if nothing is proven, else ``passed``."""
        if self.failures or self.difference is not None:
            return "failed"
        return "void" if self.voids else "passed"

    @property
    def escape(self) -> SeedResult | None:
        """The first seed whose program asked for what cannot be simulated."""
        return next((result for result in self.failures if result.escape), None)

    def add(self, result: SeedResult) -> None:
        """Count one seed."""
        self.seeds += 1
        self.virtual_seconds += result.virtual_seconds
        self.steps += result.steps
        for name, times in result.injected.items():
            tally = self.faults.setdefault(name, Tally())
            tally.times += times
            tally.felt += result.felt.get(name, 0)
            tally.seeds += 1
        for name, times in result.sometimes.items():
            tally = self.sometimes.setdefault(name, Tally())
            tally.times += times
            tally.seeds += bool(times)
            tally.missed += not times
        if len(self.notes) < _NOTES_MAX:
            self.notes += [note for note in result.notes if note not in self.notes]
        if not result.passed:
            self.failures.append(result)
            self.failures.sort(key=lambda failed: failed.seed)

    def replay(self, seed: int, steps: Sequence[int] | None = None) -> str:
        """Return the command line that runs ``seed`` again, with fewer fault steps if given."""
        chosen = self.only if steps is None else tuple(steps)
        only = "" if chosen is None else f" --only {','.join(map(str, chosen)) or 'none'}"
        return f"{self.command} --seed {seed}{only}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "first": self.first,
            "planned": self.planned,
            "seeds": self.seeds,
            "seconds": round(self.seconds, 3),
            "virtual_seconds": round(self.virtual_seconds, 6),
            "steps": self.steps,
            "failures": [self._failure(result) for result in self.failures],
            "faults": {name: _tally(tally, "felt") for name, tally in self.faults.items()},
            "sometimes": {name: _tally(tally) for name, tally in self.sometimes.items()},
            "repeatable": {
                "seeds": self.checked,
                "elsewhere": self.elsewhere,
                "difference": None if self.difference is None else self.difference.as_json(),
            },
            "notes": self.notes,
            "void": self.voids,
        }

    def _failure(self, result: SeedResult) -> dict[str, Any]:
        told = next((told for told in self.told if told.seed == result.seed), None)
        return {
            "seed": result.seed,
            "error": result.error,
            "kind": result.kind,
            "lost": result.lost,
            "stack": result.stack,
            "replay": self.replay(result.seed),
            "told": None if told is None else told.as_json(),
        }

    def __str__(self) -> str:
        """Return the text of the command line."""
        return "\n".join(
            part for part in ("\n".join(self._failed()), self._tables(), self._end()) if part
        )

    # --- failures ------------------------------------------------------------------------------

    def _failed(self) -> list[str]:
        """Return one text for each kind of failure."""
        parts = []
        for told in self.told:
            parts.append("\n".join(self._told(told)) + "\n")
        explained = {told.seed for told in self.told}
        rest = [result for result in self.failures if result.seed not in explained]
        if rest:
            lines = ["also failed:" if explained else "failed:"]
            for result in rest[:_SEEDS_MAX]:
                lines += [f"  seed {result.seed}: {result.error}"]
                lines += [f"    {line}" for line in result.stack]
            if len(rest) > _SEEDS_MAX:
                lines.append(f"  and {len(rest) - _SEEDS_MAX} more")
            if not explained:
                lines += ["", f"again:     {self.replay(rest[0].seed)}"]
            parts.append("\n".join(lines) + "\n")
        if self.difference is not None:
            parts.append("\n".join(different(self.difference)) + "\n")
        return parts

    def _told(self, told: Explanation) -> list[str]:
        lines = [f"failed: {self.name}, seed {told.seed}: {told.error}", ""]
        lines += [f"  {line}" for line in told.lines]
        if not told.came_back:
            return [*lines, "", f"again:     {self.replay(told.seed)}"]
        lines += ["", f"again:     {self.replay(told.seed)}", f"shortened: {_shortened(told)}"]
        lines += [f"  {step.text}" for step in told.shortened[:_STEPS_MAX]]
        if len(told.shortened) > _STEPS_MAX:
            lines.append(f"  and {len(told.shortened) - _STEPS_MAX} more")
        planned = [step for step in told.faults if step.index >= 0]
        if len(told.kept) < len(planned):
            lines.append(f"  {self.replay(told.seed, told.kept)}")
        if told.verdict:
            lines += ["", "the history:", *(f"  {line}" for line in told.verdict.splitlines())]
        if told.printed:
            lines += ["", "printed last:", *(f"  {line}" for line in told.printed)]
        if told.trace:
            count = len(told.trace)
            lines += ["", f"trace, the last {count} lines (virtual seconds, host, event):"]
            lines += [f"  {line}" for line in told.trace]
        return lines

    # --- counts --------------------------------------------------------------------------------

    def _tables(self) -> str:
        parts = []
        if self.faults:
            rows = [
                [name, tally.times, tally.felt, tally.seeds, self._share(tally)]
                for name, tally in sorted(self.faults.items())
            ]
            parts.append(_columns(["fault", "times", "felt", "seeds", "share"], rows))
        if self.sometimes:
            rows = [
                [name, tally.times, tally.seeds, self._share(tally)]
                for name, tally in sorted(self.sometimes.items())
            ]
            parts.append(_columns(["sometimes", "times", "seeds", "share"], rows))
        if self.notes:
            parts.append("\n".join(["outside the simulation:", *(f"  {n}" for n in self.notes)]))
        return "".join(f"{part}\n\n" for part in parts).rstrip("\n") + ("\n" if parts else "")

    def _share(self, tally: Tally) -> str:
        return f"{tally.seeds / self.seeds:.0%}" if self.seeds else "-"

    def _end(self) -> str:
        lines = [
            f"{_counted(self.seeds, 'seed')} in {self.seconds:.1f} s ({speed(self)});"
            f" {self.seeds - len(self.failures):,} passed, {len(self.failures):,} failed"
        ]
        if self.difference is None and self.checked:
            how = f", {self.elsewhere:,} also under two hash seeds" if self.elsewhere else ""
            lines.append(
                f"repeatable: {_counted(self.checked, 'seed')} ran twice{how}: equal digests"
            )
        lines.append(self.sentence())
        return "\n".join(lines)

    def sentence(self) -> str:
        """Return the verdict as one sentence that starts with its word."""
        if self.verdict == "void":
            return f"void: {self.name}: {'; '.join(self.voids)}"
        if self.verdict == "passed":
            return f"passed: {self.name}, {_counted(self.seeds, 'seed')} from {self.first} on"
        if not self.failures and self.difference is not None:
            return f"failed: {self.name} is not repeatable: seed {self.difference.seed}"
        found = self.failures[0]
        return f"failed: {self.name}, seed {found.seed}: {found.error}"


def speed(report: Report) -> str:
    """Return seeds per second, virtual hours, and virtual seconds per real one."""
    real = max(report.seconds, 1e-9)
    return (
        f"{report.seeds / real:,.1f}/s, {report.virtual_seconds / _HOUR:,.2f} virtual hours,"
        f" {report.virtual_seconds / real:,.0f} virtual seconds per second"
    )


def different(difference: Difference) -> list[str]:
    """Return two runs that were not the same as lines of text."""
    lines = [f"not repeatable: seed {difference.seed}", f"  {difference.how}"]
    if difference.line:
        lines += [
            f"  the traces differ from line {difference.line} on:",
            f"  - {difference.first}",
            f"  + {difference.second}",
        ]
    else:
        lines.append("  the traces are equal as far as they were written")
    if difference.readers:
        lines += ["  what may read the machine behind the simulation's back:"]
        lines += [f"    {reader}" for reader in difference.readers]
    else:
        lines.append(
            "  look for state kept in a module between runs, iteration over a set, id() and hash()"
        )
    return lines


def _shortened(told: Explanation) -> str:
    planned = sum(step.index >= 0 for step in told.faults)
    if not planned:
        return "no fault was injected, so there is nothing to leave out"
    if not told.kept:
        return f"it fails without any of the {planned} fault steps ({_counted(told.runs, 'run')})"
    enough = "is" if len(told.kept) == 1 else "are"
    runs = _counted(told.runs, "run") + ("" if told.minimal else "; stopped before all was tried")
    text = f"{len(told.kept)} of {planned} fault steps {enough} enough ({runs})"
    if len(told.kept) == planned:
        needed = f"all {planned} fault steps are" if planned > 1 else "the only fault step is"
        text = f"{needed} needed ({runs})"
    return text


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _tally(tally: Tally, *more: str) -> Mapping[str, int]:
    return {name: getattr(tally, name) for name in ("times", "seeds", *more)}


def _columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table of aligned columns, the first to the left, the others to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join((first, *rest))

    return "\n".join(line(row) for row in (header, *cells))
