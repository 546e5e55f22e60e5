"""Drills on real processes in tests: a machine of their own to look at, and what they may leave.

Each lab has a place for journals and a directory for temporary files, and marks the processes
that descend from its drills, so that labs side by side do not see each other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil

from outlast import drill
from tests.support.nodes import until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MARK = "DRILL_TEST_LAB"
WAIT = 120.0
GONE = 20.0


@dataclass
class Lab:
    """Where drills of one test run, and what is left of them."""

    folder: Path
    mark: str = field(init=False)
    environment: dict[str, str] = field(init=False)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mark = f"{os.getpid()}-{self.folder}"
        self.temporary = self.folder / "tmp"
        self.state = self.folder / "state"
        self.temporary.mkdir(parents=True)
        self.environment = {
            MARK: self.mark, "OUTLAST_STATE": str(self.state), "TMPDIR": str(self.temporary),
        }  # fmt: skip

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``outlast`` with arguments; its output goes into files beside the lab."""
        number = len(self._processes)
        with (
            (self.folder / f"out{number}").open("w") as out,
            (self.folder / f"err{number}").open("w") as err,
        ):
            process = subprocess.Popen(
                # What runs the tests may ignore Ctrl-C, as shells let background jobs do.
                ["env", "--default-signal=INT", sys.executable, "-m", "outlast", *arguments],
                stdout=out, stderr=err, text=True, cwd=self.folder, start_new_session=True,
                env={**os.environ, **self.environment, **environment},
            )  # fmt: skip
        self._processes.append(process)
        return process

    def said(self, number: int = -1) -> str:
        """What the command of that number has written to stderr so far."""
        return (self.folder / f"err{number % len(self._processes)}").read_text()

    def run(self, *arguments: str, within: float = WAIT, **environment: str) -> "Ended":
        """Run ``outlast`` with arguments to its end."""
        process = self.start(*arguments, **environment)
        code = process.wait(within)
        number = len(self._processes) - 1
        return Ended(
            code, (self.folder / f"out{number}").read_text(), self.said(number), self.remains()
        )

    # --- what is left --------------------------------------------------------------------------

    def descendants(self) -> list[psutil.Process]:
        """The processes of this lab that live, drills and nodes alike."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for pid in psutil.pids():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                process = psutil.Process(pid)
                if wanted in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def ports(self) -> set[int]:
        """The ports on which processes of this lab listen."""
        found = set()
        for process in self.descendants():
            try:
                sockets = process.net_connections(kind="tcp")
            except psutil.Error:
                continue
            found |= {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}
        return found

    def leftovers(self) -> list[str]:
        """Everything of a drill that is still there."""
        left = [f"process {p.pid}: {_command(p)}" for p in self.descendants()]
        left += [f"directory {path}" for path in sorted(self.temporary.glob("outlast-drill-*"))]
        if self.state.is_dir():
            left += [f"journal {path}" for path in sorted(self.state.iterdir())]
        left += [
            f"mount {line.split()[1]}"
            for line in Path("/proc/mounts").read_text().splitlines()
            if str(self.folder) in line
        ]
        return left

    def remains(self) -> list[str]:
        """Everything of a drill that stays: processes that were killed take a moment to go."""
        waiting(GONE, lambda: not self.leftovers())
        return self.leftovers()

    def close(self) -> None:
        """End what a failed test has left, by process."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(WAIT)
        for left in self.descendants():
            try:
                left.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, output, and what it left behind."""

    code: int
    out: str
    err: str
    left: Sequence[str]

    @property
    def report(self) -> dict[str, Any]:
        """The JSON that it printed."""
        assert self.code in {0, 1, 3}, f"exit {self.code}\n{self.err}"
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def broken(self) -> list[Any]:
        """Histories and invariants that do not hold; to be slow to come back is none of them."""
        histories = [one for one in self.report["workloads"] if one["verdict"] == "invalid"]
        return histories + [one for one in self.report["invariants"] if one["holds"] is False]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "gone"


def listening(ports: set[int]) -> set[int]:
    """Which of these ports anybody listens on."""
    sockets = psutil.net_connections(kind="tcp")
    return {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN} & ports


def under_load(lab: Lab, process: subprocess.Popen[str], *, faults: int = 0) -> None:
    """Wait until the drill's load runs, and so many faults are over."""

    def there() -> bool:
        assert process.poll() is None, lab.said()
        lines = lab.said().splitlines()
        return "under load" in lines and sum(" s on n" in line for line in lines) >= faults

    until(there, "the drill is under load", within=WAIT)


def odd(how: str, **changed: Any) -> type[drill.Drill]:
    """A drill of the numbers service that goes wrong as ``how`` says."""
    count = changed.pop("count", 3)
    nodes = drill.Nodes(
        "python -m tests.support.drill_odd", count=count, ready="/readyz",
        environment={"ODD": how, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    made: Any = type("Odd", (Numbers,), {"nodes": nodes, "__doc__": how, **changed})
    found: type[drill.Drill] = made
    return found


class Numbers(drill.Drill):
    """Clients of the numbers service that all use its first node."""

    model = "set"
    clients = 3
    recover_within = 60.0
    faults: ClassVar[Sequence[str]] = ("crash",)

    async def connect(self, node: drill.Node) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{node.everyone['n1']}")

    @drill.operation
    async def add(self, client: httpx.AsyncClient, value: int) -> None:
        (await client.put(f"/numbers/{value}")).raise_for_status()

    @drill.operation(final=True)
    async def read(self, client: httpx.AsyncClient) -> list[int]:
        answer = (await client.get("/numbers")).raise_for_status()
        found: list[int] = answer.json()
        return found


def waiting(seconds: float, done: Callable[[], bool]) -> bool:
    """Wait up to ``seconds`` for ``done``; return whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.01)
    return done()
