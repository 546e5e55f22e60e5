"""Planted bugs in sessions and snapshots, each of which a test of ours must notice.

A promise that no test can see broken is not kept for long. Each class here breaks one.
"""

from collections.abc import Sequence

from outlast.kernel import DefiniteError, File
from outlast.state.core.envelope import Command
from outlast.state.core.session import Kept, SessionRow, SessionTable, refusal
from outlast.state.core.session import fingerprint as real_fingerprint
from outlast.state.core.system import SystemMachine
from outlast.state.snapshot_store import DiskSnapshotStore, Manifest


class SessionsNotSaved(SystemMachine):
    """Leaves the session table out of snapshots: after a restore every repeat is unknown."""

    def dump(self) -> bytes:
        """Return the state without sessions."""
        full, empty = self.sessions, SessionTable(self.limits)
        for row in full.rows():
            empty.register(row.id, row.ttl_ns, row.label, row.used_ns)
        self.sessions = empty
        try:
            return super().dump()
        finally:
            self.sessions = full


class _NoFingerprint(SessionTable):
    def admit(self, command: Command, print_: bytes, now_ns: int, index: int) -> SessionRow | Kept:
        row = self.get(command.session)
        kept = row.replies.get(command.seq) if row is not None else None
        return super().admit(command, kept.fingerprint if kept else print_, now_ns, index)


class FingerprintIgnored(SystemMachine):
    """Answers other arguments under the same number with the first one's reply."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.sessions = _NoFingerprint(self.limits)


class _CutsEarly(SessionTable):
    def _acknowledge(self, row: SessionRow, ack_below: int) -> None:
        super()._acknowledge(row, ack_below + 1)


class WindowCutTooEarly(SystemMachine):
    """Forgets one reply more than the client acknowledged."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.sessions = _CutsEarly(self.limits)


class ReplyKeptBeforeApply(SystemMachine):
    """Records the reply before the command has run: a failing one leaves a false success."""

    def run(self, index: int, commands: Sequence[Command]) -> list[Kept]:
        """Record first, execute then."""
        replies = []
        for command in commands:
            print_ = real_fingerprint(command.name, command.args, command.key)
            row = self.sessions.admit(command, print_, self.time.ns, index)
            if isinstance(row, Kept):
                replies.append(row)
                continue
            kept = Kept(print_, 0, index, b"", b"\xc0")
            self.sessions.keep(row, command.seq, kept)
            context = self._context(self.time.wall_ns, index, 0, 1)
            try:
                status, body = self._execute(command.name, command.args, context)
            except DefiniteError as error:
                replies.append(refusal(error, index, print_))
            else:
                replies.append(Kept(print_, status, index, b"", body))
        return replies


class PublishedBeforeFsync(DiskSnapshotStore):
    """Gives a snapshot its name although its content is not durable."""

    def _sync(self, file: File) -> None:
        pass


class TrimmedBeforeVerified(DiskSnapshotStore):
    """Counts a snapshot, and so lets the log go, without having read it back."""

    def verify(self, name: str, manifest: Manifest) -> None:
        """Believe it."""
