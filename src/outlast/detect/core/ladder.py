"""Which actions a condition that lasts has earned by now.

What a watchdog does should grow with how long the trouble lasts: say so at once, take the process
out of rotation when it does not pass, end it when it never will. A ladder lists the actions and
the time each must wait for; its state counts what has been done since the condition began.

States: *good* (nothing is wrong), *bad* (since an instant, so many actions done), *gone* (it is
good again, but not yet for as long as ``calm``, so that a condition that flickers is one).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000

Action = Literal["event", "stacks", "not_ready", "dump", "restart"]
"""Emit the event; take all stacks; fail readiness; write a dump file; end the process."""

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Ladder:
    """What is done about a condition, and how long it must last for that.

    Args:
        act: Actions in the order in which they are done: ``event``, ``stacks``, ``not_ready``,
            ``dump``, ``restart``. None twice.
        after: Seconds that the condition must last beyond the watchdog's own limit: one number
            for all actions, or one for each, none below the one before it.
        calm: Seconds for which it must be gone before its return is a new condition. With 0
            every return is.

    Raises:
        ConfigError: An action is unknown or twice there, or a time does not fit.

    >>> Ladder(("event", "not_ready", "restart"), after=(0, 5, 30)).due(7_000_000_000)
    2
    """

    act: tuple[Action, ...] = ("event",)
    after: float | tuple[float, ...] = 0.0
    calm: float = 0.0

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        unknown = [action for action in self.act if action not in ACTIONS]
        if unknown or len(set(self.act)) != len(self.act):
            raise ConfigError(
                f"Ladder: act is {self.act!r}; each at most once of {', '.join(ACTIONS)}"
            )
        times = self.times()
        if len(times) != len(self.act):
            raise ConfigError(
                f"Ladder: after has {len(times)} times and act {len(self.act)} actions; give one "
                "number, or as many as actions"
            )
        if any(time < 0 for time in times) or list(times) != sorted(times):
            raise ConfigError(f"Ladder: after is {self.after!r}; 0 or more, and never falling")
        if self.calm < 0:
            raise ConfigError(f"Ladder: calm is {self.calm} s; 0 or more")

    def times(self) -> tuple[float, ...]:
        """Return the time of each action, in seconds."""
        if isinstance(self.after, (int, float)):
            return (float(self.after),) * len(self.act)
        return tuple(self.after)

    def due(self, lasted_ns: int) -> int:
        """Return how many actions a condition has earned that lasts so long."""
        return sum(1 for time in self.times() if round(time * _NS) <= lasted_ns)


def make_ladder(act: "Ladder | Sequence[Action]") -> Ladder:
    """Return ``act`` as a ladder; a sequence of actions is one whose actions are done at once."""
    return act if isinstance(act, Ladder) else Ladder(tuple(act))


class LadderState:
    """What has been done about one condition. Not thread-safe."""

    __slots__ = ("_done", "_gone_ns", "_since_ns", "_times_ns", "ladder")

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self._times_ns = tuple(round(time * _NS) for time in ladder.times())
        self._since_ns: int | None = None
        self._gone_ns: int | None = None
        self._done = 0

    @property
    def bad(self) -> bool:
        """Whether the condition holds, as far as is known."""
        return self._since_ns is not None and self._gone_ns is None

    @property
    def done(self) -> tuple[Action, ...]:
        """What has been done about it."""
        return self.ladder.act[: self._done]

    @property
    def over(self) -> bool:
        """Whether the condition is forgotten: never seen, or gone for long enough."""
        return self._since_ns is None

    def on_bad(self, now_ns: int) -> tuple[Action, ...]:
        """The condition holds: return the actions that are due and were not done before."""
        if self._since_ns is None:
            self._since_ns, self._done = now_ns, 0
        self._gone_ns = None
        lasted_ns = now_ns - self._since_ns
        first = self._done
        while self._done < len(self._times_ns) and self._times_ns[self._done] <= lasted_ns:
            self._done += 1
        return self.ladder.act[first : self._done]

    def on_good(self, now_ns: int) -> tuple[Action, ...]:
        """The condition does not hold: return what had been done about it if it is over now."""
        if self._since_ns is None:
            return ()
        if self._gone_ns is None:
            self._gone_ns = now_ns
        if now_ns - self._gone_ns < round(self.ladder.calm * _NS):
            return ()
        done = self.done
        self._since_ns = self._gone_ns = None
        self._done = 0
        return done

    def deadline_ns(self) -> int | None:
        """Return the instant of the next action if the condition goes on, or ``None``."""
        if not self.bad or self._since_ns is None or self._done >= len(self._times_ns):
            return None
        return self._since_ns + self._times_ns[self._done]
