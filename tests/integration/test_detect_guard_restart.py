"""The last rung of the guard on a real process: it is ended, and its supervisor starts it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast.detect import Child, ChildExited, ChildReady, Supervisor
from tests.support.supervised import Heard

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]
ROOT = Path(__file__).resolve().parents[2]


async def two_lives(trouble: str, folder: Path) -> tuple[Any, str, bool]:
    """Supervise the program; return how it ended, what the guard logged, whether it lives."""
    heard = Heard()
    child = Child.command(
        "guarded",
        (sys.executable, "-m", "tests.support.guarded", trouble, str(folder)),
        directory=str(ROOT), output="keep", ready="life",
    )  # fmt: skip
    async with asyncio.timeout(40), Supervisor(child, world=heard.world) as supervisor:
        ended = await heard.until(ChildExited)
        await heard.until(ChildReady, 2)
        lives = supervisor.child("guarded").state == "running"
        return ended, (folder / "guard.log").read_text(encoding="utf-8"), lives


def test_a_process_that_runs_no_python_is_aborted_and_started_again(tmp_path: Path) -> None:
    ended, log, lives = asyncio.run(two_lives("frozen", tmp_path))
    assert ended.reason == "killed by SIGABRT"
    assert "process is frozen" in log
    assert "has been frozen for" in log
    assert "ending the process" in log
    assert lives


def test_a_stopped_process_which_no_abort_reaches_is_killed_and_started_again(
    tmp_path: Path,
) -> None:
    ended, log, lives = asyncio.run(two_lives("stopped", tmp_path))
    assert ended.reason == "killed by SIGKILL"
    assert "has been stopped for" in log
    assert lives
