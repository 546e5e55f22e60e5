"""What all detectors have in common: beats in, suspicion and deadlines out.

A detector watches one sender. It is told of each beat, answers how suspicious the silence since
then is, and, the other way round, *when* the silence will have become that suspicious. With the
second answer a driver sets one timer and nobody polls.

States: waiting for nothing (new, or after :meth:`Beats.forget`), then waiting for the next beat.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from outlast.detect.core.scale import LEVEL_MAX, NEVER, NS, number


class Detector(Protocol):
    """Decides how suspicious the silence of one sender is. Pure: time is passed in.

    Promises that hold for every kind, and for a kind of your own if it is to be used here:

    - between beats ``suspicion`` never falls;
    - ``suspicion(deadline_ns(level)) >= level``, and one nanosecond earlier it is below;
    - a higher level has no earlier deadline;
    - a beat that was known already, or is older than one that is known, changes no deadline.
    """

    def expect(self, at_ns: int) -> None:
        """Begin to wait at ``at_ns``, if nothing was heard yet. Nothing is learnt from it."""
        ...

    def beat(self, seq: int | None, at_ns: int) -> None:
        """A beat has arrived; ``seq`` is its number if the sender gives numbers."""
        ...

    def suspicion(self, now_ns: int) -> float:
        """Return the suspicion at ``now_ns``: 0 for none."""
        ...

    def deadline_ns(self, level: float) -> int:
        """Return the instant at which ``suspicion`` reaches ``level`` if no beat comes."""
        ...

    def forget(self) -> None:
        """Begin anew: the sender is another one now."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        ...


class Beats(ABC):
    """The part of a detector that counts beats; kinds add :meth:`_learn` and the two curves.

    Not thread-safe: whoever drives it serialises. Copies by ``copy.deepcopy`` and ``pickle`` work.
    """

    kind = "Beats"
    __slots__ = ("beats", "heard", "last_ns", "last_seq", "stale")

    def __init__(self) -> None:
        self.last_ns: int | None = None
        """When we began to wait for the next beat: at the last one, or at :meth:`expect`."""
        self.last_seq: int | None = None
        self.heard = False
        """Whether ``last_ns`` was a beat."""
        self.beats = 0
        self.stale = 0
        """Beats that were old, repeated or dated back: counted and not used."""

    def expect(self, at_ns: int) -> None:
        """Begin to wait at ``at_ns``, if nothing was heard yet. Nothing is learnt from it."""
        if self.last_ns is None:
            self.last_ns = at_ns

    def beat(self, seq: int | None, at_ns: int) -> None:
        """Take a beat, unless it is one that we know or older than one that we know."""
        last_ns = self.last_ns
        if last_ns is not None and at_ns < last_ns:
            self.stale += 1
            return
        if seq is not None and self.last_seq is not None and seq <= self.last_seq:
            self.stale += 1
            return
        self._learn(seq, at_ns, last_ns if self.heard else None)
        self.last_ns = at_ns
        self.heard = True
        self.beats += 1
        if seq is not None:
            self.last_seq = seq

    def suspicion(self, now_ns: int) -> float:
        """Return the suspicion at ``now_ns``; 0 before anything is waited for."""
        if self.last_ns is None or now_ns <= self.last_ns:
            return 0.0
        return self._at(now_ns)

    def deadline_ns(self, level: float) -> int:
        """Return the first instant at which ``suspicion`` is ``level`` or more.

        Args:
            level: Above 0, at most 1000.

        Raises:
            ConfigError: Definite. ``level`` is out of range.
        """
        if not 0 < level <= LEVEL_MAX:
            number(self.kind, "level", level, 1e-9, LEVEL_MAX)
        if self.last_ns is None:
            return NEVER
        return self._exact(max(self.last_ns + 1, self._guess_ns(level)), level)

    def forget(self) -> None:
        """Begin anew: the sender is another one now."""
        self.last_ns = self.last_seq = None
        self.heard = False
        self.beats = self.stale = 0
        self._clear()

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state: beats taken and left out, and the deadline of ``evict``."""
        return {
            "beats": self.beats,
            "stale": self.stale,
            "last_seq": self.last_seq,
            "evict_after": self.detection_ns(8.0) / NS if self.last_ns is not None else None,
        }

    def detection_ns(self, level: float) -> int:
        """Return how long a silence must last from now on to reach ``level``: T_D, at its worst.

        It counts from the last beat's arrival, as if the sender had stopped just after it.
        """
        return self.deadline_ns(level) - (self.last_ns or 0)

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.describe().items() if k != "kind")
        return f"{self.kind}({settings})"

    def _exact(self, guess_ns: int, level: float) -> int:
        """Return the exact deadline near ``guess_ns``, whatever floats have made of the guess.

        Widen until one end is below ``level`` and the other is not, then halve.
        """
        last_ns = self.last_ns or 0
        step = 1
        if self.suspicion(guess_ns) >= level:
            high, low = guess_ns, guess_ns - 1
            while low > last_ns and self.suspicion(low) >= level:
                high, step = low, step * 4
                low = max(last_ns, low - step)
        else:
            low, high = guess_ns, guess_ns + 1
            while self.suspicion(high) < level:
                low, step = high, step * 4
                high += step
        while high - low > 1:
            middle = (low + high) // 2
            if self.suspicion(middle) >= level:
                high = middle
            else:
                low = middle
        return high

    # --- what a kind says ------------------------------------------------------------------

    @abstractmethod
    def _learn(self, seq: int | None, at_ns: int, last_ns: int | None) -> None:
        """A new beat; ``last_ns`` is when the one before it came, if there was one."""

    @abstractmethod
    def _at(self, now_ns: int) -> float:
        """Return the suspicion at ``now_ns``, which is after ``last_ns``."""

    @abstractmethod
    def _guess_ns(self, level: float) -> int:
        """Return about the deadline of ``level``."""

    @abstractmethod
    def _clear(self) -> None:
        """Forget what was learnt."""


class Slope(Beats):
    """A detector that knows two instants: suspicion 0 until one, ``evict`` (8) at the other.

    In between suspicion grows evenly, and goes on so beyond.
    """

    __slots__ = ()

    @abstractmethod
    def _span(self) -> tuple[int, int]:
        """Return until when suspicion is 0, and when it is 8."""

    def _at(self, now_ns: int) -> float:
        zero_ns, evict_ns = self._span()
        if now_ns <= zero_ns:
            return 0.0
        return 8.0 * (now_ns - zero_ns) / max(1, evict_ns - zero_ns)

    def _guess_ns(self, level: float) -> int:
        zero_ns, evict_ns = self._span()
        return zero_ns + round(max(1, evict_ns - zero_ns) * level / 8.0)
