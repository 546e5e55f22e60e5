"""A small seeded random source that gives the same numbers on every machine and version.

Integers only: no float takes part in a decision that must repeat. The generator is
xoshiro256** seeded by SplitMix64 (Blackman and Vigna, 2018). Not for secrets.
"""

from collections.abc import MutableSequence, Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


def _splitmix(state: int) -> tuple[int, int]:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return state, z ^ (z >> 31)


class Prng:
    """Seeded pseudo-random numbers. Not thread-safe; not cryptographic.

    >>> Prng(7).below(1000) == Prng(7).below(1000)
    True
    """

    __slots__ = ("_a", "_b", "_c", "_d", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        state = seed & _MASK
        state, self._a = _splitmix(state)
        state, self._b = _splitmix(state)
        state, self._c = _splitmix(state)
        state, self._d = _splitmix(state)

    def bits64(self) -> int:
        """Return 64 random bits as a non-negative integer."""
        a, b = self._a, self._b
        c, d = self._c ^ a, self._d ^ b
        self._a = a ^ d
        self._b = b ^ c
        self._c = c ^ ((b << 17) & _MASK)
        self._d = ((d << 45) | (d >> 19)) & _MASK
        result = (b * 5) & _MASK
        return (((result << 7) | (result >> 57)) * 9) & _MASK

    def below(self, bound: int) -> int:
        """Return an even draw from 0 to ``bound - 1``. ``bound`` is at least 1."""
        if bound <= 1:
            return 0
        limit = (_MASK + 1) - ((_MASK + 1) % bound) if bound <= _MASK else 0
        if not limit:
            return self._wide() % bound
        while True:
            draw = self.bits64()
            if draw < limit:
                return draw % bound

    def _wide(self) -> int:
        return (self.bits64() << 64) | self.bits64()

    def between(self, low: int, high: int) -> int:
        """Return an even draw from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def chance(self, numerator: int, denominator: int) -> bool:
        """Return ``True`` with probability ``numerator / denominator``."""
        return self.below(denominator) < numerator

    def choice(self, items: Sequence[T]) -> T:
        """Return one of ``items``, which must not be empty."""
        return items[self.below(len(items))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Put ``items`` into a random order, in place."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        words = (count + 7) // 8
        return b"".join(self.bits64().to_bytes(8, "little") for _ in range(words))[:count]

    def fork(self) -> "Prng":
        """Return an independent generator seeded from this one."""
        return Prng(self.bits64())
