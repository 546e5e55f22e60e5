"""``Fixed``: suspected after so long a silence. The honest baseline."""

from collections.abc import Mapping
from typing import Any

from outlast.detect.core.detector import Slope
from outlast.detect.core.scale import NS, nanoseconds
from outlast.kernel import ConfigError


class Fixed(Slope):
    """A timeout that was chosen by hand and learns nothing.

    On the scale: the timeout is ``evict`` (8); suspicion is 0 until the beat is due, and grows
    evenly from there.

    Args:
        timeout: Silence that is suspicious, in seconds.
        interval: When the next beat is due, in seconds after the last; 0 by default. Below
            ``timeout``.

    Raises:
        ConfigError: Definite. A value is out of range.

    >>> fixed = Fixed(timeout=0.5, interval=0.1)
    >>> fixed.beat(None, 0)
    >>> fixed.suspicion(300_000_000), fixed.deadline_ns(8.0)
    (4.0, 500000000)
    """

    kind = "Fixed"
    __slots__ = ("_interval_ns", "_timeout_ns")

    def __init__(self, timeout: float, *, interval: float = 0.0) -> None:
        super().__init__()
        self._timeout_ns = nanoseconds("Fixed", "timeout", timeout, 1e-6)
        self._interval_ns = nanoseconds("Fixed", "interval", interval, 0.0)
        if self._interval_ns >= self._timeout_ns:
            message = (
                f"Fixed: interval is {interval!r} s and timeout is {timeout!r} s;"
                " a timeout above the interval would be right"
            )
            raise ConfigError(message)

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "kind": self.kind,
            "timeout": self._timeout_ns / NS,
            "interval": self._interval_ns / NS,
        }

    def _learn(self, seq: int | None, at_ns: int, last_ns: int | None) -> None:
        """Learn nothing."""

    def _clear(self) -> None:
        """Forget nothing."""

    def _span(self) -> tuple[int, int]:
        last_ns = self.last_ns or 0
        return last_ns + self._interval_ns, last_ns + self._timeout_ns
