"""The mutants: what is planted where, and which promise it breaks.

A mutant is a small textual change of one place (rarely of two or three that only matter
together) in a copy of ``src``. It is a bug that an implementation had, or one that a person
could make here in good faith; never a switch in the product. ``ROWS`` has all of them, in the
order of the documentation. A test applies each, so that none rots when the code moves on.
"""

from dataclasses import dataclass
from typing import Literal

Level = Literal["node", "cluster", "damage", "protect", "detect"]
LEVELS: tuple[Level, ...] = ("node", "cluster", "damage", "protect", "detect")
TESTED: frozenset[Level] = frozenset({"protect", "detect"})
"""Levels whose checks are test files, named by each row, and not seeds."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that stands once in ``file`` (below ``src/outlast``), and what takes its place."""

    file: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted bug.

    Args:
        name: Words joined by hyphens, unique.
        breaks: The promise that it breaks, in one line.
        section: Where the promise comes from: a paper's section, or a word of ours.
        edits: What is changed; nearly always one place.
        level: The lowest level of simulation at which it must be found: ``node`` (protocol and
            state, driven directly), ``cluster`` (real nodes, disks, network and clients),
            ``damage`` (the same with one disk that is lost or rots), or ``protect`` and
            ``detect`` (no simulation but ``tests``).
        black_box: Whether it must also be found by what clients and disks show alone: the
            history, acknowledged writes, digests and progress. For ``protect``: by the
            simulated fleet of protected clients. ``detect`` has no such judge.
        faults: Which faults should reveal it, in words.
        tests: For ``protect`` and ``detect``: the test files that must notice it, as patterns
            below ``tests``.
    """

    name: str
    breaks: str
    section: str
    edits: tuple[Edit, ...]
    level: Level = "node"
    black_box: bool = False
    faults: str = ""
    tests: tuple[str, ...] = ()


def mutant(
    name: str, file: str, before: str, after: str, *, breaks: str, section: str,
    level: Level = "node", black_box: bool = False, faults: str = "",
    more: tuple[Edit, ...] = (), tests: tuple[str, ...] = (),
) -> Mutant:  # fmt: skip
    """Return a mutant of one place, and of ``more`` if it takes several."""
    return Mutant(
        name=name, breaks=breaks, section=section, edits=(Edit(file, before, after), *more),
        level=level, black_box=black_box, faults=faults, tests=tests,
    )  # fmt: skip
