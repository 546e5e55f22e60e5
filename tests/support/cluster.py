"""A cluster of real node processes: each is started, killed, paused and asked by name.

Unlike ``LocalCluster`` nothing is restarted here unless a test says so. Every process is the
head of a group that ends with the test.
"""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from outlast.cluster import Client, administer
from outlast.cluster.connect import connect
from outlast.cluster.layout import (
    LocalPlan,
    draw_cluster_id,
    free_ports,
    make_plan,
)
from outlast.cluster.local import node_command, node_environment
from outlast.drill.bank import BankWorkload
from outlast.drill.core.ledger import Judgement
from outlast.drill.replicas import compare_digests
from outlast.host import make_world
from outlast.host.process import ChildProcess, start_process
from outlast.kernel import NodeId, OutlastError

T = TypeVar("T")
WAIT = 60.0


class Lab:
    """Nodes ``n1`` … of one cluster, and whatever is added later."""

    def __init__(
        self,
        data: Path,
        *,
        nodes: int = 3,
        machine: str = "bank",
        storage: str = "disk",
        options: Sequence[str] = (),
        program: str = "outlast",
    ) -> None:
        self.world = make_world()
        self.data = data
        self.storage = storage
        self.options = tuple(options)
        self.program = program
        self.processes: dict[str, ChildProcess] = {}
        plan = make_plan(
            self.world.storage,
            str(data),
            machine,
            nodes=nodes,
            cluster=draw_cluster_id(self.world.prng),
            port=0,
            http_port=0,
        )
        self.plan = plan
        self.addresses: dict[str, str] = {str(n): a for n, a in plan.addresses.items()}
        self.http: dict[str, str] = {str(n): a for n, a in plan.http.items()}

    # --- processes ---------------------------------------------------------------------------

    def new_node(self, node: str) -> str:
        """Choose an address for a node to be added later and return it."""
        port, http = free_ports(2)
        self.addresses[node] = f"127.0.0.1:{port}"
        self.http[node] = f"127.0.0.1:{http}"
        return self.addresses[node]

    async def start(self, *nodes: str) -> None:
        """Start processes; returns at once."""
        for node in nodes or tuple(self.addresses):
            plan = LocalPlan(
                self.plan.cluster,
                self.plan.target,
                {NodeId(n): a for n, a in self.addresses.items()},
                {NodeId(n): a for n, a in self.http.items()},
            )
            command = node_command(
                plan,
                str(self.data),
                node,
                storage=self.storage,
                extra=self.options,
                program=self.program,
            )
            self.processes[node] = await start_process(
                command,
                environment={**os.environ, **node_environment(plan)},
                log=str(self.data / f"{node}.log"),
            )

    async def end(self, node: str, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end and return the exit code."""
        process = self.processes[node]
        os.kill(process.pid, number)
        code = await asyncio.wait_for(process.wait(), WAIT)
        del self.processes[node]
        return code

    async def ended(self, node: str) -> int:
        """Wait for a process to end by itself and return its exit code."""
        code = await asyncio.wait_for(self.processes[node].wait(), WAIT)
        del self.processes[node]
        return code

    def signal(self, node: str, number: int) -> None:
        """Send a signal, such as SIGSTOP or SIGCONT."""
        os.kill(self.processes[node].pid, number)

    def directory(self, node: str) -> Path:
        """Return the data directory of ``node``."""
        return self.data / node

    def wipe(self, node: str, part: str = "") -> None:
        """Remove a node's directory, or a part of it."""
        shutil.rmtree(self.directory(node) / part)

    def log_text(self, node: str) -> str:
        """Return what ``node`` has written to stdout and stderr."""
        return (self.data / f"{node}.log").read_text(encoding="utf-8")

    async def close(self) -> None:
        """End all processes at once."""
        for process in self.processes.values():
            process.kill_group()
        for process in self.processes.values():
            await process.wait()

    # --- asking ------------------------------------------------------------------------------

    def client(self, *nodes: str, timeout: float = WAIT) -> Client[Any]:
        """Return a client that knows the addresses of ``nodes``, or of all."""
        return connect(None, [self.addresses[n] for n in nodes or self.addresses], timeout=timeout)

    async def status(self, node: str) -> dict[str, Any] | None:
        """Return what ``node`` says of itself, ``None`` if it does not answer."""
        address = self.addresses[node]
        async with connect(None, [address], timeout=0.5) as client:
            try:
                return dict(await client.status(address))
            except (OutlastError, OSError):
                return None

    async def facts(self, node: str) -> dict[str, Any]:
        """Wait until ``node`` answers, and return what it says of itself."""
        return await self.until(f"{node} answers", lambda: self.status(node))

    async def until(
        self, what: str, look: Callable[[], Awaitable[T | None]], within: float = WAIT
    ) -> T:
        """Call ``look`` until it returns something true, and return that."""
        end = time.monotonic() + within
        while True:
            found = await look()
            if found:
                return found
            assert time.monotonic() < end, f"within {within:g} s: {what}\n{await self.picture()}"
            await asyncio.sleep(0.02)

    async def picture(self) -> str:
        """Return what all nodes say and the ends of their logs, for a failure."""
        lines = []
        for node in self.addresses:
            path = self.data / f"{node}.log"
            log = path.read_text(encoding="utf-8").splitlines()[-12:] if path.exists() else []
            lines += [f"--- {node}: {await self.status(node)}", *log]
        return "\n".join(lines)

    async def leader(self, *among: str, term_above: int = 0, within: float = WAIT) -> str:
        """Wait until one of the nodes leads, in a term that others also know; return it."""
        nodes = among or tuple(self.processes)

        async def look() -> str | None:
            facts = [fact for fact in [await self.status(n) for n in nodes] if fact]
            terms = [int(fact.get("term", 0)) for fact in facts]
            for fact in facts:
                newest = fact.get("role") == "leader" and fact["term"] == max(terms)
                if newest and fact["term"] > term_above:
                    return str(fact["node"])
            return None

        return await self.until(f"one of {', '.join(nodes)} leads", look, within)

    async def term(self, node: str) -> int:
        """Return the term that ``node`` is in."""
        return int((await self.facts(node))["term"])

    async def follower(self) -> str:
        """Return a running node that does not lead."""
        leader = await self.leader()
        return next(node for node in self.processes if node != leader)

    async def voters(self, *expected: str, within: float = WAIT) -> dict[str, str]:
        """Wait until exactly ``expected`` vote and nobody else is a member; their replicas."""

        async def look() -> dict[str, str] | None:
            facts = await self.status(await self.leader(within=within))
            rows = facts.get("members", ()) if facts else ()
            found = {row["node"]: row["replica"] for row in rows if row["voter"]}
            whole = len(rows) == len(found)
            return found if whole and sorted(found) == sorted(expected) else None

        return await self.until(f"the voters are {', '.join(expected)}", look, within)

    async def administer(self, op: str, node: str, address: str = "") -> str:
        """Carry out a change of members or leader; repeated while the last is not final."""

        async def look() -> str | None:
            try:
                message, _ = await administer(
                    self.world,
                    [self.addresses[n] for n in self.processes],
                    op,
                    node,
                    address=address,
                    timeout=WAIT,
                )
            except OutlastError as error:
                if error.happened == "no" and not isinstance(error, ValueError):
                    return None
                raise
            return message

        return await self.until(f"{op} {node}", look)

    def get(self, node: str, path: str) -> tuple[int, str]:
        """Return status code and body of a GET on the node's gateway; (0, why) without answer."""
        try:
            with urlopen(f"http://{self.http[node]}{path}", timeout=2.0) as answer:
                return int(answer.status), str(answer.read().decode())
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


@asynccontextmanager
async def running(data: Path, **options: Any) -> AsyncIterator[Lab]:
    """Run a cluster while the block runs; every process has ended afterwards."""
    lab = Lab(data, **options)
    try:
        await lab.start()
        await lab.leader()
        yield lab
    finally:
        await lab.close()


class Load:
    """Clients that move money all the time, and the judgement on what they were told."""

    def __init__(
        self, lab: Lab, *, clients: int = 8, connect: Callable[[], Client[Any]] | None = None
    ) -> None:
        self.lab = lab
        self.bank = BankWorkload(lab.world, connect or lab.client, clients, timeout=WAIT)

    @property
    def acknowledged(self) -> int:
        """Transfers acknowledged so far."""
        return self.bank.counts.ok

    async def more(self, count: int = 50, within: float = WAIT) -> None:
        """Wait until ``count`` more transfers are acknowledged."""
        goal = self.acknowledged + count

        async def look() -> bool:
            self.bank.check()
            return self.acknowledged >= goal

        what = f"{count} more transfers are acknowledged"
        try:
            await self.lab.until(what, look, within)
        except AssertionError:
            print(self.bank.counts, self.bank.refusals, self.bank.clients_now())
            raise

    async def judge(self, *nodes: str) -> Judgement:
        """Stop the load; nothing may be lost or doubled, and ``nodes`` must agree."""
        judgement = await self.bank.finish(within=WAIT)
        assert judgement.survived, judgement.problems
        assert judgement.acknowledged > 0
        assert not self.bank.refusals, self.bank.refusals
        addresses = [self.lab.addresses[node] for node in nodes or self.lab.processes]
        assert await compare_digests(self.lab.world, addresses, WAIT) == []
        return judgement


@asynccontextmanager
async def loaded(
    lab: Lab, *, clients: int = 8, connect: Callable[[], Client[Any]] | None = None
) -> AsyncIterator[Load]:
    """Run a load beside the block. The block judges it."""
    load = Load(lab, clients=clients, connect=connect)
    await load.bank.start()
    await load.more(1)
    yield load


def member_row(facts: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    """Return what a status says of the member ``node``."""
    return next(row for row in facts["members"] if row["node"] == node)
