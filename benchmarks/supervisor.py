"""Supervisors side by side.

    python -m benchmarks.supervisor [--quick] [--json] [--peers PYTHON]

One worker (a Python program that appends a line to a file as its first act and then stamps
progress) under ``outlast.detect.Supervisor``, supervisord and circusd at their defaults, in the
same run. Only for the kills ours forgets a failure after one second of being up, as supervisord
does, and allows more than five in a minute: otherwise they had to be ten seconds apart.

* kill -9 of the worker, again and again: from the kill to the first line of the next one;
* SIGSTOP of the worker: whether it is noticed;
* a worker that exits at once: how often it is started, and the gaps;
* kill -9 of the supervisor: which of a worker, its child and its daemon (``setsid``) live on;
* memory of the supervisor with all that it needs.

What is asked: restart after kill -9 in 50 ms (median), a stopped worker noticed, nobody left.
``--peers`` names an interpreter that has ``supervisor`` and ``circus``; a peer that is missing is
left out.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.common import ROOT, machine

WORKER = """
import os, sys, time
def say(text):
    with open(sys.argv[1], "a") as file:
        file.write(f"{text}\\n")
say(f"{time.monotonic_ns()} {os.getpid()}")
if sys.argv[2] == "crash":
    sys.exit(1)
if sys.argv[2] == "family":
    import subprocess
    wait = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
    child = subprocess.Popen(wait)
    daemon = subprocess.Popen(wait, start_new_session=True)
    say(f"family {child.pid} {daemon.pid}")
try:
    from outlast.detect import progress_stamp
except ImportError:
    progress_stamp = int
while True:
    progress_stamp()
    time.sleep(0.05)
