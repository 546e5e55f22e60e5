"""How far a log may be trimmed: permission, holds, and what each hold keeps.

Three things bound a trim: what the caller permits, what is committed, and the lowest *hold*.
A hold is a named reader that is behind, and like everything here it has a limit: it may keep
``bytes_max`` bytes of entries that would otherwise be dropped. A hold past its limit is
released, so that one forgotten reader cannot fill the disk.

The sizes behind that limit come from :class:`Sizes`, which remembers one mark per 64 KiB of
entries and interpolates between marks: a few bytes of memory per megabyte of log.
"""

from bisect import bisect_left
from dataclasses import dataclass

from outlast.kernel import ConfigError, Event, Level, LogIndex, TrimmedError
from outlast.log.api import Hold

MARK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReleased(Event):
    """A hold kept more bytes than its limit and was released; its reader may be trimmed."""

    level: Level = "warning"
    name: str
    index: LogIndex
    kept_bytes: int
    bytes_max: int


class Sizes:
    """Bytes of entries between two indices, to within one mark.

    Args:
        base: Index before the first entry that will be added.
    """

    __slots__ = ("_indices", "_last", "_sums", "_total")

    def __init__(self, base: int = 0) -> None:
        self._indices = [base]
        self._sums = [0]
        self._last = base
        self._total = 0

    def add(self, last: int, size_bytes: int) -> None:
        """Count ``size_bytes`` of entries that end at index ``last``."""
        self._last = last
        self._total += size_bytes
        if self._total - self._sums[-1] >= MARK_BYTES:
            self._indices.append(last)
            self._sums.append(self._total)

    def trim(self, before: int) -> None:
        """Forget marks that only entries below ``before`` need."""
        drop = bisect_left(self._indices, before) - 1
        if drop > 0:
            del self._indices[:drop]
            del self._sums[:drop]

    def between(self, low: int, high: int) -> int:
        """Return the bytes of entries ``low`` to ``high - 1``."""
        return max(0, self._through(high - 1) - self._through(low - 1))

    def _through(self, index: int) -> int:
        """Bytes of all entries up to ``index``, interpolated between two marks."""
        if index >= self._last:
            return self._total
        place = bisect_left(self._indices, index)
        if place == 0:
            return self._sums[0]
        low, low_sum = self._indices[place - 1], self._sums[place - 1]
        if place < len(self._indices):
            high, high_sum = self._indices[place], self._sums[place]
        else:
            high, high_sum = self._last, self._total
        return low_sum + (high_sum - low_sum) * (index - low) // max(1, high - low)


@dataclass(frozen=True, slots=True)
class Released:
    """A hold that must go, and what it kept."""

    hold: Hold
    kept_bytes: int

    def event(self) -> HoldReleased:
        """Return the event that says so."""
        return HoldReleased(
            name=self.hold.name,
            index=self.hold.index,
            kept_bytes=self.kept_bytes,
            bytes_max=self.hold.bytes_max,
        )


class Holds:
    """The holds of one log, and the trim that was permitted so far.

    A permission stays: when the hold that was in its way moves or goes, the same permission
    lets the engine drop more without being asked again.
    """

    __slots__ = ("_holds", "permitted")

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}
        self.permitted = LogIndex(0)

    def __len__(self) -> int:
        return len(self._holds)

    def permit(self, before: LogIndex) -> None:
        """Remember that entries below ``before`` may be dropped."""
        self.permitted = max(self.permitted, before)

    def put(self, hold: Hold, *, first: LogIndex) -> None:
        """Set or move a hold.

        Args:
            hold: Where it stands from now on.
            first: First index that is still readable.

        Raises:
            TrimmedError: Definite. ``hold.index`` is below ``first``.
            ConfigError: Definite. It would move back, or its limit is negative.
        """
        if hold.bytes_max < 0:
            message = f"hold {hold.name!r}: bytes_max is {hold.bytes_max}; it must be 0 or more"
            raise ConfigError(message)
        if hold.index < first:
            message = f"hold {hold.name!r} at {hold.index}: entries below {first} are trimmed"
            raise TrimmedError(message, first=first)
        standing = self._holds.get(hold.name)
        if standing is not None and hold.index < standing.index:
            message = (
                f"hold {hold.name!r} stands at {standing.index} and may only move forward, "
                f"not to {hold.index}"
            )
            raise ConfigError(message)
        self._holds[hold.name] = hold

    def release(self, name: str) -> None:
        """Remove a hold; no error if there is none."""
        self._holds.pop(name, None)

    def settle(self, *, tail: LogIndex, sizes: Sizes) -> tuple[LogIndex, list[Released]]:
        """Return below which index entries may go now, and which holds were released for it.

        Never above ``tail``: what is not committed is never dropped.
        """
        before = min(self.permitted, tail)
        released = []
        for hold in list(self._holds.values()):
            if hold.index >= before:
                continue
            kept = sizes.between(hold.index, before)
            if kept > hold.bytes_max:
                del self._holds[hold.name]
                released.append(Released(hold, kept))
        floor = min((hold.index for hold in self._holds.values()), default=before)
        return LogIndex(min(before, floor)), released
