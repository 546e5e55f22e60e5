"""What the tests of health tell themselves: a run in virtual time, what was heard, a status."""

from collections.abc import Callable
from typing import Any

from outlast import sim
from outlast.detect import Health, HealthChanged, Status
from outlast.kernel import Event, current_world

OK, DEGRADED, UNKNOWN, FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED


def story(main: Callable[[], Any]) -> Any:
    return sim.run(main, seed=3)


def listen() -> list[Event]:
    heard: list[Event] = []
    current_world().events.subscribe(heard.append)  # type: ignore[attr-defined]
    return heard


def status(health: Health, name: str) -> Status:
    return next(
        one.status
        for group in health.snapshot().values()
        for one in group.results
        if one.name == name
    )


def changes(heard: list[Event]) -> list[tuple[str, str]]:
    return [(one.check, one.after) for one in heard if isinstance(one, HealthChanged)]
