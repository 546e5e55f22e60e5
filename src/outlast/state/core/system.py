"""The system machine: what lies below the user's machine, in every entry and every snapshot.

It reads the same entries and decides, before the user's code is called and equally on every
replica: is this request new (sessions, keys), who may act (epochs, leases), how late is it
(log time), who belongs to it and what do they support (members), when is a checkpoint cut.
Pure: it is given entries and returns replies; the user's machine is one function it calls.

The rule for checkpoints counts applied entries and bytes in the state itself, so replicas
cut at the same index and their snapshots have the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outlast.kernel import ConfigError, DataError, DefiniteError, DivergedError, InvariantError
from outlast.kernel.call_key import KEY_CHARACTERS_MAX
from outlast.state.core.authority import SYSTEM, AuthorityTable, EpochRow, LeaseRow
from outlast.state.core.digest import chain
from outlast.state.core.envelope import Command, Header, Kind, unpack_commands
from outlast.state.core.key import KeyRow, KeyTable
from outlast.state.core.limits import Limits
from outlast.state.core.log_time import LogTime
from outlast.state.core.member import MemberTable, VersionState
from outlast.state.core.operation import (
    AcquireLease,
    Announce,
    Close,
    Configure,
    Forget,
    KeepAlive,
    MarkBody,
    Raise,
    Register,
    ReleaseLease,
    RenewLease,
    Resolve,
    SystemBody,
    TakeEpoch,
    decode_mark,
    decode_skip,
    decode_system,
)
from outlast.state.core.reply import OK
from outlast.state.core.session import Kept, SessionRow, SessionTable, fingerprint, refusal

SYSTEM_FORMAT = 1
"""Format of :class:`SystemState`; a newer one is refused by name."""

_SKIPPED_MAX = 64

Execute = Callable[[str, bytes, Any], tuple[int, bytes]]
"""Runs one command of the user's machine: (name, args, context) -> (status, body)."""

MakeContext = Callable[[int, int, int, int], Any]
"""Builds what a command sees: (now_ns, index, seed, version) -> context."""


class SystemState(msgspec.Struct, array_like=True):
    """Everything of the system machine that a snapshot holds."""

    format: int
    index: int
    digest: bytes
    limits: Limits
    log_time_ns: int
    wall_ns: int
    timeline: int
    entries_since_cut: int
    bytes_since_cut: int
    skipped: list[int]
    versions: VersionState
    epochs: list[EpochRow]
    leases: list[LeaseRow]
    sessions: list[SessionRow]
    keys: list[KeyRow]


@dataclass(slots=True)
class Applied:
    """What applying one entry gave."""

    kind: int
    replies: Sequence[Kept] = ()
    commands: Sequence[Command] = ()
    request: int = 0
    mark: MarkBody | None = None
    skipped: int = 0
    cut: bool = False
    expired: list[int] = field(default_factory=list)


