"""Ways in which a drill could say more than it saw: each of them is closed."""

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from outlast.drill import Drill, InvariantReport, Nodes, Workload, WorkloadReport, operation
from outlast.drill.api import check_drill
from outlast.drill.core.generate import Call, observes
from outlast.drill.core.verdict import judge
from outlast.drill.runner import DrillRun
from outlast.drill.target import OwnNodes
from outlast.drill.workload import Running
from outlast.kernel import ConfigError
from tests.support.drill_load import (
    Fake,
    FakeClient,
    Register,
    assert_well_formed,
    ends,
    in_virtual_time,
    load,
    running_on,
    virtual_world,
    workload_of,
)
from tests.unit.test_drill_nemesis import (
    FakeLab,
    FakeVolume,
    Sent,
    carried_out,
    lab,
    module,
    nemesis_of,
    planned,
)

__all__ = ["lab"]

# --- clients -----------------------------------------------------------------------------------


def test_a_client_whose_library_raises_a_stray_cancellation_goes_on() -> None:
    async def stray(f: str, node: str) -> None:
        if f == "write":
            raise asyncio.CancelledError

    running = load(workload_of(Fake(stray), pinned=False, clients=2), seconds=20)
    writes = ends(running.events, "write")
    assert len(writes) > 20, "clients did not die of it"
    assert {event.type for event in writes} == {"info"}
    assert running.errors == {"CancelledError that nobody asked for": len(writes)}
    assert_well_formed(running)


def test_a_stray_cancellation_outside_an_operation_is_a_defect_and_no_silent_end() -> None:
    def refuse(node: str) -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConfigError, match="CancelledError outside an operation"):
        load(workload_of(Fake(connects=refuse), pinned=False))


class WriteOnly(Register):
    """Writes and never reads, not even at the end."""

    read: Any = None


class ReadOnly(Register):
    write: Any = None


class Verified(WriteOnly):
    async def verify(self, client: FakeClient, events: Any) -> list[InvariantReport]:
        return []


class Enqueuing(Workload):
    model = "queue"

    @operation
    async def enqueue(self, client: Any, value: int) -> None: ...


class Queue(Enqueuing):
    @operation
    async def dequeue(self, client: Any) -> int | None: ...


@pytest.mark.parametrize(
    ("base", "unseen"),
    [
        (Register, []),
        (WriteOnly, ["never reads"]),
        (ReadOnly, ["never writes"]),
        (Verified, []),
        (Enqueuing, ["never reads"]),
        (Queue, []),
    ],
)
def test_a_workload_that_only_reads_or_only_writes_proves_nothing(
    base: type[Workload], unseen: list[str]
) -> None:
    running = Running(virtual_world(), base(), (), 1, 0)
    assert [what.rpartition("it ")[2] for what in running.unseen] == unseen


def test_a_drill_whose_workload_never_reads_is_unknown() -> None:
    work = WorkloadReport("kv", "kv", 80, 5, 5, "valid")
    shown: Any = SimpleNamespace(verdict="survived", why="", name="crash")
    found = judge([shown], [work], [], [], ["kv: it never reads"])
    assert found == ("unknown", ("kv: it never reads",))


def test_unknown_outcomes_of_one_workload_are_not_thinned_by_another() -> None:
    shown: Any = SimpleNamespace(verdict="survived", why="", name="crash")
    works = [WorkloadReport("kv", "kv", 900, 0, 0, "valid"),
             WorkloadReport("bank", "bank", 50, 0, 50, "valid")]  # fmt: skip
    verdict, why = judge([shown], works, [], [])
    assert verdict == "unknown"
    assert why == ("bank: 50 of 100 operations have no known outcome: more than a fifth",)


@pytest.mark.parametrize(
    ("f", "value", "output", "observed"),
    [
        ("read", None, 1, True), ("get", None, None, True), ("write", 1, None, False),
        ("cas", [1, 2], True, False), ("cas", [1, 2], False, True), ("dequeue", None, None, True),
        ("txn", [["r", "x", None]], [], True),
        ("txn", [["r", "x", None], ["append", "x", 1]], [], False),
    ],
)  # fmt: skip
def test_only_what_changed_something_counts_as_a_write(
    f: str, value: Any, output: Any, observed: bool
) -> None:
    assert observes(Call(f, None, value, {}), output) is observed


def test_a_queue_must_be_emptied_as_well_as_filled_around_each_fault() -> None:
    running = Running(virtual_world(), Queue(), (), 1, 0)
    assert running.needed == [("Queue", False), ("Queue", True)]


def test_final_reads_of_keys_go_to_all_nodes_in_turn() -> None:
    class Keyed(Register):
        @operation
        async def read(self, client: FakeClient, key: str) -> None:
            await client.ask("read")

    fake = Fake()

    async def main() -> None:
        running = running_on(workload_of(fake, Keyed))
        for _ in range(9):
            running.generator.keys.append(f"k{len(running.generator.keys) + 1}")
        assert await running.final(5.0) == []

    in_virtual_time(main())
    assert [node for _, node in fake.asked] == ["n1", "n2", "n3"] * 3


