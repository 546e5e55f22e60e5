"""Making a counter-example small without making it untrue.

Leaving a write out of an invalid history may make it *more* wrong, so that would prove nothing.
Instead an operation is made optional: it may still happen, inside its interval, or be left out.
If no order exists even so, the others alone show the fault. Reads can simply be left out, and so
can everything after the return at which the search got stuck.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outlast.check.core.model import Model
from outlast.check.core.operation import Operation
from outlast.check.core.search import Outcome, Over

_CONFIGS = 20_000  # looked at for one attempt, before it counts as failed
_SHOWN_MAX = 60  # operations shown when nothing smaller could be proven

Run = Callable[[Model, Any, Sequence[Operation], Sequence[Operation], Over], Outcome]


@dataclass(frozen=True, slots=True)
class Smaller:
    """A counter-example: its operations, a longest order among them, and why it ends."""

    operations: tuple[Operation, ...]
    best: tuple[tuple[Operation, str], ...]
    reason: str


def shrink(
    model: Model,
    key: Any,
    operations: Sequence[Operation],
    stuck: Operation,
    *,
    in_time: Callable[[], bool],
    run: Run,
) -> Smaller:
    """Return few of ``operations``, among them ``stuck``, that have no order.

    Args:
        model: The model, prepared.
        key: The object.
        operations: An invalid history that ends with the return of ``stuck``.
        stuck: The operation that found no place.
        in_time: Tells whether there is time for another attempt.
        run: The search.
    """
    end = stuck.end or 0
    cut = [_opened(op, end) for op in operations]
    last = cut[[op.index for op in cut].index(stuck.index)]
    attempt = _Attempt(model, key, cut, in_time, run)
    kept = _window(attempt, cut, last)
    if kept is None:
        kept = sorted(cut, key=lambda op: op.end or end)[-_SHOWN_MAX:]
    else:
        kept = _one_by_one(attempt, kept, last)
    return _told(model, key, operations, kept=kept, stuck=stuck, run=run)


def _opened(op: Operation, end: int) -> Operation:
    """Return ``op`` as seen at ``end``: what had not returned by then may or may not happen."""
    if op.end is None or op.end <= end:
        return op
    return replace(op, kind="info", end=None, output=None, result=None)


class _Attempt:
    """Asks whether some operations have no order, all others being optional."""

    def __init__(
        self,
        model: Model,
        key: Any,
        cut: Sequence[Operation],
        in_time: Callable[[], bool],
        run: Run,
    ) -> None:
        self.model = model
        self._key = key
        self._cut = cut
        self._in_time = in_time
        self._run = run

    def invalid(self, kept: Sequence[Operation]) -> bool:
        """Tell whether ``kept`` has surely no order."""
        chosen = frozenset(kept)
        wanted, optional = [], []
        for op in self._cut:
            if op in chosen:
                wanted.append(op)
            elif not self.model.observes(op):
                wanted.append(op)
                if op.end is not None:
                    optional.append(op)
        return (
            self._run(self.model, self._key, wanted, optional, _few(self._in_time)).verdict
            == "invalid"
        )


def _window(
    attempt: _Attempt, cut: Sequence[Operation], stuck: Operation
) -> list[Operation] | None:
    """Return the fewest last operations that are invalid, doubling their number each time."""
    by_end = [op for op in sorted(cut, key=lambda op: op.end or 0) if op.end is not None]
    count = 1
    while True:
        kept = by_end[-count:]
        if stuck in kept and attempt.invalid(kept):
            return kept
        if count >= len(by_end):
            return None
        count *= 2


def _one_by_one(attempt: _Attempt, kept: list[Operation], stuck: Operation) -> list[Operation]:
    """Leave out what is not needed: halves first, then single operations."""
    size = len(kept) // 2
    while size:
        place = 0
        while place < len(kept):
            fewer = [*kept[:place], *kept[place + size :]]
            if stuck in fewer and attempt.invalid(fewer):
                kept = fewer
            else:
                place += size
        size //= 2
    return kept


def _told(
    model: Model,
    key: Any,
    operations: Sequence[Operation],
    *,
    kept: Sequence[Operation],
    stuck: Operation,
    run: Run,
) -> Smaller:
    """Return the operations as they were recorded, with kin of the stuck one, and an order."""
    numbers = {op.index for op in kept} | {op.index for op in model.kin(stuck, operations)}
    shown = [op for op in operations if op.index in numbers]
    outcome = run(model, key, shown, (), _few())
    best, state = _walked(model, key, outcome)
    last = outcome.stuck if outcome.verdict == "invalid" and outcome.stuck else stuck
    reason = model.explain(state, last, shown, operations)
    return Smaller(tuple(shown), tuple(best[-_SHOWN_MAX:]), reason)


def longest(
    model: Model, key: Any, others: Sequence[Operation], run: Run
) -> tuple[tuple[Operation, str], ...]:
    """Return a longest order of ``others``, for a finding that came without a search."""
    best, _ = _walked(model, key, run(model, key, others, (), _few()))
    return tuple(best[-_SHOWN_MAX:])


def _walked(model: Model, key: Any, outcome: Outcome) -> tuple[list[tuple[Operation, str]], Any]:
    """Return the order that was found with the state after each step, and the last state."""
    best: list[tuple[Operation, str]] = []
    state = model.init(key)
    for op in outcome.order:
        after = model.step(state, op)
        if not after:
            break
        state = after[0]
        best.append((op, model.describe_state(state)))
    return best, state


def _few(in_time: Callable[[], bool] = lambda: True) -> Over:
    """Return the limit of one attempt."""
    looks = 0

    def over(_: int) -> str:
        nonlocal looks
        looks += 1
        return "" if looks * 256 < _CONFIGS and in_time() else "enough"

    return over
