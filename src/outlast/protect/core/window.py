"""Over which calls a breaker takes its rates: the last so many, or those of the last seconds.

A window is told of failures and slow calls one by one, and of successes by their number, since
nobody counts those one by one. Between two failures the order of successes does not matter.
"""

from typing import Final, Protocol

from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
FOREVER_NS: Final = 1 << 63
_SIZE_MAX: Final = 100_000
_BUCKETS_MAX: Final = 1_000


class Window(Protocol):
    """What one closed round has seen lately."""

    @property
    def calls(self) -> int:
        """Calls in the window."""
        ...

    @property
    def failures(self) -> int:
        """Calls in the window that failed."""
        ...

    @property
    def slow(self) -> int:
        """Calls in the window that were slow, failed or not."""
        ...

    def good(self, number: int) -> None:
        """Count ``number`` calls that succeeded quickly."""
        ...

    def add(self, *, failed: bool, slow: bool) -> None:
        """Count one call that failed, was slow, or both."""
        ...

    def turn(self, now_ns: int) -> int:
        """Let time pass; return when the present bucket ends."""
        ...


class CountWindow:
    """The last ``size`` calls.

    Args:
        size: Calls; 1 to 100,000. One bit is kept of each.

    Raises:
        ConfigError: Definite. ``size`` is out of range.
    """

    __slots__ = ("size",)

    def __init__(self, size: int = 100) -> None:
        if type(size) is not int or not 1 <= size <= _SIZE_MAX:
            raise ConfigError(f"CountWindow: size is {size!r}; 1 to {_SIZE_MAX:,} calls")
        self.size = size

    def begin(self) -> Window:
        """Return an empty window."""
        return _Bits(self.size)

    def __repr__(self) -> str:
        return f"CountWindow({self.size})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CountWindow) and other.size == self.size

    def __hash__(self) -> int:
        return hash((CountWindow, self.size))


class TimeWindow:
    """The calls of the last ``seconds``, in steps of a bucket.

    Args:
        seconds: Length. Above 0.
        buckets: Into which it is cut; what is older than the window leaves it a bucket at a time.
            1 to 1,000.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self, seconds: float = 30.0, *, buckets: int = 10) -> None:
        given: object = seconds
        if not isinstance(given, int | float) or not 0 < given < float("inf"):
            raise ConfigError(f"TimeWindow: seconds is {seconds!r}; above 0 and finite")
        if type(buckets) is not int or not 1 <= buckets <= _BUCKETS_MAX:
            raise ConfigError(f"TimeWindow: buckets is {buckets!r}; 1 to {_BUCKETS_MAX:,}")
        self.seconds = seconds
        self.buckets = buckets

    def begin(self) -> Window:
        """Return an empty window."""
        return _Buckets(max(round(self.seconds * _NS) // self.buckets, 1), self.buckets)

    def __repr__(self) -> str:
        return f"TimeWindow({self.seconds:g}, buckets={self.buckets})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TimeWindow)
            and other.seconds == self.seconds
            and other.buckets == self.buckets
        )

    def __hash__(self) -> int:
        return hash((TimeWindow, self.seconds, self.buckets))


class _Bits:
    """One integer whose lowest bits are the latest calls: 1 for a failure, another for slow."""

    __slots__ = ("_failed", "_mask", "_size", "_slow", "calls")

    def __init__(self, size: int) -> None:
        self._size = size
        self._mask = (1 << size) - 1
        self._failed = 0
        self._slow = 0
        self.calls = 0

    @property
    def failures(self) -> int:
        return self._failed.bit_count()

    @property
    def slow(self) -> int:
        return self._slow.bit_count()

    def good(self, number: int) -> None:
        if number >= self._size:
            self._failed = self._slow = 0
        elif number:
            self._failed = self._failed << number & self._mask
            self._slow = self._slow << number & self._mask
        self.calls = min(self.calls + number, self._size)

    def add(self, *, failed: bool, slow: bool) -> None:
        self._failed = (self._failed << 1 | failed) & self._mask
        self._slow = (self._slow << 1 | slow) & self._mask
        self.calls = min(self.calls + 1, self._size)

    def turn(self, _: int) -> int:
        return FOREVER_NS


class _Buckets:
    """Counts per bucket of time, the present one last."""

    __slots__ = ("_calls", "_end_ns", "_failures", "_length_ns", "_number", "_slow")

    def __init__(self, length_ns: int, number: int) -> None:
        self._length_ns = length_ns
        self._number = number
        self._end_ns = 0
        self._calls = [0] * number
        self._failures = [0] * number
        self._slow = [0] * number

    @property
    def calls(self) -> int:
        return sum(self._calls)

    @property
    def failures(self) -> int:
        return sum(self._failures)

    @property
    def slow(self) -> int:
        return sum(self._slow)

    def good(self, number: int) -> None:
        self._calls[-1] += number

    def add(self, *, failed: bool, slow: bool) -> None:
        self._calls[-1] += 1
        self._failures[-1] += failed
        self._slow[-1] += slow

    def turn(self, now_ns: int) -> int:
        if now_ns < self._end_ns:
            return self._end_ns
        passed = (now_ns - self._end_ns) // self._length_ns + 1 if self._end_ns else 0
        gone = min(passed, self._number)
        for counts in (self._calls, self._failures, self._slow):
            del counts[:gone]
            counts.extend([0] * gone)
        if self._end_ns:
            self._end_ns += passed * self._length_ns
        else:
            self._end_ns = now_ns + self._length_ns
        return self._end_ns
