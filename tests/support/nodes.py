"""Nodes of a cluster as processes, one directory each, for tests that break their input.

Everything is bounded: a wait polls a condition and fails with the nodes' logs when it is late.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from outlast.cluster.layout import free_ports, hash_seed_of

WAIT = 60.0
ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def until(found: Callable[[], T], what: str, *, within: float = WAIT) -> T:
    """Poll until ``found`` returns something true; fail after ``within`` seconds."""
    end = time.monotonic() + within
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.02)


def outlast(
    *arguments: str, cwd: Path | None = None, timeout: float = WAIT, **more: str
) -> tuple[int, str, str]:
    """Run one command in a process; return exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        capture_output=True, text=True, check=False, timeout=timeout, cwd=cwd,
        env={**os.environ, **more},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def complaint(err: str) -> str:
    """Return the one line that says what was wrong; nothing like a traceback is around it."""
    assert "Traceback" not in err, err
    lines = [line for line in err.splitlines() if line.startswith("outlast: ")]
    assert len(lines) == 1, err
    return lines[0].removeprefix("outlast: ")


class Nodes:
    """A cluster whose nodes are started one by one, with the command line people type.

    Args:
        folder: For directories and logs.
        target: The machine.
        count: How many founding members.
        options: More options for every node.
        http: Whether each has a gateway.
        advertise: What the others dial instead, by node.
        environment: More environment.
        program: Module that they run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        target: str = "bank",
        count: int = 3,
        options: dict[str, Sequence[str]] | None = None,
        http: bool = True,
        advertise: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        program: str = "outlast",
    ) -> None:
        self.program = program
        self.folder = folder
        self.target = target
        self.names = [f"n{n}" for n in range(1, count + 1)]
        ports = free_ports(count * 2)
        self.listen = {
            name: f"127.0.0.1:{port}" for name, port in zip(self.names, ports, strict=False)
        }
        self.http = {
            name: f"127.0.0.1:{port}" for name, port in zip(self.names, ports[count:], strict=True)
        } if http else {}  # fmt: skip
        self.advertise = advertise or {}
        self.options = options or {}
        self.cluster = "c-test"
        self.environment = {
            **os.environ, "PYTHONHASHSEED": str(hash_seed_of(self.cluster)), **(environment or {}),
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.offsets: dict[str, int] = {}

    # --- where --------------------------------------------------------------------------------

    @property
    def addresses(self) -> dict[str, str]:
        """What the others dial, by node."""
        return {name: self.advertise.get(name, self.listen[name]) for name in self.names}

    @property
    def at(self) -> str:
        """What clients are given."""
        return ",".join(self.addresses.values())

    @property
    def peers(self) -> str:
        """The option ``--peers``."""
        return ",".join(f"{name}={address}" for name, address in self.addresses.items())

    def data(self, name: str) -> Path:
        """Data directory of a node."""
        return self.folder / name

    def url(self, name: str) -> str:
        """Where a node's gateway is."""
        return f"http://{self.http[name]}"

    def log(self, name: str) -> str:
        """What a node has written since its last start."""
        path = self.folder / f"{name}.log"
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(self.offsets.get(name, 0))
            return file.read().decode()

    # --- life ---------------------------------------------------------------------------------

    def command(self, name: str) -> list[str]:
        """Return the command line of a node."""
        line = [
            sys.executable, "-m", self.program, "node", self.target, "--id", name,
            "--listen", self.listen[name], "--data", str(self.data(name)), "--peers", self.peers,
            "--cluster", self.cluster,
        ]  # fmt: skip
        if name in self.advertise:
            line += ["--advertise", self.advertise[name]]
        if name in self.http:
            line += ["--http", self.http[name]]
        return [*line, *self.options.get(name, ())]

    def init(self) -> "Nodes":
        """Make every founding member's directory, in this process."""
        from outlast.cluster import init_node
        from outlast.cluster.identity import parse_peers
        from outlast.host import default_world
        from outlast.kernel import ClusterId, NodeId

        for name in self.names:
            init_node(
                default_world().storage, str(self.data(name)), NodeId(name),
                parse_peers(self.peers), cluster=ClusterId(self.cluster),
            )  # fmt: skip
        return self

    def start(self, *names: str) -> "Nodes":
        """Start nodes, all of them by default; returns when the processes run."""
        for name in names or self.names:
            path = self.folder / f"{name}.log"
            self.offsets[name] = path.stat().st_size if path.exists() else 0
            with path.open("ab") as file:
                self.processes[name] = subprocess.Popen(
                    self.command(name), stdout=file, stderr=file, env=self.environment, cwd=ROOT
                )
        return self

    def serving(self, *names: str) -> "Nodes":
        """Wait until nodes say that they serve."""
        for name in names or self.names:
            until(lambda name=name: self._ready(name), f"{name} serves")
        return self

    def _ready(self, name: str) -> bool:
        code = self.processes[name].poll()
        assert code is None, f"{name} ended with {code}: {self.log(name)}"
        return f"{name}: ready" in self.log(name)

    def ended(self, name: str, *, within: float = WAIT) -> int:
        """Wait until a node's process has ended; return its exit code."""
        try:
            return self.processes[name].wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} runs still: {self.log(name)}") from None

    def signal(self, number: int, *names: str) -> None:
        """Send a signal to nodes."""
        for name in names:
            self.processes[name].send_signal(number)

    def kill(self, *names: str) -> None:
        """Kill nodes and wait until they are gone."""
        for name in names:
            self.processes[name].kill()
            self.processes[name].wait(WAIT)

    def close(self) -> None:
        """End all that runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes.values():
            process.wait(WAIT)

    # --- what they say ------------------------------------------------------------------------

    def status(self, name: str) -> dict[str, Any] | None:
        """Return a node's status from its gateway; ``None`` if it does not answer."""
        try:
            answer = httpx.get(f"{self.url(name)}/status", timeout=2.0)
        except httpx.HTTPError:
            return None
        facts: dict[str, Any] = answer.json()
        return facts

    def leader(self, *, other_than: str = "") -> str:
        """Wait until a node that runs leads; return its name."""
        running = [n for n in self.names if n in self.processes and n != other_than]

        def found() -> str:
            for name in running:
                if self.processes[name].poll() is None:
                    facts = self.status(name)
                    if facts is not None and facts.get("leading"):
                        return name
            return ""

        return until(found, "a leader")

    def call(self, name: str, arguments: dict[str, Any], *more: str) -> tuple[int, str, str]:
        """Run ``outlast call`` against all nodes."""
        return outlast("call", name, json.dumps(arguments), "--at", self.at, *more)
