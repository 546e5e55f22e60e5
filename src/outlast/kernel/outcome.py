"""Words that breaking, judging and drilling share: fault, evidence, history event, verdict."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["survived", "failed", "void", "unknown"]
"""Of a drill: held; did not hold; no evidence that the fault was injected; undecided."""

HistoryType = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name: ``KIND[:VARIANT][@TARGET]``, such as ``crash@leader``."""

    kind: str
    variant: str = ""
    target: str = ""

    @classmethod
    def parse(cls, name: str) -> "Fault":
        """Read a fault's name.

        >>> Fault.parse("partition:halves@leader")
        Fault(kind='partition', variant='halves', target='leader')
        """
        rest, _, target = name.partition("@")
        kind, _, variant = rest.partition(":")
        return cls(kind, variant, target)

    def __str__(self) -> str:
        """Return the name that :meth:`parse` reads."""
        variant = f":{self.variant}" if self.variant else ""
        target = f"@{self.target}" if self.target else ""
        return f"{self.kind}{variant}{target}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows that a fault really happened, such as ``pid gone`` with its number."""

    what: str
    at_ns: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of a history, in Jepsen's vocabulary. ``time`` is in nanoseconds."""

    process: int | str
    type: HistoryType
    f: str
    value: Any = None
    key: Any = None
    time: int = 0
    result: Any = None
