"""Users' type checkers agree with what tests/typing says about the public API."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(str(path) for path in Path(__file__).parent.glob("*_api.py"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("checker", [["mypy"], ["basedpyright", "--level", "error"]], ids=str)
def test_the_public_api_is_typed_as_it_says(checker: list[str]) -> None:
    program = Path(sys.executable).with_name(checker[0])
    done = subprocess.run(
        [str(program), *checker[1:], *FILES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
