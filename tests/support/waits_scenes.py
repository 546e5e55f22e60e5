"""Scenes in which peers go silent: what of the product waits in them should have an end.

Each is an async function of the lab, made so that its waits last: hosts that accept and never
answer, links that swallow everything, nodes that start alone, tasks that nobody ends.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import uvicorn

import outlast
from outlast import StateMachine, command, query, sim
from outlast.cluster import administer, draw_cluster_id, init_node
from outlast.cluster.connect import connect
from outlast.cluster.gateway import Gateway
from outlast.cluster.identity import load_identity
from outlast.cluster.node import Node
from outlast.cluster.overview import overview
from outlast.cluster.process import run as run_node
from outlast.cluster.settings import NodeSettings
from outlast.detect import (
    Child,
    Grace,
    Health,
    Heartbeat,
    HeartbeatMonitor,
    Members,
    Ready,
    Supervisor,
    TaskWatchdog,
    WatchedAsyncLock,
    checks,
)
from outlast.detect.asgi import health_routes
from outlast.drill.machine import Proving
from outlast.drill.replicas import LAB
from outlast.kernel import NodeId, OutlastError, current_world
from outlast.pool import AsyncHttpxPoolTransport, Dns, Endpoint, Pool, http_check
from outlast.protect import (
    Bulkhead,
    Cache,
    CircuitBreaker,
    Hedge,
    Policy,
    Retry,
    Vote,
)
from outlast.protect.idempotent import Idempotent
from outlast.state import ReplicaSettings, machine_spec
from outlast.state.core.limits import Limits
from tests.support.members_group import KEY, Group

Scene = Callable[[sim.Lab], Awaitable[None]]


async def silent(port: int = 80) -> None:
    """A program that accepts connections, reads, and says nothing."""

    async def hear(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_server(hear, "0.0.0.0", port):
        await asyncio.Event().wait()


async def gone(work: Awaitable[Any], seconds: float = 60.0) -> None:
    """Await what should end by itself, well or not, and long before ``seconds``."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert done, f"{work!r} has not ended within {seconds} s"
    if not task.cancelled() and (error := task.exception()) is not None:
        assert isinstance(error, OutlastError | OSError | httpx.HTTPError | TimeoutError), error


# --- a cluster -----------------------------------------------------------------------------------

PORT, HTTP = 7400, 8400
LIMITS = Limits(checkpoint_entries=20)


class Trio:
    """Three nodes, or those of some other names."""

    def __init__(self, lab: sim.Lab, *names: str) -> None:
        self.lab = lab
        self.names = names or ("n1", "n2", "n3")
        self.cluster = draw_cluster_id(lab.prng)
        self.founders = {NodeId(name): f"{name}:{PORT}" for name in self.names}
        self.addresses = list(self.founders.values())
        for name in self.names:
            lab.host(name, partial(self.main, name))

    async def main(self, name: str) -> None:
        world = current_world()
        node = NodeId(name)
        if load_identity(world.storage, "/data") is None:
            init_node(world.storage, "/data", node, dict(self.founders), cluster=self.cluster)
        settings = NodeSettings(
            node=node, data="/data", listen=f"{name}:{PORT}", peers=dict(self.founders),
            cluster=self.cluster, security=LAB, replica=ReplicaSettings(limits=LIMITS),
        )  # fmt: skip
        until = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, until.set)
        failure = await run_node(Node(world, Proving, settings), until=until)
        assert failure is None, failure

    async def ready(self) -> None:
        world = self.lab.world()
        async with connect(Proving, self.addresses, security=LAB, world=world) as client:
            with outlast.deadline(30.0):
                await client.register()


async def cluster(lab: sim.Lab) -> None:
    """Nodes, clients and administration, while one node after the other is cut off."""
    trio = Trio(lab)
    await trio.ready()
    world = lab.world()
    client = connect(Proving, trio.addresses, security=LAB, timeout=2.0, world=world)
    async with client:
        for name in trio.names:
            cut = lab.cut(name)
            for other in trio.addresses:
                await gone(client.status(other))
            for number in range(30):  # enough for a checkpoint, and something to trim
                await gone(client.call(Proving.put, "key", f"{number} " * 100))
            await gone(overview(trio.addresses, security=LAB, timeout=1.0, world=world))
            await gone(administer(
                world, trio.addresses, "transfer", name, security=LAB, timeout=2.0,
            ))  # fmt: skip
            cut.undo()
            await lab.sleep(2)
        for name in trio.names:
            await lab.stop(name, timeout=20.0)
        await gone(client.call(Proving.get, "key"))


