"""A real process is killed under load, again and again: what it acknowledged is there, once."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlast.kernel import DataError, Prng
from outlast.state import StateMachine, command
from outlast.state import open as open_machine
from tests.support.state_kill_child import SETTINGS, Ledger

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]


def run_and_kill(directory: Path, kind: str, first: int, lines: int) -> list[int]:
    """Run the child until it has acknowledged ``lines`` numbers, kill it, return them all."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.state_kill_child", str(directory), kind, str(first)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    said = []
    try:
        for line in child.stdout:
            said.append(line)
            if len(said) > lines:
                break
        else:
            raise AssertionError(child.stderr.read().decode()[-2000:])
    finally:
        child.kill()
        said += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        child.stderr.close()
    return [int(line) for line in said[1:] if line.endswith(b"\n")]


async def numbers_in(directory: Path) -> dict[int, int]:
    async with open_machine(Ledger, directory, settings=SETTINGS) as ledger:
        return await ledger.call(Ledger.all)


def check(directory: Path, acknowledged: list[int], attempted: int) -> None:
    found = asyncio.run(numbers_in(directory))
    missing = [number for number in acknowledged if number not in found]
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged are missing"
    twice = {number: count for number, count in found.items() if count != 1}
    assert not twice
    assert len(found) <= attempted


@pytest.mark.parametrize("kind", ["host", "lossy"])
def test_kill_under_load_loses_nothing_acknowledged(tmp_path: Path, kind: str) -> None:
    prng = Prng(11)
    acknowledged: list[int] = []
    for round_ in range(4):
        first = round_ * 1_000_000
        acknowledged += run_and_kill(tmp_path, kind, first, prng.between(50, 1500))
        check(tmp_path, acknowledged, attempted=len(acknowledged) + 4 * 32)
    assert list((tmp_path / "snapshots").glob("0*/MANIFEST")), "no checkpoint was ever taken"


def test_the_same_test_notices_that_fsync_does_nothing(tmp_path: Path) -> None:
    acknowledged = run_and_kill(tmp_path, "noop", 0, 300)
    assert len(acknowledged) >= 300
    with pytest.raises(AssertionError, match="acknowledged are missing"):
        check(tmp_path, acknowledged, attempted=1000)


@pytest.mark.anyio
async def test_one_process_and_one_class_at_a_time(tmp_path: Path) -> None:
    @dataclass
    class Other(StateMachine):
        @command
        def go(self) -> int:
            return 1

    async with open_machine(Ledger, tmp_path) as ledger:
        await ledger.call(Ledger.add, 1)
        with pytest.raises(DataError):
            await open_machine(Ledger, tmp_path).__aenter__()
    with pytest.raises(DataError, match="Ledger"):
        await open_machine(Other, tmp_path).__aenter__()
