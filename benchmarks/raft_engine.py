"""Appends per second of a three-replica RaftLog in one process: in-memory network, real disk.

`python -m benchmarks.raft_engine` prints, for each number of closed-loop callers, appends per
second, p50 and p99 latency, entries per fsync on the leader, and CPU per append of all three
replicas together. `--json` prints the same as JSON; `--profile` where the time goes.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import shutil
import sys
import tempfile
import time
from typing import Any

from outlast.host import make_world
from outlast.kernel import Deadline, ReplicaId
from outlast.log.api import Membership
from outlast.log.engines.raft import RaftLog
from tests.support.raft_net import RaftNet, members_of

NAMES = [ReplicaId(f"n{number}#1") for number in (1, 2, 3)]


async def measure(callers: int, size: int, seconds: float, *, timeout: float) -> dict[str, Any]:
    """Closed loop: each caller appends its next entry when the last one is committed."""
    directory = tempfile.mkdtemp(prefix="outlast-bench-")
    net, logs = RaftNet(), []
    membership = Membership(1, members_of(NAMES))
    for name in NAMES:
        world = make_world()
        logs.append(
            await RaftLog.open(
                world, f"{directory}/{name}", me=name, membership=membership, peers=net.end(name)
            )
        )
    changes = logs[0].authority_changes()
    while (await anext(changes)).holder is None:
        pass
    leader = next(log for log in logs if log.me == logs[0].authority.holder)
    clock = make_world().clock.monotonic_ns
    entry = bytes(size)
    latencies: list[int] = []
    end = clock() + int((seconds + 0.5) * 1e9)
    begin = clock() + 500_000_000

    async def call() -> None:
        while (start := clock()) < end:
            deadline = Deadline.after(timeout, start) if timeout else Deadline.never()
            await leader.append(entry, deadline=deadline)
            if start >= begin:
                latencies.append(clock() - start)

    await asyncio.gather(leader.append(entry, deadline=Deadline.never()))
    syncs, term = leader._driver.store.wal.sync_count, leader.authority.term
    cpu = time.process_time()
    wall = clock()
    await asyncio.gather(*(call() for _ in range(callers)))
    wall, cpu = clock() - wall, time.process_time() - cpu
    count = len(latencies)
    total = leader.through
    row = {
        "callers": callers,
        "entry_bytes": size,
        "appends_per_second": round(count / seconds),
        "p50_ms": round(sorted(latencies)[count // 2] / 1e6, 3),
        "p99_ms": round(sorted(latencies)[count * 99 // 100] / 1e6, 3),
        "entries_per_fsync": round(total / max(1, leader._driver.store.wal.sync_count - syncs), 1),
        "cpu_us_per_append": round(cpu * 1e6 / max(1, total), 1),
        "false_elections": leader.authority.term - term,
    }
    for log in logs:
        await log.close()
    shutil.rmtree(directory)
    return row


def main() -> int:
    """Run what the arguments ask for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--timeout", type=float, default=5.0, help="per append; 0: none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    profile = cProfile.Profile() if options.profile else None
    rows = []
    for callers in options.callers:
        work = measure(callers, options.bytes, options.seconds, timeout=options.timeout)
        if profile is not None:
            profile.enable()
        if options.uvloop:
            import uvloop

            row = uvloop.run(work)
        else:
            row = asyncio.run(work)
        if profile is not None:
            profile.disable()
        rows.append(row)
        if not options.json:
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    return 0


if __name__ == "__main__":
    sys.exit(main())
