"""Beats between real processes on loopback: one is killed, one is frozen."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.process


class Pair:
    """An observer and a sender; every process has ended on :meth:`close`."""

    def __init__(self, *, gated: bool) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.observer = self.start("observe", "gated" if gated else "bare")
        assert self.observer.stdout is not None
        self.sender = self.start("send", self.observer.stdout.readline().strip())
        assert self.observer.stdout.readline() == "hears\n"

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.detect_beats", *words],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def end(self) -> list[Any]:
        """Return what the observer has told until now."""
        out, _ = self.observer.communicate(timeout=10)
        lines = out.splitlines()
        assert lines[-1] == "end"
        return [json.loads(line) for line in lines[:-1]]

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(gated=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("pair", [True], indirect=True)
def test_a_killed_sender_is_evicted_and_a_living_one_was_not(pair: Pair) -> None:
    time.sleep(0.5)
    pair.sender.kill()
    assert pair.observer.stdout is not None
    seen = []
    while (line := json.loads(pair.observer.stdout.readline()))[1] != "evict":
        seen.append(line)
    name, _, silence = line
    assert name == "PeerSuspected"
    assert 0.3 < silence < 3.0  # half a second, where the machine has time
    assert pair.end() == []


def freeze_observer(pair: Pair) -> list[Any]:
    time.sleep(0.5)
    pair.observer.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    pair.observer.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    return pair.end()


@pytest.mark.parametrize("pair", [True], indirect=True)
def test_an_observer_that_was_frozen_itself_evicts_nobody(pair: Pair) -> None:
    told = freeze_observer(pair)
    assert not [one for one in told if one[1] == "evict"]


@pytest.mark.parametrize("pair", [True], indirect=True)
def test_a_sender_that_was_frozen_for_long_is_evicted(pair: Pair) -> None:
    time.sleep(0.3)
    pair.sender.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    pair.sender.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    told = pair.end()
    assert [one[1] for one in told if one[0] == "PeerSuspected"][-1] == "evict"
