"""What a judge says: a verdict, and for an invalid history the smallest window that shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from outlast.check.core.operation import Operation
from outlast.check.core.text import text as draw_text
from outlast.check.core.values import show

CheckVerdict = Literal["valid", "invalid", "unknown"]
"""Of a history: an order exists; none exists; a limit was reached before either was shown."""

EXIT_CODES: Mapping[CheckVerdict, int] = {"valid": 0, "invalid": 1, "unknown": 3}
"""Exit code of ``outlast check`` for each verdict; 2 is bad input."""


def describe(op: Operation) -> str:
    """Return an operation as a call with its answer, such as ``read(x) -> 3``."""
    inside = [show(part, 40) for part in (op.key, op.value) if part is not None]
    call = f"{op.f}({', '.join(inside)})"
    if op.kind == "info":
        return f"{call} -> ?"
    if op.f == "cas":
        return f"{call} -> {'swapped' if op.output is not False else 'not equal'}"
    if op.result is not None:
        return f"{call} -> {show(op.result, 40)}"
    if op.output is None and op.value is not None:
        return call
    if op.output is not None and op.output == op.value:
        return call
    return f"{call} -> {show(op.output, 40)}"


@dataclass(frozen=True, slots=True)
class CounterExample:
    """The smallest set of operations found that no order explains.

    Attributes:
        model: Name of the model that refuses them.
        key: The object they belong to; ``None`` when the history has one object only.
        operations: The operations, by invocation.
        stuck: The one that found no place, when one can be named.
        reason: One sentence that says why there is no order.
        best: A longest order that was possible, each operation with the state after it.
    """

    model: str
    key: Any
    operations: tuple[Operation, ...]
    stuck: Operation | None
    reason: str
    best: tuple[tuple[Operation, str], ...] = ()

    def text(self) -> str:
        """Return the operations as lanes for a terminal, the longest order, and why."""
        return draw_text(self)


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one history.

    Attributes:
        verdict: ``valid``, ``invalid`` or ``unknown`` (a limit was reached).
        model: Name of the model.
        counts: Operations by what their client was told: ``ok``, ``fail``, ``info``.
        parts: Objects judged apart, usually keys.
        how: What was required and how it was judged.
        why: One line: what is wrong, or which limit was reached and what would help.
        seconds: Time taken.
        counterexample: For an invalid history, the smallest window found.
    """

    verdict: CheckVerdict
    model: str
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: int = 0
    how: str = ""
    why: str = ""
    seconds: float = 0.0
    counterexample: CounterExample | None = None

    @property
    def valid(self) -> bool:
        """Whether an order was found that explains everything. ``unknown`` is not valid."""
        return self.verdict == "valid"

    @property
    def exit_code(self) -> int:
        """Exit code of ``outlast check``: 0 valid, 1 invalid, 3 unknown."""
        return EXIT_CODES[self.verdict]

    def __str__(self) -> str:
        """Return the verdict for people, with the counter-example when there is one."""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        parts = f", {self.parts} keys" if self.parts > 1 else ""
        lines = [
            f"{self.verdict}: {self.model} ({self.how}); {counts}{parts}; {self.seconds:.2f} s"
        ]
        if self.counterexample is not None:
            lines.append(self.counterexample.text())
        elif self.why:
            lines.append(self.why)
        return "\n".join(lines)
