"""A drill that is killed at any moment leaves nothing behind after heal, or the next start.

``OUTLAST_KILLS=20`` kills it at twenty moments in place of a few.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from outlast.drill.core.schedule import least_seconds
from tests.support.drill_lab import EXAMPLES, Lab, listening, under_load, waiting
from tests.support.nodes import WAIT, until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

SHOP = f"{EXAMPLES / 'drill_shop.py'}:Shop"
KILLS = int(os.environ.get("OUTLAST_KILLS", "4"))
SEED = int(os.environ.get("OUTLAST_KILLS_SEED", "2026"))
FAULTS = ("pause", "disk:full", "partition:halves", "crash")
SECONDS = least_seconds(len(FAULTS))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab for this test."""
    made = Lab(tmp_path / "lab")
    yield made
    made.close()


def kill(lab: Lab, after: float, seed: int) -> set[int]:
    """Start a drill, kill -9 it ``after`` so many seconds, and return the ports it used."""
    length = ["--seconds", f"{SECONDS:g}", "--seed", f"{seed}"]
    process = lab.start("drill", SHOP, "--faults", ",".join(FAULTS), *length)
    waiting(after, lambda: process.poll() is not None)
    if process.poll() is not None:  # a quick machine had it judged by then
        assert after > SECONDS, f"it ended before it was killed: {lab.said()}"
        return set()
    ports = lab.ports()
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    return ports


def heal(lab: Lab) -> None:
    """Run ``outlast heal`` to its good end."""
    ended = lab.run("heal", within=WAIT)
    assert ended.code == 0, ended.out + ended.err


@pytest.mark.parametrize("number", range(KILLS))
def test_a_drill_that_is_killed_at_any_moment_leaves_nothing_after_heal(
    lab: Lab, number: int
) -> None:
    """The moments lie one in each part of a drill's life, start and final reads included."""
    draw = Random(f"{SEED}-{number}")
    after = 0.3 + (SECONDS + 1.0) * (number + draw.random()) / KILLS
    print(f"OUTLAST_KILLS_SEED={SEED}: kill {number} of {KILLS} after {after:.3f} s")
    ports = kill(lab, after, seed=number + 1)
    print(lab.said())
    heal(lab)
    assert lab.remains() == []
    assert listening(ports) == set()


def stopped(lab: Lab) -> bool:
    """Whether the three nodes stand still."""
    return [one.status() for one in lab.descendants()].count("stopped") >= 3


def full(lab: Lab) -> bool:
    """Whether a node's disk, which is mounted where only the node sees it, has no room."""
    (data,) = lab.temporary.glob("outlast-drill-*-data")
    for process in lab.descendants():
        with suppress(OSError):
            if not os.statvfs(f"/proc/{process.pid}/root{data}/n1").f_bavail:
                return True
    return False


@pytest.mark.parametrize(
    ("fault", "in_force"),
    [("pause@all", stopped), ("disk:full@all", full), ("partition:halves", None)],
)
def test_a_drill_that_is_killed_while_a_fault_is_in_force_leaves_nothing_after_heal(
    lab: Lab, fault: str, in_force: Callable[[Lab], bool] | None
) -> None:
    """Each is the only fault of a drill; a cut cannot be seen from outside, so it is timed.

    It comes twice and lasts for seconds, so that it is seen on a busy machine too.
    """
    process = lab.start("drill", SHOP, "--faults", fault, "--seconds", "20", "--seed", "1")
    under_load(lab, process)
    if in_force is None:
        time.sleep(2.5)
    else:
        until(lambda: in_force(lab), f"{fault} is in force")
    ports = lab.ports()
    assert process.poll() is None, lab.said()
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    heal(lab)
    assert lab.remains() == []
    assert listening(ports) == set()


def test_the_next_drill_cleans_up_after_one_that_was_killed(lab: Lab) -> None:
    first = lab.start("drill", SHOP, "--faults", "pause@all", "--seconds", "20", "--seed", "1")
    under_load(lab, first)
    until(lambda: stopped(lab), "the nodes are stopped")
    first.send_signal(signal.SIGKILL)
    first.wait(WAIT)
    old = {path.name for path in lab.temporary.glob("outlast-drill-*")}
    assert old, "otherwise this test shows nothing"
    second = lab.start("drill", SHOP, "--faults", "crash", "--seconds", "60", "--seed", "1")
    under_load(lab, second)
    now = {path.name for path in lab.temporary.glob("outlast-drill-*")}
    assert now
    assert not old & now
    second.send_signal(signal.SIGINT)
    assert second.wait(WAIT) == 130
    assert lab.remains() == []


def test_without_heal_something_is_left_so_that_these_tests_can_fail(lab: Lab) -> None:
    process = lab.start("drill", SHOP, "--faults", "crash", "--seconds", "9", "--seed", "1")
    under_load(lab, process)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    assert [line for line in lab.leftovers() if line.startswith("directory")]
    assert [line for line in lab.leftovers() if line.startswith("journal")]
    heal(lab)
    assert lab.remains() == []
