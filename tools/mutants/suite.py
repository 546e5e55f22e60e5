"""Runs test files against a copy, and says which test noticed first."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Status = Literal["caught", "survived", "unjudged"]

_PLUGIN = "tools.mutants.brief"
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_COUNT = re.compile(r"(\d+) (?:passed|failed|errors?)\b")
_SUMMARY = re.compile(r"^.*\b(?:passed|failed|error)\b.* in [\d.]+s.*$", re.MULTILINE)


def run_suite(
    copy: Path, patterns: Sequence[str], seconds_max: float
) -> tuple[Status, int, str, float]:
    """Run the tests that ``patterns`` name until one fails.

    Returns:
        What it says of the copy; how many tests ran; which failed, or why nothing is known; and
        how many seconds it took.
    """
    files = sorted({str(path) for one in patterns for path in (copy / "tests").glob(one)})
    if not files:
        return "unjudged", 0, f"no test file is called {', '.join(patterns)}", 0.0
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "--hypothesis-seed=0",
        "-p", "no:cacheprovider", "-p", _PLUGIN, *files,
    ]  # fmt: skip
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "PYTHONSTARTUP"}},
        "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}",
        "PYTHONHASHSEED": "0",
        "COLUMNS": "400",
    }
    begun = time.monotonic()
    child = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = child.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        return "unjudged", 0, "no time left", round(time.monotonic() - begun, 1)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    status, ran, by = judged(text, child.returncode)
    return status, ran, by, round(time.monotonic() - begun, 1)


def judged(text: str, code: int) -> tuple[Status, int, str]:
    """Return what the output and the exit code of pytest say.

    >>> judged("F\\nFAILED tests/unit/test_a.py::test_b - E\\n1 failed, 2 passed in 0.1s\\n", 1)
    ('caught', 3, 'test_b')
    >>> judged("..\\n2 passed in 0.1s\\n", 0)
    ('survived', 2, '')
    >>> judged("ImportError: x\\n", 4)[0]
    'unjudged'
    """
    summary = _SUMMARY.findall(text)
    ran = sum(map(int, _COUNT.findall(summary[-1]))) if summary else 0
    failed = _FAILED.search(text)
    if code == 0 and ran:
        return "survived", ran, ""
    if code == 1 and failed and "::" in failed[1]:
        return "caught", ran, failed[1].partition("::")[2]
    last = text.strip().splitlines()[-1:] or [f"exit code {code}"]
    return "unjudged", ran, f"the tests did not run: {last[0]}"
