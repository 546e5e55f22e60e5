"""A protocol of an outsider's own (datagrams beside framed TCP), on both loops, through faults."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.cluster.layout import free_ports
from tests.support.programs import tally
from tests.support.sim_programs import assert_repeatable, found

SEEDS = 200
NAMES = ("a", "b", "c")
NODES = [(name, 5000) for name in NAMES]
FAULTS = [
    "crash", "power-cut", "pause", "partition:halves", "partition:isolate", "partition:one-way",
    "partition:flapping", "link:loss", "link:jitter", "link:reset", "dns:timeout", "clock:jump",
    "clock:drift", "slow", "disk:slow",
]  # fmt: skip
pytestmark = pytest.mark.timeout(120)


async def ready(lab: sim.Lab, **options: Any) -> None:
    for name in NAMES:
        peers = [node for node in NODES if node[0] != name]
        lab.host(name, partial(tally.main, name, peers, **options))
    await lab.sleep(0.1)


def run(test: Callable[[sim.Lab], Any]) -> Any:
    return sim.run(test, files=True)


async def listening(node: tuple[str, int], serving: "asyncio.Task[None]") -> None:
    """Wait until somebody can connect; each reads its file in a thread before that."""
    while True:
        try:
            _, writer = await asyncio.open_connection(*node)
        except ConnectionRefusedError:
            assert not serving.done(), "the node has ended"
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


# --- the same program ----------------------------------------------------------------------------


def test_it_is_the_same_program_on_the_real_loop(tmp_path: Path) -> None:
    async def simulated(lab: sim.Lab) -> Any:
        await ready(lab)
        return await tally.tour(NODES)

    async def real() -> Any:
        nodes = [("127.0.0.1", port) for port in free_ports(3)]
        serving = []
        for name, node in zip(NAMES, nodes, strict=True):
            peers = [peer for peer in nodes if peer != node]
            main = tally.main(name, peers, host=node[0], port=node[1], folder=tmp_path)
            serving.append(asyncio.create_task(main))
        for node, task in zip(nodes, serving, strict=True):
            await listening(node, task)
        seen = await tally.tour(nodes)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        return seen

    assert run(simulated) == asyncio.run(real())


# --- what must hold ------------------------------------------------------------------------------


async def count(lab: sim.Lab, *, until: float = 30, **options: bool) -> None:
    """Nothing that was acknowledged is lost, nothing is counted twice, and all nodes agree."""
    await ready(lab, **options)
    acked = maybe = 0
    for n in range(30):
        try:
            async with tally.connect(NAMES[n % 3]) as client:
                maybe += 1
                await client.ask("add", 1)
                acked += 1
        except (OSError, TimeoutError):
            await lab.sleep(0.05)
    await lab.heal()
    totals = None
    end = lab.now + until
    while lab.now < end:
        await lab.sleep(1)
        totals = {await total(name) for name in NAMES}
        if len(totals) == 1 and acked <= max(totals):
            break
    assert totals is not None
    assert len(totals) == 1, f"the nodes do not agree: {sorted(totals)}"
    assert acked <= max(totals) <= maybe


async def total(name: str) -> int:
    for _ in range(5):
        with contextlib.suppress(OSError, TimeoutError):
            async with tally.connect(name) as client:
                return int(await client.ask("total"))
    return -1


@sim.test(seeds=20, faults=FAULTS)
async def test_nodes_agree_on_all_that_was_acknowledged(lab: sim.Lab) -> None:
    await count(lab)


def test_nodes_that_add_up_what_they_hear_are_found() -> None:
    @sim.test(seeds=SEEDS, faults=["link:loss"])
    async def counted(lab: sim.Lab) -> None:
        await count(lab, adding=True)

    found(counted)


def test_a_node_that_answers_before_its_count_is_kept_is_found() -> None:
    @sim.test(seeds=SEEDS, faults=["crash"])
    async def counted(lab: sim.Lab) -> None:
        await count(lab, lazy=True)

    found(counted)


# --- by hand -------------------------------------------------------------------------------------


def test_rumours_go_round_a_cut_and_not_through_it() -> None:
    async def cut(lab: sim.Lab) -> None:
        await ready(lab)
        with lab.cut("a", "c"):
            async with tally.connect("a") as client:
                await client.ask("add", 7)
            await lab.sleep(20)
            assert await total("c") == 7  # by way of b
        with lab.cut(["a", "b"], "c"):
            async with tally.connect("a") as client:
                await client.ask("add", 1)
            await lab.sleep(60)
            assert await total("b") == 8
            assert await total("c") == 7
        await lab.sleep(20)
        assert await total("c") == 8

    run(cut)


def test_open_questions_end_when_the_node_does() -> None:
    async def crashed(lab: sim.Lab) -> None:
        await ready(lab)
        async with tally.connect("a") as client:
            lab.burden("a", step=1.0)
            asking = [asyncio.create_task(client.ask("add", 1, timeout=60)) for _ in range(5)]
            await lab.sleep(0.5)
            lab.crash("a")
            start = lab.now
            ended = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(error, ConnectionError) for error in ended)
            assert lab.now - start < 0.1
            with pytest.raises(ConnectionRefusedError):
                async with tally.connect("a"):
                    pass

    run(crashed)


def test_a_paused_node_answers_after_its_pause() -> None:
    async def paused(lab: sim.Lab) -> None:
        await ready(lab)
        async with tally.connect("a") as client:
            await client.ask("add", 1)
            lab.pause("a")
            start = lab.now
            with pytest.raises(TimeoutError):
                await client.ask("total", timeout=5)
            assert lab.now - start == pytest.approx(5, abs=0.001)
            asking = asyncio.create_task(client.ask("total", timeout=60))
            await lab.sleep(2)
            lab.resume("a")
            assert await asking == 1
            assert lab.now - start == pytest.approx(7, abs=0.1)

    run(paused)


# --- repeatable ----------------------------------------------------------------------------------


def test_a_seed_is_one_run_in_every_process() -> None:
    assert_repeatable(f"{__name__}:test_nodes_agree_on_all_that_was_acknowledged")
