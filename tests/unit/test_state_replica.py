"""One replica on a log in memory: batching, answers, repeats, errors, reads, failures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel import (
    BarredError,
    CommandError,
    ConfigError,
    Deadline,
    DeadlineError,
    DiskFullError,
    ElsewhereError,
    KeyReusedError,
    LogIndex,
    OutlastError,
    OverloadedError,
    ProtocolError,
    SessionExpiredError,
    TooLateError,
    UnavailableError,
    happened,
)
from outlast.log.engines.memory import MemoryLog
from outlast.state import (
    Replica,
    Reply,
    decode_error,
    decode_reply_error,
    encode_command,
)
from outlast.state.core.envelope import Header, Kind, pack_entry
from outlast.state.events import ReplicaFailed
from tests.support.state_bank import NEVER, SPEC, Host, add, args, caught_up, send, turns, value

pytestmark = pytest.mark.anyio


class Gate(MemoryLog):
    """A log whose appends and tails can be held up, or refused."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.entries: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refuse: Callable[[], OutlastError] | None = None
        self.tail_count = 0

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        self.entries.append(entry)
        if self.refuse is not None:
            raise self.refuse()
        await self.open.wait()
        return await super().append(entry, deadline=deadline)

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        self.tail_count += 1
        await self.open.wait()
        return await super().tail(deadline=deadline)


@asynccontextmanager
async def running(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Host, Gate, Replica]]:
    host = Host(str(tmp_path / "snap"))
    log = Gate(host.world)
    replica = host.replica(log, **settings)
    await replica.start()
    await caught_up(replica)
    while not replica.status().holds_system or not replica.status().replicas:
        await turns()
    log.entries.clear()
    yield host, log, replica
    await replica.stop()
    await log.close()


def error_in(reply: Reply) -> OutlastError:
    assert reply.status in {2, 3}, reply
    return decode_reply_error(reply)


# --- batches and answers -------------------------------------------------------------------------


async def test_commands_of_one_turn_share_an_entry_and_an_answer_is_the_apply(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (_, log, replica):
        session = await replica.register()
        log.entries.clear()
        replies = await asyncio.gather(
            *(send(replica, add(session, n, "a")) for n in range(1, 51))
        )
        assert [value(reply) for reply in replies] == list(range(1, 51))
        assert len(log.entries) == 1
        assert {reply.index for reply in replies} == {replica.applied}
        assert {reply.digest for reply in replies} == {replica.status().digest}


async def test_an_entry_is_bounded_in_bytes_and_commands(tmp_path: Path) -> None:
    async with running(tmp_path, entry_bytes_max=400, entry_commands_max=7) as (_, log, replica):
        session = await replica.register()
        log.entries.clear()
        bodies = [add(session, n, "x" * (n % 40)) for n in range(1, 61)]
        replies = await asyncio.gather(*(send(replica, body) for body in bodies))
        assert all(reply.status == 0 for reply in replies)
        assert all(len(entry) <= 400 + 37 for entry in log.entries)
        assert len(log.entries) >= 9
        too_large = await send(replica, add(session, 61, "x" * 500))
        error = error_in(too_large)
        assert isinstance(error, ConfigError)
        assert "at most 400" in str(error)


async def test_a_repeat_while_the_first_is_under_way_waits_for_the_same_apply(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (_, log, replica):
        session = await replica.register()
        log.entries.clear()
        log.open.clear()
        first = send(replica, add(session, 1, "a"))
        await turns()
        again = send(replica, add(session, 1, "a", ack_below=1))
        other = send(replica, add(session, 1, "b"))
        assert isinstance(error_in(await other), KeyReusedError)
        assert not first.done()
        log.open.set()
        assert await first == await again
        assert len(log.entries) == 1
        assert value(await first) == 1


async def test_a_repeat_after_the_apply_is_answered_without_an_entry(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, log, replica):
        session = await replica.register()
        first = await send(replica, add(session, 1, "a"))
        log.entries.clear()
        again = send(replica, add(session, 1, "a"))
        assert again.done()
        assert await again == first
        assert isinstance(error_in(await send(replica, add(session, 1, "b"))), KeyReusedError)
        assert log.entries == []


async def test_a_command_that_raises_is_answered_and_the_replica_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, _log, replica):
        session = await replica.register()
        reply = await send(replica, encode_command(session, 1, 1, "refuse", args("refuse", "a")))
        assert reply.status == 1
        error = decode_error(reply.body, SPEC)
        assert isinstance(error, CommandError)
        assert type(error).__name__ == "Refused"
        assert error.args == ("a",)
        assert value(await send(replica, add(session, 2, "a"))) == 1


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x95\x01\x01\x01\x05\xc4\x00"]
)
async def test_bytes_that_are_no_command_are_refused_before_they_reach_the_log(
    tmp_path: Path, body: bytes
) -> None:
    async with running(tmp_path) as (_, log, replica):
        assert isinstance(error_in(await send(replica, body)), ProtocolError)
        assert log.entries == []


