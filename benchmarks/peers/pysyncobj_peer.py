"""PySyncObj from the package index: three processes on loopback, a replicated dict.

It has no clients over a network, so the load runs inside the leader's process, which is its best
case. Modes: `default` (batches every 100 ms, memory only) and `journal`
(`appendEntriesUseBatch=False` with a journal file, which it writes without fsync).

`python -m benchmarks.peers.pysyncobj_peer` prints one JSON line for each mode and number of
callers; `--kills N` measures the longest gap in acknowledged writes around N kills of the leader,
seen by callers inside the surviving processes.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from benchmarks.common import (
    ROOT,
    VALUE_BYTES,
    Load,
    Result,
    cpu_seconds,
    free_ports,
    machine,
    own_cpu_seconds,
    stop,
)

MODULE = "benchmarks.peers.pysyncobj_peer"
MODES = ("default", "journal")
NODES = 3
START_SECONDS_MAX = 30.0


class Store(SyncObj):
    """A dict on every node."""

    def __init__(self, own: str, others: Sequence[str], *, journal: str | None) -> None:
        mode = {"appendEntriesUseBatch": False, "journalFile": journal} if journal else {}
        super().__init__(own, list(others), SyncObjConf(**mode))
        self.values: dict[str, bytes] = {}

    @replicated
    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


class Callers:
    """N callers in a closed loop on callbacks, which come from PySyncObj's own thread.

    A call that failed, or was not answered within its limit, is given up and issued again by the
    main thread; an answer that comes after that is ignored.
    """

    def __init__(self, store: Store, count: int, load: Load, op_timeout: float) -> None:
        self.store = store
        self.load = load
        self.op_timeout = op_timeout
        self.lock = threading.Lock()
        self.attempt = [0] * count
        self.sent = [0.0] * count
        self.idle = list(range(count))
        self.value = b"v" * VALUE_BYTES

    def issue(self, caller: int) -> None:
        with self.lock:
            self.attempt[caller] += 1
            attempt = self.attempt[caller]
            self.sent[caller] = time.monotonic()
        answered = partial(self.answered, caller, attempt)
        self.store.put(f"bench/{caller}", self.value, callback=answered)

    def answered(self, caller: int, attempt: int, _result: object, reason: int) -> None:
        now = time.monotonic()
        with self.lock:
            if attempt != self.attempt[caller]:
                return
            if reason:
                self.load.errors += 1
                self.attempt[caller] += 1
                self.idle.append(caller)
                return
            self.load.record(self.sent[caller], now)
        if now < self.load.end:
            self.issue(caller)

    def give_up_late(self) -> None:
        limit = time.monotonic() - self.op_timeout
        with self.lock:
            late = [n for n, sent in enumerate(self.sent) if sent < limit and n not in self.idle]
            for caller in late:
                self.load.errors += 1
                self.attempt[caller] += 1
            self.idle += late

    def run(self, pids: Sequence[int]) -> None:
        own = servers = 0.0
        started = False
        while time.monotonic() < self.load.end:
            if not started and time.monotonic() >= self.load.begin:
                started, own, servers = True, own_cpu_seconds(), cpu_seconds(pids)
            with self.lock:
                ready, self.idle = self.idle, []
            for caller in ready:
                self.issue(caller)
            time.sleep(0.005)
            self.give_up_late()
        self.load.client_cpu = own_cpu_seconds() - own
        self.load.server_cpu = cpu_seconds(pids) - servers


def node(own: str, others: Sequence[str], journal: str | None) -> None:
    """Be one process of the cluster; do what the lines of standard input say."""
    store = Store(own, others, journal=journal)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "status":
            answer: dict[str, Any] = {
                "ready": store.isReady(),
                "leader": store._isLeader(),
            }
        else:
            begin = time.monotonic() + order["warm_up"]
            load = Load(begin, begin + order["seconds"])
            Callers(store, order["callers"], load, order["op_timeout"]).run(order["pids"])
            answer = vars(load)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # its threads would keep the process


class PySyncObjCluster:
    """Three node processes. Every one is ended by stop()."""

    def __init__(self, workdir: Path, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; there are {', '.join(MODES)}")
        self.workdir = workdir
        self.journal = mode == "journal"
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(NODES)]
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Start all nodes and wait until they have one leader."""
        for n in range(NODES):
            self.start_node(n)
        self.leader()

    def start_node(self, n: int) -> None:
        others = [address for m, address in enumerate(self.addresses) if m != n]
        command = [sys.executable, "-m", MODULE, "--node", self.addresses[n], *others]
        if self.journal:
            command += ["--journal", str(self.workdir / f"journal-{n}")]
        with (self.workdir / f"pysyncobj-{n}.log").open("ab") as log:
            self.processes[n] = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )  # fmt: skip

    def tell(self, n: int, **order: Any) -> None:
        pipe = self.processes[n].stdin
        assert pipe is not None
        pipe.write(json.dumps(order) + "\n")
        pipe.flush()

    def answer(self, n: int) -> dict[str, Any]:
        pipe = self.processes[n].stdout
        assert pipe is not None
        line = pipe.readline()
        if not line:
            raise RuntimeError(f"PySyncObj's process {n} ended; see its log in {self.workdir}")
        found: dict[str, Any] = json.loads(line)
        return found

    def statuses(self) -> dict[int, dict[str, Any]]:
        running = [n for n, process in self.processes.items() if process.poll() is None]
        for n in running:
            self.tell(n, do="status")
        return {n: self.answer(n) for n in running}

    def leader(self) -> int:
        """The node that leads, once all are ready and one alone has led for half a second."""
        limit = time.monotonic() + START_SECONDS_MAX
        before, since = None, 0.0
        while time.monotonic() < limit:
            statuses = self.statuses()
            leaders = [n for n, status in statuses.items() if status["leader"]]
            if len(leaders) == 1 and all(status["ready"] for status in statuses.values()):
                if leaders[0] != before:
                    before, since = leaders[0], time.monotonic()
                elif time.monotonic() - since > 0.5:
                    return leaders[0]
            else:
                before = None
            time.sleep(0.05)
        raise RuntimeError(f"PySyncObj has no leader after {START_SECONDS_MAX} s")

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes.values() if process.poll() is None]

    def stop(self) -> None:
        for process in self.processes.values():
            stop(process)


