"""What a service tells systemd, and when: readiness, progress, stop (sd_notify(3)).

The watchdog of systemd kills a service that has stopped saying ``WATCHDOG=1``. Said by a thread
that runs whatever happens, it proves that a thread runs. Here it is said only while liveness
passes *and something in liveness is known to be well*: a registry of which every result has grown
old proves nothing, although a probe over HTTP would not restart for it. Said at half of the
interval that systemd asks for, as sd_watchdog_enabled(3) recommends.

States: *starting* until startup has passed; *ready*; *stopping* once readiness drains, for good.
"""

from collections.abc import Mapping
from typing import Final

from outlast.detect.core.health import GroupHealth, Status, one_line

_USEC: Final = 1_000
_KNOWN: Final = (Status.OK, Status.DEGRADED)


def encode(states: Mapping[str, object]) -> bytes:
    """Return the datagram: one ``NAME=value`` a line; a value keeps to its line."""
    lines = [f"{name}={' '.join(str(value).split())}" for name, value in states.items()]
    return "\n".join(lines).encode("utf-8", "replace")


def proves_life(liveness: GroupHealth) -> bool:
    """Whether liveness passes and rests on at least one result that is known to be well."""
    return liveness.passing and any(result.status in _KNOWN for result in liveness.results)


def status_line(groups: Mapping[str, GroupHealth], *, starting: bool, stopping: bool) -> str:
    """Return what ``systemctl status`` shows: the phase, and the worst of what is not well."""
    readiness = groups["readiness"]
    if stopping:
        return "stopping"
    group = groups["startup"] if starting else readiness
    word = "starting" if starting else "ready" if readiness.passing else "not ready"
    bad = [result for result in group.results if result.status is not Status.OK]
    if not bad:
        return word
    shown = [f"{r.name} {r.status}{f' ({r.detail})' if r.detail else ''}" for r in bad[:3]]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return one_line(f"{word}: {', '.join(shown)}{more}")


class SdState:
    """Decides what to tell next. Not thread-safe.

    Args:
        now_ns: When the service began to start.
        watchdog_ns: The interval that systemd asks for; ``None`` if it does not watch.
        every_ns: How often :meth:`step` is called, at least.
        start_ns: For how long a start may be extended.
        stop_ns: For how long a stop may be extended.
    """

    __slots__ = ("_began_ns", "_every_ns", "_fed_ns", "_ready", "_said", "_start_ns", "_stop_ns",
                 "_stopping_ns", "_watchdog_ns")  # fmt: skip

    def __init__(
        self, now_ns: int, *, watchdog_ns: int | None, every_ns: int, start_ns: int, stop_ns: int
    ) -> None:
        self._began_ns = now_ns
        self._watchdog_ns = watchdog_ns
        self._every_ns = every_ns
        self._start_ns, self._stop_ns = start_ns, stop_ns
        self._ready = False
        self._stopping_ns: int | None = None
        self._fed_ns: int | None = None
        self._said = ""

    @property
    def every_ns(self) -> int:
        """How long to wait between steps, so that no half of the watchdog's interval is missed."""
        if self._watchdog_ns is None:
            return self._every_ns
        return min(self._every_ns, self._watchdog_ns // 4)

    @property
    def ready(self) -> bool:
        """Whether startup has passed."""
        return self._ready

    def step(
        self, groups: Mapping[str, GroupHealth], draining: bool, now_ns: int
    ) -> dict[str, object]:
        """Return what is to be told now; empty for nothing."""
        told: dict[str, object] = {}
        if not self._ready and groups["startup"].passing:
            self._ready = True
            told["READY"] = 1
        if draining and self._stopping_ns is None:
            self._stopping_ns = now_ns
            told["STOPPING"] = 1
        extend = self._extension(now_ns)
        if extend:
            told["EXTEND_TIMEOUT_USEC"] = extend
        said = status_line(
            groups, starting=not self._ready, stopping=self._stopping_ns is not None
        )
        if said != self._said:
            self._said = said
            told["STATUS"] = said
        if self._feeds(groups["liveness"], now_ns):
            self._fed_ns = now_ns
            told["WATCHDOG"] = 1
        return told

    def _feeds(self, liveness: GroupHealth, now_ns: int) -> bool:
        if self._watchdog_ns is None or not self._ready or not proves_life(liveness):
            return False
        # A step that comes a little late must not come after the interval.
        half_ns = self._watchdog_ns // 2 - self.every_ns
        return self._fed_ns is None or now_ns - self._fed_ns >= half_ns

    def _extension(self, now_ns: int) -> int:
        """Return by how many microseconds to move systemd's limit; never past our own."""
        if self._stopping_ns is not None:
            left_ns = self._stopping_ns + self._stop_ns - now_ns
        elif not self._ready:
            left_ns = self._began_ns + self._start_ns - now_ns
        else:
            return 0
        # Two steps and a second: enough to come again, and little once we stop coming.
        return max(0, min(left_ns, 2 * self.every_ns + 1_000_000_000)) // _USEC
