"""Drills that die, for tests of heal: real processes, and journals of owners that are gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from outlast.host import make_world
from outlast.inject import HealReport, ProcessId, RemoveTree, heal, identify, is_alive
from outlast.inject.core.undo import Header, drill_id, header_line, undo_line
from outlast.inject.identity import marked, send
from outlast.inject.place import boot_word, open_place
from outlast.kernel import World

DRILL = """
import os, signal, subprocess, sys, time
from outlast.host import make_world
from outlast.inject import Continue, Journal, RemoveFile, identify
journal = Journal.open(make_world(), directory=sys.argv[1])
environment = {**os.environ, **journal.environment}
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
nodes = [subprocess.Popen(sleep, env=environment, start_new_session=True) for _ in range(3)]
stopped = identify(nodes[2].pid)
journal.before(Continue((stopped,)))
os.kill(nodes[2].pid, signal.SIGSTOP)
data = journal.make_directory(parent=sys.argv[2])
os.makedirs(data + "/n1/log")
for name in ("n1/log/1", "n1/log/2", "n2"):
    open(f"{data}/{name}", "w").write("x")
open(data + "/sock", "w").close()
journal.before(RemoveFile(data + "/sock"))
print(journal.drill, data, *(node.pid for node in nodes), flush=True)
time.sleep(600)
"""


class Drill:
    """A drill with three nodes, one of them stopped, and a directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.state = str(tmp_path / "state")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRILL, self.state, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.id, self.data, *pids = self.process.stdout.readline().split()
        self.nodes = [identify(int(pid)) for pid in pids]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def close(self) -> None:
        self.kill()
        for node in self.nodes:
            send(node, signal.SIGKILL)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def nothing_is_left(self) -> bool:
        return (
            not any(map(is_alive, self.nodes))
            and not marked(self.id)
            and not os.path.exists(self.data)
            and os.listdir(self.state) == []
        )


def run_heal(place: str, world: World | None = None) -> HealReport:
    return heal(world or make_world(), directories=[place])


def wait_for(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def dead_owner() -> ProcessId:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    owner = identify(child.pid)
    child.communicate(b"\n", timeout=60)
    return owner


def dead_journal(tmp_path: Path, *names: str, more: bytes = b"") -> tuple[str, Path]:
    """Write the journal of a drill that is dead; return its place and the first directory."""
    state = open_place(str(tmp_path / "state"))
    owner = dead_owner()
    drill = drill_id(owner, 5)
    text = header_line(Header(drill, owner, boot_word(), 0))
    first = tmp_path / f"outlast-drill-{drill}-{names[0] if names else 'data'}"
    for number, name in enumerate(names, 1):
        text += undo_line(number, RemoveTree(str(tmp_path / f"outlast-drill-{drill}-{name}")))
    path = Path(state) / f"{drill}.journal"
    path.write_bytes(text + more)
    path.chmod(0o600)
    return state, first


def dead_with(tmp_path: Path, undo) -> str:
    state, _ = dead_journal(tmp_path, more=undo_line(1, undo))
    return state


class Killed(BaseException):
    """Stands for SIGKILL at a fault point: nothing after it runs, as there is no handler."""


class KillAt:
    """Fault points that end heal at the n-th."""

    def __init__(self, number: int) -> None:
        self.left = number

    def fault_point(self, name: str) -> None:
        if not name.startswith("inject.heal."):
            return
        self.left -= 1
        if self.left < 0:
            raise Killed(name)
