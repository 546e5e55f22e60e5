"""News that wait to be passed on: one piece per member, each sent a bounded number of times.

SWIM (section 4.1) prefers what was sent the fewest times, and lets news of a member replace older
news of the same member. Pieces with equally many transmissions go in the order in which they came,
so that none waits for ever behind newer ones.
"""

from collections.abc import Collection
from typing import Final

_PIECES_MAX: Final = 100
"""Pieces in one packet; a little less than what a receiver takes."""


class GossipQueue:
    """Bounded by one piece per member name.

    Levels are dicts in order of arrival, one per number of transmissions made.
    """

    __slots__ = ("_level_of", "_levels")

    def __init__(self) -> None:
        self._levels: list[dict[str, bytes]] = [{}]
        self._level_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._level_of)

    def put(self, name: str, piece: bytes) -> None:
        """Add news about ``name``; older news about it are forgotten."""
        self.drop(name)
        self._levels[0][name] = piece
        self._level_of[name] = 0

    def drop(self, name: str) -> None:
        """Forget news about ``name``."""
        level = self._level_of.pop(name, None)
        if level is not None:
            del self._levels[level][name]

    def take(self, room: int, transmit_max: int, skip: Collection[str] = ()) -> list[bytes]:
        """Return pieces of at most ``room`` bytes together; what was sent often enough is gone."""
        if not self._level_of:
            return []
        taken: list[bytes] = []
        moved: list[tuple[str, int, bytes]] = []
        for level, waiting in enumerate(self._levels):
            if room < 8 or len(taken) >= _PIECES_MAX:
                break
            misses = 0
            for name, piece in waiting.items():
                if len(piece) > room:
                    misses += 1
                    if misses > 3:
                        break
                    continue
                if name in skip:
                    continue
                room -= len(piece)
                taken.append(piece)
                moved.append((name, level, piece))
                if room < 8 or len(taken) >= _PIECES_MAX:
                    break
        for name, level, piece in moved:
            del self._levels[level][name]
            if level + 1 >= transmit_max:
                del self._level_of[name]
                continue
            if level + 1 == len(self._levels):
                self._levels.append({})
            self._levels[level + 1][name] = piece
            self._level_of[name] = level + 1
        return taken
