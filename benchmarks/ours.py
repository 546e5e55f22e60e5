"""Our own cluster as one of the systems of benchmarks/replication.py: `outlast serve`'s nodes,
each acknowledgement fsynced on a majority, and a load generator in a process of its own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.common import (
    ROOT,
    VALUE_BYTES,
    Result,
    closed_loop,
    finish_load,
    machine,
    run_loop,
    start_load,
    stop,
)

MODULE = "benchmarks.ours"
MACHINE = "outlast.state.ready.kv:Kv"


class OurCluster:
    """Three node processes on loopback."""

    def __init__(self, workdir: Path, *, options: Sequence[str] = ()) -> None:
        from outlast.cluster.layout import draw_cluster_id, make_plan
        from outlast.host import make_world

        self.world = make_world()
        self.data = str(workdir)
        self.options = list(options)
        self.plan = make_plan(
            self.world.storage, self.data, MACHINE, nodes=3,
            cluster=draw_cluster_id(self.world.prng), port=0, http_port=0,
        )  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = workdir

    def start(self) -> None:
        for node in self.plan.addresses:
            self.start_node(node)
        self.leader()

    def start_node(self, node: str) -> None:
        from outlast.cluster.local import node_command, node_environment

        log = (self.logs / f"{node}.log").open("ab")
        self.processes[node] = subprocess.Popen(
            [*node_command(self.plan, self.data, node), *self.options],
            env={**os.environ, **node_environment(self.plan)},
            stdout=log, stderr=log, cwd=ROOT,
        )  # fmt: skip
        log.close()

    def status(self, node: str) -> dict[str, object]:
        with urllib.request.urlopen(f"http://{self.plan.http[node]}/status", timeout=1) as answer:
            return dict(json.load(answer))

    def leader(self, seconds: float = 30.0) -> str:
        """Wait until a node leads and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for node in self.plan.addresses:
                with contextlib.suppress(OSError, ValueError):
                    facts = self.status(node)
                    if facts.get("leading") and facts.get("ready"):
                        return node
            time.sleep(0.1)
        raise RuntimeError("no leader")

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes.values()]

    def fsyncs(self) -> dict[str, int]:
        """Flushes counted by each node."""
        return {n: int(str(self.status(n).get("fsyncs", 0))) for n in self.plan.addresses}

    def stop(self) -> None:
        for process in self.processes.values():
            stop(process)


@contextlib.contextmanager
def cluster(workdir: Path, *, options: Sequence[str] = ()) -> Iterator[OurCluster]:
    """A running cluster whose data and processes are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix="ours-") as folder:
        members = OurCluster(Path(folder), options=options)
        try:
            members.start()
            yield members
        finally:
            members.stop()


def load(
    members: OurCluster, *, callers: int, seconds: float, op_timeout: float = 30.0
) -> subprocess.Popen[str]:
    """Start the load generator."""
    return start_load(
        MODULE, "--load", ",".join(members.plan.addresses.values()), "--callers", str(callers),
        "--seconds", str(seconds), "--op-timeout", str(op_timeout),
        "--pids", ",".join(map(str, members.pids())),
    )  # fmt: skip


def run(callers: int, seconds: float, workdir: Path) -> Result:
    """Measure puts; `extra` has the flushes of each node during the run."""
    with cluster(workdir) as members:
        before = members.fsyncs()
        result = finish_load(load(members, callers=callers, seconds=seconds), seconds + 60)
        after = members.fsyncs()
        result.extra["fsyncs"] = {node: after[node] - before[node] for node in before}
        leader = members.leader()
        result.extra["term_changes"] = members.status(leader).get("term_changes")
        result.extra["snapshots"] = members.status(leader).get("snapshots")
    return result


def failover(
    kills: int,
    workdir: Path,
    *,
    callers: int = 16,
    silence: bool = False,
    before: float = 2.0,
    after: float = 6.0,
) -> list[Result]:
    """End the leader under load, once in each result, and report the longest gap."""
    results = []
    with cluster(workdir) as members:
        for _ in range(kills):
            leader = members.leader()
            process = load(members, callers=callers, seconds=before + after)
            time.sleep(1.5 + before)
            victim = members.processes[leader]
            os.kill(victim.pid, signal.SIGSTOP if silence else signal.SIGKILL)
            result = finish_load(process, before + after + 60)
            result.extra["ended"] = "SIGSTOP" if silence else "SIGKILL"
            results.append(result)
            if silence:
                os.kill(victim.pid, signal.SIGCONT)
            else:
                victim.wait()
                members.start_node(leader)
            time.sleep(1.0)
    return results


async def generate(addresses: Sequence[str], callers: int, seconds: float, pids: Sequence[int],
                   op_timeout: float) -> Result:  # fmt: skip
    """One client, so one connection and one session, for each caller."""
    from outlast.cluster import Client
    from outlast.host import make_world
    from outlast.state.ready.kv import Kv

    world = make_world()
    value = "x" * VALUE_BYTES
    clients = [
        Client(Kv, addresses, world=world, timeout=op_timeout, name=f"load-{n}")
        for n in range(callers)
    ]
    for client in clients:
        await client.__aenter__()
    first = [client.call(Kv.put, f"key-{n}", value) for n, client in enumerate(clients)]
    await asyncio.gather(*first)

    def operation(n: int):
        client, key = clients[n], f"key-{n}"
        return lambda: client.call(Kv.put, key, value)

    loaded = await closed_loop([operation(n) for n in range(callers)], seconds, pids=pids)
    for client in clients:
        await client.close()
    return loaded.result("outlast", "client", callers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", default="", help="addresses: be the load generator")
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--op-timeout", type=float, default=30.0)
    parser.add_argument("--pids", default="")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--silence", action="store_true", help="SIGSTOP and not SIGKILL")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    if chosen.load:
        pids = [int(pid) for pid in chosen.pids.split(",") if pid]
        addresses = chosen.load.split(",")
        result = run_loop(
            generate(addresses, chosen.callers[0], chosen.seconds, pids, chosen.op_timeout)
        )
        print(result.to_json(), flush=True)
        return
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    print(machine(), file=sys.stderr)
    if chosen.kills:
        results = iter(failover(chosen.kills, chosen.workdir, silence=chosen.silence))
    else:
        results = (run(n, chosen.seconds, chosen.workdir) for n in chosen.callers)
    for result in results:
        print(result.line(), file=sys.stderr)
        print(result.to_json(), flush=True)


if __name__ == "__main__":
    main()