"""
OURS = """
import sys
from outlast.detect import Child, RestartBackoff, Supervisor
line = [{python!r}, "-c", {worker!r}, {log!r}, {mode!r}]
rules = dict(backoff=RestartBackoff(reset_after=1.0), intensity=100) if {often!r} else {{}}
sys.exit(Supervisor(Child.command("worker", line, progress={progress!r}), **rules).run())
"""
SUPERVISORD = """[supervisord]
nodaemon=true
logfile={folder}/d.log
pidfile={folder}/d.pid
[program:worker]
command={python} {script} {log} {mode}
"""
CIRCUSD = """[circus]
endpoint = ipc://{folder}/a
pubsub_endpoint = ipc://{folder}/b
[watcher:worker]
cmd = {python}
args = {script} {log} {mode}
"""


@dataclass
class Row:
    """What one supervisor did. Times are in milliseconds, gaps in seconds."""

    system: str
    restarts: list[float] = field(default_factory=list)
    stopped_noticed: float | None = None
    stopped_watched: float = 0.0
    crash_starts: int = 0
    crash_gaps: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    mib: float = 0.0

    def lines(self) -> list[str]:
        """The figures for people."""
        noticed = (
            f"not in {self.stopped_watched:.0f} s"
            if self.stopped_noticed is None
            else f"replaced after {self.stopped_noticed:.2f} s"
        )
        gaps = ", ".join(f"{gap:.2f}" for gap in self.crash_gaps[:12])
        return [
            f"{self.system:12} kill -9: median {median(self.restarts):7.1f} ms, worst"
            f" {max(self.restarts):7.1f} ms ({len(self.restarts)} times)",
            f"{'':12} SIGSTOP: {noticed}",
            f"{'':12} exits at once: {self.crash_starts} starts, gaps {gaps} s",
            f"{'':12} killed itself: left {', '.join(self.left) or 'nothing'};"
            f" memory {self.mib:.1f} MiB",
        ]


class Log:
    """The lines that workers wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def starts(self) -> list[tuple[float, int]]:
        """Seconds and pid of each start."""
        found = []
        for line in self._lines():
            words = line.split()
            if len(words) == 2 and words[0].isdigit():
                found.append((int(words[0]) / 1e9, int(words[1])))
        return found

    def family(self) -> tuple[int, int] | None:
        """Pids of the worker's child and daemon."""
        for line in self._lines():
            if line.startswith("family "):
                _, child, daemon = line.split()
                return int(child), int(daemon)
        return None

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_text().rpartition("\n")[0].splitlines()

    def after(self, count: int, within: float) -> tuple[float, int] | None:
        """Start number ``count`` (from 0), if it comes in time."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            starts = self.starts()
            if len(starts) > count:
                return starts[count]
            time.sleep(0.001)
        return None


@contextlib.contextmanager
def served(
    system: str, peers: str, mode: str, *, progress: float | None = None, often: bool = False
) -> Iterator[tuple["subprocess.Popen[bytes]", Log]]:
    """Run a supervisor with its worker; end both, and all that is left, at the end."""
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as name:
        folder = Path(name)
        script = folder / "worker.py"
        script.write_text(WORKER)
        log = Log(folder / "log")
        facts = {
            "python": sys.executable, "worker": WORKER, "log": str(log.path), "mode": mode,
            "folder": name, "script": script, "progress": progress, "often": often,
        }  # fmt: skip
        if system == "outlast":
            command = [sys.executable, "-c", OURS.format(**facts)]
        else:
            text = SUPERVISORD if system == "supervisord" else CIRCUSD
            (folder / "conf").write_text(text.format(**facts))
            module = "supervisor.supervisord" if system == "supervisord" else "circus.circusd"
            command = [peers, "-m", module, *(["-c"] if system == "supervisord" else [])]
            command.append(str(folder / "conf"))
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if log.after(0, 15) is None:
                raise RuntimeError(f"{system} did not start its worker")
            yield process, log
        finally:
            family = log.family() or ()
            pids = [pid for _, pid in log.starts()[-1:]] + list(family)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kills(row: Row, peers: str, times: int) -> None:
    """Kill the worker again and again; each was up for 2 to 3 s, in step with no poll."""
    with served(row.system, peers, "run", often=True) as (process, log):
        for number in range(times):
            time.sleep(2.0 + number * 0.37 % 1.0)
            _, pid = log.starts()[-1]
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            found = log.after(number + 1, 30)
            if found is None:
                raise RuntimeError(f"{row.system} did not start the worker again")
            row.restarts.append((found[0] - killed) * 1e3)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        worker = log.starts()[-1][1]
        row.mib = sum(one.memory_info().rss for one in family if one.pid != worker) / 2**20


def stopped(row: Row, peers: str, seconds: float) -> None:
    """Stop the worker and see whether another one comes."""
    with served(row.system, peers, "run", progress=2.0) as (_, log):
        time.sleep(2.0)
        _, pid = log.starts()[-1]
        begun = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        found = log.after(1, seconds)
        row.stopped_watched = seconds
        if found is not None:
            row.stopped_noticed = found[0] - begun
        else:
            os.kill(pid, signal.SIGCONT)


def crashes(row: Row, peers: str, seconds: float) -> None:
    """Let a worker exit at once, again and again."""
    with served(row.system, peers, "crash") as (_, log):
        time.sleep(seconds)
        starts = [at for at, _ in log.starts()]
        row.crash_starts = len(starts)
        row.crash_gaps = [b - a for a, b in itertools.pairwise(starts)]


def orphans(row: Row, peers: str) -> None:
    """Kill the supervisor and see who lives on."""
    with served(row.system, peers, "family") as (process, log):
        end = time.monotonic() + 5
        while (family := log.family()) is None and time.monotonic() < end:
            time.sleep(0.01)
        if family is None:
            raise RuntimeError(f"{row.system}: no family")
        _, worker = log.starts()[-1]
        time.sleep(1.0)
        process.kill()
        process.wait()
        time.sleep(2.0)
        people = {"the worker": worker, "its child": family[0], "its daemon": family[1]}
        row.left = [name for name, pid in people.items() if alive(pid)]


def present(peers: str, module: str) -> bool:
    code = f"import {module}"
    return subprocess.run([peers, "-c", code], capture_output=True, check=False).returncode == 0


def measure(peers: str, *, times: int, seconds: float) -> list[Row]:
    """Run everything; kills one supervisor after the other, what only waits at the same time."""
    rows = [Row("outlast")]
    rows += [Row(name) for name, module in
             (("supervisord", "supervisor.supervisord"), ("circusd", "circus.circusd"))
             if present(peers, module)]  # fmt: skip
    for row in rows:
        kills(row, peers, times)
    steps: list[Callable[[Row], None]] = [
        lambda row: stopped(row, peers, seconds),
        lambda row: crashes(row, peers, seconds),
        lambda row: orphans(row, peers),
    ]
    with ThreadPoolExecutor(len(rows)) as pool:
        for step in steps:
            list(pool.map(step, rows))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 kills, and 8 s instead of 30")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has the peers")
    given = parser.parse_args()
    times, seconds = (4, 8.0) if given.quick else (10, 30.0)
    rows = measure(given.peers, times=times, seconds=seconds)
    if given.json:
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}))
        return
    print(machine())
    for row in rows:
        print("\n".join(row.lines()))
    ours = median(rows[0].restarts)
    for row in rows[1:]:
        print(f"restart after kill -9: {row.system} takes {median(row.restarts) / ours:.0f} times")
    print(f"asked: median <= 50 ms: {ours:.1f} ms; nobody left: {rows[0].left or 'nobody'}")


if __name__ == "__main__":
    main()