async def newcomer(lab: sim.Lab) -> None:
    """A client and a node that asks to be admitted meet a peer that accepts and says nothing."""
    lab.host("mute", partial(silent, PORT))
    await lab.sleep(0.1)

    async def join() -> None:
        settings = NodeSettings(
            node=NodeId("n9"), data="/data", listen=f"n9:{PORT}",
            peers={NodeId("mute"): f"mute:{PORT}"}, security=LAB,
        )  # fmt: skip
        await run_node(Node(current_world(), Proving, settings), until=asyncio.Event())

    lab.host("n9", join, may_exit=True)
    where = [f"mute:{PORT}"]
    client = connect(Proving, where, security=LAB, timeout=2.0, world=lab.world())
    async with client:
        await gone(client.status(where[0]))
        await gone(client.call(Proving.get, "key"))
    await gone(administer(lab.world(), where, "transfer", "n1", security=LAB, timeout=2.0))
    await lab.sleep(70)
    await lab.stop("n9", timeout=20.0)


async def gateway(lab: sim.Lab) -> None:
    """Requests to a gateway, one of which stops in the middle of its body."""
    trio = Trio(lab, "n1")
    await trio.ready()

    async def serve() -> None:
        client = connect(Proving, trio.addresses, security=LAB, world=current_world())
        made = Gateway(machine_spec(Proving), lambda: client, dict, health_routes(Health()))
        config = uvicorn.Config(made.app, "0.0.0.0", HTTP, log_config=None, lifespan="off")
        async with client:
            await uvicorn.Server(config).serve()

    lab.host("gate", serve)
    await lab.sleep(1)
    head = b"POST /v1/command/put HTTP/1.1\r\nHost: gate\r\nContent-Length: 100\r\n\r\n{"
    reader, writer = await asyncio.open_connection("gate", HTTP)
    writer.write(head)
    async with httpx.AsyncClient(base_url=f"http://gate:{HTTP}", timeout=20.0) as client:
        put = await client.post("/v1/command/put", json={"key": "a", "value": "b"})
        assert put.status_code == 200, put.text
        got = await client.get("/v1/query/get", params={"key": "a"})
        assert got.json()["result"] == "b"
        for page in ("/", "/livez"):
            assert (await client.get(page)).status_code == 200
    async with asyncio.timeout(60):
        answer = await reader.read()
    await lab.sleep(65)
    assert answer.split(b" ", 2)[1] == b"408", answer
    writer.close()
    await lab.stop("gate")
    await lab.stop("n1", timeout=20.0)


@dataclass
class Tally(StateMachine):
    """Counts."""

    count: int = 0

    @command
    def add(self, number: int) -> int:
        self.count += number
        return self.count

    @query
    def total(self) -> int:
        return self.count


async def embedded(lab: sim.Lab) -> None:
    """A durable object in this process, on a slow disk."""

    async def main() -> None:
        async with outlast.open(Tally, "/data/tally", world=current_world()) as tally:
            await asyncio.gather(*(tally.call(Tally.add, 1) for _ in range(20)))
            assert await tally.call(Tally.total) == 20
            await tally.checkpoint()

    for name in ("h1", "h2"):
        lab.host(name, main)
        lab.disk(name, "slow")
        await lab.sleep(30)


# --- detection -----------------------------------------------------------------------------------


async def members(lab: sim.Lab) -> None:
    """Members that are cut off, come back, and leave."""
    group = Group(lab)
    await group.of(4)
    cut = lab.cut("n4")
    await lab.sleep(15)
    cut.undo()
    await group.until(lambda: group.met(4), within=60.0)
    lab.host("mute", partial(silent, 7946))

    async def alone() -> None:
        await lab.sleep(0.1)
        made = Members("n9", bind="0.0.0.0:7946", advertise="n9", seeds=("mute", "n1"), key=KEY)
        async with made:
            await asyncio.sleep(10)
            lab.cut("n9")  # so that nobody hears it leave

    lab.host("n9", alone, may_exit=True)
    await lab.sleep(30)


