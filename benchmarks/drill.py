"""What a drill costs its target: the same load, directly and as a drill runs it, without a fault.

    python -m benchmarks.drill [--seconds 5] [--rounds 5] [--clients 8 64] [--json]

Clients in a closed loop put 64 bytes into a kv machine on our cluster of three nodes, and orders
into the shop of examples/, in four ways:

- direct: clients call nodes, nodes call each other;
- proxied: every link, of clients and between nodes, leads through the fault proxy, which runs in
  the clients' process and loop as it does in a drill;
- recorded: besides, operations are drawn and written down by outlast.drill.workload;
- watched: besides, the nodes are asked for their status, and the kernel for connections that go
  around the proxy, as often as a drill does.

The ways take turns within each round, each on a new target. A ratio is the median over the rounds
of that way's figure to direct's in the same round. Then what one operation costs by itself: to be
recorded, to be written to a file of --history, and one round trip to pass through a proxy.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, Process
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from benchmarks.common import (
    ROOT,
    VALUE_BYTES,
    WARM_UP_SECONDS,
    Load,
    Result,
    closed_loop,
    cpu_seconds,
    finish_load,
    machine,
    own_cpu_seconds,
    run_loop,
    start_load,
    stop,
)
from benchmarks.proxy import round_trips, run_proxy, serve
from outlast.drill import Node, Workload, operation, watching
from outlast.drill.cluster_drill import ClusterClient
from outlast.drill.loader import load_drill
from outlast.drill.process_lab import ProcessLab as Lab
from outlast.drill.target import OwnNodes, make_target
from outlast.drill.workload import Running
from outlast.host import make_world
from outlast.inject import process_tree
from outlast.kernel import OutlastError, Prng

MODULE = "benchmarks.drill"
WAYS = ("direct", "proxied", "recorded", "watched")
TARGETS = ("cluster", "shop")
UNLIMITED = 1e9
FIGURES = ("rate", "p50", "p99")
OPERATIONS = 5_000
"""Of one round of the cost of recording."""


class Puts(Workload):
    """Writes of 64 bytes to our cluster, through the drill's own client."""

    model = "kv"
    pinned = False
    rate = UNLIMITED
    timeout = 10.0
    nodes: ClassVar[OwnNodes] = OwnNodes("outlast.state.ready.kv:Kv")

    async def connect(self, node: Node) -> ClusterClient:
        return ClusterClient(node)

    @operation
    async def put(self, client: ClusterClient, key: str, value: str) -> None:
        await client.command("put", key=key, value=value.rjust(VALUE_BYTES))


class Nothing(Workload):
    """An operation that is free, to see what running it costs."""

    model = "kv"
    rate = UNLIMITED

    @operation
    async def put(self, client: None, key: str, value: str) -> None:
        pass


def workload_of(target: str) -> tuple[Any, str, tuple[type[Exception], ...]]:
    """Return the workload, where its nodes run, and what its operations raise."""
    if target == "cluster":
        return Puts(), str(ROOT), (OutlastError,)
    import httpx

    place = ROOT / "examples" / "drill_shop.py"
    context = ssl.create_default_context()

    class Shop(load_drill(f"{place}:Shop")):  # type: ignore[misc]
        pinned, rate, timeout = False, UNLIMITED, 10.0

        async def connect(self, node: Node) -> httpx.AsyncClient:
            """One context for all: to make one takes 20 ms, which would be all that is seen."""
            return httpx.AsyncClient(base_url=node.url, verify=context)

    return Shop(), str(place.parent), (httpx.HTTPError,)


class Straight:
    """Stands for the proxy of a lab and has none: each link is the node itself."""

    def __init__(self) -> None:
        self.links: dict[str, Any] = {}

    async def link(self, name: str, *, source: str, target: str, upstream: tuple[str, int]) -> Any:
        link = SimpleNamespace(name=name, source=source, target=target, port=upstream[1])
        self.links[name] = link
        return link

    def between(self, source: str | None = None, target: str | None = None) -> list[Any]:
        return []

    async def close(self) -> None:
        pass


# --- one run, in a process of its own ----------------------------------------------------------


