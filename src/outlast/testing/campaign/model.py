"""Words of a campaign: what is run, what one seed came to, what is told of a failure.

Everything that passes between processes is plain data with ``as_json`` and a constructor that
takes the same fields back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

Trace = Callable[[int, str, str], None]
"""Called with each event of a run: virtual nanoseconds, host, text."""


class Outcome(Protocol):
    """What one run of a seed came to, as :mod:`outlast.sim` gives it."""

    @property
    def error(self) -> BaseException | None:
        """Why it failed, ``None`` if it passed."""
        ...

    @property
    def digest(self) -> int | str:
        """Of all that happened: equal in two runs of a seed."""
        ...

    @property
    def steps(self) -> int:
        """How many callbacks ran."""
        ...

    @property
    def virtual_seconds(self) -> float:
        """How long it took in virtual time."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What fails a run whatever the test says."""
        ...

    @property
    def faults(self) -> Sequence[Any]:
        """What was injected, in order.

        Each has ``index``, that of its step in the schedule (negative: by the test itself),
        ``fault``, its name, ``felt``, whether there is evidence, and a text for people.
        """
        ...

    @property
    def sometimes(self) -> Mapping[str, int]:
        """What should happen in some runs, and how often it did."""
        ...

    @property
    def notes(self) -> Sequence[Any]:
        """What the program did outside the simulation, each with a text for people."""
        ...


class Runnable(Protocol):
    """Something that runs under any seed: a test made by ``@sim.test``, or a drill.

    Attributes:
        name: Short, unique among those that are run together.
        place: How people name it on a command line.
        command: The command line that runs it, without options about seeds.
        faults: Names of the faults that are asked for; a campaign in which one is never
            injected is void.
        sometimes: What must happen in some seeds, beside what a run says itself has not happened.
    """

    name: str
    place: str
    command: str
    faults: Sequence[str]
    sometimes: Sequence[str]

    def run(
        self, seed: int, *, only: frozenset[int] | None = None, trace: Trace | None = None
    ) -> Outcome:
        """Run ``seed``, with the fault steps ``only`` if they are given, and say what came of it.

        Errors of the program are in the outcome; what it raises is about how it was called.
        """
        ...


@dataclass(frozen=True, slots=True)
class FaultStep:
    """A fault that was injected.

    Attributes:
        index: Of the step in the seed's schedule; ``--only`` takes it. Negative if the test
            itself injected it.
        name: Of the fault.
        felt: Whether there is evidence that anybody ran into it.
        text: When, on whom, how long, with which evidence.
    """

    index: int
    name: str
    felt: bool
    text: str


@dataclass(slots=True)
class SeedResult:
    """What one seed came to.

    Attributes:
        seed: Which.
        error: One line, empty if it passed.
        kind: Of the error: two runs that fail in the same way have the same.
        stack: Of a hang or a dead process: where it was.
        escape: Whether the program asked for something that cannot be simulated.
        lost: Whether the run did not end: it hung, or its process died.
        digest: Of the run; ``again`` is that of a second run in the same process, if there was
            one.
        injected: How many faults of each name, and ``felt`` how many left evidence.
        sometimes: What should happen in some runs.
        notes: What the program did outside the simulation.
    """

    seed: int
    error: str = ""
    kind: str = ""
    stack: list[str] = field(default_factory=list)
    escape: bool = False
    lost: bool = False
    digest: str = ""
    again: str = ""
    steps: int = 0
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    injected: dict[str, int] = field(default_factory=dict)
    felt: dict[str, int] = field(default_factory=dict)
    sometimes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.error

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(slots=True)
class Explanation:
    """A failure told in full.

    Attributes:
        error: One line.
        lines: Where, in the program's own files, and what is known of it there.
        faults: What was injected in the whole run.
        kept: Indices of those that are enough to fail in the same way.
        shortened: What was injected in the run with these alone.
        runs: How many runs it took to find out.
        minimal: Whether none of ``kept`` can be left out.
        trace: The last lines before the problem, of the shortened run.
        printed: What the program printed last.
        verdict: What the checker of a history said, if the error carries it.
        came_back: Whether a second run failed in the same way.
    """

    seed: int
    error: str
    lines: list[str] = field(default_factory=list)
    faults: list[FaultStep] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    shortened: list[FaultStep] = field(default_factory=list)
    runs: int = 0
    minimal: bool = False
    trace: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    verdict: str = ""
    came_back: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Explanation":
        """Return what :meth:`as_json` gave."""
        steps = {
            name: [FaultStep(**step) for step in data[name]] for name in ("faults", "shortened")
        }
        return cls(**{**data, **steps})


@dataclass(slots=True)
class Difference:
    """Two runs of one seed that were not the same.

    Attributes:
        seed: Which.
        how: What the two runs were.
        line: Number of the first trace line that differs; 0 when the traces were equal.
        first: That line in the one run, and ``second`` in the other.
        readers: Places of the program that read the real clock, randomness or files.
    """

    seed: int
    how: str
    line: int = 0
    first: str = ""
    second: str = ""
    readers: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)
