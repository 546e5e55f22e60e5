"""Whatever faults come and go, a stream through the proxy stays a stream."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlast.inject.core.linkfault import Lane, LinkFault
from tests.support.inject_fake import FakeLab

pytestmark = pytest.mark.timeout(120)

MS = 1_000_000
CHUNK = 300
BUFFER = 1000
WAYS = st.sampled_from(["forward", "backward", "both"])
FAULTS = st.builds(
    LinkFault,
    cut=st.booleans(),
    delay_ns=st.sampled_from([0, 0, 1, 7 * MS, 900 * MS]),
    jitter_ns=st.sampled_from([0, 0, 5 * MS, 300 * MS]),
    loss_ppm=st.sampled_from([0, 0, 50_000, 900_000]),
    bytes_per_second=st.sampled_from([0, 0, 1_000, 100_000]),
)


class Streams(RuleBasedStateMachine):
    """Both parties send, faults come and go, time passes, receivers are slow at times."""

    @initialize(seed=st.integers(0, 1 << 32), cut_first=st.booleans())
    def begin(self, seed: int, cut_first: bool) -> None:
        self.seed = seed
        self.lab = FakeLab(seed, BUFFER, cut_first=cut_first)
        self.sent = {"forward": bytearray(), "backward": bytearray()}
        self.count = 0
        self.cut_mark: dict[str, int] = {}

    def ends(self, way: str):
        lab = self.lab
        return (lab.near, lab.far) if way == "forward" else (lab.far, lab.near)

    @rule(way=st.sampled_from(["forward", "backward"]), size=st.integers(1, CHUNK))
    def send(self, way: str, size: int) -> None:
        self.count += 1
        data = (b"%d," % self.count * size)[:size]
        self.sent[way] += data
        self.lab.send(self.ends(way)[0], data)

    @rule(way=WAYS, fault=FAULTS, ns=st.sampled_from([1, 10 * MS, 3_000 * MS]))
    def break_link(self, way: str, fault: LinkFault, ns: int) -> None:
        self.lab.break_link(way, fault, ns)

    @rule(way=WAYS)
    def heal(self, way: str) -> None:
        self.lab.link.clear(way)
        self.lab.settle()

    @rule(ns=st.sampled_from([1, MS, 50 * MS, 2_000 * MS]))
    def advance(self, ns: int) -> None:
        self.lab.advance(ns)

    @rule(way=st.sampled_from(["forward", "backward"]), full=st.booleans())
    def receiver(self, way: str, full: bool) -> None:
        connection = self.lab.connection
        side = connection.far if way == "forward" else connection.near
        if side.transport is not None and side.full is not full:
            side.pause_writing() if full else side.resume_writing()
            self.lab.settle()

    @invariant()
    def what_arrived_is_a_beginning_of_what_was_sent(self) -> None:
        for way, sent in self.sent.items():
            written = self.ends(way)[1].written
            assert sent.startswith(written), f"seed {self.seed}: {way} is not in order"

    @invariant()
    def memory_is_bounded(self) -> None:
        for flow in (self.lab.connection.forward, self.lab.connection.backward):
            assert flow.lane.waiting_bytes < BUFFER + CHUNK, f"seed {self.seed}"

    @invariant()
    def nothing_was_ended(self) -> None:
        for end in (self.lab.near, self.lab.far):
            state = (end.closed, end.aborted, end.ended)
            assert state == (False, False, False), f"seed {self.seed}"

    @invariant()
    def a_cut_direction_is_silent(self) -> None:
        for way in self.sent:
            written = len(self.ends(way)[1].written)
            if self.lab.link.fault(way).cut and way in self.cut_mark:
                assert written == self.cut_mark[way], f"seed {self.seed}: bytes passed a cut"
            self.cut_mark.pop(way, None)
            if self.lab.link.fault(way).cut:
                self.cut_mark[way] = written

    def teardown(self) -> None:
        if not hasattr(self, "lab"):
            return
        for side in (self.lab.connection.near, self.lab.connection.far):
            if side.full:
                side.resume_writing()
        # Nobody heals: leases are over after 3 s at most, and take all that waits with them.
        self.lab.advance(3_000 * MS)
        for way, sent in self.sent.items():
            assert self.ends(way)[1].written == sent, f"seed {self.seed}: {way} lost bytes"


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_healthy_direction_is_untouched_by_a_fault_on_the_other():
    lab = FakeLab()
    lab.break_link("forward", LinkFault(cut=True))
    lab.send(lab.far, b"y")
    lab.send(lab.near, b"z")
    assert (lab.near.written, lab.far.written) == (b"y", b"")


def test_what_is_delayed_arrives_in_its_time_and_is_counted_with_what_waited_behind_it():
    lab = FakeLab()
    mark = lab.link.mark()
    lab.break_link("forward", LinkFault(delay_ns=5 * MS))
    lab.send(lab.near, b"a")
    lab.advance(MS)
    lab.break_link("forward", LinkFault(bytes_per_second=1 << 50))
    lab.send(lab.near, b"b")
    lab.advance(4 * MS - 1)
    assert lab.far.written == b""
    lab.advance(1)
    assert lab.far.written == b"ab"
    facts = lab.link.evidence(mark)["forward"]
    assert (facts["chunks_delayed"], facts["delay_ms_mean"]) == (2, 4.5)


def test_a_chunk_that_was_read_before_the_pause_took_hold_does_not_overtake():
    lab = FakeLab()
    lab.break_link("forward", LinkFault(cut=True))
    lab.connection.near.data_received(b"1")  # the loop had it in hand when the cut began
    lab.connection.far.pause_writing()
    lab.link.clear()
    lab.connection.near.data_received(b"2")
    assert lab.far.written == b""
    lab.connection.far.resume_writing()
    assert lab.far.written == b"12"


def test_a_lane_that_reorders_is_noticed(monkeypatch):
    """Planted: the newest that is due goes first."""
    real = Lane.take

    def take(self: Lane, now_ns: int):
        if not self.held and len(self._queue) > 1 and self._queue[-1].due_ns <= now_ns:
            self._queue.rotate(1)
        return real(self, now_ns)

    monkeypatch.setattr(Lane, "take", take)
    lab = FakeLab()
    lab.break_link("forward", LinkFault(delay_ns=MS))
    for part in (b"1", b"2", b"3"):
        lab.send(lab.near, part)
    lab.advance(2 * MS)
    assert lab.far.written != b"123"
