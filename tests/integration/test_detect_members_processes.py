"""Members as processes on loopback: killed, stopped, told to go, and without the key."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outlast.detect import Members
from outlast.detect.members_seal import key_text
from tests.support import nodes
from tests.support.nodes import complaint, outlast

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]
WAIT = 60.0
until = partial(nodes.until, within=WAIT)
SILENCE = 3.0  # seconds, a little less than after which one that stands still is called dead


class Agent:
    """One ``outlast members join --json``."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.file = folder / f"{name}.jsonl"
        with self.file.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outlast", "members", "join", name, "--json",
                 "--bind", "127.0.0.1:0", *arguments],
                stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            )  # fmt: skip

    def said(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def of(self, kind: str, member: str = "") -> list[dict[str, Any]]:
        """Events of a kind, about one member."""
        return [
            event
            for event in self.said()
            if event["event"] == kind and member in {"", event.get("member", {}).get("name")}
        ]

    @property
    def address(self) -> str:
        return str(until(lambda: self.of("Started"), f"{self.name} starts")[0]["address"])

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(WAIT)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(key_text(Members.make_key()))
    return file


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    made: list[Agent] = []
    yield made
    for agent in made:
        if agent.process.poll() is None:
            agent.signal(signal.SIGKILL)
        agent.process.wait(WAIT)


def a_group(agents: list[Agent], folder: Path, key: Path, count: int) -> None:
    """Start so many, and wait until each has heard of all others."""
    agents.append(Agent(folder, "n1", "--key-file", str(key)))
    seed = agents[0].address
    for number in range(2, count + 1):
        name = f"n{number}"
        agents.append(Agent(folder, name, "--key-file", str(key), "--seed", seed))
    for agent in agents:
        until(
            lambda agent=agent: (
                len({e["member"]["name"] for e in agent.of("MemberJoined")})  # type: ignore[misc]
                == count - 1
            ),
            f"{agent.name} knows all",
        )


def test_five_processes_tell_killed_stopped_and_leaving_ones_apart(
    agents: list[Agent], tmp_path: Path, key: Path
) -> None:
    a_group(agents, tmp_path, key, 5)
    n1, n2, n3, n4, n5 = agents

    code, out, err = outlast(
        "members", "list", "--address", n3.address, "--key-file", str(key), "--json",
        timeout=WAIT,
    )  # fmt: skip
    assert (code, err) == (0, "")
    view = json.loads(out)
    assert {(one["name"], one["state"]) for one in view["members"]} == {
        (f"n{number}", "alive") for number in range(1, 6)
    }

    begun = time.monotonic()
    n2.signal(signal.SIGSTOP)
    until(lambda: any(one.of("MemberSuspected", "n2") for one in (n1, n3, n4, n5)), "suspicion")
    n2.signal(signal.SIGCONT)
    stopped = time.monotonic() - begun

    n5.signal(signal.SIGKILL)
    for one in (n1, n2, n3, n4):
        dead = until(lambda one=one: one.of("MemberDead", "n5"), f"{one.name} misses n5")  # type: ignore[misc]
        assert dead[0]["accusers"]

    assert n4.end() == 0
    for one in (n1, n2, n3):
        until(lambda one=one: one.of("MemberLeft", "n4"), f"{one.name} saw n4 leave")  # type: ignore[misc]
        assert not one.of("MemberDead", "n4")
        if stopped < SILENCE:  # else the machine had no time to continue it
            assert not one.of("MemberDead", "n2")


def test_without_the_key_nobody_is_let_in_or_told_anything(
    agents: list[Agent], tmp_path: Path, key: Path
) -> None:
    a_group(agents, tmp_path, key, 2)
    seed = agents[0].address
    other = tmp_path / "other"
    other.write_text(key_text(Members.make_key()))
    odd = Agent(tmp_path, "odd", "--key-file", str(other), "--seed", seed)
    agents.append(odd)
    dropped = until(lambda: agents[0].of("PacketDropped"), "n1 tells of it")
    assert dropped[0]["reason"] == "unknown key"
    assert not agents[0].of("MemberJoined", "odd")
    code, out, err = outlast(
        "members", "list", "--address", seed, "--key-file", str(other), timeout=WAIT
    )
    assert (code, out) == (2, "")
    assert "the same key" in complaint(err)
