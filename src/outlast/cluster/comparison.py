"""Replicas compare what they computed; the odd one out is named, taken out, and rebuilt.

Each node tells the others its running digests (every 1,024 indices) and the digest of its
newest checkpoint. A node whose digest differs from that of a majority of the voters has computed
something else (a bit flipped in memory, a command that is not deterministic) and must not serve
another answer: it condemns its own directory and stops. Its next start asks to be admitted as a
new replica and gets the state from the others.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from outlast.cluster.events import ReplicaDiverged
from outlast.kernel import DivergedError, ReplicaId, World
from outlast.log import Member
from outlast.state import Announce, DigestBook, Odd, ReplicaStatus

DIGESTS = 32
"""Frame kind on the bulk channel; kinds below it are the engine's."""

_REPEAT_AFTER = 10
"""An unchanged report goes out again with every tenth look: a member may have started since."""

_ENCODE = msgspec.msgpack.Encoder().encode


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What one replica tells the others of itself.

    Args:
        running: Running digests by index.
        checkpoints: Digests of checkpoints by index.
        row: Its row for the replicas table: address, zone, versions that it supports.
        poisoned: Index of an entry that killed its process each time, 0 for none.
    """

    running: list[tuple[int, bytes]]
    checkpoints: list[tuple[int, bytes]]
    row: Announce
    poisoned: int = 0


_REPORT = msgspec.msgpack.Decoder(Report)


def comparable(
    status: ReplicaStatus, digests: Sequence[tuple[int, bytes]]
) -> list[tuple[int, bytes]]:
    """Return those of ``digests`` that must be equal on all replicas.

    None while this replica runs another version of the machine than is in force, and none from
    before that version came into force: states of two shapes have two digests.
    """
    begins = status.comparable_from
    return [] if begins is None else [(i, digest) for i, digest in digests if i > begins]


class Comparison:
    """Exchanges and compares digests for one node. Driven from one event loop.

    Args:
        world: Where events go.
        me: This replica.
        row: Its row for the replicas table.
        send: Sends a frame body to another replica; may drop it.
        condemn: Called once with the reason if this replica is the odd one.
    """

    def __init__(
        self,
        world: World,
        me: ReplicaId,
        row: Announce,
        *,
        send: Callable[[ReplicaId, bytes], object],
        condemn: Callable[[DivergedError], None],
    ) -> None:
        self._world = world
        self._me = me
        self._send = send
        self._condemn = condemn
        self._running = DigestBook()
        self._checkpoints = DigestBook(8)
        self._row = row
        self._sent: Report | None = None
        self._quiet = 0
        self.reports: dict[ReplicaId, Report] = {}
        self._named: set[tuple[str, int]] = set()
        self._voters: frozenset[ReplicaId] = frozenset()

    def tell(self, status: ReplicaStatus, members: Sequence[Member]) -> None:
        """Report this replica's digests to the other members, if there are new ones."""
        self._voters = frozenset(member.replica for member in members if member.voter)
        present = {member.replica for member in members} | {self._me}
        self.reports = {name: row for name, row in self.reports.items() if name in present}
        report = Report(
            comparable(status, status.digests[-4:]),
            comparable(status, [(s.index, s.digest)] if (s := status.snapshot) else []),
            self._row,
            status.poisoned,
        )
        self._quiet += 1
        if report == self._sent and self._quiet < _REPEAT_AFTER:
            return
        self._sent, self._quiet = report, 0
        body = _ENCODE(report)
        for member in members:
            if member.replica != self._me:
                self._send(member.replica, body)
        self._take(self._me, report)

    def heard(self, sender: ReplicaId, body: bytes) -> None:
        """Take another replica's report; a body that cannot be read is ignored."""
        try:
            report = _REPORT.decode(body)
        except msgspec.MsgspecError:
            return
        self._take(sender, report)

    def poisoned_by_majority(self) -> int:
        """Return the index of an entry that a majority of the voters waits to skip, or 0."""
        counts = Counter(
            report.poisoned
            for name, report in self.reports.items()
            if report.poisoned and name in self._voters
        )
        for index, count in counts.most_common(1):
            if count * 2 > len(self._voters):
                return index
        return 0

    def _take(self, replica: ReplicaId, report: Report) -> None:
        self.reports[replica] = report
        for book, rows, what in (
            (self._running, report.running, "running digest"),
            (self._checkpoints, report.checkpoints, "checkpoint"),
        ):
            for index, digest in rows:
                odd = book.report(replica, index, digest, voters=self._voters)
                if odd is not None:
                    self._judge(odd, what)

    def _judge(self, odd: Odd, what: str) -> None:
        for replica in odd.replicas:
            if (replica, odd.index) in self._named:
                continue
            self._named.add((replica, odd.index))
            self._world.events.emit(
                ReplicaDiverged(node=self._me, replica=replica, index=odd.index, what=what)
            )
            if replica == self._me:
                message = (
                    f"{what} at index {odd.index} differs from the majority's"
                    f" ({odd.majority.hex()}): this replica computed something else and is"
                    " rebuilt from the others"
                )
                self._condemn(DivergedError(message))
