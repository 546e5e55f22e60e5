"""The last so many whole numbers, with their sum and sum of squares.

Both sums are exact, since Python's integers grow: the variance suffers no cancellation, however
long the sums are carried on and however large the numbers are beside their spread.
"""

from math import isqrt


class Ring:
    """At most ``size`` numbers; the oldest gives way. Not thread-safe."""

    __slots__ = ("_next", "_size", "squares", "total", "values")

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.values: list[int] = []
        self._next = 0
        self.total = 0
        self.squares = 0

    def __len__(self) -> int:
        return len(self.values)

    def add(self, value: int) -> int | None:
        """Add ``value``; return what gave way to it, ``None`` while there was room."""
        self.total += value
        self.squares += value * value
        if len(self.values) < self._size:
            self.values.append(value)
            return None
        gone = self.values[self._next]
        self.values[self._next] = value
        self._next = (self._next + 1) % self._size
        self.total -= gone
        self.squares -= gone * gone
        return gone

    def mean(self) -> int:
        """Return the mean, rounded down; 0 for none."""
        return self.total // len(self.values) if self.values else 0

    def deviation(self) -> int:
        """Return the standard deviation (of the numbers at hand), rounded down; 0 for none."""
        count = len(self.values)
        if not count:
            return 0
        return isqrt(count * self.squares - self.total * self.total) // count
