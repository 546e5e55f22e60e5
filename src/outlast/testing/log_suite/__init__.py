"""The conformance suite of the log: every promise of ``outlast.log.api``, as a check.

For people who write an engine of their own. Derive a :class:`LogFixture`, then run every check
that applies to it, each on a fixture of its own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    async def test_my_log(check):
        if not check.applies(MyFixture):
            pytest.skip(f"the fixture cannot {', '.join(check.needs - MyFixture.capabilities)}")
        await run_check(check, MyFixture())

The suite is itself tested: ``outlast.testing.broken`` holds engines that break one promise
each, and every one of them is caught by the check that its description names.
"""

import asyncio

from outlast.testing.log_suite import durability, endings, order, seals, trims
from outlast.testing.log_suite.check import REGISTERED, Check
from outlast.testing.log_suite.fixture import Capability, CheckFailed, LogFixture, require

CHECKS: tuple[Check, ...] = tuple(sorted(REGISTERED, key=lambda one: (one.promise, one.name)))
"""Every check, by promise and name."""

BY_NAME: dict[str, Check] = {one.name: one for one in CHECKS}


async def run_check(check: Check, fixture: LogFixture, *, timeout: float = 60.0) -> None:
    """Run one check on its fixture and close the fixture.

    Args:
        check: One of :data:`CHECKS`.
        fixture: A new fixture, used for nothing else.
        timeout: Seconds for the whole check; a check that hangs has failed.

    Raises:
        CheckFailed: The engine broke the promise, raised what it should not, or hung.
    """
    require(check.applies(fixture), f"{check.name} needs {sorted(check.needs)} of its fixture")
    timer = asyncio.timeout(timeout)
    try:
        async with timer:
            await check.run(fixture)
    except CheckFailed as error:
        message = f"{check.name} (promise {check.promise}): {error}"
        raise CheckFailed(message) from error
    except Exception as error:
        what = f"not done in {timeout} s" if timer.expired() else repr(error)
        message = f"{check.name} (promise {check.promise}): {what}"
        raise CheckFailed(message) from error
    finally:
        await fixture.close()


__all__ = [
    "BY_NAME",
    "CHECKS",
    "Capability",
    "Check",
    "CheckFailed",
    "LogFixture",
    "durability",
    "endings",
    "order",
    "require",
    "run_check",
    "seals",
    "trims",
]