@dataclass
class Run:
    """One target under load in one of the ways."""

    target: str
    way: str
    clients: int
    seconds: float
    folder: str

    def __post_init__(self) -> None:
        self.world = make_world()
        self.workload, home, self.errors = workload_of(self.target)
        type(self.workload).clients = self.clients
        target = make_target(self.world, type(self.workload).nodes, self.folder, home)
        self.lab = Lab(self.world, target, self.folder, home, Prng(1))
        if self.way == "direct":
            self.lab.proxy = Straight()  # type: ignore[assignment]

    async def measure(self) -> Result:
        looks: list[float] = []
        try:
            await self.lab.start()
            nodes = [self.lab.client_node(name, pinned=False) for name in self.lab.nodes]
            watching = asyncio.ensure_future(self.watch(looks))
            try:
                bare = self.way in {"direct", "proxied"}
                load = await (self.bare(nodes) if bare else self.recorded(nodes))
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
        finally:
            await self.lab.stop()
        extra = {"look_ms": round(1e3 * statistics.median(looks), 2)} if looks else {}
        return load.result(self.target, self.way, self.clients, **extra)

    def pids(self) -> list[int]:
        first = [node.process.pid for node in self.lab.nodes.values() if node.process]
        return [one.pid for pid in first for one in process_tree(pid)]

    async def bare(self, nodes: Sequence[Node]) -> Load:
        """Call the operation and do nothing else."""
        numbers = itertools.count(1)
        method = getattr(self.workload, next(iter(self.workload.operations())))

        def repeat(client: Any, number: int) -> Callable[[], Awaitable[None]]:
            async def call() -> None:
                given = {"value": next(numbers)}
                if self.target == "cluster":
                    given = {"key": f"k{number}", "value": str(given["value"])}
                try:
                    await method(client, **given)
                except self.errors as error:
                    raise ConnectionError from error

            return call

        async with AsyncExitStack() as stack:
            clients = [await self.workload.connect(nodes[n % len(nodes)])
                       for n in range(self.clients)]  # fmt: skip
            entered = [await stack.enter_async_context(client) for client in clients]
            calls = [repeat(client, number) for number, client in enumerate(entered)]
            return await closed_loop(calls, self.seconds, pids=self.pids())

    async def recorded(self, nodes: Sequence[Node]) -> Load:
        """Let the drill's own clients run the workload."""
        running = Running(self.world, self.workload, nodes, 1, 0)
        running.began_ns = self.world.clock.monotonic_ns()
        running.start()
        load = Load(WARM_UP_SECONDS, WARM_UP_SECONDS + self.seconds)
        pids = self.pids()
        await asyncio.sleep(WARM_UP_SECONDS)
        own, servers = own_cpu_seconds(), cpu_seconds(pids)
        await asyncio.sleep(self.seconds)
        load.client_cpu = own_cpu_seconds() - own
        load.server_cpu = cpu_seconds(pids) - servers
        await running.stop(5.0)
        for done in running.done:
            if done.outcome == "ok":
                load.record(done.start_ns / 1e9, done.end_ns / 1e9)
            else:
                load.errors += 1
        return load

    async def watch(self, looks: list[float]) -> None:
        """Do what a drill does besides; keep the CPU time of each look around, in seconds."""
        number = 0
        while self.way == "watched":
            await self.lab.statuses()
            number += 1
            if number % watching.LOOK_AROUND_EVERY == 1:
                begin = time.thread_time()
                self.lab.look_around()
                looks.append(time.thread_time() - begin)
            await asyncio.sleep(watching.LOOK_SECONDS)


def run(target: str, way: str, clients: int, seconds: float, workdir: Path) -> Result:
    """Run it in a process of its own, whose nodes end with it."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix="drill-") as folder:
        process = start_load(
            MODULE, "--run", target, way, "--clients", str(clients), "--seconds", str(seconds),
            "--workdir", folder,
        )  # fmt: skip
        try:
            return finish_load(process, seconds + 90)
        finally:
            stop(process)


# --- figures -----------------------------------------------------------------------------------


def compare(rounds: Sequence[Mapping[str, Result]]) -> dict[str, dict[str, Any]]:
    """Return for each way its medians and its ratios to direct, by figure."""
    table: dict[str, dict[str, Any]] = {}
    for way in rounds[0]:
        results = [found[way] for found in rounds]
        row: dict[str, Any] = {
            figure: statistics.median(getattr(r, figure) for r in results) for figure in FIGURES
        }
        for figure in FIGURES if "direct" in rounds[0] else ():
            ratios = [
                getattr(found[way], figure) / max(1e-9, getattr(found["direct"], figure))
                for found in rounds
            ]
            row[f"{figure}_ratio"] = statistics.median(ratios)
            row[f"{figure}_ratios"] = [round(ratio, 3) for ratio in ratios]
        for side in ("client_cpu", "server_cpu"):
            spent = [getattr(r, side) / max(1, r.operations) for r in results]
            row[f"{side}_us"] = round(1e6 * statistics.median(spent), 1)
        row["errors"] = sum(r.errors for r in results)
        looks = [r.extra["look_ms"] for r in results if "look_ms" in r.extra]
        if looks:
            row["look_ms"] = statistics.median(looks)
        table[way] = row
    return table


def lines(target: str, clients: str, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of one target for people, ratios first."""
    head = f"{target}, {clients} clients"
    found = [f"{head:22} {'rate':>6} {'p50':>6} {'p99':>6}   to direct, then medians"]
    for way, row in table.items():
        ratios = " ".join(
            f"{row[f'{figure}_ratio']:6.2f}" if f"{figure}_ratio" in row else f"{'-':>6}"
            for figure in FIGURES
        )
        look = f", {row['look_ms']:.1f} ms a look around" if "look_ms" in row else ""
        found.append(
            f"  {way:20} {ratios}   {row['rate']:8,.0f}/s  p50 {row['p50'] * 1e3:7.2f} ms"
            f"  p99 {row['p99'] * 1e3:7.2f} ms  errors {row['errors']}  CPU per operation:"
            f" nodes {row['server_cpu_us']:.0f} us, drill {row['client_cpu_us']:.0f} us{look}"
        )
    return found


