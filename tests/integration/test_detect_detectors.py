"""Beats between real processes on loopback: one is killed, one is frozen."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WAIT = 60
ATTEMPTS = 5
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


class Pair:
    """An observer and a sender; every process has ended on :meth:`close`."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.observer = self.start("observe", "gated")
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

    def until_evicted(self) -> list[Any]:
        """Return what the observer tells, up to the line by which it evicts the sender."""
        assert self.observer.stdout is not None
        told = [json.loads(self.observer.stdout.readline())]
        while told[-1][1] != "evict":
            told.append(json.loads(self.observer.stdout.readline()))
        return told

    def end(self) -> list[Any]:
        """Return what the observer has told until now."""
        assert self.observer.stdin is not None
        assert self.observer.stdout is not None
        self.observer.stdin.close()
        # Not communicate(): what readline() has read ahead would be lost.
        lines = self.observer.stdout.read().splitlines()
        assert lines[-1] == "end"
        return [json.loads(line) for line in lines[:-1]]

    def sender_was_late(self) -> bool:
        """Whether the sender itself says that it was kept from sending; ends it."""
        self.sender.kill()
        out, _ = self.sender.communicate(timeout=WAIT)
        return "late" in out

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            with process:
                process.wait(WAIT)


def with_a_pair(story: Callable[[Pair], None]) -> None:
    """Tell a story; once more if the machine silenced the sender, who was suspected rightly."""
    for attempt in range(1, ATTEMPTS + 1):
        pair = Pair()
        try:
            story(pair)
        except AssertionError:
            if attempt == ATTEMPTS or not pair.sender_was_late():
                raise
        else:
            return
        finally:
            pair.close()


def test_a_killed_sender_is_evicted_and_a_living_one_was_not() -> None:
    def story(pair: Pair) -> None:
        time.sleep(0.5)
        pair.sender.kill()
        name, _, silence = pair.until_evicted()[-1]
        assert name == "PeerSuspected"
        assert silence > 0.3  # half a second, where the machine has time
        assert pair.end() == []

    with_a_pair(story)


def test_an_observer_that_was_frozen_itself_evicts_nobody() -> None:
    def story(pair: Pair) -> None:
        time.sleep(0.5)
        pair.observer.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        pair.observer.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        assert not [one for one in pair.end() if one[1] == "evict"]

    with_a_pair(story)


def test_a_sender_that_was_frozen_for_long_is_evicted() -> None:
    def story(pair: Pair) -> None:
        time.sleep(0.3)
        pair.sender.send_signal(signal.SIGSTOP)
        assert pair.until_evicted()[-1][0] == "PeerSuspected"
        pair.sender.send_signal(signal.SIGCONT)

    with_a_pair(story)