async def test_wrong_commands_and_arguments_do_not_stop_the_replica(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, _log, replica):
        session = await replica.register()
        unknown = await send(replica, encode_command(session, 1, 1, "nothing", b"\x80"))
        wrong = await send(replica, encode_command(session, 2, 1, "add", b"\x81\xa4name\x07"))
        junk = await send(replica, encode_command(session, 3, 1, "add", b"\xc1"))
        for reply in (unknown, wrong, junk):
            assert reply.status == 1
            assert happened(decode_error(reply.body, SPEC)) == "no"
        assert value(await send(replica, add(session, 4, "a"))) == 1


async def test_an_expired_session_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, _log, replica):
        error = error_in(await send(replica, add(999, 1, "a")))
        assert isinstance(error, SessionExpiredError)


# --- errors of the log ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ElsewhereError("ask n2", hint="n2"), 2),
        (DiskFullError("no room", retry_after=1.5), 2),
        (DeadlineError("too slow"), 3),
    ],
)
async def test_an_error_of_the_log_is_told_to_each_command(
    tmp_path: Path, error: OutlastError, status: int
) -> None:
    async with running(tmp_path) as (_, log, replica):
        session = await replica.register()
        log.refuse = lambda: error
        replies = await asyncio.gather(*(send(replica, add(session, n, "a")) for n in (1, 2)))
        for reply in replies:
            told = error_in(reply)
            assert reply.status == status
            assert type(told) is type(error)
            assert vars(told) == vars(error)
        log.refuse = None
        assert value(await send(replica, add(session, 1, "a"))) == 1


async def test_commands_that_wait_are_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, queue_bytes_max=100, inflight_entries_max=1) as (_, log, replica):
        session = await replica.register()
        log.open.clear()
        sent = send(replica, add(session, 1, "a"))
        await turns()
        waiting = send(replica, add(session, 2, "x" * 60))
        refused = send(replica, add(session, 3, "x" * 60))
        error = error_in(await refused)
        assert isinstance(error, OverloadedError)
        assert error.retry_after == 0.05
        log.open.set()
        assert value(await sent) == value(await waiting) == 1


