"""What the tests of third-party programs in the simulator share."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.cluster.layout import free_ports
from outlast.sim.case import MARK

ROOT = Path(__file__).parents[2]


def found(test: Callable[..., None]) -> BaseException:
    """Return the error with which the test fails; it names the seed and how to repeat it."""
    with pytest.raises(AssertionError) as caught:
        test()
    notes = "\n".join(caught.value.__notes__)
    assert "--sim-seed" in notes
    assert "NOT REPEATABLE" not in notes, notes
    return caught.value


def outcome(test: Any, seed: int) -> sim.Outcome:
    """Run one seed of what ``@sim.test`` has made; it must pass."""
    found: sim.Outcome = getattr(test, MARK).run(seed)
    if found.error is not None:
        raise found.error
    return found


def assert_repeatable(place: str, seeds: tuple[int, ...] = (1, 2)) -> None:
    """Check that two runs of each seed are the same, here and under two hash seeds.

    Args:
        place: ``module:name`` of a test made by ``@sim.test``.
        seeds: Which.
    """
    module, _, name = place.partition(":")
    test = getattr(importlib.import_module(module), name)
    children = [_digests_elsewhere(place, seeds, hash_seed) for hash_seed in ("1", "2")]
    here = [[outcome(test, seed).digest for seed in seeds] for _ in range(2)]
    elsewhere = []
    for child in children:
        printed, _ = child.communicate(timeout=100)
        assert child.returncode == 0
        elsewhere.append(json.loads(printed.splitlines()[-1]))
    assert here[0] == here[1]
    assert elsewhere == [here[0], here[0]]
    assert len(set(here[0])) == len(seeds)


def _digests_elsewhere(
    place: str, seeds: tuple[int, ...], hash_seed: str
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.sim_programs", place, *map(str, seeds)],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextlib.contextmanager
def real_process(module: str, *arguments: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run a program on the real loop, over loopback; yields its port and its process."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", module, "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield port, process
    finally:
        process.kill()
        process.wait()


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Wait until somebody listens on a port of loopback."""
    import socket

    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, "the program has ended"
            assert time.monotonic() < end, "the program does not listen"
            time.sleep(0.02)


def stop_process(process: "subprocess.Popen[bytes]") -> int:
    """Send SIGTERM and return the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    module, _, name = place.partition(":")
    test = getattr(importlib.import_module(module), name)
    print(json.dumps([outcome(test, int(number)).digest for number in numbers]))
