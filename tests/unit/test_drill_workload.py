"""Clients of a drill: what they note of each outcome, where they go next, how they end."""

import asyncio
import inspect
from typing import Any

import pytest

from outlast.drill import InvariantReport, NoEffectError, Workload, operation
from outlast.drill import workload as module
from outlast.drill.workload import by_name
from outlast.kernel import ConfigError, HistoryEvent, RejectedError
from tests.support.drill_load import (
    NS,
    Behaviour,
    Fake,
    FakeClient,
    Register,
    assert_well_formed,
    ends,
    hanging,
    in_virtual_time,
    load,
    raising,
    running_on,
    workload_of,
)

# --- outcomes ----------------------------------------------------------------------------------


def test_what_returns_is_ok_and_a_read_notes_what_was_read() -> None:
    running = load(workload_of(Fake()))
    assert {event.type for event in running.events} == {"invoke", "ok"}
    assert running.counts == {"ok": len(running.events) // 2, "fail": 0, "info": 0}
    written = {event.value for event in ends(running.events, "write")}
    read = {event.value for event in ends(running.events, "read")}
    assert len(written) > 10
    assert len(read) > 5
    assert read <= written | {None}
    assert all(e.value is None for e in running.events if (e.f, e.type) == ("read", "invoke"))
    assert_well_formed(running)


@pytest.mark.parametrize(
    "error", [NoEffectError("no stock"), RejectedError("full"), ConnectionRefusedError()]
)
def test_a_write_that_surely_did_nothing_is_a_fail_of_the_same_process(error: Exception) -> None:
    running = load(workload_of(Fake(raising(error, f="write")), pinned=False))
    assert {event.type for event in ends(running.events, "write")} == {"fail"}
    assert {event.type for event in ends(running.events, "read")} == {"ok"}
    assert {event.process for event in running.events} == {0, 1}
    assert running.counts["fail"] == len(ends(running.events, "write"))
    assert_well_formed(running)


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), ValueError("garbage"), KeyError("id"), TimeoutError()]
)
def test_a_write_that_raises_anything_else_is_an_info_and_ends_its_process(
    error: Exception,
) -> None:
    running = load(workload_of(Fake(raising(error, f="write")), pinned=False))
    writes = ends(running.events, "write")
    assert {event.type for event in writes} == {"info"}
    assert len({event.process for event in writes}) == len(writes)
    assert running.counts["info"] == len(writes) > 3
    assert sum(running.errors.values()) == len(writes)
    assert_well_formed(running)


def test_a_write_without_an_answer_in_time_is_an_info_at_its_timeout() -> None:
    running = load(workload_of(Fake(hanging(f="write")), pinned=False))
    infos = [done for done in running.done if done.outcome == "info"]
    assert infos
    assert {round((done.end_ns - done.start_ns) / NS, 3) for done in infos} == {1.0}
    assert_well_formed(running)


@pytest.mark.parametrize("behave", [raising(ValueError("x"), f="read"), hanging(f="read")])
def test_a_read_that_does_not_succeed_is_a_fail_since_it_changes_nothing(
    behave: Behaviour,
) -> None:
    running = load(workload_of(Fake(behave), pinned=False))
    assert {event.type for event in ends(running.events, "read")} == {"fail"}
    assert running.counts["info"] == 0
    assert {event.process for event in running.events} == {0, 1}
    assert_well_formed(running)


def test_a_swap_that_was_seen_to_fail_is_an_observation_and_no_fail() -> None:
    class Swap(Register):
        @operation
        async def cas(self, client: FakeClient, old: int | None, new: int) -> bool:
            await client.ask("cas")
            return False

    running = load(workload_of(Fake(), Swap))
    swaps = ends(running.events, "cas")
    assert swaps
    assert {(event.type, event.result) for event in swaps} == {("ok", False)}
    assert all(isinstance(event.value, list) and len(event.value) == 2 for event in swaps)
    assert_well_formed(running)


def test_what_a_dequeue_returned_is_the_value_of_its_ok() -> None:
    class Queue(Workload):
        model = "queue"
        fake: Fake

        async def connect(self, node: Any) -> FakeClient:
            return FakeClient(self.fake, node)

        @operation
        async def enqueue(self, client: FakeClient, value: int) -> None:
            await client.ask("enqueue")

        @operation
        async def dequeue(self, client: FakeClient) -> int | None:
            await client.ask("dequeue")
            return 17

    running = load(workload_of(Fake(), Queue))
    assert {event.value for event in ends(running.events, "dequeue")} == {17}
    assert running.pinned_count == 0, "a queue has no reads, so nobody stays with a node"
    assert_well_formed(running)


