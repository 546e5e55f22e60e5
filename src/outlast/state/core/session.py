"""Sessions: why a request that is sent again is executed once.

A client registers; the index of that entry is its session for life, so an id is never used
twice. It numbers its requests from 1 and has at most 256 of them unanswered. The table keeps
the reply of each until the client says, with ``ack_below`` on a later request, that it has
it. So requests may overtake each other and each other's repeats, across failover and restore.

For one request the table gives one of these answers, and the first that fits is taken:

- no such session: ``SessionExpiredError``; it is never registered again behind the client;
- below ``ack_below``: answered or barred before, not told again (indefinite to us);
- recorded, other fingerprint: ``KeyReusedError``;
- recorded: the recorded reply, or ``ReplyLostError`` if its body had to go;
- beyond the window: ``ProtocolError``, a client that does not count;
- otherwise it is executed, and the reply recorded.

The order of the table is by last use, and is state: it decides who is evicted.
"""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from struct import Struct
from typing import Final

import msgspec
from crc32c import crc32c

from outlast.kernel import (
    BarredError,
    IndefiniteError,
    KeyReusedError,
    ProtocolError,
    ReplyLostError,
    SessionExpiredError,
)
from outlast.state.core.envelope import Command
from outlast.state.core.limits import Limits
from outlast.state.core.reply import DEFINITE, INDEFINITE, LOST, encode_error

FINGERPRINT_BYTES: Final = 8
_PRINT = Struct("<II").pack
_BARRED: Final = b""
"""Fingerprint of a request that was barred before anyone saw its arguments."""


class Kept(msgspec.Struct, array_like=True, gc=False):
    """A recorded reply with the fingerprint of the request that it answers."""

    fingerprint: bytes
    status: int
    index: int
    digest: bytes
    body: bytes


class SessionRow(msgspec.Struct, array_like=True):
    """One session."""

    id: int
    ttl_ns: int
    used_ns: int
    label: str = ""
    ack_below: int = 1
    reply_bytes: int = 0
    replies: dict[int, Kept] = {}


def fingerprint(name: str, args: bytes, key: str = "") -> bytes:
    """Return what tells one command with its arguments from another under the same number.

    Within a session a CRC32C with the length is enough: it guards against a client that counts
    wrongly, one chance in four thousand million that it is missed, and costs a third of a hash.
    A key is chosen by people and lives for long, so its fingerprint is a hash.
    """
    if key:
        return blake2b(b"%b\0%b" % (name.encode(), args), digest_size=FINGERPRINT_BYTES).digest()
    return _PRINT(crc32c(args, crc32c(name.encode())), len(args))


def refusal(error: Exception, index: int, print_: bytes = b"") -> Kept:
    """Return the reply that tells ``error``, definite or not as it says itself."""
    status = DEFINITE if getattr(error, "happened", "maybe") == "no" else INDEFINITE
    return Kept(print_, status, index, b"", encode_error(error))


