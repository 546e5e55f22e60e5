"""A deadline is an instant on the monotonic clock, handed down to inner calls.

``Deadline`` is a value; ``current_deadline`` is the context variable that every waiting call
reads. Nested deadlines only shorten.
"""

from contextvars import ContextVar
from typing import Self

_NS = 1_000_000_000
_FOREVER = (1 << 63) - 1


class Deadline:
    """An instant in monotonic nanoseconds by which a call must have ended. Not to be changed.

    Written by hand: one is made for each protected call, and a frozen dataclass takes three
    times as long to make.
    """

    __slots__ = ("at_ns",)
    __match_args__ = ("at_ns",)

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def __repr__(self) -> str:
        return f"Deadline(at_ns={self.at_ns})"

    def __eq__(self, other: object) -> bool:
        return self.at_ns == other.at_ns if isinstance(other, Deadline) else NotImplemented

    def __lt__(self, other: "Deadline") -> bool:
        return self.at_ns < other.at_ns

    def __le__(self, other: "Deadline") -> bool:
        return self.at_ns <= other.at_ns

    def __gt__(self, other: "Deadline") -> bool:
        return self.at_ns > other.at_ns

    def __ge__(self, other: "Deadline") -> bool:
        return self.at_ns >= other.at_ns

    def __hash__(self) -> int:
        return hash(self.at_ns)

    @classmethod
    def never(cls) -> Self:
        """Return a deadline that does not come."""
        return cls(_FOREVER)

    @classmethod
    def after(cls, seconds: float, now_ns: int) -> Self:
        """Return the instant ``seconds`` from ``now_ns``."""
        return cls(now_ns + int(seconds * _NS))

    @property
    def endless(self) -> bool:
        """Whether this deadline never comes."""
        return self.at_ns >= _FOREVER

    def left_ns(self, now_ns: int) -> int:
        """Return the nanoseconds left, 0 when it has passed."""
        return max(0, self.at_ns - now_ns)

    def left(self, now_ns: int) -> float | None:
        """Return the seconds left as a float, ``None`` when it never comes."""
        return None if self.endless else self.left_ns(now_ns) / _NS

    def passed(self, now_ns: int) -> bool:
        """Whether the instant has come."""
        return now_ns >= self.at_ns

    def earlier(self, other: "Deadline") -> "Deadline":
        """Return the earlier of the two: nesting only shortens."""
        return self if self.at_ns <= other.at_ns else other


current_deadline: ContextVar[Deadline | None] = ContextVar("outlast_deadline", default=None)
"""The deadline of the call under way in this context, or ``None``."""