@contextlib.contextmanager
def cluster(workdir: Path, mode: str) -> Iterator[PySyncObjCluster]:
    """A running cluster whose data and processes are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix="pysyncobj-") as folder:
        members = PySyncObjCluster(Path(folder), mode)
        try:
            members.start()
            yield members
        finally:
            members.stop()


def run(callers: int, seconds: float, workdir: Path, *, mode: str = "journal") -> Result:
    """Measure puts from inside the leader's process.

    Client and leader are one process, so `client_cpu` is 0 and `server_cpu` holds all of it.
    """
    with cluster(workdir, mode) as members:
        leader = members.leader()
        members.tell(
            leader, do="load", callers=callers, seconds=seconds, warm_up=1.0, op_timeout=10.0,
            pids=members.pids(),
        )  # fmt: skip
        load = Load(**members.answer(leader))
    load.client_cpu = 0.0
    return load.result(f"pysyncobj {mode}", "inside", callers)


def failover(
    kills: int,
    workdir: Path,
    *,
    mode: str = "journal",
    callers: int = 16,
    op_timeout: float = 0.5,
    silence: bool = False,
    before: float = 2.0,
    after: float = 6.0,
) -> list[Result]:
    """End the leader under load in a fresh cluster each time, and report the longest gap.

    The callers are spread over the two processes that survive. A fresh cluster, because a node
    that comes back joins only after PySyncObj's five seconds between connection attempts.
    """
    results = []
    for _ in range(kills):
        with cluster(workdir, mode) as members:
            leader = members.leader()
            survivors = [n for n in range(NODES) if n != leader]
            for n, share in zip(survivors, (callers - callers // 2, callers // 2), strict=True):
                members.tell(
                    n, do="load", callers=share, seconds=before + after, warm_up=1.0,
                    op_timeout=op_timeout, pids=[],
                )  # fmt: skip
            time.sleep(1.0 + before)
            victim = members.processes[leader]
            os.kill(victim.pid, signal.SIGSTOP if silence else signal.SIGKILL)
            first, second = (Load(**members.answer(n)) for n in survivors)
        both = Load(
            max(first.begin, second.begin),
            min(first.end, second.end),
            first.latencies + second.latencies,
            first.moments + second.moments,
            first.errors + second.errors,
        )
        ended = "SIGSTOP" if silence else "SIGKILL"
        results.append(both.result(f"pysyncobj {mode}", "inside", callers, ended=ended))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--mode", choices=MODES, nargs="*", default=list(MODES))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--silence", action="store_true", help="SIGSTOP and not SIGKILL")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--node", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--journal", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.node:
        node(chosen.node[0], chosen.node[1:], chosen.journal)
        return
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    print(machine(), file=sys.stderr)
    for mode in chosen.mode:
        if chosen.kills:
            results: Iterator[Result] = iter(
                failover(chosen.kills, chosen.workdir, mode=mode, silence=chosen.silence)
            )
        else:
            results = (run(n, chosen.seconds, chosen.workdir, mode=mode) for n in chosen.callers)
        for result in results:
            print(result.line(), file=sys.stderr)
            print(result.to_json(), flush=True)


if __name__ == "__main__":
    main()