async def health(lab: sim.Lab) -> None:
    """Checks of peers that say nothing; heartbeats that end; waits that are watched."""
    lab.host("mute", silent)
    monitor, registry = HeartbeatMonitor(), Health(name="shop")
    registry.add("http", checks.http("http://mute/", timeout=1.0), every=5.0, timeout=2.0)

    @registry.check("hangs", every=5.0, timeout=2.0)
    async def hangs() -> None:
        await asyncio.Event().wait()

    lock = WatchedAsyncLock("one")

    async def hold(seconds: float) -> None:
        async with lock:
            await asyncio.sleep(seconds)

    async with monitor, registry, TaskWatchdog():
        held = [asyncio.create_task(hold(20)) for _ in range(2)]
        async with Heartbeat(lambda seq: monitor.beat("a", seq)):
            await asyncio.sleep(20)
        async with asyncio.timeout(20):
            async for change in monitor.changes():
                if change.reached == "evict":
                    break
        await gone(registry.refresh())
        await asyncio.gather(*held)


async def supervisor(lab: sim.Lab) -> None:
    """Tasks that crash, hang while they start, and do not want to end."""

    async def wait() -> None:
        await asyncio.Event().wait()

    async def crash() -> None:
        await asyncio.sleep(3)
        raise ValueError("no")

    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    lab.host("mute", silent)
    children = [
        Child.task("port", wait, ready=Ready.port(80, host="mute"), start_timeout=5.0),
        Child.task("never", wait, ready=Ready.when(lambda: False), start_timeout=5.0),
        Child.task("stubborn", stubborn, stop=Grace(2.0)),
        Supervisor(Child.task("crash", crash), Child.task("wait", wait), name="inner"),
    ]
    whole = Supervisor(*children[:3])
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            await whole.start()
    await gone(whole.stop())
    whole = Supervisor(*children[2:])
    await gone(whole.start())
    await asyncio.sleep(70)
    await gone(whole.stop())


# --- calls ---------------------------------------------------------------------------------------


async def pool(lab: sim.Lab) -> None:
    """Instances that are looked up, checked, and called; one of them says nothing."""

    async def well() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        async with await asyncio.start_server(answer, "0.0.0.0", 80):
            await asyncio.Event().wait()

    lab.host("mute", silent)
    lab.host("well", well)

    async def look() -> list[str]:
        await asyncio.sleep(0.01)
        return ["mute:80", "well:80"]

    def look_beside() -> list[str]:
        return ["mute:80", "well:80"]

    check = http_check("/ready", every=2.0, timeout=1.0)
    for source in (look, look_beside, Dns("well:80", every=5.0), ["mute:80", "well:80"]):
        async with Pool("shop", source, check=check) as shop:
            await asyncio.sleep(15)

            async def get(endpoint: Endpoint) -> int:
                async with httpx.AsyncClient(timeout=1.0) as client:
                    return (await client.get(f"http://{endpoint.address}/")).status_code

            await gone(shop.acall(get))
    urls = ["http://mute:80", "http://well:80"]
    async with Pool("web", urls) as web:
        transport = AsyncHttpxPoolTransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://web", timeout=2.0) as c:
            for _ in range(4):
                await gone(c.get("/"))


async def protected(lab: sim.Lab) -> None:
    """Calls that never end by themselves, in every part that waits."""

    async def never(*_: Any) -> int:
        await asyncio.Event().wait()
        return 1

    async def late(*_: Any) -> int:
        await asyncio.sleep(0.5)
        return 1

    policies = [
        Policy("timed", timeout=1.0),
        Policy("tried", retry=Retry(on=Exception, attempts=3), attempt_timeout=1.0, timeout=5.0),
        Policy("broken", breaker=CircuitBreaker(), attempt_timeout=1.0),
        Policy("hedged", hedge=Hedge(0.1), timeout=1.0),
        Policy("narrow", limit=Bulkhead(1, queue=5), timeout=1.0),
        Policy("kept", cache=Cache(ttl=10.0), timeout=1.0),
    ]
    for policy in policies:
        await gone(asyncio.gather(*(policy(never)() for _ in range(3)), return_exceptions=True))
        await gone(asyncio.gather(*(policy(late)() for _ in range(3)), return_exceptions=True))
    narrow = Bulkhead(1, queue=5)
    await gone(asyncio.gather(*(narrow(late)() for _ in range(3))))
    once = Idempotent(lease=1.0, name="once", key=lambda number: str(number))
    await gone(asyncio.gather(*(once(late)(1) for _ in range(2)), return_exceptions=True))
    vote = Vote([late, late, never], timeout=1.0)
    await gone(vote())


SCENES: dict[str, Scene] = {
    one.__name__: one
    for one in (
        cluster, newcomer, gateway, embedded, members, health, supervisor, pool, protected
    )
}  # fmt: skip
ON_DISK = ("embedded",)
"""Scenes whose files live on the simulated disk."""