class SystemMachine:
    """Applies entries in order. Not thread-safe; holds no clock and no other input.

    Args:
        execute: Runs a command of the user's machine; its statuses are those of a reply. An
            :class:`outlast.kernel.DefiniteError` that it raises is the answer of a command
            that did not run; any other exception stops the replica.
        context: Builds what a command sees.
        supported: Highest machine version that the program on this node supports.
    """

    def __init__(
        self,
        execute: Execute,
        context: MakeContext,
        *,
        supported: int = 1,
        limits: Limits | None = None,
    ) -> None:
        self._execute = execute
        self._context = context
        self._supported = supported
        self.limits = limits or Limits()
        self.sessions = SessionTable(self.limits)
        self.keys = KeyTable(self.limits)
        self.authority = AuthorityTable(self.limits)
        self.members = MemberTable()
        self.time = LogTime()
        self.index = 0
        self.digest = b""
        self.skipped: list[int] = []
        self.diverged_at = 0
        self.entries_since_cut = 0
        self.bytes_since_cut = 0

    # --- one entry -------------------------------------------------------------------------

    def apply(
        self,
        index: int,
        header: Header,
        body: bytes | memoryview,
        take_changes: Callable[[], bytes],
    ) -> Applied:
        """Apply the entry at ``index`` and return its replies.

        Raises:
            DataError: It needs a newer program here; nothing was applied.
            CorruptionError: The body is damaged.
        """
        self._check(index, header)
        kind = header.kind
        commands: list[Command] = []
        if kind == Kind.COMMANDS:
            commands = unpack_commands(body, header.command_count, index)
        applied = Applied(kind, commands=commands)
        self.time.advance(
            log_time_ns=header.log_time_ns,
            wall_ns=header.wall_ns,
            current=header.system_epoch == self.authority.current(SYSTEM) != 0,
        )
        if kind == Kind.COMMANDS:
            applied.replies = self.run(index, commands)
        elif kind == Kind.SYSTEM:
            self._system(index, body, applied)
        elif kind == Kind.TICK:
            applied.expired = self.expire()
        elif kind == Kind.MARK:
            applied.mark = decode_mark(body, index)
        elif kind == Kind.SKIP:
            applied.skipped = self._skipped_by(index, body)
        self._finish(index, header, len(body), applied, take_changes())
        return applied

    def skip(self, index: int, commands: Sequence[Command] = ()) -> None:
        """Pass the entry at ``index`` without executing it, as an agreed ``SKIP`` says.

        Args:
            index: Of the entry.
            commands: What it holds; they are barred, so that a repeat is told and not run.
        """
        for command in commands:
            self.sessions.bar(command.session, command.seq, index)
        self.index = index
        self.skipped = [*self.skipped, index][-_SKIPPED_MAX:]
        self.digest = chain(self.digest, index, (), b"skipped")

    @property
    def comparable_from(self) -> int | None:
        """Index above which digests agree on all replicas; ``None`` while versions are mixed."""
        if self.members.machine_version != self._supported:
            return None
        return self.members.raised_at

    def run(self, index: int, commands: Sequence[Command]) -> list[Kept]:
        """Execute those of ``commands`` that are new; return the reply of each, in order.

        This is the hot path: names are bound to locals on purpose.
        """
        admit, keep, execute = self.sessions.admit, self.sessions.keep, self._execute
        context = self._context
        log_ns, wall_ns = self.time.ns, self.time.wall_ns
        version = self.members.machine_version
        seed = index << 16
        replies = []
        for command in commands:
            seed += 1
            name, args, key = command.name, command.args, command.key
            print_ = fingerprint(name, args, key)
            row = admit(command, print_, log_ns, index)
            if isinstance(row, Kept):
                replies.append(row)
                continue
            kept = self._find_key(key, print_, index) if key else None
            if kept is None:
                try:
                    status, body = execute(name, args, context(wall_ns, index, seed, version))
                except DefiniteError as error:
                    kept = refusal(error, index, print_)
                else:
                    kept = Kept(print_, status, index, b"", body)
                    if key:
                        self.keys.keep(key, kept, log_ns)
            keep(row, command.seq, kept)
            replies.append(kept)
        return replies

    def _find_key(self, key: str, print_: bytes, index: int) -> Kept | None:
        if len(key) > KEY_CHARACTERS_MAX:
            message = f"idempotency key of {len(key)} characters; at most {KEY_CHARACTERS_MAX}"
            return refusal(ConfigError(message), index, print_)
        return self.keys.find(key, print_, index)

    def expire(self) -> list[int]:
        """Drop what ended by log time; returns the sessions that went."""
        now_ns = self.time.ns
        self.keys.expire(now_ns)
        self.authority.expire(now_ns)
        return self.sessions.expire(now_ns)

    def next_expiry_ns(self) -> int | None:
        """Return the log time at which something may end, ``None`` if nothing waits."""
        waits = (
            self.sessions.next_expiry_ns(),
            self.keys.next_expiry_ns(),
            self.authority.next_expiry_ns(),
        )
        return min((at for at in waits if at is not None), default=None)

    def _check(self, index: int, header: Header) -> None:
        if header.kind == Kind.CHANGES:
            raise DataError(
                f"entry {index}: kind CHANGES belongs to passive replication, which this "
                "machine does not use; serve it with the mode that wrote it"
            )
        needed = max(header.machine_version, self.members.machine_version)
        if needed > self._supported:
            raise DataError(
                f"entry {index}: needs machine version {needed}, the class here is version "
                f"{self._supported}; run the newer program on this node"
            )
        if not self.members.machine_version and header.machine_version:
            self.members.machine_version = header.machine_version

    def _skipped_by(self, index: int, body: bytes | memoryview) -> int:
        """Return the index that this entry skips.

        Raises:
            DivergedError: It was executed here, so this state is not the agreed one.
        """
        skipped = decode_skip(body, index).index
        if skipped < index and skipped not in self.skipped:
            self.diverged_at = skipped
            raise DivergedError(
                f"entry {skipped} is skipped by agreement (entry {index}), but was executed "
                "here; this replica starts again from a snapshot below it"
            )
        return skipped

    def _finish(
        self, index: int, header: Header, size: int, applied: Applied, changes: bytes
    ) -> None:
        self.index = index
        if index == self.members.raised_at:
            # While programs of two versions ran, their states had two shapes and their chains
            # two values. From here on all have the new shape: the chain begins anew.
            self.digest = b""
            changes = b""
        self.digest = digest = chain(self.digest, index, applied.replies, changes)
        for kept in applied.replies:
            if kept.index == index:
                kept.digest = digest
        self.entries_since_cut += 1
        self.bytes_since_cut += size
        if (
            header.kind == Kind.MARK
            or self.entries_since_cut >= self.limits.checkpoint_entries
            or self.bytes_since_cut >= self.limits.checkpoint_bytes
        ):
            applied.cut = True
            self.entries_since_cut = self.bytes_since_cut = 0

    # --- system operations -------------------------------------------------------------------

    def _system(self, index: int, body: bytes | memoryview, applied: Applied) -> None:
        decoded = decode_system(body, index)
        applied.request = decoded.request
        applied.expired = self.expire()
        try:
            if decoded.fence is not None:
                self.authority.check(decoded.fence)
            answer = self._operate(index, decoded)
        except DefiniteError as error:
            answer = refusal(error, index)
        applied.replies = (
            answer if isinstance(answer, Kept) else Kept(b"", OK, index, b"", _encode(answer)),
        )

    def _operate(self, index: int, body: SystemBody) -> object:
        now_ns = self.time.ns
        match body.operation:
            case Register(ttl_ns, label):
                return self.sessions.register(index, ttl_ns, label, now_ns)
            case KeepAlive(sessions):
                return [session for session in sessions if self.sessions.touch(session, now_ns)]
            case Close(session):
                return self.sessions.close(session)
            case Resolve(session, seq):
                return self.sessions.resolve(session, seq, now_ns, index)
            case TakeEpoch(role, expect, holder):
                return self.authority.take(role, expect, holder, index)
            case Announce() as row:
                self.members.announce(row)
                return list(self.members.rows)
            case Forget(replica):
                return self.members.forget(replica)
            case Raise(machine_version, format_version):
                return self._raise(index, machine_version, format_version)
            case AcquireLease(name, holder, ttl_ns):
                return self.authority.acquire(name, holder, ttl_ns, now_ns, index)
            case RenewLease(name, token, ttl_ns):
                return self.authority.renew(name, token, ttl_ns, now_ns)
            case ReleaseLease(name, token):
                self.authority.release(name, token)
                return None
            case Configure(limits):
                self._configure(limits)
                return None
        raise InvariantError(f"entry {index}: operation {body.operation!r} is not handled")

    def _raise(self, index: int, machine_version: int, format_version: int) -> list[int]:
        before = self.members.machine_version
        self.members.raise_to(machine_version, format_version)
        if self.members.machine_version != before:
            self.members.raised_at = index
        return [self.members.machine_version, self.members.format_version]

    def _configure(self, limits: Limits) -> None:
        self.limits = limits
        self.sessions.limits = self.keys.limits = self.authority.limits = limits

    # --- snapshots ---------------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        state = SystemState(
            SYSTEM_FORMAT,
            self.index,
            self.digest,
            self.limits,
            self.time.ns,
            self.time.wall_ns,
            self.authority.timeline,
            self.entries_since_cut,
            self.bytes_since_cut,
            self.skipped,
            VersionState(
                list(self.members.rows.values()),
                self.members.machine_version,
                self.members.format_version,
                self.members.raised_at,
            ),
            list(self.authority.epochs.values()),
            list(self.authority.leases.values()),
            self.sessions.rows(),
            self.keys.rows(),
        )
        return _encode(state)

    def load(self, body: bytes) -> None:
        """Take the state that :meth:`dump` returned; errors as of :meth:`read`."""
        self.adopt(self.read(body))

    @staticmethod
    def read(body: bytes) -> SystemState:
        """Return the state that :meth:`dump` returned, for :meth:`adopt`.

        Raises:
            DataError: It was written by a newer outlast, or is no such state.
        """
        try:
            format_, *_ = msgspec.msgpack.decode(body, type=list[Any])
            if format_ != SYSTEM_FORMAT:
                raise DataError(
                    f"snapshot: system state of format {format_}, known here is {SYSTEM_FORMAT}"
                )
            return msgspec.msgpack.decode(body, type=SystemState)
        except (msgspec.MsgspecError, ValueError) as error:
            raise DataError(f"snapshot: the system state cannot be read: {error}") from error

    def adopt(self, state: SystemState) -> None:
        """Take the place of what was here by ``state``, which is then owned."""
        self._configure(state.limits)
        self.index, self.digest = state.index, state.digest
        self.time = LogTime(state.log_time_ns, state.wall_ns)
        self.authority.timeline = state.timeline
        self.entries_since_cut = state.entries_since_cut
        self.bytes_since_cut = state.bytes_since_cut
        self.skipped = state.skipped
        self.members.rows = {row.replica: row for row in state.versions.rows}
        self.members.machine_version = state.versions.machine_version
        self.members.format_version = state.versions.format_version
        self.members.raised_at = state.versions.raised_at
        self.authority.epochs = {row.role: row for row in state.epochs}
        self.authority.leases = {row.name: row for row in state.leases}
        self.sessions.restore(state.sessions)
        self.keys.restore(state.keys)


_encode = msgspec.msgpack.Encoder().encode
