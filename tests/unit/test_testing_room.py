"""The testing room is light: no pytest, and nothing loaded before it is used."""

import subprocess
import sys

import pytest

from outlast import testing

LOADED = """
import sys
import outlast.testing
assert not [name for name in sys.modules if name.startswith("outlast.testing.")], "not lazy"
outlast.testing.log_suite
import outlast.testing.broken.log, outlast.testing.log_fixture
assert "pytest" not in sys.modules, "pytest was imported"
"""


@pytest.mark.timeout(120)
def test_nothing_of_it_imports_pytest() -> None:
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_names_are_there_and_others_are_refused() -> None:
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing
    assert set(testing.__all__) <= set(dir(testing))


def test_the_table_of_checks_covers_every_promise() -> None:
    checks = testing.log_suite.CHECKS
    assert {check.promise for check in checks} == set(range(8))
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.run.__doc__ for check in checks)
