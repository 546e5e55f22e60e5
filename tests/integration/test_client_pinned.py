"""Reads pinned to one node, and what nodes say of their votes, on real processes."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast.cluster import Client
from outlast.kernel import (
    ConfigError,
    DeadlineError,
    ElsewhereError,
    OutlastError,
    UnavailableError,
)
from outlast.state.ready.bank import Bank
from tests.support.nodes import Nodes, until

pytestmark = [pytest.mark.anyio, pytest.mark.process, pytest.mark.timeout(240)]
LIMIT = 30.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("pinned"))
    try:
        made.init().start().serving()
        until(
            lambda: all((made.status(name) or {}).get("leader") for name in made.names),
            "every node knows who leads",
        )
        yield made
    finally:
        made.close()


@asynccontextmanager
async def pinned_to(nodes: Nodes, name: str) -> AsyncIterator[Client[Bank]]:
    """A client that talks to ``name`` only, as it is not entered."""
    client = outlast.connect(Bank, nodes.listen[name], name="pinned")
    try:
        yield client
    finally:
        await client.close()


async def read_at(client: Client[Any], address: str, within: float = LIMIT) -> Any:
    with outlast.deadline(within):
        return await client.read_at(address, "balances")


async def answer_at(client: Client[Any], address: str) -> Any:
    """What the node at ``address`` answers: one attempt is soon given up on a busy machine."""
    async with asyncio.timeout(LIMIT):
        while True:
            with contextlib.suppress(UnavailableError):
                return await read_at(client, address)
            await asyncio.sleep(0.05)


async def paid_in(nodes: Nodes, account: str) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        await bank.call(Bank.deposit, account, 7)


async def test_the_leader_answers_and_the_others_refuse_without_a_redirect(nodes: Nodes) -> None:
    await paid_in(nodes, "pinned")
    leader = nodes.leader()
    for name in nodes.names:
        async with pinned_to(nodes, name) as client:
            if name == leader:
                assert (await answer_at(client, nodes.listen[name]))["pinned"] == 7
                continue
            with pytest.raises(ElsewhereError) as error:
                await answer_at(client, nodes.listen[name])
            assert error.value.hint == leader
            assert list(client._courier.links.by_address) == [nodes.listen[name]]


async def test_one_client_can_ask_all_and_call_beside_it(nodes: Nodes) -> None:
    leader = nodes.leader()
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        for round_ in range(3):
            await bank.call(Bank.deposit, f"beside{round_}", 1)
            for name in nodes.names:
                if name == leader:
                    found = await answer_at(bank, nodes.listen[name])
                    assert found[f"beside{round_}"] == 1
                else:
                    with pytest.raises(ElsewhereError):
                        await answer_at(bank, nodes.listen[name])


async def test_bad_arguments_are_told(nodes: Nodes) -> None:
    leader = nodes.leader()
    async with pinned_to(nodes, leader) as client:
        await answer_at(client, nodes.listen[leader])
        with pytest.raises(OutlastError, match="nothing"):
            await client.read_at(nodes.listen[leader], "nothing")
        with pytest.raises(OutlastError, match="deposit is a command"):
            await client.read_at(nodes.listen[leader], "deposit", {"account": "x", "amount": 1})
        with pytest.raises(ConfigError, match="nowhere"):
            await client.read_at("nowhere", "balances")


async def test_a_paused_node_ends_a_read_at_its_deadline_and_is_asked_again_later(
    nodes: Nodes,
) -> None:
    name = next(name for name in nodes.names if name != nodes.leader())
    async with pinned_to(nodes, name) as client:
        with pytest.raises(ElsewhereError):
            await answer_at(client, nodes.listen[name])
        nodes.signal(signal.SIGSTOP, name)
        try:
            for _ in range(2):
                with pytest.raises(DeadlineError):
                    await read_at(client, nodes.listen[name], 0.3)
        finally:
            nodes.signal(signal.SIGCONT, name)
        with pytest.raises(ElsewhereError):
            await answer_at(client, nodes.listen[name])


async def test_a_killed_node_refuses_at_once_and_remembers_its_vote(nodes: Nodes) -> None:
    leader = nodes.leader()
    told = {name: until(lambda n=name: nodes.status(n), "a status") for name in nodes.names}
    name = next(name for name in nodes.names if name != leader and told[name].get("voted_for"))
    before = told[name]
    nodes.kill(name)
    try:
        async with pinned_to(nodes, name) as client:
            with pytest.raises(UnavailableError, match=nodes.listen[name]):
                await asyncio.wait_for(read_at(client, nodes.listen[name], 60.0), 20.0)
    finally:
        nodes.start(name).serving(name)
    after = until(lambda: nodes.status(name), "a status")
    assert after["voted_term"] >= before["voted_term"]
    if after["voted_term"] == before["voted_term"]:
        assert after["voted_for"] == before["voted_for"]


@pytest.mark.slow
async def test_broken_nodes_serve_and_are_found_out_by_pinned_reads_and_votes(
    tmp_path: Path,
) -> None:
    """Followers that answer from their own state; and a restarted one that lost its vote."""
    stale = Nodes(
        tmp_path, program="outlast.testing.broken.node",
        environment={"OUTLAST_BROKEN": "stale-reads"},
    )  # fmt: skip
    try:
        stale.init().start().serving()
        follower = next(name for name in stale.names if name != stale.leader())
        await paid_in(stale, "old")
        stale.signal(signal.SIGSTOP, *(n for n in stale.names if n != follower))
        async with pinned_to(stale, follower) as client:
            found = await answer_at(client, stale.listen[follower])
        assert found in ({}, {"old": 7}), "it answers although nobody else is there"
        stale.signal(signal.SIGCONT, *stale.names)
    finally:
        stale.close()
    (tmp_path / "votes").mkdir()
    votes = Nodes(
        tmp_path / "votes", program="outlast.testing.broken.node",
        environment={"OUTLAST_BROKEN": "forgets-vote"},
    )  # fmt: skip
    try:
        votes.init().start().serving()
        leader = votes.leader()
        told = {n: until(lambda n=n: votes.status(n), "a status") for n in votes.names}
        voter = next(n for n in votes.names if n != leader and told[n]["voted_for"])
        votes.kill(voter)
        votes.start(voter).serving(voter)
        after = until(lambda: votes.status(voter), "a status")
        assert (after["voted_term"], after["voted_for"]) == (told[voter]["voted_term"], "")
    finally:
        votes.close()
