"""Crash and pause on real processes: they take effect, are proven, and end by themselves."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.inject import Journal, ProcessId, crash, identify, is_alive, pause, process_tree
from outlast.inject.core.undo import Continue
from outlast.inject.guardian import Guardian
from outlast.inject.identity import is_stopped, read_state, send
from outlast.kernel import ConfigError

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
WITHIN = 30.0

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


class Family:
    """A process with a child."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", FAMILY], stdout=subprocess.PIPE, text=True
        )
        assert self.parent.stdout is not None
        self.pid = self.parent.pid
        self.child = identify(int(self.parent.stdout.readline()))
        self.identity = identify(self.pid)

    def close(self) -> None:
        for process in (self.child, self.identity):
            send(process, signal.SIGKILL)
        self.parent.wait(WITHIN)
        if self.parent.stdout is not None:
            self.parent.stdout.close()


@pytest.fixture
def family() -> Iterator[Family]:
    made = Family()
    yield made
    made.close()


def until(holds, what: str, within: float = WITHIN) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.005)


def test_a_crash_ends_the_whole_tree_and_says_so(family):
    assert [p.pid for p in process_tree(family.pid)] == [family.pid, family.child.pid]
    evidence = asyncio.run(crash(make_world(), family.pid))
    assert evidence.what == "killed"
    assert evidence.facts["gone"]
    assert evidence.facts["pids"] == [family.pid, family.child.pid]
    assert not is_alive(family.child)
    assert family.parent.wait(WITHIN) == -signal.SIGKILL


def test_a_crash_of_nobody_is_an_error_and_not_evidence(family):
    family.close()
    with pytest.raises(ProcessLookupError):
        asyncio.run(crash(make_world(), family.pid))


def test_a_pause_stops_the_tree_and_resuming_continues_it(family):
    async def story() -> None:
        paused = await pause(make_world(), family.pid, seconds=30)
        assert paused.evidence.facts["stopped"]
        assert paused.active
        assert is_stopped(family.child)
        evidence = await paused.resume()
        assert evidence.facts["resumed"]
        assert not evidence.facts["by_lease"]
        assert not paused.active
        assert await paused.resume() is evidence

    asyncio.run(story())


def test_a_pause_ends_by_itself_when_nobody_resumes(family):
    async def story() -> None:
        begun = time.monotonic()
        paused = await pause(make_world(), family.pid, seconds=0.4)
        while paused.active or is_stopped(family.child):
            assert time.monotonic() - begun < WITHIN
            await asyncio.sleep(0.01)
        assert time.monotonic() - begun >= 0.39
        assert (await paused.resume()).facts["by_lease"]

    asyncio.run(story())


def test_a_pause_whose_time_is_over_before_it_begins_leaves_nothing_stopped(family, monkeypatch):
    """A guardian that has acted is gone: what was stopped after that would stand for ever."""
    start = Guardian.start

    async def start_and_look_away(seconds: float, **more: list[ProcessId]) -> Guardian:
        guardian = await start(seconds, **more)
        await guardian._process.wait()
        return guardian

    monkeypatch.setattr(Guardian, "start", start_and_look_away)

    async def story() -> None:
        paused = await pause(make_world(), family.pid, seconds=0.05)
        until(lambda: not paused.active, "it was continued", within=5)
        assert not paused.evidence.facts["stopped"]
        assert (await paused.resume()).facts["by_lease"]

    asyncio.run(story())


DRILL = """
import asyncio, sys
from outlast.host import make_world
from outlast.inject import pause
async def main():
    await pause(make_world(), int(sys.argv[1]), seconds=60)
    print("paused", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_pause_ends_when_the_drill_is_killed(family):
    drill = subprocess.Popen(
        [sys.executable, "-c", DRILL, str(family.pid)], stdout=subprocess.PIPE, text=True
    )
    assert drill.stdout is not None
    assert drill.stdout.readline() == "paused\n"
    assert is_stopped(family.identity)
    drill.kill()
    drill.wait(WITHIN)
    until(lambda: not is_stopped(family.identity), "the guardian continued the parent")
    until(lambda: not is_stopped(family.child), "the guardian continued the child")
    drill.stdout.close()


def test_the_undo_of_a_pause_is_journalled_before_and_taken_back_after(family, tmp_path):
    async def story() -> None:
        world = make_world()
        journal = Journal.open(world, directory=str(tmp_path / "state"))
        paused = await pause(world, family.pid, seconds=30, journal=journal)
        undo = Continue((family.identity, family.child))
        assert undo in journal.open_undos
        assert undo in _read(journal)
        await paused.resume()
        assert undo not in journal.open_undos
        journal.close()
        assert os.listdir(os.path.dirname(journal.path)) == []

    asyncio.run(story())


def _read(journal: Journal) -> list[object]:
    from outlast.inject.core.undo import read_journal

    text = read_journal(Path(journal.path).read_bytes(), "j")
    assert text is not None
    return [undo for _, undo in text.open]


def test_another_process_under_the_same_pid_is_never_touched(family):
    impostor = ProcessId(family.pid, family.identity.started - 1)
    assert not is_alive(impostor)
    assert not send(impostor, signal.SIGKILL)
    assert is_alive(family.identity)

    async def story() -> None:
        os.kill(family.pid, signal.SIGSTOP)
        until(lambda: is_stopped(family.identity), "stopped")
        guardian = await Guardian.start(60, resume=[impostor])
        await guardian.act_now()
        assert is_stopped(family.identity)
        os.kill(family.pid, signal.SIGCONT)

    asyncio.run(story())


def test_a_name_with_parentheses_and_spaces_is_read_right(tmp_path):
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        found = read_state(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert found.state in {"S", "R", "D"}
    finally:
        child.kill()
        child.wait(WITHIN)


def test_a_pause_without_a_lease_is_refused(family):
    with pytest.raises(ConfigError, match="a lease is longer than 0"):
        asyncio.run(pause(make_world(), family.pid, seconds=0))


def test_a_guardian_that_never_acts_is_noticed(family, monkeypatch):
    from outlast.inject import guardian

    program = guardian._PROGRAM.replace('if word != b"k":', "if False:")
    monkeypatch.setattr(guardian, "_PROGRAM", program)

    async def story() -> None:
        paused = await pause(make_world(), family.pid, seconds=1)
        await asyncio.sleep(1.5)
        assert paused.active, "the planted bug leaves it standing, which the tests above see"
        await paused.resume()

    asyncio.run(story())
