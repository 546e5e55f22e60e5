"""Each kind of broken node really breaks what it names, and nothing is broken until asked for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlast.cluster import process
from outlast.host import HostStorage
from outlast.kernel import ConfigError, Fault, ReplicaId
from outlast.log.engines.raft.core.types import Role, VoteRequest, VoteResponse
from outlast.state import Runner, encode_command
from outlast.state.context import Context
from outlast.state.core.operation import Register
from outlast.state.core.reply import OK
from outlast.testing.broken.breakage import BROKEN, FORGOTTEN_OF, find_breakage
from tests.support.raft_disk import BrokenError
from tests.support.raft_sim import Cluster, ids
from tests.support.state_bank import SPEC, Host, add, args, caught_up, send, value
from tests.support.state_system import Driver

A, B, C = ids(3)

Break = Callable[[str], None]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Break this process in one way until the test ends."""
    return lambda name: find_breakage(name).apply(monkeypatch.setattr)


def elected() -> Cluster:
    cluster = Cluster(ids(3), spy=False)
    cluster.elect(A)
    cluster.settle()
    cluster.sent.clear()
    return cluster


# --- the table -------------------------------------------------------------------------------


def test_every_kind_names_its_promise_and_faults_that_show_it() -> None:
    for name, one in BROKEN.items():
        assert one.name == name
        assert one.breaks
        for fault in one.condemned_by:
            assert str(Fault.parse(fault)) == fault
            assert Fault.parse(fault).kind in {"crash", "link", "pause", "partition"}


def test_an_unknown_kind_is_refused_with_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean acks-early") as error:
        find_breakage("acks-erly")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="There are forgets-fsync, acks-early"):
        find_breakage("zzz")


def run_node(tmp_path: Path, broken: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "outlast.testing.broken.node", "--version"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100,
        env={"OUTLAST_BROKEN": broken},
    )  # fmt: skip


@pytest.mark.process
@pytest.mark.timeout(120)
def test_the_program_refuses_an_unknown_kind_in_one_line_and_exits_2(tmp_path: Path) -> None:
    done = run_node(tmp_path, "stale-read")
    assert done.returncode == 2
    assert done.stderr.startswith("outlast: OUTLAST_BROKEN=stale-read: did you mean stale-reads?")
    assert done.stderr.count("\n") == 1