@pytest.mark.parametrize("kind", [set, frozenset, tuple])
def test_a_read_may_return_any_collection(kind: type) -> None:
    class Members(Register):
        model = "set"
        write: Any = None

        @operation
        async def add(self, client: FakeClient, value: int) -> None: ...

        @operation(final=True)
        async def read(self, client: FakeClient) -> Any:
            return kind([1])

    async def main() -> Running:
        running = running_on(workload_of(Fake(), Members))
        assert await running.final(5.0) == []
        return running

    assert [event.value for event in ends(in_virtual_time(main()).events, "read")] == [[1]] * 3


# --- bad input ---------------------------------------------------------------------------------


class Fine(Drill):
    nodes = Nodes("python x {port}")
    model = "set"

    @operation
    async def add(self, client: Any, value: int) -> None: ...


class Orders(Fine):
    @operation(final=True)
    async def orders(self, client: Any) -> list[int]: ...


@pytest.mark.parametrize(
    ("drill", "says"),
    [
        (type("T", (Fine,), {"nodes": "python x"}), "T: nodes is 'python x'; write nodes = "),
        (type("T", (Fine,), {"serves_with": "majorty"}), "serves_with is 'majorty'; use majority"),
        (type("T", (Fine,), {"recover_within": 0}), "T: recover_within is 0; give more than 0"),
        (type("T", (Fine,), {"rate": 0}), "T: rate is 0; give more than 0"),
        (type("T", (Fine,), {"timeout": 0}), "T: timeout is 0; give more than 0"),
        (type("T", (Fine,), {"clients": 0}), "T: clients is 0; give at least 1"),
        (Orders, "Orders: operation 'orders': model set has add, read; name the method so"),
    ],
)
def test_a_drill_that_would_judge_wrongly_or_break_later_is_refused_at_once(
    drill: type[Drill], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        DrillRun(virtual_world(), drill(), 12, 1)
    assert says in str(caught.value)


def test_both_kinds_of_nodes_and_faults_in_one_text_are_fine() -> None:
    check_drill(Fine)
    check_drill(type("Own", (Fine,), {"nodes": OwnNodes("m:M")}))

    class Text(Fine):
        faults: ClassVar[Any] = "crash,pause"

    made = DrillRun(virtual_world(), Text(), 12, 1)
    assert [str(fault) for fault in made._parsed] == ["crash@one", "pause@one"]


@pytest.mark.parametrize("seconds", [float("inf"), 1e9])
def test_a_drill_without_an_end_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="give at most 604800"):
        DrillRun(virtual_world(), Fine(), seconds, 1)


# --- evidence ----------------------------------------------------------------------------------


def test_one_of_several_that_was_not_killed_takes_the_evidence_of_all(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(lab)

    async def crash(world: Any, pid: int) -> Any:
        found = await sent.crash(world, pid)
        found.facts["gone"] = pid != 102
        return found

    monkeypatch.setattr(module, "crash", crash)
    (one,) = carried_out(lab, "crash@all").injected
    assert one.evidence == ""


@pytest.mark.parametrize("name", ["crash", "pause"])
def test_a_process_that_ends_just_before_its_signal_leaves_no_evidence_and_no_traceback(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def gone(world: Any, pid: int, **_: Any) -> Any:
        raise ProcessLookupError(pid)

    monkeypatch.setattr(module, name, gone)
    (one,) = carried_out(lab, f"{name}@leader").injected
    assert one.evidence == ""


def test_a_node_that_was_down_already_stays_down_while_it_counts_as_crashed(lab: FakeLab) -> None:
    lab.nodes["n1"].process = None  # type: ignore[assignment]
    carried_out(lab, "crash@leader")
    assert lab.nodes["n1"].wanted is False


def test_a_pause_that_somebody_else_ended_is_no_evidence(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(lab)

    async def pause(world: Any, pid: int, **given: Any) -> Any:
        paused = await sent.pause(world, pid, **given)
        paused.active = False
        return paused

    monkeypatch.setattr(module, "pause", pause)
    (one,) = carried_out(lab, "pause@leader").injected
    assert one.evidence == ""
    assert one.missing == "somebody else let n1 go on before its time"


def test_a_full_disk_under_a_node_that_keeps_nothing_on_it_is_no_evidence(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeVolume, "used", lambda self: False)
    (one,) = carried_out(lab, "disk:full@leader").injected
    assert one.evidence == ""
    assert one.missing == "n1 keeps nothing in its directory: a full disk is no harm"


def test_no_reads_are_expected_at_nodes_that_are_cut_off_from_their_clients() -> None:
    (one,) = carried_out(FakeLab(talk=False), "partition:isolate@leader").injected
    assert one.evidence
    assert one.asked == {}


def test_a_fault_of_the_leader_waits_until_there_is_one(lab: FakeLab) -> None:
    made = nemesis_of(lab, planned("crash@leader", "crash@leader"))
    made.leader = lambda: "" if 10.0 <= asyncio.get_running_loop().time() < 11.0 else "n2"
    in_virtual_time(made.run())
    first, second = made.injected
    assert first.aim.victims == second.aim.victims == ("n2",)
    assert round(second.start_ns / 1e9, 1) == 11.0


def test_a_fault_of_the_leader_that_hits_anybody_else_is_no_evidence(lab: FakeLab) -> None:
    made = nemesis_of(lab, planned("pause@leader", "pause@leader", "pause@one"))
    made.leader = lambda: "n1" if asyncio.get_running_loop().time() < 8 else ""
    in_virtual_time(made.run())
    assert [bool(one.evidence) for one in made.injected] == [True, False, True]
    assert made.injected[1].missing == "nobody was known to lead: another node was hit"
