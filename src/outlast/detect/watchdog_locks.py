"""The watchdog of deadlocks between watched locks: what is done about one that stands."""

from collections.abc import Sequence
from typing import Any, Final

from outlast.detect.core.ladder import Action, Ladder
from outlast.detect.locks import standing_deadlocks
from outlast.detect.watchdog import Finding, Watchdog, Watchdogs
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000


class LockWatchdog(Watchdog):
    """Climbs the ladder for as long as a deadlock between watched locks stands.

    The lock that is part of it has emitted :class:`DeadlockFound` already, so ``event`` does
    nothing here; ``not_ready`` and ``restart`` are what it is for.

    Args:
        every: Seconds between looks. Above 0. Default 0.5.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: ``every`` is not above 0.
    """

    def __init__(
        self,
        *,
        every: float = 0.5,
        name: str = "locks",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if every <= 0:
            raise ConfigError(f"LockWatchdog: every is {every} s; above 0")
        self.every = every
        self._bad: set[str] = set()

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """See which circles stand."""
        standing = {"; ".join(words) for words in standing_deadlocks()}
        for words in sorted(standing):
            engine.bad(self, words, now_ns, Finding(f"deadlock: {words}", None))
        for words in sorted(self._bad - standing):
            engine.good(self, words, now_ns)
        self._bad = standing
        return now_ns + round(self.every * _NS)

    def end(self) -> None:
        """Forget what stands."""
        self._bad = set()

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {**super().snapshot(), "deadlocks": sorted(self._bad)}
