"""Leaders of real processes are killed, paused and asked to hand over, under load."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from outlast import deadline
from outlast.cluster.connect import connect
from outlast.kernel import OutlastError
from tests.support.cluster import WAIT, loaded, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]
GAP_MAX_NS = 30_000_000_000  # a second, if the machine has nothing else to do


async def test_callers_of_a_killed_leader_are_answered_once_by_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, loaded(lab, clients=16) as load:
        leader = await lab.leader()
        term = await lab.term(leader)
        await load.more(200)
        killed_ns = lab.world.clock.monotonic_ns()
        assert await lab.end(leader) == -signal.SIGKILL
        await load.more(200)
        await lab.leader(term_above=term)
        now_ns = lab.world.clock.monotonic_ns()
        assert load.bank.acks.longest_gap_ns(killed_ns, now_ns) < GAP_MAX_NS
        await lab.start(leader)
        judgement = await load.judge()
    assert judgement.unknown == 0
    assert load.bank.counts.fail == 0


async def test_a_paused_leader_steps_down_and_answers_no_stale_read(tmp_path: Path) -> None:
    async with running(tmp_path, machine="kv") as lab:
        old = await lab.leader()
        term = await lab.term(old)
        # Whatever it learns, this client knows one way only: to the leader that is paused.
        routes = dict.fromkeys(lab.addresses, lab.addresses[old])
        pinned = connect(None, [lab.addresses[old]], routes=routes, timeout=WAIT)

        async def read(within: float = WAIT) -> int | None:
            try:
                with deadline(within):
                    return int(await pinned.call_json("get", {"key": "count"}, query=True))
            except (OutlastError, OSError):
                return None

        async with lab.client() as writer, pinned:

            async def write(value: int) -> None:
                await writer.call_json("put", {"key": "count", "value": value})

            await write(1)
            assert await read() == 1
            lab.signal(old, signal.SIGSTOP)
            others = [node for node in lab.addresses if node != old]
            new = await lab.leader(*others, term_above=term)
            await write(2)
            # These wait in the sockets of the old leader, which believes that it leads.
            early = [asyncio.ensure_future(read(5.0)) for _ in range(20)]
            await asyncio.wait(early, timeout=0.05)
            assert not any(call.done() for call in early)
            lab.signal(old, signal.SIGCONT)
            found = list(await asyncio.gather(*early))

            async def steps_down() -> bool:
                facts = await lab.status(old)
                return facts is not None and facts["role"] == "follower"

            await lab.until(f"{old} follows", steps_down)
            assert await lab.leader() == new
            assert set(found) <= {2, None}, found
            assert await lab.administer("transfer", old) == f"{old} leads"
            await write(3)
            assert await read() == 3


async def test_handing_over_the_lead_is_not_noticed_by_callers(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, loaded(lab, clients=16) as load:
        for _ in range(3):
            target = await lab.follower()
            assert await lab.administer("transfer", target) == f"{target} leads"
            assert await lab.leader() == target
            await load.more(100)
        judgement = await load.judge()
        assert load.bank.counts.fail == load.bank.counts.info == 0
        assert judgement.unknown == 0


async def test_256_requests_of_one_client_in_flight_are_each_applied_once(tmp_path: Path) -> None:
    """Repeats arrive in any order, at another leader; the window of the session holds them."""
    width, kills = 256, 3
    sent, answered, stop = [0], list[int](), asyncio.Event()

    async with running(tmp_path, machine="kv") as lab, lab.client(timeout=30.0) as client:

        async def caller() -> None:
            while not stop.is_set():
                sent[0] += 1
                number = sent[0]
                word = {"key": f"k{number % 64}", "value": f"<{number}>"}
                await client.call_json("append", word)
                answered.append(number)

        async def goes_on(count: int) -> bool:
            return len(answered) >= count

        callers = [asyncio.ensure_future(caller()) for _ in range(width)]
        for _ in range(kills):
            await lab.until("calls are answered", partial(goes_on, len(answered) + width))
            leader = await lab.leader()
            await lab.end(leader)
            assert sent[0] - len(answered) == width
            await lab.until("calls are answered", partial(goes_on, len(answered) + width))
            await lab.start(leader)
        stop.set()
        await asyncio.gather(*callers)
        text = ""
        for key in range(64):
            text += await client.call_json("get", {"key": f"k{key}"}, query=True) or ""
        numbers = sorted(int(word) for word in text.strip("<>").split("><"))
    assert sorted(answered) == numbers == list(range(1, sent[0] + 1))
