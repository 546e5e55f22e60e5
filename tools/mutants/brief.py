"""A plugin of pytest: tests of a copy are over as soon as one fails, and are of that copy."""

from pathlib import Path

import hypothesis
import pytest

import outlast

_PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.generate)

# Which example fails does not matter, and is not made smaller.
hypothesis.settings.register_profile(
    "mutants", phases=_PHASES, database=None, deadline=None, derandomize=True
)
hypothesis.settings.load_profile("mutants")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to judge anything but the copy."""
    if Path.cwd() not in Path(outlast.__file__).parents:
        pytest.exit(f"outlast comes from {outlast.__file__}, not from the copy", returncode=4)
