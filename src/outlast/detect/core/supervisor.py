"""Whether to start a child again, and when.

A crash is often cured by starting afresh, and a child that crashes again and again is not. The
rule is that of Erlang/OTP's supervisors: more than ``intensity`` restarts within ``period`` is a
*crash loop*. Between restarts the wait doubles, with jitter, which OTP does not do; and the count
is per child, where OTP counts all children of a supervisor together.

States of a child, seen from here: running until its exit; then waiting, done or in a crash loop.
"""

from collections import deque
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

from outlast.kernel import ConfigError, Prng

_NS: Final = 1_000_000_000

Restart = Literal["permanent", "transient", "temporary"]
"""Start again after every exit; after a failed one only; never."""

_RESTARTS: Final = ("permanent", "transient", "temporary")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When and how often a child is started again.

    Args:
        restart: ``permanent`` (always), ``transient`` (unless it exited with 0) or
            ``temporary`` (never).
        intensity: Restarts allowed within ``period``; one more is a crash loop. 0 or more.
        period: Seconds over which restarts are counted. Above 0.
        base: Widest wait before the first restart of a period, in seconds; it doubles with
            each. Above 0.
        cap: Ceiling for any one wait, in seconds. At least ``base``.
        slow: In a crash loop go on, one start every ``cap`` seconds at most, until it has
            run for ``period``; otherwise the child stays down.
        final: Exit codes that say that another start would end the same: it stays down.

    Raises:
        ConfigError: A value is out of range.
    """

    restart: Restart = "permanent"
    intensity: int = 10
    period: float = 60.0
    base: float = 0.1
    cap: float = 10.0
    slow: bool = False
    final: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        if self.restart not in _RESTARTS:
            known = ", ".join(_RESTARTS)
            raise ConfigError(f"RestartPolicy: restart is {self.restart!r}; one of {known}")
        if self.intensity < 0:
            raise ConfigError(f"RestartPolicy: intensity is {self.intensity}; 0 or more")
        if not self.period > 0 or not self.base > 0:
            raise ConfigError(
                f"RestartPolicy: period ({self.period} s) and base ({self.base} s) must be above 0"
            )
        for name in ("period", "base", "cap"):
            if not isfinite(getattr(self, name) * _NS):
                raise ConfigError(f"RestartPolicy: {name} is {getattr(self, name)} s; finite")
        if self.cap < self.base:
            raise ConfigError(f"RestartPolicy: cap ({self.cap} s) is below base ({self.base} s)")


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start it again after ``delay_ns``; ``count`` restarts fall into the period with it."""

    delay_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class StayDown:
    """It has done its work, or is not to be started again."""

    reason: str


@dataclass(frozen=True, slots=True)
class InCrashLoop:
    """More than ``intensity`` restarts within the period. ``delay_ns``: try again, if not None."""

    count: int
    delay_ns: int | None


class RestartDecider:
    """Decides after each exit of one child. Not thread-safe."""

    __slots__ = ("_policy", "_restarts")

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._restarts: deque[int] = deque(maxlen=policy.intensity + 1)

    def on_exit(self, code: int, now_ns: int, prng: Prng) -> RestartAfter | StayDown | InCrashLoop:
        """Decide what follows an exit with ``code`` (a signal's number negated)."""
        policy = self._policy
        if policy.restart == "temporary":
            return StayDown("temporary children are not restarted")
        if policy.restart == "transient" and code == 0:
            return StayDown("it ended by itself with 0")
        if code in policy.final:
            return StayDown(f"it exited with {code}: another start would end the same")
        period_ns = round(policy.period * _NS)
        while self._restarts and self._restarts[0] <= now_ns - period_ns:
            self._restarts.popleft()
        self._restarts.append(now_ns)
        count = len(self._restarts)
        cap_ns = round(policy.cap * _NS)
        if count > policy.intensity:
            return InCrashLoop(count, cap_ns if policy.slow else None)
        ceiling_ns = min(cap_ns, round(policy.base * _NS) << min(count - 1, 64))
        return RestartAfter(prng.between(0, ceiling_ns), count)

    def forget(self) -> None:
        """Start counting afresh, after somebody has repaired the child."""
        self._restarts.clear()


def exit_reason(code: int, signals: dict[int, str]) -> str:
    """Say what an exit code means.

    >>> exit_reason(-9, {9: "SIGKILL"})
    'killed by SIGKILL'
    """
    if code >= 0:
        return f"exited with {code}"
    return f"killed by {signals.get(-code, f'signal {-code}')}"