# --- what one operation costs ------------------------------------------------------------------


async def recording(rounds: int, folder: Path) -> dict[str, float]:
    """CPU time of a free operation, medians in ns: bare, recorded, and also written to a file."""
    from outlast.cli.drill import Histories

    world, node = make_world(), Node("n1", "127.0.0.1", 1)
    workload = Nothing()
    taken: dict[str, list[float]] = {"bare": [], "recorded": [], "written": []}
    with Histories(str(folder)) as histories:
        for _ in range(rounds):
            bare = Running(world, workload, (node,), 1, 0)
            calls = [bare.generator.next() for _ in range(OPERATIONS)]
            begin = time.process_time_ns()
            for call in calls:
                await workload.put(None, call.key, call.value)
            taken["bare"].append((time.process_time_ns() - begin) / OPERATIONS)
            for name in ("recorded", "written"):
                running = Running(world, workload, (node,), 1, 0)
                if name == "written":
                    running.record = lambda event: histories.write("nothing", {}, event)
                begin = time.process_time_ns()
                for _ in range(OPERATIONS):
                    await running._run(0, None, running.generator.next(), node)
                taken[name].append((time.process_time_ns() - begin) / OPERATIONS)
    return {f"{name}_ns": round(statistics.median(one)) for name, one in taken.items()}


def passing(rounds: int, seconds: float) -> dict[str, float]:
    """Medians in microseconds of a round trip of 64 bytes, direct and through a healthy link.

    Server, proxy and client are processes of their own.
    """
    children: list[Process] = []

    def start(function: Callable[..., None], *arguments: Any) -> int:
        here, there = Pipe()
        children.append(Process(target=function, args=(there, *arguments), daemon=True))
        children[-1].start()
        if not here.poll(20):
            raise RuntimeError(f"benchmarks.proxy.{function.__name__} did not start")
        return int(here.recv())

    try:
        server = start(serve)
        link = start(run_proxy, server, "uvloop" if has_uvloop() else "asyncio", False)
        taken: dict[str, list[float]] = {"direct": [], "proxied": []}
        for _ in range(rounds):
            for name, port in (("direct", server), ("proxied", link)):
                taken[name].append(statistics.median(round_trips(port, seconds)))
    finally:
        for child in children:
            child.terminate()
            child.join()
    return {f"{name}_us": round(statistics.median(one), 1) for name, one in taken.items()}


def has_uvloop() -> bool:
    with suppress(ImportError):
        import uvloop  # noqa: F401

        return True
    return False


def costs(rounds: int, folder: Path) -> dict[str, float]:
    """What one operation costs by itself, with ratios."""
    found = {**run_loop(recording(rounds, folder)), **passing(rounds, 0.5)}
    found["record_ns"] = found["recorded_ns"] - found["bare_ns"]
    found["write_ns"] = found["written_ns"] - found["recorded_ns"]
    found["record_ratio"] = round(found["recorded_ns"] / found["bare_ns"], 1)
    found["pass_ratio"] = round(found["proxied_us"] / found["direct_us"], 2)
    return found


# --- command line ------------------------------------------------------------------------------


def measure_all(chosen: argparse.Namespace, workdir: Path) -> dict[str, Any]:
    """Run every way of every target, in turns."""
    report: dict[str, Any] = {"schema": 1, "machine": machine(), "seconds": chosen.seconds,
                              "rounds": chosen.rounds, "targets": {}}  # fmt: skip
    for target, clients in itertools.product(chosen.targets, chosen.clients):
        rounds = []
        for _ in range(chosen.rounds):
            found = {}
            for way in chosen.ways:
                found[way] = run(target, way, clients, chosen.seconds, workdir)
                print(found[way].line(), file=sys.stderr, flush=True)
            rounds.append(found)
        report["targets"].setdefault(target, {})[str(clients)] = compare(rounds)
    report["operation"] = costs(chosen.rounds, workdir)
    report["load_after"] = round(os.getloadavg()[0], 1)
    return report


def show(report: Mapping[str, Any]) -> None:
    print(report["machine"])
    for target, by_clients in report["targets"].items():
        for clients, table in by_clients.items():
            print("\n".join(lines(target, clients, table)))
    one = report["operation"]
    print(
        f"one operation recorded: {one['record_ratio']} times a bare call that does nothing,"
        f" {one['record_ns'] / 1e3:.1f} us of CPU more; written to a file"
        f" {one['write_ns'] / 1e3:.1f} us more\n"
        f"one round trip of 64 bytes through a proxy: {one['pass_ratio']} times direct,"
        f" {one['proxied_us']:.0f} us against {one['direct_us']:.0f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--run", nargs=2, metavar=("TARGET", "WAY"), help="be one run")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    if chosen.run:
        one = Run(*chosen.run, chosen.clients[0], chosen.seconds, str(chosen.workdir))
        print(run_loop(one.measure()).to_json())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run in hand ends too
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.workdir) as folder:
        report = measure_all(chosen, Path(folder))
    print(json.dumps(report)) if chosen.json else show(report)


if __name__ == "__main__":
    main()
