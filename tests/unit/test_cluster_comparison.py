"""Replicas that compare digests: the odd one out is named and condemned, nobody else."""

import msgspec

from outlast.cluster.comparison import Comparison, Report
from outlast.host import make_world
from outlast.kernel import EventBus, LogIndex, ReplicaId, Term
from outlast.log import Member, SnapshotRef
from outlast.state import Announce, ReplicaStatus

NAMES = [ReplicaId(f"n{n}#1") for n in (1, 2, 3)]
MEMBERS = [Member(name, f"{name}:1") for name in NAMES]


def status(
    name: str,
    digests: dict[int, bytes],
    snapshot: bytes | None = None,
    poisoned: int = 0,
    begins: int | None = 0,
) -> ReplicaStatus:
    ref = None
    if snapshot is not None:
        ref = SnapshotRef(LogIndex(4096), Term(1), 10, snapshot, 1)
    return ReplicaStatus(
        me=name, applied=9, digest=b"", digests=tuple(digests.items()), comparable_from=begins,
        log_time_ns=0, age_ns=0,
        system_epoch=0, system_holder="", holds_system=False, machine_version=1, session_count=0,
        session_ttl_ns=600 * 10**9,
        key_count=0, lease_count=0, replicas=(), waiting_count=0, pending_bytes=0, entry_count=0,
        command_count=0, snapshot=ref, snapshot_busy=False, log_first=1, poisoned=poisoned,
        failure="",
    )  # fmt: skip


class Trio:
    """Three nodes whose reports reach each other at once."""

    def __init__(self) -> None:
        self.condemned: list[str] = []
        self.events: list[object] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        world = make_world(events=bus)
        self.nodes: dict[str, Comparison] = {}
        for name in NAMES:
            self.nodes[name] = Comparison(
                world,
                name,
                Announce(name),
                send=lambda to, body, name=name: self.nodes[to].heard(name, body),
                condemn=lambda error, name=name: self.condemned.append(name),
            )

    def tell(
        self,
        name: str,
        digests: dict[int, bytes],
        snapshot: bytes | None = None,
        poisoned: int = 0,
        begins: int | None = 0,
    ) -> None:
        self.nodes[name].tell(status(name, digests, snapshot, poisoned, begins), MEMBERS)


def test_replicas_that_agree_condemn_nobody():
    trio = Trio()
    for name in NAMES:
        trio.tell(name, {1024: b"same"}, b"same")
    assert trio.condemned == []


def test_the_odd_one_out_condemns_itself_and_is_named_by_all():
    trio = Trio()
    trio.tell(NAMES[0], {1024: b"good"})
    trio.tell(NAMES[2], {1024: b"good"})
    trio.tell(NAMES[1], {1024: b"bad"})
    assert trio.condemned == ["n2#1"]
    assert len(trio.events) == 3
    assert {event.replica for event in trio.events} == {"n2#1"}  # type: ignore[attr-defined]


def test_the_odd_one_is_found_whoever_reports_first():
    trio = Trio()
    trio.tell(NAMES[1], {1024: b"bad"})
    trio.tell(NAMES[0], {1024: b"good"})
    assert trio.condemned == []
    trio.tell(NAMES[2], {1024: b"good"})
    assert trio.condemned == ["n2#1"]


def test_checkpoints_are_compared_as_well():
    trio = Trio()
    for name, digest in zip(NAMES, (b"good", b"bad", b"good"), strict=True):
        trio.tell(name, {}, digest)
    assert trio.condemned == ["n2#1"]


def test_without_a_majority_nobody_is_condemned():
    trio = Trio()
    for name, digest in zip(NAMES, (b"a", b"b", b"c"), strict=True):
        trio.tell(name, {1024: digest})
    assert trio.condemned == []


def test_a_report_that_cannot_be_read_is_ignored():
    trio = Trio()
    trio.nodes[NAMES[0]].heard(NAMES[1], b"\xc1 garbage")
    assert trio.condemned == []


def test_an_entry_is_skipped_only_when_a_majority_waits_for_it():
    trio = Trio()
    trio.tell(NAMES[0], {}, poisoned=7)
    trio.tell(NAMES[1], {}, poisoned=8)
    assert trio.nodes[NAMES[0]].poisoned_by_majority() == 0
    trio.tell(NAMES[1], {}, poisoned=7)
    assert trio.nodes[NAMES[0]].poisoned_by_majority() == 7
    trio.tell(NAMES[1], {})
    assert trio.nodes[NAMES[0]].poisoned_by_majority() == 0


def test_a_replica_that_was_replaced_does_not_count_beside_its_successor():
    """A node that dies at an entry, is wiped, and dies again, is still one of three."""
    trio = Trio()
    trio.tell(NAMES[0], {1024: b"good"})
    trio.tell(NAMES[2], {1024: b"bad"}, poisoned=7)
    leader = trio.nodes[NAMES[0]]
    assert set(leader.reports) == {"n1#1", "n3#1"}
    successor = ReplicaId("n3#4")
    rows = [*MEMBERS[:2], Member(successor, "n3:1")]
    trio.nodes[successor] = trio.nodes[NAMES[2]]
    leader.tell(status(NAMES[0], {1024: b"good"}), rows)
    report = Report([(1024, b"bad")], [], Announce(successor), 7)
    leader.heard(successor, msgspec.msgpack.encode(report))
    assert set(leader.reports) == {"n1#1", "n3#4"}
    assert leader.poisoned_by_majority() == 0
    assert trio.condemned == []


def test_an_unchanged_report_is_repeated_for_members_that_started_since():
    trio = Trio()
    heard: list[str] = []
    trio.nodes[NAMES[0]]._send = lambda to, body: heard.append(to)
    for _ in range(11):
        trio.tell(NAMES[0], {1024: b"same"})
    assert heard.count("n2#1") == 2


def test_a_replica_that_runs_another_version_is_neither_judged_nor_judge():
    trio = Trio()
    trio.tell(NAMES[0], {1024: b"old"}, b"old")
    trio.tell(NAMES[1], {1024: b"old"}, b"old")
    trio.tell(NAMES[2], {1024: b"new"}, b"new", begins=None)
    assert trio.condemned == []


def test_digests_from_before_a_version_came_into_force_are_not_compared():
    trio = Trio()
    for name, digest in zip(NAMES, (b"a", b"a", b"b"), strict=True):
        trio.tell(name, {1024: digest, 8192: b"same"}, digest, begins=5000)
    assert trio.condemned == []
    for name, digest in zip(NAMES, (b"a", b"a", b"b"), strict=True):
        trio.tell(name, {9216: digest}, begins=5000)
    assert trio.condemned == ["n3#1"]
