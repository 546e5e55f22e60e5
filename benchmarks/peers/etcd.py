"""etcd 3.4 from Debian's package: three nodes on loopback, real fsync, load sent to the leader.

`python -m benchmarks.peers.etcd` prints one JSON line for each number of callers;
`--kills N` measures the longest gap in acknowledged writes around N kills of the leader.
"""

import argparse
import base64
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

from benchmarks.common import ROOT, Result, finish_load, free_ports, machine, start_load, stop
from tools import engines

MODULE = "benchmarks.peers.etcd_load"
CLIENTS = ("gateway", "grpc")
NODES = 3
START_SECONDS_MAX = 30.0


class EtcdCluster:
    """Three members with their data under one folder. Every process is ended by stop()."""

    def __init__(self, workdir: Path, *, options: Sequence[str] = ()) -> None:
        self.program = engines.ensure("etcd")
        self.workdir = workdir
        self.options = tuple(options)
        ports = free_ports(2 * NODES)
        self.client_ports, self.peer_ports = ports[:NODES], ports[NODES:]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.member_ids: dict[str, int] = {}

    def start(self) -> None:
        """Start all members and wait until they have a leader."""
        for node in range(NODES):
            self.start_node(node)
        self.leader()

    def start_node(self, node: int) -> None:
        """Start one member; it finds its data again if it had been started before."""
        peers = ",".join(f"n{n}=http://127.0.0.1:{p}" for n, p in enumerate(self.peer_ports))
        client = f"http://127.0.0.1:{self.client_ports[node]}"
        peer = f"http://127.0.0.1:{self.peer_ports[node]}"
        data = self.workdir / f"etcd-{node}"
        with (self.workdir / f"etcd-{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [
                    str(self.program), "--name", f"n{node}", "--data-dir", str(data),
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", peers, "--initial-cluster-state", "new",
                    "--logger", "zap", "--log-level", "error", *self.options,
                ],
                stdout=log, stderr=subprocess.STDOUT, env=engines.environment("etcd"),
            )  # fmt: skip

    def call(self, node: int, path: str, body: object) -> dict[str, object]:
        """One request to the JSON gateway of a member."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.client_ports[node]}{path}", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=1.0) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def leader(self) -> int:
        """The member that leads, once all running members agree on it and it takes a write."""
        limit = time.monotonic() + START_SECONDS_MAX
        running = [n for n, process in self.processes.items() if process.poll() is None]
        reason: object = "no answer"
        while time.monotonic() < limit:
            try:
                leads = [self.call(n, "/v3/maintenance/status", {}) for n in running]
                own = {str(s["header"]["member_id"]): n for s, n in zip(leads, running)}  # type: ignore[index]  # noqa: B905
                names = {str(status.get("leader", "0")) for status in leads}
                if len(names) == 1 and (found := own.get(names.pop())) is not None:
                    key = base64.b64encode(b"ready").decode()
                    self.call(found, "/v3/kv/put", {"key": key, "value": key})
                    return found
            except OSError as error:
                reason = error
            time.sleep(0.05)
        raise RuntimeError(f"etcd has no leader after {START_SECONDS_MAX} s: {reason}")

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes.values() if process.poll() is None]

    def endpoints(self, first: int) -> list[str]:
        """All members, one of them first."""
        order = [first, *(n for n in range(NODES) if n != first)]
        return [f"127.0.0.1:{self.client_ports[n]}" for n in order]

    def stop(self) -> None:
        for process in self.processes.values():
            stop(process)


@contextlib.contextmanager
def cluster(workdir: Path, *, options: Sequence[str] = ()) -> Iterator[EtcdCluster]:
    """A running cluster whose data and processes are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix="etcd-") as folder:
        members = EtcdCluster(Path(folder), options=options)
        try:
            members.start()
            yield members
        finally:
            members.stop()


def load(
    members: EtcdCluster,
    *,
    client: str,
    callers: int,
    seconds: float,
    op_timeout: float = 5.0,
    leader: int | None = None,
) -> subprocess.Popen[str]:
    """Start the load generator against the leader."""
    first = members.leader() if leader is None else leader
    return start_load(
        MODULE, *members.endpoints(first), "--client", client, "--callers", str(callers),
        "--seconds", str(seconds), "--op-timeout", str(op_timeout),
        "--pids", ",".join(map(str, members.pids())),
    )  # fmt: skip


def clients() -> tuple[str, ...]:
    """The clients that can run here: grpcio is not needed for anything else."""
    try:
        import grpc.aio  # noqa: F401
    except ImportError:
        return CLIENTS[:1]
    return CLIENTS


def run(callers: int, seconds: float, workdir: Path, *, client: str | None = None) -> Result:
    """Measure puts through one client, or through each and return the better (`extra` has both).

    A fresh cluster serves all clients of one call; its data lies under `workdir`.
    """
    with cluster(workdir) as members:
        results = [
            finish_load(load(members, client=name, callers=callers, seconds=seconds), seconds + 60)
            for name in ([client] if client else clients())
        ]
    best = max(results, key=lambda result: result.rate)
    best.extra["rates"] = {result.client: round(result.rate, 1) for result in results}
    return best


def failover(
    kills: int,
    workdir: Path,
    *,
    callers: int = 16,
    op_timeout: float = 0.1,
    silence: bool = False,
    options: Sequence[str] = (),
    before: float = 2.0,
    after: float = 6.0,
) -> list[Result]:
    """End the leader under load, once in each result, and report the longest gap.

    Args:
        kills: How often; the ended member comes back before the next time.
        workdir: Where the data lies.
        callers: Callers in a closed loop; each goes to the next member after an error.
        op_timeout: Seconds after which a caller gives an operation up.
        silence: Stop the leader with SIGSTOP and not SIGKILL.
        options: More options of etcd, such as a shorter election timeout.
        before: Seconds of load before.
        after: Seconds of load after; a gap is at most this long.
    """
    results = []
    with cluster(workdir, options=options) as members:
        for _ in range(kills):
            leader = members.leader()
            # The generator warms up for a second; imports take a part of one.
            process = load(
                members, client="gateway", callers=callers, seconds=before + after,
                op_timeout=op_timeout, leader=leader,
            )  # fmt: skip
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
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--silence", action="store_true", help="SIGSTOP and not SIGKILL")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
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