@pytest.mark.process
@pytest.mark.timeout(120)
def test_importing_the_table_changes_nothing_of_the_product(tmp_path: Path) -> None:
    script = """
import gc, types
from outlast.cluster import process
from outlast.log.engines.raft.core import replication, state as raft
from outlast.state import replica, runner
from outlast.state.core import session
def look():
    owners = [process, replication.Replication, raft.State, replica.Replica, runner.Runner,
              session.SessionTable]
    return [dict(vars(owner)) for owner in owners]
before = look()
import outlast.testing.broken.node
from outlast.testing.broken.breakage import BROKEN
assert look() == before, "changed by the import"
for one in BROKEN.values():
    was = look()
    one.apply(setattr)
    assert look() != was, one.name
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- each of them ----------------------------------------------------------------------------


def test_forgets_fsync_keeps_nothing_over_a_kill(broken: Break, tmp_path: Path) -> None:
    broken("forgets-fsync")
    path = str(tmp_path / "file")
    storage = process.choose_storage("disk")
    file = storage.open(path, create=True)
    file.pwrite(b"acknowledged", 0)
    file.fsync()
    storage.fsync_dir(str(tmp_path))
    after_a_kill = HostStorage()
    assert not after_a_kill.exists(path) or after_a_kill.open(path).size() == 0


def alone() -> Cluster:
    """Return a cluster, unjudged, whose leader A was cut off and then given two entries."""
    cluster = Cluster(ids(3), spy=False)
    for judge in ("on_commit", "on_elected"):
        setattr(cluster.check, judge, lambda *_: None)
    cluster.elect(A)
    cluster.settle()
    cluster.isolate(A)
    cluster.propose(A, b"lost", b"lost too")
    cluster.settle()
    return cluster


def test_acks_early_commits_what_only_the_leader_has(broken: Break) -> None:
    assert alone().node(A).commit == 1
    broken("acks-early")
    assert alone().node(A).commit == 3
    with pytest.raises(BrokenError, match="not durable on a quorum"):
        elected()


def test_acks_early_still_follows_the_leader_that_comes_after_it(broken: Break) -> None:
    broken("acks-early")
    cluster = alone()
    assert cluster.run(
        5, until=lambda: Role.LEADER in {cluster.node(B).role, cluster.node(C).role}
    )
    assert cluster.run(5, until=lambda: cluster.node(A).role is not Role.LEADER)
    assert cluster.node(A).commit == 1
    cluster.heal()
    cluster.run(5)
    assert len({cluster.node(name).last_index for name in (A, B, C)}) == 1
    assert b"lost" not in cluster.payloads(A)


def restarted(name: ReplicaId) -> Cluster:
    """Return a cluster whose ``name``, a follower that voted for A in term 1, was restarted."""
    cluster = elected()
    assert cluster.node(name).hard_state.vote == A
    cluster.crash(name)
    cluster.start(name)
    return cluster


def test_forgets_vote_votes_again_in_a_term_that_it_has_voted_in(broken: Break) -> None:
    def asked(cluster: Cluster) -> tuple[int, bool]:
        term = cluster.node(A).term
        cluster.crash(A)
        cluster.crash(C)
        cluster.sent.clear()
        last = cluster.node(B).last_index
        request = VoteRequest(term, last, term, False, False)
        cluster.deliver(C, B, request)
        cluster.settle()
        [answer] = [m for s, _, m in cluster.sent if s == B and isinstance(m, VoteResponse)]
        return term, answer.granted

    healthy = restarted(B)
    term = healthy.node(A).term
    assert (healthy.node(B).hard_state.term, healthy.node(B).hard_state.vote) == (term, A)
    assert asked(healthy) == (term, False)

    broken("forgets-vote")
    cluster = restarted(B)
    assert (cluster.node(B).hard_state.term, cluster.node(B).hard_state.vote) == (term, None)
    assert asked(cluster) == (term, True), "it voted for A in that term"


@pytest.mark.anyio
async def test_stale_reads_answers_without_asking_the_log(broken: Break, tmp_path: Path) -> None:
    from outlast.log.engines.memory import MemoryLog

    class Counted(MemoryLog):
        tails = 0

        async def tail(self, *, deadline: Any) -> Any:
            Counted.tails += 1
            return await super().tail(deadline=deadline)

    host = Host(str(tmp_path / "snap"))
    log = Counted(host.world)
    replica = host.replica(log)
    await replica.start()
    await caught_up(replica)
    before = Counted.tails
    assert value(await replica.query("get", args("get", "a"))) == 0
    assert Counted.tails == before + 1

    broken("stale-reads")
    reply = await replica.query("get", args("get", "a"))
    assert (value(reply), reply.age_ns) == (0, 0), "it even claims to be fresh"
    assert Counted.tails == before + 1
    await replica.stop()
    await log.close()


def test_drops_sessions_applies_a_repeat_again(broken: Break) -> None:
    def twice() -> tuple[Any, Any]:
        driver = Driver()
        session = driver.operate(Register(0, ""))
        body = encode_command(session, 1, 1, "add", b"a", "")
        [first], [second] = driver.commands(body), driver.commands(body)
        assert first.status == second.status == OK
        return driver.machine.counts[b"a"], driver.system.sessions.recorded(session, 1, b"")

    count, recorded = twice()
    assert count == 1
    assert recorded is not None
    broken("drops-sessions")
    assert twice() == (2, None)


@pytest.mark.anyio
async def test_drops_sessions_applies_a_repeat_that_comes_while_the_first_is_under_way(
    broken: Break, tmp_path: Path
) -> None:
    async def sent_twice(directory: str) -> int:
        host = Host(directory)
        log = host.log()
        replica = host.replica(log)
        await replica.start()
        session = await replica.register()
        send(replica, add(session, 1, "a"))
        await send(replica, add(session, 1, "a"))
        count: int = value(await replica.query("get", args("get", "a")))
        await replica.stop()
        await log.close()
        return count

    assert await sent_twice(str(tmp_path / "well")) == 1
    broken("drops-sessions")
    assert await sent_twice(str(tmp_path / "broken")) == 2


def test_forgets_writes_acknowledges_and_skips_the_same_commands_everywhere(
    broken: Break,
) -> None:
    def run() -> tuple[list[int], Runner]:
        runner = Runner(SPEC)
        results = []
        for number in range(1, 2001):
            context = Context(0, number, (number << 16) + 1, 1)
            status, _ = runner.execute("add", args("add", f"a{number}"), context)
            assert status == 0
            results.append(runner.machine.counts.get(f"a{number}", 0))  # type: ignore[attr-defined]
        return results, runner

    assert sum(run()[0]) == 2000
    broken("forgets-writes")
    results, one = run()
    again, other = run()
    assert results == again
    assert 0 < 2000 - sum(results) < 3 * 2000 / FORGOTTEN_OF
    assert one.digest() == other.digest()
    assert one.take_changes() == other.take_changes()