async def test_stopping_tells_the_unsent_no_and_the_sent_maybe(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = Gate(host.world)
    replica = host.replica(log, inflight_entries_max=1)
    await replica.start()
    session = await replica.register()
    log.open.clear()
    sent = send(replica, add(session, 1, "a"))
    await turns()
    unsent = send(replica, add(session, 2, "a"))
    await replica.stop()
    assert happened(error_in(await sent)) == "maybe"
    assert happened(error_in(await unsent)) == "no"
    assert isinstance(error_in(await send(replica, add(session, 3, "a"))), UnavailableError)
    log.open.set()
    await log.close()


# --- reads ---------------------------------------------------------------------------------------


async def test_a_linearizable_query_waits_for_the_tail(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, log, replica):
        session = await replica.register()
        await send(replica, add(session, 1, "a"))
        log.open.clear()
        query = asyncio.create_task(replica.query("get", args("get", "a")))
        stale = await replica.query("get", args("get", "a"), "stale")
        assert value(stale) == 1
        assert stale.age_ns >= 0
        await turns()
        assert not query.done()
        log.open.set()
        assert value(await query) == 1


async def test_a_stale_query_is_as_old_as_the_last_tail_that_is_all_applied(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (host, log, replica):
        session = await replica.register()
        clock = host.world.clock

        async def known_ns() -> tuple[int, int]:
            before_ns = clock.monotonic_ns()
            age_ns = (await replica.query("get", args("get", "a"), "stale")).age_ns
            return before_ns - age_ns, clock.monotonic_ns() - age_ns

        asked_ns = clock.monotonic_ns()
        await caught_up(replica)
        assert (await known_ns())[1] >= asked_ns
        applied_ns = clock.monotonic_ns()
        await send(replica, add(session, 1, "a"))
        assert (await known_ns())[0] < applied_ns, "applying tells nothing of what else there is"

        await replica._applier.stop()  # it falls behind, and asks for a tail meanwhile
        for seq in (2, 3):
            await log.append(log.entries[-1], deadline=NEVER)
            behind_ns = clock.monotonic_ns()
            waiting = asyncio.ensure_future(caught_up(replica))
            await turns()
            assert not waiting.done()
            assert (await known_ns())[0] < applied_ns, f"not yet applied: {seq}"
        replica._applier.start()
        await waiting
        assert (await known_ns())[1] >= behind_ns


async def test_what_a_lagging_replica_learns_is_bounded_and_comes_true_in_order(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (host, _log, replica):
        applier = replica._applier
        now_ns = host.world.clock.monotonic_ns()
        for step in range(1, 1000):
            applier.learn(applier.passed + step, now_ns + step)
        assert applier.fresh_ns < now_ns
        applier._pause(applier.passed + 3)
        assert applier.fresh_ns == now_ns + 3
        applier._pause(applier.passed + 1000)
        assert now_ns + 3 < applier.fresh_ns < now_ns + 1000


async def test_queries_share_rounds_but_never_join_one_under_way(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, log, replica):
        log.open.clear()
        log.tail_count = 0
        first = asyncio.create_task(replica.query("get", args("get", "a")))
        await turns()
        later = [asyncio.create_task(replica.query("get", args("get", "a"))) for _ in range(20)]
        await turns()
        assert log.tail_count == 1
        log.open.set()
        await asyncio.gather(first, *later)
        assert log.tail_count == 2


async def test_a_query_keeps_its_deadline_and_checks_its_consistency(tmp_path: Path) -> None:
    async with running(tmp_path) as (host, log, replica):
        with pytest.raises(ConfigError, match="'linearizable' or 'stale'"):
            await replica.query("get", args("get", "a"), "fresh")  # type: ignore[arg-type]
        with pytest.raises(TooLateError):
            await replica.query("get", args("get", "a"), deadline=Deadline(0))
        log.open.clear()
        soon = Deadline.after(0.02, host.world.clock.monotonic_ns())
        with pytest.raises(DeadlineError):
            await replica.query("get", args("get", "a"), deadline=soon)
        log.open.set()


# --- the system machine, from outside ------------------------------------------------------------


async def test_resolve_decides_what_became_of_a_request(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, _log, replica):
        session = await replica.register()
        ran = await send(replica, add(session, 1, "a"))
        assert await replica.resolve(session, 1) == ran
        assert isinstance(error_in(await replica.resolve(session, 2)), BarredError)
        assert isinstance(error_in(await send(replica, add(session, 2, "a"))), BarredError)


async def test_the_holder_announces_itself_and_time_is_measured(tmp_path: Path) -> None:
    async with running(tmp_path, address="here:1", zone="a") as (_, _log, replica):
        status = replica.status()
        assert status.replicas == ("n1#1",)
        assert status.system_holder == "n1#1"
        assert status.machine_version == 1
        session = await replica.register()
        await send(replica, add(session, 1, "a"))
        assert replica.status().log_time_ns > 0
        facts = replica.status().facts()
        assert facts["digest"] == replica.status().digest.hex()


async def test_idle_sessions_expire_while_nothing_else_happens(tmp_path: Path) -> None:
    async with running(tmp_path, tick_seconds=0.005) as (_, _log, replica):
        await replica.register(ttl=0.02)
        while replica.status().session_count:
            await replica.catch_up(deadline=NEVER)
        kinds = [entry[1] for entry in _log.entries]
        assert kinds[-1] == Kind.TICK
        assert kinds.count(Kind.TICK) <= 3, "ticks only when something is due"


async def test_digests_are_recorded_at_multiples_whatever_the_batches(tmp_path: Path) -> None:
    host = Host(str(tmp_path / "one"))
    other = Host(str(tmp_path / "two"))
    log = host.log()
    one = host.replica(log, digest_every=8)
    await one.start()
    session = await one.register()
    for seq in range(1, 40):
        await send(one, add(session, seq, "a"))
    two = other.replica(log, me="n2#1", digest_every=8)
    await two.start()
    await caught_up(two)
    await caught_up(one)
    shared = dict(one.status().digests).keys() & dict(two.status().digests).keys()
    assert {8, 16, 24, 32, 40} <= shared
    for index in shared:
        assert dict(one.status().digests)[index] == dict(two.status().digests)[index]
    await one.stop()
    await two.stop()
    await log.close()


# --- failures ------------------------------------------------------------------------------------


async def test_a_node_failure_in_a_command_stops_the_replica(tmp_path: Path) -> None:
    async with running(tmp_path) as (host, _log, replica):
        session = await replica.register()
        good = send(replica, add(session, 1, "a"))
        await good
        lost = await send(replica, encode_command(session, 2, 1, "blow", b"\x80"))
        assert happened(error_in(lost)) == "maybe"
        failure = await replica.failed
        assert isinstance(failure, OSError)
        assert "the disk went away" in host.told(ReplicaFailed)[0].reason
        assert isinstance(error_in(await send(replica, add(session, 3, "a"))), UnavailableError)
        with pytest.raises(UnavailableError):
            await replica.query("get", args("get", "a"))
        with pytest.raises(UnavailableError):
            await replica.register()


async def test_an_entry_of_a_newer_outlast_stops_the_replica_by_name(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, log, replica):
        index = await log.append(pack_entry(Header(9)), deadline=NEVER)
        failure = await replica.failed
        assert f"entry {index}: unknown kind 9" in str(failure)


async def test_a_command_that_takes_too_long_stops_the_node(tmp_path: Path) -> None:
    tight = {"command_seconds_max": 2e-9, "slice_seconds": 1e-9}
    host = Host(str(tmp_path))
    log = host.log()
    replica = host.replica(log, **tight)
    await replica.start()
    failure = await replica.failed
    assert "s to apply; at most" in str(failure)
    await replica.stop()
    await log.close()


async def test_applying_gives_way_to_other_tasks(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    log = host.log()
    first = host.replica(log)
    await first.start()
    session = await first.register()
    for seq in range(1, 120):
        await send(first, add(session, seq, "a"))
    await first.stop()
    second = host.replica(log, me="n1#2", slice_seconds=1e-6)
    await second.start()
    seen = set()
    while second.applied < first.applied:
        seen.add(second.applied)
        await turns(1)
    assert len(seen) > 50
    await second.stop()
    await log.close()
