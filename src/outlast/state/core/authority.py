"""Epochs and leases: who may act, decided by the log and nobody else.

A role is taken by an entry that names the epoch it expects to end. Of two that expect the
same one, the first in the log wins and the other is fenced, on every replica alike. An epoch
is ``timeline << 48 | index of that entry``: it grows for ever, across engines and restores
to a new timeline, so whoever checks it (a file, a table, another service) can refuse an
older holder. Entries written under an epoch carry its number and their own, counted from 1,
and take effect only while the epoch is current and the count is next: the rest is fenced.

A lease is a role with an end. It ends by log time, at entries, so all replicas agree.
"""

import msgspec

from outlast.kernel import FencedError, InvariantError, OverloadedError
from outlast.state.core.limits import Limits
from outlast.state.core.operation import Fence

SYSTEM = "system"
"""The role whose holder measures log time."""

_INDEX_BITS = 48


class EpochRow(msgspec.Struct, array_like=True):
    """The current epoch of a role."""

    role: str
    epoch: int
    holder: str
    next_seq: int = 1


class LeaseRow(msgspec.Struct, array_like=True):
    """A granted lease; ``token`` fences, ``until_ns`` is log time."""

    name: str
    token: int
    holder: str
    until_ns: int


def epoch_at(timeline: int, index: int) -> int:
    """Return the epoch taken by the entry at ``index`` of ``timeline``.

    >>> epoch_at(1, 7) == (1 << 48) + 7
    True
    """
    if index >> _INDEX_BITS:
        raise InvariantError(f"index {index} does not fit the {_INDEX_BITS} bits of an epoch")
    return timeline << _INDEX_BITS | index


class AuthorityTable:
    """All epochs and leases. Deterministic."""

    __slots__ = ("epochs", "leases", "limits", "timeline")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.timeline = 0
        self.epochs: dict[str, EpochRow] = {}
        self.leases: dict[str, LeaseRow] = {}

    def current(self, role: str) -> int:
        """Return the current epoch of ``role``, 0 if nobody took it yet."""
        row = self.epochs.get(role)
        return 0 if row is None else row.epoch

    def take(self, role: str, expect: int, holder: str, index: int) -> int:
        """Give ``role`` to ``holder`` and return the new epoch.

        Raises:
            FencedError: Definite. The current epoch is not ``expect``; the error names it.
            OverloadedError: Definite. Too many roles.
        """
        current = self.current(role)
        if current != expect:
            message = f"role {role!r}: epoch {expect} expected, {current} is current"
            raise FencedError(message, epoch=current)
        if role not in self.epochs and len(self.epochs) >= self.limits.leases_max:
            raise OverloadedError(f"{len(self.epochs)} roles already; at most that many")
        epoch = epoch_at(self.timeline, index)
        self.epochs[role] = EpochRow(role, epoch, holder)
        return epoch

    def check(self, fence: Fence) -> None:
        """Admit an entry written under ``fence`` and count it.

        Raises:
            FencedError: Definite. The epoch is over, or the entry is not its next.
        """
        row = self.epochs.get(fence.role)
        current = 0 if row is None else row.epoch
        if row is None or fence.epoch != current:
            message = f"role {fence.role!r}: epoch {fence.epoch} is over, {current} is current"
            raise FencedError(message, epoch=current)
        if fence.seq != row.next_seq:
            message = f"role {fence.role!r}: entry {fence.seq} is not next, {row.next_seq} is"
            raise FencedError(message, epoch=current)
        row.next_seq += 1

    def acquire(self, name: str, holder: str, ttl_ns: int, now_ns: int, index: int) -> LeaseRow:
        """Grant the lease, or extend it for the same holder, and return its row.

        Raises:
            FencedError: Definite. Another holder has it; ``epoch`` is that lease's token.
            OverloadedError: Definite. Too many leases.
        """
        self.expire(now_ns)
        row = self.leases.get(name)
        if row is not None and row.holder != holder:
            raise FencedError(f"lease {name!r} is held by {row.holder!r}", epoch=row.token)
        if row is None:
            if len(self.leases) >= self.limits.leases_max:
                raise OverloadedError(f"{len(self.leases)} leases already; at most that many")
            row = LeaseRow(name, epoch_at(self.timeline, index), holder, 0)
            self.leases[name] = row
        row.until_ns = now_ns + ttl_ns
        return row

    def renew(self, name: str, token: int, ttl_ns: int, now_ns: int) -> LeaseRow:
        """Let the lease run ``ttl_ns`` from ``now_ns``.

        Raises:
            FencedError: Definite. It is free, expired, or has another token.
        """
        self.expire(now_ns)
        row = self._held(name, token)
        row.until_ns = max(row.until_ns, now_ns + ttl_ns)
        return row

    def release(self, name: str, token: int) -> None:
        """Give the lease back; errors as :meth:`renew`."""
        self._held(name, token)
        del self.leases[name]

    def expire(self, now_ns: int) -> list[str]:
        """Drop the leases that ended and return their names in order."""
        gone = [row.name for row in self.leases.values() if row.until_ns <= now_ns]
        for name in gone:
            del self.leases[name]
        gone.sort()
        return gone

    def next_expiry_ns(self) -> int | None:
        """Return the earliest log time at which a lease ends, ``None`` without any."""
        return min((row.until_ns for row in self.leases.values()), default=None)

    def _held(self, name: str, token: int) -> LeaseRow:
        row = self.leases.get(name)
        if row is None or row.token != token:
            current = 0 if row is None else row.token
            message = f"lease {name!r}: token {token} is not current"
            raise FencedError(message, epoch=current)
        return row
