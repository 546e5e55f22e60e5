"""How long a follower bears a leader's silence: learnt from when its heartbeats come.

A fixed election timeout has to fit the worst day: on a quiet machine heartbeats come every 60 ms
to the millisecond, and half a second of waiting is wasted; on a starved one they come late, and
half a second elects somebody for nothing. So the suspicion of an accrual detector decides
(Hayashibara et al. 2004): regular beats make a follower strict, irregular ones patient, between
three fifths of the election timeout and four times it.

Differs from the Raft paper (9.3), where the timeout is a constant. Safety does not depend on it:
it is only about *when* somebody stands.

States: *learning* (a new leader, fewer than ``BEATS_MIN`` beats: the election timeout holds), then
*learnt*.
"""

from typing import Final

from outlast.detect.core.phi import PhiAccrual
from outlast.log.engines.raft.core.settings import RaftSettings, nanoseconds

BEATS_MIN: Final = 8
"""Beats of one leader before their times count."""

EVICT: Final = 8.0
_PAUSE_BEATS: Final = 3


class Patience:
    """The silence that a follower of the current leader bears.

    Args:
        settings: Timing of this node. With lease reads, or without ``accrual``, nothing is
            learnt: a promise not to vote must have a length that all know.
    """

    __slots__ = ("_detector", "_heard_ns", "_least_ns", "_most_ns", "_thin_ns", "silence_ns")

    def __init__(self, settings: RaftSettings) -> None:
        timeout_ns = nanoseconds(settings.election_timeout)
        heartbeat_ns = nanoseconds(settings.heartbeat)
        self.silence_ns = timeout_ns
        """Without a word for so long, the leader is suspected."""
        self._least_ns = max(timeout_ns * 3 // 5, 4 * heartbeat_ns)
        self._most_ns = 4 * timeout_ns
        # Entries come in between, as fast as they are written: only one word per half a
        # heartbeat is taken for a beat.
        self._thin_ns = heartbeat_ns // 2
        self._heard_ns = 0
        self._detector = (
            PhiAccrual(
                interval=settings.heartbeat,
                pause=_PAUSE_BEATS * settings.heartbeat,
                floor=settings.heartbeat / 10,
                cap=self._most_ns / 1e9,
            )
            if settings.accrual and not settings.lease_reads
            else None
        )

    def begin(self, timeout_ns: int) -> None:
        """Another leader, or none: what was learnt of the last one says nothing of it."""
        self.silence_ns = timeout_ns
        self._heard_ns = 0
        if self._detector is not None:
            self._detector.forget()

    def hear(self, now_ns: int) -> None:
        """A word from the leader has come."""
        detector = self._detector
        if detector is None or now_ns - self._heard_ns < self._thin_ns:
            return
        self._heard_ns = now_ns
        detector.beat(None, now_ns)
        if detector.beats >= BEATS_MIN:
            learnt_ns = detector.detection_ns(EVICT)
            self.silence_ns = min(max(learnt_ns, self._least_ns), self._most_ns)