class SessionTable:
    """All sessions. Deterministic: the same calls give the same table on every replica."""

    __slots__ = ("_expiries", "_rows", "limits", "reply_bytes")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.reply_bytes = 0
        self._rows: OrderedDict[int, SessionRow] = OrderedDict()
        self._expiries: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, session: int) -> SessionRow | None:
        """Return the row of ``session``, or ``None``."""
        return self._rows.get(session)

    def register(self, index: int, ttl_ns: int, label: str, now_ns: int) -> int:
        """Open session ``index`` and return its id; evicts the least recently used if full."""
        while len(self._rows) >= self.limits.sessions_max:
            _, gone = self._rows.popitem(last=False)
            self.reply_bytes -= gone.reply_bytes
        ttl = min(ttl_ns or self.limits.session_ttl_ns, self.limits.session_ttl_max_ns)
        self._rows[index] = SessionRow(index, ttl, now_ns, label[:64])
        heappush(self._expiries, (now_ns + ttl, index))
        return index

    def admit(self, command: Command, print_: bytes, now_ns: int, index: int) -> SessionRow | Kept:
        """Return the row under which to execute the request, or the reply that it gets."""
        session, seq, ack_below = command.session, command.seq, command.ack_below
        row = self._rows.get(session)
        if row is None:
            return refusal(expired(session), index, print_)
        self._rows.move_to_end(session)
        row.used_ns = now_ns
        if ack_below > row.ack_below:
            self._acknowledge(row, ack_below if ack_below <= seq else seq)
        kept = row.replies.get(seq)
        if kept is not None:
            return _repeat(session, seq, kept, print_, index)
        if seq < row.ack_below:
            return refusal(_stale(session, seq, row.ack_below), index, print_)
        if seq >= row.ack_below + self.limits.window:
            return refusal(
                ProtocolError(
                    f"session {session}: request {seq} is beyond the window, which is "
                    f"{row.ack_below} to {row.ack_below + self.limits.window - 1}"
                ),
                index,
                print_,
            )
        return row

    def keep(self, row: SessionRow, seq: int, kept: Kept) -> None:
        """Record the reply of request ``seq``, dropping older bodies past the bounds."""
        row.replies[seq] = kept
        size = len(kept.body)
        row.reply_bytes += size
        self.reply_bytes += size
        if row.reply_bytes > self.limits.session_reply_bytes_max:
            self._shed(row, self.limits.session_reply_bytes_max)
        if self.reply_bytes > self.limits.reply_bytes_max:
            self._shed_all()

    def resolve(self, session: int, seq: int, now_ns: int, index: int) -> Kept:
        """Return the recorded reply of ``seq``, or bar it for ever and say so."""
        row = self._rows.get(session)
        if row is None:
            return refusal(expired(session), index)
        self._rows.move_to_end(session)
        row.used_ns = now_ns
        kept = row.replies.get(seq)
        if kept is not None:
            return _sendable(session, seq, kept)
        if seq < row.ack_below:
            return refusal(_stale(session, seq, row.ack_below), index)
        if seq >= row.ack_below + self.limits.window:
            message = f"session {session}: request {seq} is beyond the window"
            return refusal(ProtocolError(message), index)
        error = BarredError(f"session {session}: request {seq} was barred; it will never run")
        barred = refusal(error, index, _BARRED)
        self.keep(row, seq, barred)
        return barred

    def bar(self, session: int, seq: int, index: int) -> None:
        """Never run ``seq``, whose entry at ``index`` was left out as it stopped the replicas."""
        row = self._rows.get(session)
        if row is None or seq in row.replies or seq < row.ack_below:
            return
        message = f"entry {index} was left out, as it stopped the nodes; its commands never run"
        self.keep(row, seq, refusal(BarredError(message), index, _BARRED))

    def recorded(self, session: int, seq: int, print_: bytes) -> Kept | None:
        """Return what a repeat gets without a new entry, or ``None`` if it must be appended."""
        row = self._rows.get(session)
        kept = None if row is None else row.replies.get(seq)
        return None if kept is None else _repeat(session, seq, kept, print_, kept.index)

    def touch(self, session: int, now_ns: int) -> bool:
        """Use the session; ``False`` if it is unknown."""
        row = self._rows.get(session)
        if row is None:
            return False
        self._rows.move_to_end(session)
        row.used_ns = now_ns
        return True

    def close(self, session: int) -> bool:
        """End the session; ``False`` if it is unknown."""
        row = self._rows.pop(session, None)
        if row is None:
            return False
        self.reply_bytes -= row.reply_bytes
        return True

    def expire(self, now_ns: int) -> list[int]:
        """Drop the sessions not used for their time to live, and return their ids in order.

        The heap may hold old instants; a row that was used since is put back with its new one.
        """
        gone = []
        heap = self._expiries
        while heap and heap[0][0] <= now_ns:
            _, session = heappop(heap)
            row = self._rows.get(session)
            if row is None:
                continue
            due = row.used_ns + row.ttl_ns
            if due > now_ns:
                heappush(heap, (due, session))
            else:
                self.close(session)
                gone.append(session)
        gone.sort()
        return gone

    def next_expiry_ns(self) -> int | None:
        """Return the earliest log time at which a session may expire, ``None`` without any."""
        return self._expiries[0][0] if self._expiries and self._rows else None

    def rows(self) -> list[SessionRow]:
        """Return all rows, least recently used first: the part of a snapshot."""
        return list(self._rows.values())

    def restore(self, rows: list[SessionRow]) -> None:
        """Take the rows of a snapshot, in their order."""
        self._rows = OrderedDict((row.id, row) for row in rows)
        self.reply_bytes = sum(row.reply_bytes for row in rows)
        self._expiries = [(row.used_ns + row.ttl_ns, row.id) for row in rows]
        heapify(self._expiries)

    def _acknowledge(self, row: SessionRow, ack_below: int) -> None:
        """Forget the replies below ``ack_below``: the client has them."""
        replies = row.replies
        low = row.ack_below
        if ack_below <= low:
            return
        row.ack_below = ack_below
        if ack_below == low + 1:  # one call at a time: the usual case
            kept = replies.pop(low, None)
            if kept is not None:
                size = len(kept.body)
                row.reply_bytes -= size
                self.reply_bytes -= size
            return
        span: Iterable[int] = range(low, ack_below)
        if ack_below - low > len(replies):
            span = [seq for seq in replies if seq < ack_below]  # a long way past few replies
        gone = 0
        for seq in span:
            kept = replies.pop(seq, None)
            if kept is not None:
                gone += len(kept.body)
        row.reply_bytes -= gone
        self.reply_bytes -= gone

    def _shed(self, row: SessionRow, bytes_max: int) -> None:
        """Drop the oldest bodies of ``row`` until at most ``bytes_max`` are left."""
        for seq, kept in row.replies.items():
            if row.reply_bytes <= bytes_max:
                return
            if kept.body:
                row.reply_bytes -= len(kept.body)
                self.reply_bytes -= len(kept.body)
                row.replies[seq] = Kept(kept.fingerprint, LOST, kept.index, kept.digest, b"")

    def _shed_all(self) -> None:
        """Drop bodies of the sessions used longest ago, down to three quarters of the bound."""
        target = self.limits.reply_bytes_max * 3 // 4
        for row in self._rows.values():
            if self.reply_bytes <= target:
                return
            self._shed(row, 0)


def expired(session: int) -> SessionExpiredError:
    """Return the error for a session that is not in the table."""
    return SessionExpiredError(
        f"session {session} is unknown or expired; open a new one, its requests are not repeated"
    )


def _stale(session: int, seq: int, ack_below: int) -> IndefiniteError:
    return IndefiniteError(
        f"session {session}: request {seq} is below {ack_below}, up to which the client said it "
        "has every answer; whether it ran is no longer known here"
    )


def _sendable(session: int, seq: int, kept: Kept) -> Kept:
    if kept.status != LOST:
        return kept
    error = ReplyLostError(
        f"session {session}: request {seq} ran at index {kept.index}, but its reply was too "
        "large to keep"
    )
    return Kept(kept.fingerprint, INDEFINITE, kept.index, kept.digest, encode_error(error))


def _repeat(session: int, seq: int, kept: Kept, print_: bytes, index: int) -> Kept:
    """Return what a repeat of a recorded request gets."""
    if kept.fingerprint != print_ and kept.fingerprint:
        error = KeyReusedError(
            f"session {session}: request {seq} came again with another command or arguments"
        )
        return refusal(error, index, print_)
    return _sendable(session, seq, kept)