# --- connections -------------------------------------------------------------------------------


def test_a_client_goes_on_at_the_next_node_on_a_new_connection_when_one_does_not_answer() -> None:
    fake = Fake(raising(ConnectionResetError(), node="n1"))
    running = load(workload_of(fake, pinned=False, clients=1))
    assert fake.opened[:2] == ["n1", "n2"]
    assert [node for _, node in fake.asked].count("n1") == 1
    assert fake.closed == fake.opened
    assert_well_formed(running)


def test_a_client_that_gets_answers_keeps_its_connection() -> None:
    fake = Fake()
    load(workload_of(fake, pinned=False, clients=1), seconds=30)
    assert fake.opened == fake.closed == ["n1"]


def test_pinned_clients_stay_with_their_node_and_only_read() -> None:
    fake = Fake(raising(ConnectionResetError(), node="n2"))
    load(workload_of(fake, clients=0), seconds=20)
    assert {asked for asked in fake.asked} == {("read", "n1*"), ("read", "n2*"), ("read", "n3*")}
    assert [node for _, node in fake.asked].count("n2*") > 20


def test_reads_that_a_node_refuses_to_its_pinned_client_are_counted_apart() -> None:
    fake = Fake(raising(RejectedError("not the leader"), node="n2"))
    running = load(workload_of(fake, clients=0))
    assert running.refused == [node for _, node in fake.asked].count("n2*") > 5
    assert running.counts["fail"] == 0
    assert {done.outcome for done in running.done} == {"ok"}


@pytest.mark.parametrize(
    ("behave", "sends", "answered"),
    [
        (raising(RejectedError("no"), node="n2"), 40, True),
        (raising(RejectedError("no leader in time"), node="n2"), 0, False),
        (raising(ConnectionResetError(), node="n2"), 0, False),
        (hanging(node="n2"), 0, False),
    ],
)
def test_a_read_that_failed_was_answered_if_the_node_has_sent_something_meanwhile(
    behave: Behaviour, sends: int, answered: bool
) -> None:
    heard: list[tuple[str, bool]] = []
    sent = dict.fromkeys(("n1", "n2", "n3"), 0)

    async def counted(f: str, node: str) -> None:
        sent[node] += sends
        await behave(f, node)

    load(
        workload_of(Fake(counted), clients=0), seconds=20, bytes_from=lambda node: sent[node],
        answered=lambda node, ok: heard.append((node, ok)),
    )  # fmt: skip
    assert {ok for node, ok in heard if node == "n2"} == {answered}
    assert {ok for node, ok in heard if node != "n2"} == {True}


def test_a_client_that_cannot_connect_invokes_nothing_and_goes_on_at_the_next_node() -> None:
    def refuse(node: str) -> None:
        if node == "n1":
            raise ConnectionRefusedError

    fake = Fake(connects=refuse)
    running = load(workload_of(fake, pinned=False, clients=1))
    assert fake.opened == ["n2"]
    assert running.counts["ok"] > 10
    assert_well_formed(running)


def test_clients_keep_to_their_rate() -> None:
    running = load(workload_of(Fake(), pinned=False, clients=3, rate=20.0), seconds=60)
    assert 0.85 <= running.counts["ok"] / (3 * 20 * 60) <= 1.1


def test_equal_seeds_run_equal_operations_and_others_differ() -> None:
    def story(seed: int) -> list[HistoryEvent]:
        return load(workload_of(Fake()), seed=seed).events

    assert story(7) == story(7)
    assert story(7) != story(8)


# --- defects in the drill's own code -----------------------------------------------------------


def line_of(function: Any, text: str) -> int:
    """The line in this file where ``function`` says ``text``."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)


class Defective(Register):
    @operation
    async def read(self, client: FakeClient) -> int | None:
        return client.no_such_method()  # type: ignore[attr-defined, no-any-return]


class Deep(Register):
    @operation
    async def read(self, client: FakeClient) -> int | None:
        await asyncio.sleep(0.01)
        return await library().read()  # type: ignore[no-any-return]


class Unconnectable(Register):
    async def connect(self, node: Any) -> Any:
        return undefined_name  # type: ignore[name-defined]  # noqa: F821


def library() -> Any:
    """A client library with a function of the operation's own name, which raises TypeError."""
    space: dict[str, Any] = {}
    code = compile("async def read(): raise TypeError('inside')", "library.py", "exec")
    exec(code, space)  # noqa: S102 - code with a file of its own
    return type("Library", (), {"read": staticmethod(space["read"])})


