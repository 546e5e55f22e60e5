"""How the clients of a drill end: what is under way, final reads, and closing."""

import asyncio
from typing import Any

import pytest

from outlast.drill import InvariantReport, Workload, operation
from outlast.drill.workload import Running
from tests.support.drill_load import (
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

# --- the end -----------------------------------------------------------------------------------


def test_operations_under_way_at_the_end_may_finish() -> None:
    async def slow(f: str, node: str) -> None:
        await asyncio.sleep(0.9)

    running = load(workload_of(Fake(slow)), seconds=5.3)
    assert running.counts["info"] == running.counts["fail"] == 0
    assert_well_formed(running)


def test_what_takes_longer_than_the_end_allows_has_no_known_outcome() -> None:
    async def main() -> Running:
        running = running_on(workload_of(Fake(hanging()), timeout=3600.0))
        running.start()
        await asyncio.sleep(5)
        await running.stop(1.0)
        return running

    running = in_virtual_time(main())
    assert {event.type for event in ends(running.events, "write")} <= {"info"}
    assert {event.type for event in ends(running.events, "read")} == {"fail"}
    assert_well_formed(running)


def final(running: Running, within: float = 15.0) -> list[str]:
    """Run the final reads and return the problems."""
    found: list[str] = in_virtual_time(running.final(within))
    return found


def test_final_reads_ask_every_node() -> None:
    fake = Fake()
    assert final(running_on(workload_of(fake))) == []
    assert fake.asked == [("read", "n1"), ("read", "n2"), ("read", "n3")]
    assert fake.closed == fake.opened


def test_final_reads_are_repeated_until_they_succeed() -> None:
    async def behave(f: str, node: str) -> None:
        if asyncio.get_running_loop().time() < 10:
            raise ConnectionResetError

    running = running_on(workload_of(Fake(behave)))
    assert final(running) == []
    kinds = [event.type for event in ends(running.events, "read")]
    assert kinds.count("ok") == 3
    assert kinds[0] == "fail"
    assert_well_formed(running)


@pytest.mark.parametrize("connects", [False, True])
def test_a_final_read_that_never_succeeds_is_named_with_its_node(connects: bool) -> None:
    def refuse(node: str) -> None:
        if node == "n2" and not connects:
            raise ConnectionRefusedError

    fake = Fake(raising(ConnectionResetError(), node="n2"), connects=refuse)
    problems = final(running_on(workload_of(fake)))
    assert problems == ["register: final read at n2 never succeeded"]


def test_operations_for_the_end_run_only_then() -> None:
    class Members(Workload):
        model = "set"
        clients = 2
        fake: Fake

        async def connect(self, node: Any) -> FakeClient:
            return FakeClient(self.fake, node)

        @operation
        async def add(self, client: FakeClient, value: int) -> None:
            await client.ask("add")

        @operation(final=True)
        async def read(self, client: FakeClient) -> list[int]:
            await client.ask("read")
            return []

    fake = Fake()
    running = load(workload_of(fake, Members))
    assert {f for f, _ in fake.asked} == {"add"}
    assert running.needed == [("Members", False)]
    assert running.pinned_count == 0
    assert final(running) == []
    assert [f for f, _ in fake.asked][-3:] == ["read"] * 3


def test_final_reads_of_keys_ask_for_every_key_that_was_used() -> None:
    class Keys(Register):
        model = "kv"
        read = None  # type: ignore[assignment]
        write = None  # type: ignore[assignment]

        @operation
        async def put(self, client: FakeClient, key: str, value: str) -> None:
            await client.ask("put")

        @operation
        async def get(self, client: FakeClient, key: str) -> str | None:
            await client.ask(f"get {key}")
            return None

        @classmethod
        def operations(cls) -> Any:
            return {f: s for f, s in super().operations().items() if f in {"put", "get"}}

    fake = Fake()
    running = load(workload_of(fake, Keys), seconds=60)
    keys = list(running.generator.keys)
    fake.asked.clear()
    assert len(keys) > 4
    assert final(running) == []
    assert [f for f, _ in fake.asked] == [f"get {key}" for key in keys]


def test_set_up_and_verify_get_a_client_of_the_first_node() -> None:
    seen: list[Any] = []

    class Prepared(Register):
        async def setup(self, client: FakeClient) -> None:
            seen.append(client.node.name)

        async def verify(self, client: FakeClient, events: Any) -> list[InvariantReport]:
            seen.append((client.node.name, len(events)))
            return [InvariantReport("kept", True)]

    async def main() -> None:
        running = running_on(workload_of(Fake(), Prepared))
        await running.setup()
        assert await running.verify() == [InvariantReport("kept", True)]

    in_virtual_time(main())
    assert seen == ["n1", ("n1", 0)]


# --- closing -----------------------------------------------------------------------------------


class Bare:
    """A client without any way to close it."""

    def __init__(self, fake: Fake, node: Any) -> None:
        self.fake, self.node = fake, node

    async def ask(self, f: str) -> None:
        await FakeClient(self.fake, self.node).ask(f)


class Blocking(Bare):
    def close(self) -> None:
        self.fake.closed.append(self.node.name)


class Entered(Bare):
    async def __aenter__(self) -> "Entered":
        self.fake.closed.append("entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.fake.closed.append(self.node.name)

    async def aclose(self) -> None:
        raise AssertionError("closed twice")


class Raises(Bare):
    async def aclose(self) -> None:
        self.fake.closed.append(self.node.name)
        raise RuntimeError("already closed")


class Hangs(Bare):
    async def aclose(self) -> None:
        self.fake.closed.append(self.node.name)
        await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("client", "closed"),
    [
        (FakeClient, ["n1"]), (Blocking, ["n1"]), (Entered, ["entered", "n1"]), (Bare, []),
        (Raises, ["n1"]), (Hangs, ["n1"]),
    ],
)  # fmt: skip
def test_a_client_is_closed_once_however_that_is_called(client: Any, closed: list[str]) -> None:
    fake = Fake()
    load(workload_of(fake, pinned=False, clients=1, client=client))
    assert fake.closed == closed
