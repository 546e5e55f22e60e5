"""Make `.venv` with a Python that is new enough, or say in one line what to install.

Run by the system's Python, whichever version that is: keep to syntax that Python 3.6 can read.
"""

import os
import shutil
import subprocess
import sys
from typing import List, Optional, Tuple  # noqa: UP035 (read by old Pythons)

OLDEST = (3, 11)
VENV = ".venv"


def find_python() -> Optional[str]:  # noqa: UP045
    """Return a Python of at least OLDEST, the one that runs this first, or None."""
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    names = ["python3.{}".format(minor) for minor in range(15, OLDEST[1] - 1, -1)]  # noqa: UP032
    return next((path for path in map(shutil.which, names) if path), None)


def run(command: List[str]) -> Tuple[int, str]:  # noqa: UP006
    """Run a command and return its exit code with all that it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace").strip()


def main() -> Optional[str]:  # noqa: UP045
    """Create the environment; return None, or the line that says what is missing."""
    python = find_python()
    if python is None:
        line = "Python {}.{} or later is needed, {} is {}: install one, or make PYTHON=/its/path"
        return line.format(OLDEST[0], OLDEST[1], sys.executable, sys.version.split()[0])
    inside = os.path.join(VENV, "bin", "python")
    existed = os.path.exists(inside)
    code, text = run([python, "-m", "venv", VENV])
    if code == 0:
        code, text = run([inside, "-m", "pip", "--version"])
        text = text + " ensurepip"
    if code == 0:
        return None
    if not existed:
        shutil.rmtree(VENV, ignore_errors=True)  # half an environment would pass for a whole one
    if "ensurepip" in text or "No module named venv" in text:
        return (
            "{} -m venv does not work here: apt-get install python3-venv, then make again".format(  # noqa: UP032
                python
            )
        )
    last = text.splitlines()[-1] if text else "no message"
    return "{} -m venv {} failed: {}".format(python, VENV, last)  # noqa: UP032


if __name__ == "__main__":
    sys.exit(main())
