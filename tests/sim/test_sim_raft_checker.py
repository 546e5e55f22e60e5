"""The judge of the node-level simulation notices each promise being broken, planted one by one."""

from collections.abc import Callable

import pytest

from outlast.kernel import LogIndex, ReplicaId, Term, node_of
from outlast.log.engines.raft.core.election import Election
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    HardState,
    Persist,
    Role,
    TailReady,
    VoteRequest,
    VoteResponse,
)
from outlast.state.core.envelope import Header, Kind, encode_command, pack_commands, pack_entry
from outlast.state.core.limits import Limits
from outlast.state.core.operation import Register, SystemBody, encode_body
from tests.support.raft_clients import ClientCluster
from tests.support.raft_disk import BrokenError, Host
from tests.support.raft_replica import Judge, Replica
from tests.support.raft_sim import Cluster, ids

A, B, C = ids(3)


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes, ``A`` leads, five entries are committed everywhere."""
    made = Cluster([A, B, C])
    made.elect(A)
    for number in range(4):
        made.commit_one(A, b"%d" % number)
    made.run(0.2)
    return made


def judge(cluster: Cluster, replica: ReplicaId) -> None:
    host = cluster.hosts[replica]
    cluster.check.after_step(host, host.alive, cluster.hosts)


def test_a_sound_cluster_is_not_accused(cluster: Cluster) -> None:
    for replica in (A, B, C):
        judge(cluster, replica)
    assert len(cluster.check.committed) == 5


def test_election_safety_two_leaders_of_one_term(cluster: Cluster) -> None:
    cluster.node(B).state.role = Role.LEADER
    with pytest.raises(BrokenError, match="election safety"):
        judge(cluster, B)


def test_leader_completeness_a_leader_without_a_committed_entry(cluster: Cluster) -> None:
    state = cluster.node(B).state
    state.commit = 2
    state.log.truncate(4)
    state.role, state.term = Role.LEADER, state.term + 1
    with pytest.raises(BrokenError, match="leader completeness"):
        judge(cluster, B)


def test_log_matching_two_entries_of_one_index_and_term(cluster: Cluster) -> None:
    entry = cluster.hosts[A].written.get(5)
    assert entry is not None
    other = Entry(5, entry.term, EntryKind.NORMAL, b"other")
    host = cluster.hosts[B]
    host.written.entries.pop()
    with pytest.raises(BrokenError, match="log matching"):
        cluster.check.on_write(host, Persist(99, entries=[other]), Role.FOLLOWER, cluster.hosts)


def test_log_matching_one_entry_behind_two_predecessors(cluster: Cluster) -> None:
    host = cluster.hosts[B]
    entry = host.written.entries.pop()
    before = host.written.entries[-1]
    host.written.entries[-1] = Entry(before.index, before.term + 7, before.kind, before.payload)
    with pytest.raises(BrokenError, match="log matching"):
        cluster.check.on_write(host, Persist(99, entries=[entry]), Role.FOLLOWER, cluster.hosts)


def test_leader_append_only(cluster: Cluster) -> None:
    write = Persist(99, truncate_from=LogIndex(5))
    with pytest.raises(BrokenError, match="append-only"):
        cluster.check.on_write(cluster.hosts[A], write, Role.LEADER, cluster.hosts)


def test_state_machine_safety_another_entry_is_committed(cluster: Cluster) -> None:
    host = cluster.hosts[B]
    host.written.entries[4] = Entry(5, 1, EntryKind.NORMAL, b"other")
    host.commit_seen = 4
    with pytest.raises(BrokenError, match="state machine safety"):
        judge(cluster, B)


def test_committed_before_it_is_durable_on_a_quorum(cluster: Cluster) -> None:
    cluster.hosts[B].slow_disk = cluster.hosts[C].slow_disk = True
    index = cluster.accepted(cluster.propose(A, b"more")[0]).index
    cluster.run(0.02)
    cluster.node(A).state.commit = index
    with pytest.raises(BrokenError, match="not durable on a quorum"):
        judge(cluster, A)


def test_a_committed_entry_may_go_only_where_a_quorum_keeps_it(cluster: Cluster) -> None:
    write = Persist(99, truncate_from=LogIndex(5))
    cluster.check.on_write(cluster.hosts[B], write, Role.FOLLOWER, cluster.hosts)
    cluster.hosts[C].durable.entries.pop()
    with pytest.raises(BrokenError, match="drops committed entry 5"):
        cluster.check.on_write(cluster.hosts[B], write, Role.FOLLOWER, cluster.hosts)


def test_terms_and_commit_never_go_back(cluster: Cluster) -> None:
    state = cluster.node(B).state
    state.term -= 1
    with pytest.raises(BrokenError, match=r"term of .* went back"):
        judge(cluster, B)
    state.term += 1
    state.commit -= 1
    with pytest.raises(BrokenError, match=r"commit of .* went back"):
        judge(cluster, B)


def test_what_was_applied_never_goes_back(cluster: Cluster) -> None:
    cluster.hosts[B].applied = 5
    judge(cluster, B)
    cluster.hosts[B].applied = 4
    with pytest.raises(BrokenError, match="had applied 5"):
        judge(cluster, B)


def test_a_term_that_was_said_is_not_forgotten(cluster: Cluster) -> None:
    cluster.check.said[B] = 9
    with pytest.raises(BrokenError, match="spoke in term 9"):
        cluster.check.on_restart(cluster.hosts[B])


def test_one_vote_a_term_on_the_wire(cluster: Cluster) -> None:
    host = cluster.hosts[B]
    host.durable.hard = HardState(Term(7), A)
    cluster.check.on_send(host, A, VoteResponse(7, 7, False, True))
    with pytest.raises(BrokenError, match="voted for"):
        cluster.check.on_send(host, C, VoteResponse(7, 7, False, True))


def test_one_vote_a_term_on_the_disk(cluster: Cluster) -> None:
    host = cluster.hosts[B]
    host.written.hard = HardState(Term(7), A)
    write = Persist(99, hard_state=HardState(Term(7), C))
    with pytest.raises(BrokenError, match="voted for"):
        cluster.check.on_write(host, write, Role.FOLLOWER, cluster.hosts)
    write = Persist(99, hard_state=HardState(Term(6), None))
    with pytest.raises(BrokenError, match="writes term 6 after 7"):
        cluster.check.on_write(host, write, Role.FOLLOWER, cluster.hosts)


@pytest.mark.parametrize(
    "message",
    [
        VoteRequest(8, 5, 1, False, False),
        VoteResponse(8, 8, False, True),
        AppendResponse(1, True, 6, 0, 0, 0),
        AppendRequest(1, 5, 1, [], 6, 0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_nothing_is_said_before_it_is_durable(cluster: Cluster, message: VoteRequest) -> None:
    with pytest.raises(BrokenError, match=r"before|past"):
        cluster.check.on_send(cluster.hosts[B], A, message)


def _purge(host: Host) -> None:
    host.written.base = (6, 1)


def _snapshot(host: Host) -> None:
    host.applied = 3


def _apply(host: Host) -> None:
    host.applied = 6


def _shorten(host: Host) -> None:
    host.alive.state.log.last_index = 4


@pytest.mark.parametrize("plant", [_purge, _snapshot, _apply, _shorten])
def test_purged_snapshot_applied_committed_last_keep_their_order(
    cluster: Cluster, plant: Callable[[Host], None]
) -> None:
    cluster.take_snapshot(B, trim=False)
    judge(cluster, B)
    plant(cluster.hosts[B])
    with pytest.raises(BrokenError, match=r"order: n2#1"):
        judge(cluster, B)


def test_members_differ(cluster: Cluster) -> None:
    state = cluster.node(B).state
    state.configs = [(0, type(state.config)(7, state.config.members))]
    cluster.hosts[B].commit_seen = 4
    with pytest.raises(BrokenError, match="members: at 5"):
        judge(cluster, B)


def test_seals_differ(cluster: Cluster) -> None:
    cluster.node(A).state.sealed = LogIndex(5), b"x"
    judge(cluster, A)
    cluster.node(B).state.sealed = LogIndex(4), b"x"
    with pytest.raises(BrokenError, match="seal: n2#1"):
        judge(cluster, B)


def test_a_stale_read_index(cluster: Cluster) -> None:
    cluster.check.asked[77] = 5
    with pytest.raises(BrokenError, match="linearizable reads"):
        cluster._answer(cluster.hosts[A], TailReady(77, LogIndex(4)))


# --- the state above the log -------------------------------------------------------------------


def _register() -> bytes:
    return pack_entry(Header(Kind.SYSTEM, 1), encode_body(SystemBody(1, Register())))


def _command(session: int, args: bytes) -> bytes:
    body = encode_command(session, 1, 1, "add", args)
    return pack_commands([body], machine_version=1, system_epoch=0, log_time_ns=0, wall_ns=0)


def replica(name: str, judge: Judge, *payloads: bytes) -> Replica:
    made = Replica(name, judge, Limits())
    for payload in payloads:
        made.apply(Entry(made.index + 1, 1, EntryKind.NORMAL, payload))
    return made


def test_a_command_is_executed_once() -> None:
    with pytest.raises(BrokenError, match="apply once"):
        replica("x", Judge(), _register(), _register(), _command(1, b"a"), _command(2, b"a"))


def test_a_repeat_in_its_session_is_not_executed_again() -> None:
    made = replica("x", Judge(), _register(), _command(1, b"a"), _command(1, b"a"))
    assert made.order == [b"a"]


def test_replicas_that_compute_something_else_are_noticed() -> None:
    judge = Judge()
    replica("x", judge, _register(), _command(1, b"a"))
    with pytest.raises(BrokenError, match="replicas differ: y"):
        replica("y", judge, _register(), _command(1, b"b"))


def test_equal_states_give_equal_snapshots() -> None:
    judge = Judge()
    replica("x", judge, _register(), _command(1, b"a")).save(1, 4)
    other = replica("y", judge, _register(), _command(1, b"a"))
    other.order.append(b"ghost")
    with pytest.raises(BrokenError, match="y's snapshot at 2"):
        other.save(1, 4)


def test_a_snapshot_holds_the_index_that_it_is_known_by() -> None:
    made = replica("x", Judge(), _register(), _command(1, b"a"))
    saved = made.save(1, 4)
    wrong = type(saved.ref)(LogIndex(3), *_rest(saved.ref))
    with pytest.raises(BrokenError, match="through 3 holds 2"):
        made.load(type(saved)(wrong, saved.body))


def _rest(ref: object) -> tuple[object, ...]:
    names = ("term", "size_bytes", "digest", "chunk_count")
    return tuple(getattr(ref, name) for name in names)


def test_entries_are_applied_in_order_without_gaps() -> None:
    made = replica("x", Judge(), _register())
    with pytest.raises(BrokenError, match="applied 1, then 3"):
        made.apply(Entry(3, 1, EntryKind.NORMAL, _command(1, b"a")))


# --- the end -----------------------------------------------------------------------------------


@pytest.fixture
def living() -> ClientCluster:
    """Three nodes with clients whose first writes are answered."""
    made = ClientCluster([A, B, C], seed=5)
    made.elect(A)
    for _ in range(12):
        made.write(2)
        made.run(0.05)
        made.act()
    assert made.history.acked
    return made


def test_a_sound_run_converges(living: ClientCluster) -> None:
    living.converge()


def test_a_state_that_differs_at_the_end(living: ClientCluster) -> None:
    living.hosts[B].running.system.sessions._rows.popitem()
    living.judge.watch = False
    with pytest.raises(BrokenError, match="replicas differ at the end"):
        living.converge()


def test_an_acknowledged_write_that_is_lost(living: ClientCluster) -> None:
    for host in living.hosts.values():
        host.running.order[0] = b"other"
    with pytest.raises(BrokenError, match="is not at 0"):
        living.converge()


def test_no_progress_after_healing(living: ClientCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Election, "may_stand", lambda self: False)
    living.crash(A)
    with pytest.raises(BrokenError, match="no progress"):
        living.converge(3)


def test_damage_stays_within_a_minority(living: ClientCluster) -> None:
    assert living.may_damage(B)
    living.bury(B, "wiped")
    assert not living.may_damage(A)
    assert not living.may_damage(C)
    living.converge()
    assert living.counts["readmitted"] == 1
    assert living.replica_of(node_of(B)) != B


def test_a_rotten_entry_costs_the_replica_its_life_at_the_next_start(
    living: ClientCluster,
) -> None:
    host = living.hosts[B]
    host.rotten.append(host.durable.entries[1])
    living.crash(B)
    living.start(B)
    assert B not in living.hosts
    living.converge()


def test_a_clock_that_runs_slow_wakes_its_node_late(living: ClientCluster) -> None:
    host = living.hosts[B]
    assert host.clock is not None
    living.change_clock(B, rate_ppm=500_000)
    began, local = living.now, living.local(host)
    living.run(1)
    assert living.local(host) - local == (living.now - began) // 2
    assert host.clock.read(host.clock.when(local + 12_345)) >= local + 12_345
