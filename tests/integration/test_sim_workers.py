"""Campaigns in several processes: the same answers, and every way in which one may end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel import ConfigError
from outlast.testing.campaign import Origin, Report, Settings, run_campaign
from outlast.testing.campaign.workers import WorkerProcess
from tests.support.sim_fake import origin

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def campaign(how: str, *, bad: list[int] | None = None, needs: list[int] | None = None,
             **settings: Any) -> Report:  # fmt: skip
    where = origin(how, bad=bad, needs=needs)
    return run_campaign(where.load()[0], origin=where, settings=Settings(**settings))


def facts(report: Report) -> dict[str, Any]:
    found = report.as_json()
    del found["seconds"], found["repeatable"]
    return found


def test_two_processes_find_what_one_finds() -> None:
    whole = {"keep_going": True, "seeds": 300}
    two = campaign("fails", bad=[50, 200], needs=[3], workers=2, **whole)
    one = campaign("fails", bad=[50, 200], needs=[3], workers=1, repeats=False, **whole)
    assert facts(two) == facts(one)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_smallest_failing_seed_is_told_however_many_processes_there_are(
    workers: int,
) -> None:
    report = campaign("fails", bad=[31, 33, 120], needs=[7], workers=workers, repeats=False)
    assert report.told[0].seed == 31
    assert report.told[0].kept == [7]


def test_runs_are_compared_under_two_hash_seeds() -> None:
    report = campaign("fine", seeds=250)
    assert report.checked == 4, "the first, two more hundreds, and the last"
    assert report.elsewhere == 4
    assert "repeatable: 4 seeds ran twice, 4 also under two hash seeds" in str(report)


def test_a_program_that_follows_hashes_of_text_is_found_with_the_line_that_differs() -> None:
    report = campaign("hashes", bad=[1], seeds=20)
    assert report.verdict == "failed"
    assert report.difference is not None
    assert report.difference.how.startswith("PYTHONHASHSEED=1 and 2")
    assert report.difference.line == 22
    assert "hash" in report.difference.first
    assert "not repeatable: seed 1" in str(report)


def test_state_that_is_left_between_runs_is_found_with_the_line_that_differs() -> None:
    report = campaign("leaks", bad=[1], seeds=20)
    assert report.difference is not None
    assert report.difference.how == "a first and a second run in one process"
    assert report.difference.first.endswith("run 0")
    assert report.difference.second.endswith("run 1")


def test_a_seed_that_ends_its_process_is_named_and_all_others_run() -> None:
    report = campaign("dies", bad=[5], seeds=100, keep_going=True)
    assert report.seeds == 100
    assert [(r.seed, r.lost) for r in report.failures] == [(5, True)]
    assert report.failures[0].error == "its process was ended by SIGKILL"


def test_a_seed_that_hangs_in_a_process_is_named_with_its_stack() -> None:
    report = campaign("spins", bad=[5], seeds=40, keep_going=True, hang_seconds=3.0)
    assert report.seeds == 40
    found = report.failures[0]
    assert found.seed == 5
    assert "still running after 3 s" in found.error
    assert any("sum(range(1000))" in line for line in found.stack)


def test_an_origin_that_does_not_work_elsewhere_is_refused_in_one_line() -> None:
    here = origin("fine").load()[0]
    with pytest.raises(ConfigError, match="gives nothing called 'fake'"):
        run_campaign(here, origin=Origin("builtins:list"), settings=Settings(seeds=50))


def test_a_worker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Even one that is busy, when nobody is left who could end it."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from tests.support.sim_fake import origin\n"
        "from outlast.testing.campaign.workers import WorkerProcess\n"
        "worker = WorkerProcess(origin('spins', bad=[1]), 'fake')\n"
        "worker.start('seeds', seeds=[1], twice=[], only=None)\n"
        "while worker.seed is None: worker.messages()\n"
        "print(worker._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pid = int(done.stdout)
    end = time.monotonic() + 60
    while time.monotonic() < end and _running(pid):
        time.sleep(0.02)
    assert not _running(pid), done.stderr


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_what_the_program_prints_does_not_mix_with_results() -> None:
    worker = WorkerProcess(origin("fails", bad=[1]), "fake")
    try:
        answer = worker.call("seeds", seeds=[1], twice=[], only=None)
        assert answer["result"]["error"] == "AssertionError"
    finally:
        worker.end()


def test_ending_a_worker_twice_is_harmless() -> None:
    worker = WorkerProcess(origin("fine"), "fake")
    worker.end()
    worker.end()
    assert worker._process.returncode == -signal.SIGKILL
