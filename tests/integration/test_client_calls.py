"""The client against a real cluster: sessions, deadlines, keys, cancellation, and outages."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import outlast
from outlast.kernel import (
    CommandError,
    DeadlineError,
    KeyReusedError,
    OutlastError,
    TooLateError,
    UnavailableError,
)
from outlast.state.ready.bank import Bank, OverdrawnError
from tests.support.nodes import ROOT, Nodes, until

pytestmark = [pytest.mark.anyio, pytest.mark.process, pytest.mark.timeout(240)]
TTL_SECONDS = 1.5
LIMITS = {"session_ttl_ns": 1_500_000_000}
REPLICA = {"tick_seconds": 0.2, "tick_seconds_max": 0.4}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(
        tmp_path_factory.mktemp("client"),
        program="tests.support.limited_node",
        environment={
            "OUTLAST_TEST_LIMITS": json.dumps(LIMITS),
            "OUTLAST_TEST_REPLICA": json.dumps(REPLICA),
        },
    )
    try:
        made.init().start().serving()
        leader = made.leader()

        def agreed() -> bool:
            """Whether the limits hold: a session opened before would outlive the tests."""
            facts = made.status(leader)
            return facts is not None and facts["session_ttl"] == TTL_SECONDS

        until(agreed, "limits that are agreed")
        yield made
    finally:
        made.close()


def followers(nodes: Nodes) -> list[str]:
    leader = nodes.leader()
    return [name for name in nodes.names if name != leader]


async def test_two_clients_see_each_others_writes(nodes: Nodes) -> None:
    async with (
        outlast.connect(Bank, nodes.at, timeout=60) as one,
        outlast.connect(Bank, nodes.at, timeout=60) as two,
    ):
        for number in range(1, 6):
            writer, reader = (one, two) if number % 2 else (two, one)
            assert await writer.call(Bank.deposit, "shared", 1) == number
            assert (await reader.call(Bank.balances))["shared"] == number


async def test_declared_errors_come_as_their_class(nodes: Nodes) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        with pytest.raises(OverdrawnError) as error:
            await bank.call(Bank.transfer, "poor", "rich", 5)
        assert error.value.args == ("poor",)
        assert error.value.happened == "yes"
    async with outlast.connect(None, nodes.at, timeout=60) as plain:
        with pytest.raises(CommandError) as other:
            await plain.call_json("transfer", {"source": "poor", "target": "r", "amount": 5})
        assert other.value.type_name == "OverdrawnError"
        assert await plain.call_json("deposit", {"account": "json", "amount": 2}) == 2
        assert (await plain.call_json("balances", query=True))["json"] == 2


async def test_more_calls_than_the_window_wait_and_all_happen_once(nodes: Nodes) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        results = await asyncio.gather(*(bank.call(Bank.deposit, "window", 1) for _ in range(300)))
        assert sorted(results) == list(range(1, 301))


async def test_a_deadline_before_the_call_is_definite(nodes: Nodes) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        await bank.call(Bank.deposit, "late", 1)
        with pytest.raises(TooLateError) as error, outlast.deadline(0):
            await bank.call(Bank.deposit, "late", 1)
        assert error.value.happened == "no"
        assert (await bank.call(Bank.balances))["late"] == 1


async def test_a_client_without_a_cluster_is_told_definitely(nodes: Nodes) -> None:
    async with outlast.connect(Bank, "127.0.0.1:1", timeout=30) as bank:
        begun = asyncio.get_running_loop().time()
        for call in (bank.call(Bank.deposit, "nowhere", 1), bank.call(Bank.balances)):
            with pytest.raises(UnavailableError) as error, outlast.deadline(0.3):
                await call
            assert error.value.happened == "no"
            assert "127.0.0.1:1" in str(error.value)
        assert asyncio.get_running_loop().time() - begun < 20, "and not its timeout"


async def test_a_cancelled_call_is_settled_and_the_window_freed(nodes: Nodes) -> None:
    """The majority is stopped, so 256 calls are sent and given up: the whole window."""
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        await bank.call(Bank.deposit, "cancelled", 1)
        quiet = followers(nodes)
        nodes.signal(signal.SIGSTOP, *quiet)
        try:
            calls = [
                asyncio.ensure_future(bank.call(Bank.deposit, f"cancelled-{n}", 1))
                for n in range(256)
            ]
            await asyncio.wait(calls, timeout=0.2)
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        finally:
            nodes.signal(signal.SIGCONT, *quiet)
        assert await bank.call(Bank.deposit, "cancelled", 1) == 2
        state = await bank.call(Bank.balances)
        await asyncio.gather(*(bank.call(Bank.deposit, "cancelled", 1) for _ in range(300)))
        later = await bank.call(Bank.balances)
        assert later["cancelled"] == 302
        # Each of those given up has happened once or never will: nothing comes later.
        given_up = {k: v for k, v in later.items() if k.startswith("cancelled-")}
        assert set(given_up.values()) <= {1}
        assert state.keys() <= later.keys()


async def test_calls_that_died_with_the_leader_are_barred_and_the_window_freed(
    nodes: Nodes,
) -> None:
    """They were sent to a leader that read none of them: none may happen later."""
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        await bank.call(Bank.deposit, "barred", 1)
        leader = nodes.leader()
        # All of them: as long as the calls may go anywhere, there is nobody else to lead.
        nodes.signal(signal.SIGSTOP, *nodes.names)
        calls = [
            asyncio.ensure_future(bank.call(Bank.deposit, f"barred-{n}", 1)) for n in range(256)
        ]
        await asyncio.wait(calls, timeout=0.1)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        nodes.kill(leader)
        nodes.signal(signal.SIGCONT, *(name for name in nodes.names if name != leader))
        done = await asyncio.gather(*(bank.call(Bank.deposit, "barred", 1) for _ in range(256)))
        assert sorted(done) == list(range(2, 258))
        assert not [k for k in await bank.call(Bank.balances) if k.startswith("barred-")]
        nodes.start(leader)
    await asyncio.to_thread(nodes.serving, leader)


async def test_a_deadline_after_sending_is_indefinite_and_the_truth_is_one_of_both(
    nodes: Nodes,
) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        await bank.call(Bank.deposit, "unknown", 1)
        nodes.signal(signal.SIGSTOP, *nodes.names)  # the leader too: it would notice, and refuse
        try:
            with pytest.raises(DeadlineError) as error, outlast.deadline(0.4):
                await bank.call(Bank.deposit, "unknown", 1)
            assert error.value.happened == "maybe"
            with pytest.raises(OutlastError), outlast.deadline(0.4):
                await bank.call(Bank.balances)
        finally:
            nodes.signal(signal.SIGCONT, *nodes.names)
        assert await bank.call(Bank.deposit, "unknown", 1) in {2, 3}


async def test_an_expired_session_is_replaced_for_a_call_that_was_not_sent(nodes: Nodes) -> None:
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        first = await bank.register()
        assert await bank.call(Bank.deposit, "session", 1) == 1

        def gone() -> bool:
            facts = nodes.status(nodes.leader())
            return facts is not None and facts["sessions"] == 0

        # Nobody else calls, so all sessions expire by log time, this one too.
        await asyncio.to_thread(until, gone, "no sessions")
        assert await bank.call(Bank.deposit, "session", 1) == 2
        assert await bank.register() > first


async def test_a_key_outlives_the_client_that_was_killed(nodes: Nodes) -> None:
    program = (
        "import asyncio, sys, outlast\n"
        "from outlast.state.ready.bank import Bank\n"
        "async def main():\n"
        "    async with outlast.connect(Bank, sys.argv[1]) as bank:\n"
        "        with outlast.idempotency_key('order-20'):\n"
        "            print(await bank.call(Bank.deposit, 'killed', 5), flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, nodes.at, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"5\n"
    finally:
        process.kill()
        await process.communicate()
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        with outlast.idempotency_key("order-20"):
            assert await bank.call(Bank.deposit, "killed", 5) == 5
        with pytest.raises(KeyReusedError), outlast.idempotency_key("order-20"):
            await bank.call(Bank.deposit, "killed", 6)
        assert (await bank.call(Bank.balances))["killed"] == 5


async def test_status_of_one_node(nodes: Nodes) -> None:
    async with outlast.connect(None, nodes.at, timeout=60) as client:
        for name in nodes.names:
            facts = await client.status(nodes.listen[name])
            assert (facts["node"], facts["phase"]) == (name, "serving")
    async with outlast.connect(None, nodes.at, timeout=0.5) as hurried:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
            await hurried.status("127.0.0.1:1")


async def test_a_client_outlives_an_outage_of_the_whole_cluster(
    nodes: Nodes, tmp_path: Path
) -> None:
    """The last test of this cluster."""
    async with outlast.connect(Bank, nodes.at, timeout=60) as bank:
        assert await bank.call(Bank.deposit, "outage", 1) == 1
        nodes.kill(*nodes.names)
        with pytest.raises(OutlastError), outlast.deadline(0.3):
            await bank.call(Bank.deposit, "outage", 10)
        waiting = asyncio.ensure_future(bank.call(Bank.deposit, "outage", 100))
        nodes.start()
        assert await waiting in {101, 111}
        assert (await bank.call(Bank.balances))["outage"] in {101, 111}
