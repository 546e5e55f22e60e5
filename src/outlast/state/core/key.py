"""Idempotency keys: the same rules as sessions for callers that have no session of their own.

A key such as ``order-17`` outlives the client that sent it, so a repeat after a crash of the
*client* is recognised too. A row is kept for a fixed log time and within bounds; past them
the oldest goes, and a later repeat runs as new. Nothing is recorded for a command that was
refused before it ran, so a corrected request may use the key again.
"""

from collections import OrderedDict

import msgspec

from outlast.kernel import KeyReusedError
from outlast.state.core.limits import Limits
from outlast.state.core.session import Kept, refusal


class KeyRow(msgspec.Struct, array_like=True):
    """One key with the reply of the command that used it first."""

    key: str
    created_ns: int
    kept: Kept


class KeyTable:
    """All idempotency keys, oldest first. Deterministic."""

    __slots__ = ("_rows", "key_bytes", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.key_bytes = 0
        self._rows: OrderedDict[str, KeyRow] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str, print_: bytes, index: int) -> Kept | None:
        """Return the reply for a repeat under ``key``, or ``None`` if it is new."""
        row = self._rows.get(key)
        if row is None:
            return None
        if row.kept.fingerprint != print_:
            error = KeyReusedError(
                f"idempotency key {key!r} came again with another command or arguments"
            )
            return refusal(error, index, print_)
        return row.kept

    def keep(self, key: str, kept: Kept, now_ns: int) -> None:
        """Record the reply under ``key``; the oldest rows go past the bounds."""
        self._rows[key] = KeyRow(key, now_ns, kept)
        self.key_bytes += len(key) + len(kept.body)
        while len(self._rows) > self.limits.keys_max or (
            self.key_bytes > self.limits.key_bytes_max and len(self._rows) > 1
        ):
            self._drop_oldest()

    def expire(self, now_ns: int) -> int:
        """Drop the rows past their time and return how many went."""
        before = len(self._rows)
        while self._rows:
            oldest = next(iter(self._rows.values()))
            if oldest.created_ns + self.limits.key_ttl_ns > now_ns:
                break
            self._drop_oldest()
        return before - len(self._rows)

    def next_expiry_ns(self) -> int | None:
        """Return the log time at which the oldest row goes, ``None`` without any."""
        for row in self._rows.values():
            return row.created_ns + self.limits.key_ttl_ns
        return None

    def rows(self) -> list[KeyRow]:
        """Return all rows, oldest first: the part of a snapshot."""
        return list(self._rows.values())

    def restore(self, rows: list[KeyRow]) -> None:
        """Take the rows of a snapshot, in their order."""
        self._rows = OrderedDict((row.key, row) for row in rows)
        self.key_bytes = sum(len(row.key) + len(row.kept.body) for row in rows)

    def _drop_oldest(self) -> None:
        _, row = self._rows.popitem(last=False)
        self.key_bytes -= len(row.key) + len(row.kept.body)
