"""What all tests share: the event loop, and golden text files."""

from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. A hang is found by pytest's limit.
settings.register_profile("outlast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if settings.get_current_profile_name() == "default":  # else somebody has chosen another
    settings.load_profile("outlast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite golden text files with what was produced; review the diff",
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Golden(Protocol):
    def __call__(self, path: Path, produced: str) -> None: ...


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a text with a file beside the tests, or rewrite the file under --update-golden."""
    update = request.config.getoption("--update-golden")

    def check(path: Path, produced: str) -> None:
        kept = path.read_text(encoding="utf-8") if path.exists() else None
        if update:
            if kept != produced:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(produced, encoding="utf-8")
            return
        command = f'pytest "{request.node.nodeid}" --update-golden'
        assert kept is not None, f"{path} does not exist: make it with {command}"
        assert produced.splitlines() == kept.splitlines(), (
            f"{path} differs; if that is intended: {command}"
        )

    return check
