"""Shorten a failing schedule: which of its steps are enough?

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input",
2002), by questions and answers: :meth:`Shrinker.ask` gives a set of steps to run with,
:meth:`Shrinker.tell` takes whether that run failed in the same way. Whoever asks may stop at
any time; what is known by then stands in :attr:`Shrinker.kept`.

Differs from the paper: nothing at all is asked about first, since a test that fails without any
fault is common; then halves, quarters and so on, each part alone before the rest without it.
When it ends by itself, no step of what is kept can be left out alone.
"""

from collections.abc import Generator, Sequence
from itertools import pairwise

Steps = tuple[int, ...]


class Shrinker:
    """Finds a small subset of ``steps`` with which a run still fails.

    Args:
        steps: Of the run that failed, each once.
        runs_max: How many questions may be asked. At least 0.

    Attributes:
        kept: The smallest set known to fail.
        runs: How many questions were answered.
        minimal: Whether no single step of what is kept can be left out.

    >>> shrinker = Shrinker(range(8))
    >>> while (steps := shrinker.ask()) is not None:
    ...     shrinker.tell(3 in steps and 6 in steps)
    >>> shrinker.kept, shrinker.minimal
    ((3, 6), True)
    """

    def __init__(self, steps: Sequence[int], *, runs_max: int = 200) -> None:
        self.kept: Steps = tuple(sorted(set(steps)))
        self.runs = 0
        self.minimal = False
        self._runs_max = runs_max
        self._known: dict[Steps, bool] = {self.kept: True}
        self._questions = self._search()
        self._asked: Steps | None = None
        self._answer: bool | None = None

    def ask(self) -> Steps | None:
        """Return the steps to run with next, ``None`` when there is nothing to ask any more."""
        if self._asked is not None:
            return self._asked
        if self.minimal or self.runs >= self._runs_max:
            return None
        try:
            if self._answer is None:
                self._asked = next(self._questions)
            else:
                self._asked = self._questions.send(self._answer)
        except StopIteration:
            self.minimal = True
        return self._asked

    def tell(self, failed: bool) -> None:
        """Say whether a run with the steps that were asked for failed in the same way."""
        if self._asked is None:
            return
        self.runs += 1
        self._known[self._asked] = failed
        if failed:
            self.kept = self._asked
        self._asked, self._answer = None, failed

    def _search(self) -> Generator[Steps, bool, None]:
        """Ask until no part, and no rest without a part, fails; then with smaller parts."""
        if not self.kept or (yield from self._fails(())):
            return
        parts = 2
        while len(self.kept) > 1:
            parts = min(parts, len(self.kept))
            pieces = _split(self.kept, parts)
            for number, candidate in enumerate(_candidates(self.kept, pieces)):
                if (yield from self._fails(candidate)):
                    parts = 2 if number < len(pieces) else max(parts - 1, 2)
                    break
            else:
                if parts == len(self.kept):
                    return
                parts *= 2

    def _fails(self, steps: Steps) -> Generator[Steps, bool, bool]:
        known = self._known.get(steps)
        if known is None:
            return (yield steps)
        return known


def _split(steps: Steps, parts: int) -> list[Steps]:
    """Cut ``steps`` into ``parts`` of about one size."""
    ends = [len(steps) * number // parts for number in range(parts + 1)]
    return [steps[low:high] for low, high in pairwise(ends)]


def _candidates(steps: Steps, pieces: list[Steps]) -> list[Steps]:
    """Return each piece, then everything but each piece; with two pieces that is the same."""
    if len(pieces) == 2:
        return pieces
    rests = []
    for piece in pieces:
        gone = frozenset(piece)
        rests.append(tuple(step for step in steps if step not in gone))
    return [*pieces, *rests]
