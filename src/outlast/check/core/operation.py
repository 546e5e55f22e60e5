"""One operation of a history: what a client asked, what it was told, and when."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation paired with its completion.

    ``start`` and ``end`` are positions of events in the history (line numbers when it came from
    a file); they alone order operations. One that is ``info`` may have happened, at any instant
    after ``start``, or never; it has no ``end`` and is concurrent with everything after.

    Attributes:
        index: Position among the operations of the history, from 0, by invocation.
        process: The client that asked.
        f: Name of the function, such as ``read``.
        key: The object it was done to; ``None`` when the history has one object only.
        value: Argument, as invoked.
        output: Value that came with ``ok``; ``None`` for ``info``. ``False`` for a ``cas`` whose
            comparison was seen to fail, ``True`` for one that swapped.
        kind: ``ok`` or ``info``. What failed surely had no effect and is not kept.
        start: Position of the invocation.
        end: Position of the completion, ``None`` for ``info``.
        start_ns: Time of the invocation in nanoseconds, informative.
        end_ns: Time of the completion in nanoseconds, ``None`` when unknown.
        result: What came as ``result`` with ``ok``; ``None`` when nothing did.
    """

    index: int
    process: int
    f: str
    key: Any
    value: Any
    output: Any
    kind: Literal["ok", "info"]
    start: int
    end: int | None
    start_ns: int = 0
    end_ns: int | None = None
    result: Any = None

    def __hash__(self) -> int:
        """Hash by position: values may be lists."""
        return self.index
