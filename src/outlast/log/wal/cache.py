"""The newest entries in memory, for readers that are nearly up to date.

It holds the runs as they were appended, oldest dropped first. What is not yet on disk is
never dropped: it can be read only here.
"""

from bisect import bisect_right

from outlast.log.wal.core.runs import Run

RUN_OVERHEAD_BYTES = 200
_COMPACT = 1024


class RunCache:
    """Runs of consecutive entries, bounded in bytes."""

    __slots__ = ("_bytes_max", "_firsts", "_head", "_runs", "_sizes", "bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._firsts: list[int] = []
        self._runs: list[Run] = []
        self._sizes: list[int] = []
        self._head = 0
        self.bytes = 0

    @property
    def over(self) -> bool:
        """Whether it holds more bytes than it should."""
        return self.bytes > self._bytes_max

    @property
    def first(self) -> int | None:
        """Lowest index held."""
        return self._firsts[self._head] if self._head < len(self._firsts) else None

    def add(self, run: Run, size: int) -> None:
        """Add entries that follow the last ones held."""
        size += RUN_OVERHEAD_BYTES
        self._firsts.append(run.first)
        self._runs.append(run)
        self._sizes.append(size)
        self.bytes += size

    def truncate(self, first: int) -> None:
        """Drop entries at and above ``first``."""
        while len(self._firsts) > self._head:
            run = self._runs[-1]
            if run.first >= first:
                self._firsts.pop()
                self._runs.pop()
                self.bytes -= self._sizes.pop()
            else:
                keep = first - run.first
                if keep < len(run.payloads):
                    self._runs[-1] = Run(
                        run.kind, run.first, run.term, run.payloads[:keep], run.kinds[:keep]
                    )
                return

    def evict(self, stable: int) -> None:
        """Drop the oldest runs that end at or below ``stable`` while there are too many bytes."""
        head, runs = self._head, self._runs
        while self.bytes > self._bytes_max and head < len(runs):
            run = runs[head]
            if run.first + len(run.payloads) - 1 > stable:
                break
            self.bytes -= self._sizes[head]
            head += 1
        self._drop(head)

    def drop_through(self, index: int) -> None:
        """Drop the runs that end at or below ``index``."""
        head, runs = self._head, self._runs
        while head < len(runs) and runs[head].first + len(runs[head].payloads) - 1 <= index:
            self.bytes -= self._sizes[head]
            head += 1
        self._drop(head)

    def _drop(self, head: int) -> None:
        if head - self._head:
            empty = Run(0, 0, 0, [])
            for at in range(self._head, head):
                self._runs[at] = empty
        self._head = head
        if head > _COMPACT and head * 2 > len(self._runs):
            del self._firsts[:head], self._runs[:head], self._sizes[:head]
            self._head = 0

    def get(
        self, first: int, last: int, bytes_max: int, out: list[tuple[int, int, int, bytes]]
    ) -> int:
        """Append entries ``first`` to ``last`` to ``out`` until ``bytes_max`` is passed.

        Returns what is left of ``bytes_max``; at most 0 if it was used up.
        """
        at = max(self._head, bisect_right(self._firsts, first) - 1)
        runs = self._runs
        while at < len(runs) and first <= last and bytes_max > 0:
            run = runs[at]
            at += 1
            start, term, kinds = first - run.first, run.term, run.kinds
            for i in range(start, min(len(run.payloads), last - run.first + 1)):
                payload = run.payloads[i]
                out.append((run.first + i, term, kinds[i] if kinds else 0, payload))
                first += 1
                bytes_max -= len(payload)
                if bytes_max <= 0:
                    break
        return bytes_max
