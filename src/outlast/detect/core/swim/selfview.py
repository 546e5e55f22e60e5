"""How far this node should believe itself before it accuses others.

Three guards. Lifeguard's *local health multiplier* (section IV.A): answers that do not come, and
nacks that do not come, may be this node's fault; each raises a score that stretches its intervals
and timeouts, each answer lowers it. *Isolation*: a node that hears nobody, of several that should
be there, is more likely cut off or stopped than the others all dead. *Clean time*: after isolation
or a stop of its own nobody is convicted until what waited has been dealt with.
"""

from typing import Final

from outlast.detect.core.swim.settings import SCORE_MAX, SwimSettings, ns

_QUIET: Final = 4
"""Probe intervals without any message after which a node is isolated."""


class SelfView:
    """Score, isolation and permission of one node."""

    __slots__ = ("_floor", "_settings", "allowed", "clean_ns", "heard_ns", "quiet_ns", "score")

    def __init__(self, settings: SwimSettings, now_ns: int = 0) -> None:
        self._settings = settings
        self.score = 0
        self._floor = 0
        self.allowed = True
        self.heard_ns = now_ns
        self.clean_ns = now_ns
        self.quiet_ns = _QUIET * ns(settings.probe_interval)

    @property
    def multiplier(self) -> int:
        """What intervals and timeouts are multiplied by: 1 to 9."""
        return 1 + max(self.score, self._floor)

    def adjust(self, change: int) -> None:
        """Raise or lower the score, within 0 to 8."""
        if self._settings.local_health:
            self.score = min(SCORE_MAX, max(0, self.score + change))

    def measured(self, score: float) -> None:
        """Take over what the process measured of itself, 0.0 to 1.0; anything else is bad."""
        inside = min(1.0, max(0.0, score)) if score == score else 1.0  # noqa: PLR0124 - NaN
        self._floor = round(inside * SCORE_MAX)

    def allow(self, allowed: bool, now_ns: int) -> None:
        """Note whether the process may accuse; allowed again, it needs clean time."""
        if allowed and not self.allowed:
            self._dirty(now_ns)
        self.allowed = allowed

    def stopped(self, now_ns: int) -> None:
        """Note that this node has just been stopped for a while."""
        self._dirty(now_ns)
        self.heard_ns = now_ns

    def heard(self, now_ns: int) -> None:
        """Note that somebody was heard."""
        if now_ns - self.heard_ns > self.quiet_ns:
            self._dirty(now_ns)
        self.heard_ns = now_ns

    def wait_ns(self, now_ns: int, peers: int) -> int:
        """Return when a conviction may be looked at again; ``now_ns`` or less: convict.

        Args:
            now_ns: Now.
            peers: Members that are not removed, this node not counted. With one there is no
                telling who is cut off.
        """
        if not self.allowed:
            return now_ns + self.quiet_ns
        if not self._settings.guard:
            return now_ns
        quiet = now_ns - self.heard_ns
        if peers > 1 and self.quiet_ns < quiet < ns(self._settings.isolated):
            return now_ns + self.quiet_ns
        return self.clean_ns

    def _dirty(self, now_ns: int) -> None:
        self.clean_ns = now_ns + self.quiet_ns + ns(self._settings.probe_interval)
