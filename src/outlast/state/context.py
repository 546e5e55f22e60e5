"""What a command may know of the world: a time, a random source, its index, the version.

A command runs on every replica, and again when a replica replays its log. So the time and the
randomness that it sees are part of the entry, decided once before the entry was appended.
"""

from collections.abc import MutableSequence, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from outlast.kernel import Prng

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MASK = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15


class CommandRandom:
    """Random numbers that are equal on every replica; the names of ``random.Random``.

    Seeded from the entry, so a command draws the same numbers wherever and whenever it runs.
    Not for secrets: who can read the log can repeat every draw.

    >>> CommandRandom(7).randint(1, 6) == CommandRandom(7).randint(1, 6)
    True
    """

    __slots__ = ("_prng",)

    def __init__(self, seed: int) -> None:
        self._prng = Prng(seed)

    def random(self) -> float:
        """Return a float from 0 (included) to 1 (excluded), of 53 random bits."""
        return (self._prng.bits64() >> 11) / (1 << 53)

    def uniform(self, low: float, high: float) -> float:
        """Return a float between ``low`` and ``high``."""
        return low + (high - low) * self.random()

    def getrandbits(self, count: int) -> int:
        """Return an integer of ``count`` random bits."""
        return int.from_bytes(self._prng.bytes((count + 7) // 8), "little") & ((1 << count) - 1)

    def randbytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        return self._prng.bytes(count)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """Return a number of ``range(start, stop, step)``.

        Raises:
            ValueError: The range is empty.
        """
        numbers = range(start) if stop is None else range(start, stop, step)
        if not numbers:
            raise ValueError(f"randrange of an empty {numbers}")
        return numbers[self._prng.below(len(numbers))]

    def randint(self, low: int, high: int) -> int:
        """Return a number from ``low`` to ``high``, both included."""
        return self.randrange(low, high + 1)

    def choice(self, items: Sequence[T]) -> T:
        """Return one of ``items``.

        Raises:
            IndexError: ``items`` is empty.
        """
        if not items:
            raise IndexError("choice from an empty sequence")
        return items[self._prng.below(len(items))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Put ``items`` into a random order, in place."""
        self._prng.shuffle(items)

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """Return ``k`` of ``items``, each place at most once, in random order.

        Raises:
            ValueError: ``k`` is negative or larger than ``items``.
        """
        if not 0 <= k <= len(items):
            raise ValueError(f"sample of {k} out of {len(items)} items")
        pool = list(items)
        for place in range(k):
            other = self._prng.between(place, len(pool) - 1)
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:k]


class Context:
    """What ``self.ctx`` is inside a command or query.

    Args:
        now_ns: Wall time of the entry in nanoseconds since 1970, never going back.
        index: Log index of the entry; 0 outside a log.
        seed: Seeds :attr:`random`; the same for the same command on every replica.
        version: The machine version in force, which selects changed behaviour.
    """

    __slots__ = ("_random", "index", "now_ns", "seed", "version")

    def __init__(self, now_ns: int = 0, index: int = 0, seed: int = 0, version: int = 1) -> None:
        self.now_ns = now_ns
        self.index = index
        self.seed = seed
        self.version = version
        self._random: CommandRandom | None = None

    @property
    def now(self) -> datetime:
        """The time of the entry, aware, in UTC, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.now_ns // 1000)

    @property
    def random(self) -> CommandRandom:
        """The random source of this command."""
        if self._random is None:
            self._random = CommandRandom((self.seed ^ (self.index * _MIX)) & _MASK)
        return self._random

    def __repr__(self) -> str:
        return (
            f"Context(now_ns={self.now_ns}, index={self.index}, "
            f"seed={self.seed}, version={self.version})"
        )
