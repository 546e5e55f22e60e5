"""What a leader knows of one other member, and how much it may send to it.

Three flows. *Probe*: where the logs agree is not known, so one message is sent and its answer
awaited. *Replicate*: messages follow each other without waiting, within a window of messages
and bytes. *Snapshot*: the entries that the member needs are gone; chunks are sent instead.
"""

from collections import deque
from enum import IntEnum

from outlast.kernel import ReplicaId
from outlast.log.api import SnapshotRef


class Flow(IntEnum):
    """How a member is fed."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class PeerProgress:
    """A leader's bookkeeping for one other member."""

    __slots__ = (
        "chunks_sent", "commit_sent", "flow", "heard_ns", "ignored", "inflight",
        "inflight_bytes", "match", "next", "next_chunk", "offered_ns", "probe_sent",
        "reachable", "replica", "round", "round_sent", "snapshot",
    )  # fmt: skip

    def __init__(self, replica: ReplicaId, next_index: int, now_ns: int) -> None:
        self.replica = replica
        self.match = 0
        self.next = next_index
        self.flow = Flow.PROBE
        self.probe_sent = False
        self.inflight: deque[tuple[int, int]] = deque()  # (last index, bytes) per message
        self.inflight_bytes = 0
        self.heard_ns = now_ns
        self.reachable = True
        self.ignored = False
        self.round = 0
        self.round_sent = 0
        self.commit_sent = 0
        self.snapshot: SnapshotRef | None = None
        self.next_chunk = 0
        self.chunks_sent = 0
        self.offered_ns = 0

    def full(self, messages_max: int, bytes_max: int) -> bool:
        """Return whether the window is used up."""
        return len(self.inflight) >= messages_max or self.inflight_bytes >= bytes_max

    def sent(self, last: int, size_bytes: int) -> None:
        """Note a message with entries through ``last``."""
        self.inflight.append((last, size_bytes))
        self.inflight_bytes += size_bytes
        self.next = last + 1

    def acknowledged(self, match: int) -> bool:
        """Note durable entries through ``match``; return whether that is news."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= match:
            self.inflight_bytes -= inflight.popleft()[1]
        if match >= self.next:
            self.next = match + 1
        if match <= self.match:
            return False
        self.match = match
        return True

    def probe(self, next_index: int) -> None:
        """Go back to asking, from ``next_index`` on."""
        self.flow = Flow.PROBE
        self.next = max(next_index, self.match + 1)
        self.probe_sent = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot = None

    def replicate(self) -> None:
        """The logs are known to agree below ``next``: send without waiting."""
        self.flow = Flow.REPLICATE
        self.probe_sent = False
        self.snapshot = None

    def offer(self, ref: SnapshotRef, now_ns: int) -> None:
        """Feed the member by the snapshot ``ref``."""
        self.flow = Flow.SNAPSHOT
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot = ref
        self.next_chunk = 0
        self.chunks_sent = 0
        self.offered_ns = now_ns
