"""What the rules of a supervisor are: strategy, intensity, backoff, what follows a limit."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Final, Literal

from outlast.detect.core.supervisor import Restart, RestartPolicy
from outlast.kernel import ConfigError, Prng

_NS: Final = 1_000_000_000
_DOUBLINGS_MAX: Final = 64

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""When one child has ended: start it again alone; all of them; it and those that come after."""

OnLimit = Literal["slow", "stop", "escalate"]
"""More restarts than allowed: go on at the cap; end for good; end and let the parent decide."""

AutoShutdown = Literal["never", "any_significant", "all_significant"]
"""Whether the end of significant children ends the supervisor."""

_RESTARTS: Final = ("permanent", "transient", "temporary")
_STRATEGIES: Final = ("one_for_one", "one_for_all", "rest_for_one")
_LIMITS: Final = ("slow", "stop", "escalate")
_SHUTDOWNS: Final = ("never", "any_significant", "all_significant")


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """How long to wait before each restart of a child.

    The first restart is made at once: most failures are cured by it. Before restart *n* in a row
    the wait is ``min(cap, base * 2**(n - 2))`` seconds, less a random part of at most ``jitter``
    of it, so that children that failed together do not come back together. A child that has been
    up for ``reset_after`` seconds begins again at the first. OTP waits never; systemd always the
    same; supervisord a second longer each time, without a bound.

    Args:
        base: Seconds before the second restart in a row. Above 0.
        cap: Ceiling for any one wait, in seconds. At least ``base``.
        jitter: Random share of the wait, 0 to 1.
        reset_after: Seconds of being up after which failures are forgotten. Above 0.

    Raises:
        ConfigError: A value is out of range.

    >>> [RestartBackoff(jitter=0).ceiling(restart) for restart in (1, 2, 3, 4)]
    [0.0, 0.05, 0.1, 0.2]
    """

    base: float = 0.05
    cap: float = 10.0
    jitter: float = 0.2
    reset_after: float = 10.0

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        for name in ("base", "cap", "reset_after"):
            value = getattr(self, name)
            if not value > 0 or not isfinite(value * _NS):
                raise ConfigError(f"RestartBackoff: {name} is {value}; above 0 and finite")
        if self.cap < self.base:
            raise ConfigError(f"RestartBackoff: cap ({self.cap} s) is below base ({self.base} s)")
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"RestartBackoff: jitter is {self.jitter}; 0 to 1")

    def ceiling(self, restart: int) -> float:
        """Return the longest wait before restart number ``restart`` in a row, in seconds."""
        if restart <= 1:
            return 0.0
        return min(self.cap, self.base * 2.0 ** min(restart - 2, _DOUBLINGS_MAX))

    def delay_ns(self, restart: int, prng: Prng) -> int:
        """Draw the wait before restart number ``restart`` in a row."""
        return self._jittered_ns(round(self.ceiling(restart) * _NS), prng)

    def slow_ns(self, prng: Prng) -> int:
        """Draw a wait at the cap."""
        return self._jittered_ns(round(self.cap * _NS), prng)

    def _jittered_ns(self, ceiling_ns: int, prng: Prng) -> int:
        return ceiling_ns - prng.between(0, round(ceiling_ns * self.jitter))


@dataclass(frozen=True, slots=True)
class ChildRule:
    """What the rules know of one child.

    Args:
        name: Its name, for messages.
        restart: ``permanent``, ``transient`` or ``temporary``.
        significant: Whether its end may end the supervisor.
        final: Exit codes that say that another start would end the same.
        policy: Its own limit and waits instead of those of the supervisor.
    """

    name: str
    restart: Restart = "permanent"
    significant: bool = False
    final: tuple[int, ...] = ()
    policy: RestartPolicy | None = None

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        if self.restart not in _RESTARTS:
            known = ", ".join(_RESTARTS)
            raise ConfigError(f"child {self.name!r}: restart is {self.restart!r}; one of {known}")
        if self.significant and self.restart == "permanent":
            raise ConfigError(
                f"child {self.name!r}: significant and permanent: it never ends for good;"
                " transient or temporary would be right"
            )


@dataclass(frozen=True, slots=True)
class TreeRules:
    """The rules of one supervisor.

    Args:
        strategy: Who is started again when one child has ended.
        intensity: Restarts allowed within ``period``, over all children that have no policy of
            their own. 0 or more.
        period: Seconds over which they are counted. Above 0.
        backoff: Waits before restarts.
        on_limit: What follows when there were more.
        auto_shutdown: Whether the end of significant children is the end of the supervisor.

    Raises:
        ConfigError: A value is out of range.
    """

    strategy: Strategy = "one_for_one"
    intensity: int = 5
    period: float = 60.0
    backoff: RestartBackoff = field(default_factory=RestartBackoff)
    on_limit: OnLimit = "slow"
    auto_shutdown: AutoShutdown = "never"

    def __post_init__(self) -> None:
        """Check the values."""
        for name, known in (
            ("strategy", _STRATEGIES), ("on_limit", _LIMITS), ("auto_shutdown", _SHUTDOWNS),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"Supervisor: {name} is {value!r}; one of {', '.join(known)}")
        if self.intensity < 0:
            raise ConfigError(f"Supervisor: intensity is {self.intensity}; 0 or more")
        if not self.period > 0 or not isfinite(self.period * _NS):
            raise ConfigError(f"Supervisor: period is {self.period} s; above 0 and finite")
