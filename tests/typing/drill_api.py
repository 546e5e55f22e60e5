"""A drill and a judgement as users write them; nothing here runs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import assert_type

import httpx

from outlast import check, drill
from outlast.check import CounterExample, History, Result
from outlast.kernel import HistoryEvent


class Shop(drill.Drill):
    """No acknowledged order is lost."""

    nodes = drill.Nodes("python -m shop --port {port} --data {dir}", count=3, ready="/readyz")
    faults, model = ["crash", "pause", "partition:halves", "disk:full"], "set"

    async def connect(self, node: drill.Node) -> httpx.AsyncClient:
        assert_type(node.url, str)
        assert_type(node.pinned, bool)
        return httpx.AsyncClient(base_url=node.url)

    @drill.operation
    async def add(self, client: httpx.AsyncClient, value: int) -> None:
        (await client.put(f"/orders/{value}")).raise_for_status()

    @drill.operation(final=True)
    async def read(self, client: httpx.AsyncClient) -> list[int]:
        found: list[int] = (await client.get("/orders")).json()
        return found

    async def verify(
        self, client: object, events: Sequence[HistoryEvent]
    ) -> Sequence[drill.InvariantReport]:
        return [drill.InvariantReport("something was written", bool(events))]


def an_operation_keeps_its_signature(shop: Shop, client: httpx.AsyncClient) -> None:
    add: Callable[[httpx.AsyncClient, int], Awaitable[None]] = shop.add
    read: Callable[[httpx.AsyncClient], Awaitable[list[int]]] = shop.read
    assert_type(add(client, 3), Awaitable[None])
    assert_type(read(client), Awaitable[list[int]])


def a_report_says_what_it_found() -> None:
    report = drill.run(Shop, seconds=60, seed=7)
    assert_type(report, drill.Report)
    assert_type(report.faults[0].evidence, str)
    assert_type(report.lost, int | None)
    assert report.verdict == "survived", report


def a_history_is_judged(events: list[HistoryEvent]) -> None:
    assert_type(check.history_of(events), History)
    result = check.check(events, "kv", seconds=10)
    assert_type(result, Result)
    assert_type(result.counterexample, CounterExample | None)
