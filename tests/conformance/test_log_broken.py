"""The log suite catches every broken engine that is kept beside it, by the check it names."""

from collections.abc import Callable

import pytest

from outlast.testing.broken.log import BROKEN, BrokenLog, broken_fixture
from outlast.testing.log_fixture import FileFixture, MemoryFixture
from outlast.testing.log_suite import BY_NAME, CheckFailed, LogFixture, run_check

FIXTURES: list[Callable[[], LogFixture]] = [MemoryFixture, FileFixture]

pytestmark = pytest.mark.timeout(120)
CASES = [
    pytest.param(make, broken, id=f"{broken}-{make.__name__}")
    for broken in BROKEN
    for make in FIXTURES
    if BY_NAME[broken.caught_by].applies(make)
]


@pytest.mark.anyio
@pytest.mark.parametrize(("make", "broken"), CASES)
async def test_broken_engine_is_caught(make: Callable[[], LogFixture], broken: BrokenLog) -> None:
    fixture = broken_fixture(broken, make())
    fixture.patience = 0.5
    with pytest.raises(CheckFailed) as caught:
        await run_check(BY_NAME[broken.caught_by], fixture, timeout=10)
    print(caught.value)


@pytest.mark.anyio
async def test_an_fsync_that_does_nothing_is_caught() -> None:
    """The good engine on storage that forgets everything at a power cut."""
    fixture = FileFixture(sync_is_noop=True)
    with pytest.raises(CheckFailed):
        await run_check(BY_NAME["acknowledged_survives_a_crash"], fixture, timeout=10)


def test_every_broken_engine_is_run() -> None:
    run = {str(case.values[1]) for case in CASES}
    assert run == {str(broken) for broken in BROKEN}
    assert len(run) == len(BROKEN) >= 14