@pytest.mark.parametrize(
    ("base", "function", "text", "says"),
    [
        (Defective, Defective.read, "no_such_method", "AttributeError"),
        (Deep, Deep.read, "library()", "TypeError: inside"),
        (Unconnectable, Unconnectable.connect, "undefined_name", "NameError"),
    ],
)
def test_a_mistake_in_the_drills_own_code_stops_it_and_names_the_line(
    base: type[Workload], function: Any, text: str, says: str
) -> None:
    where = f"test_drill_workload.py:{line_of(function, text)}: {says}"
    with pytest.raises(ConfigError, match=f"workload register, {where}"):
        load(workload_of(Fake(), base))


def test_a_mistake_is_told_while_the_load_goes_on() -> None:
    async def main() -> None:
        running = running_on(workload_of(Fake(), Defective))
        running.start()
        await asyncio.sleep(1)
        running.check()

    with pytest.raises(ConfigError, match="no_such_method"):
        in_virtual_time(main())


class Unprepared(Register):
    async def setup(self, client: FakeClient) -> None:
        await client.ask("setup")


class Unverified(Register):
    async def verify(self, client: FakeClient, events: Any) -> list[InvariantReport]:
        await client.ask("verify")
        return events.nothing  # type: ignore[no-any-return]


def test_a_set_up_that_does_not_work_is_named_with_its_line_and_reason() -> None:
    where = f"drill_load.py:{line_of(raising, 'raise error')}"
    running = running_on(workload_of(Fake(raising(KeyError("id"))), Unprepared))
    with pytest.raises(ConfigError, match=rf"setup of workload register, {where}: KeyError: 'id'"):
        in_virtual_time(running.setup())
    running = running_on(workload_of(Fake(hanging()), Unprepared))
    with pytest.raises(ConfigError, match=r"setup of workload register, .*TimeoutError"):
        in_virtual_time(running.setup())


def test_a_target_that_cannot_be_connected_for_the_set_up_is_named_with_the_reason() -> None:
    def refuse(node: str) -> None:
        raise ConnectionRefusedError(111, "refused")

    running = running_on(workload_of(Fake(connects=refuse), Unprepared))
    with pytest.raises(ConfigError, match=r"ConnectionRefusedError.*refused"):
        in_virtual_time(running.setup())


def test_a_mistake_in_verify_is_named_and_what_else_kept_it_from_an_answer_comes_through() -> None:
    running = running_on(workload_of(Fake(), Unverified))
    with pytest.raises(ConfigError, match=r"verify of workload register, .*: AttributeError"):
        in_virtual_time(running.verify())
    running = running_on(workload_of(Fake(raising(ConnectionResetError("gone"))), Unverified))
    with pytest.raises(ConnectionResetError, match="gone"):
        in_virtual_time(running.verify())


# --- books -------------------------------------------------------------------------------------


def test_every_event_is_recorded_as_it_is_noted() -> None:
    recorded: list[HistoryEvent] = []
    running = load(workload_of(Fake()), record=recorded.append)
    assert recorded == running.events


def test_every_completion_is_a_row_of_the_timeline() -> None:
    running = load(workload_of(Fake(raising(ValueError("x"), f="write"))))
    completions = [event for event in running.events if event.type != "invoke"]
    assert len(running.done) + running.refused == len(completions)
    assert sum(running.counts.values()) == len(running.done)


def test_two_workloads_of_one_name_are_refused() -> None:
    made = [running_on(workload_of(Fake())) for _ in range(2)]
    with pytest.raises(ConfigError, match="two workloads are called 'register'"):
        by_name(made)


# --- planted bugs ------------------------------------------------------------------------------


def test_a_client_that_goes_on_as_the_same_process_after_an_info_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.Running, "_process", lambda self: id(asyncio.current_task()))
    with pytest.raises(AssertionError, match="after the info of its process"):
        test_a_write_without_an_answer_in_time_is_an_info_at_its_timeout()


def test_a_recorder_that_drops_completions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    note = module.Running._note
    monkeypatch.setattr(
        module.Running,
        "_note",
        lambda self, p, kind, call, **k: 0 if kind == "ok" else note(self, p, kind, call, **k),
    )
    with pytest.raises(AssertionError):
        test_what_returns_is_ok_and_a_read_notes_what_was_read()
