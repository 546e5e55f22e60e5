"""Every engine that runs in one process keeps every promise of the log."""

from collections.abc import Callable

import pytest

from outlast.testing.log_fixture import FileFixture, MemoryFixture
from outlast.testing.log_suite import CHECKS, Check, LogFixture, run_check

FIXTURES: list[Callable[[], LogFixture]] = [MemoryFixture, FileFixture]

pytestmark = pytest.mark.timeout(120)
CASES = [
    pytest.param(fixture, check, id=f"{fixture.__name__}-{check.name}")
    for fixture in FIXTURES
    for check in CHECKS
    if check.applies(fixture)
]


@pytest.mark.anyio
@pytest.mark.parametrize(("make", "check"), CASES)
async def test_engine_keeps_its_promises(make: Callable[[], LogFixture], check: Check) -> None:
    await run_check(check, make())
