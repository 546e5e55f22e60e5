"""Checks of parts of this program that notice failure themselves: breakers, supervisors."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from outlast.detect.core.health import Status
from outlast.kernel import ConfigError

_NAMES_MAX: Final = 5

Told = tuple[Status, str]


def breaker(part: Any, *, fail: bool = False) -> Callable[[], Awaitable[Told]]:
    """Check a circuit breaker: what it guards is out of reach while it is open.

    Degraded by default: an instance that cannot reach one callee can do everything else, and all
    instances see the same outage at the same time.

    Args:
        part: A ``CircuitBreaker``, one for each key (``Keyed``), or a ``Policy`` with either; or
            what has a ``state`` or ``snapshot()`` like theirs.
        fail: Whether an open breaker is a failure.

    Raises:
        ConfigError: Definite. There is no breaker in it.
    """
    if _states(part) is None:
        raise ConfigError(
            f"breaker: {type(part).__name__} tells no state of a breaker; a CircuitBreaker, or a"
            " Policy with breaker="
        )
    name = getattr(part, "name", "") or "breaker"
    bad = Status.FAILED if fail else Status.DEGRADED

    async def check() -> Told:
        states, keyed = _states(part) or ({}, False)
        opened, half = states.get("OPEN", 0), states.get("HALF_OPEN", 0)
        status = bad if opened else Status.DEGRADED if half else Status.OK
        if keyed:
            count = sum(states.values())
            return status, f"{name}: {opened} of {count} open, {half} half-open"
        after = getattr(part, "retry_after", None)
        wait = f", next try in {after:.0f} s" if opened and after else ""
        return status, f"{name}: {'open' if opened else 'half-open' if half else 'closed'}{wait}"

    return check


def supervisor(supervisor: Any, *, fail: bool = False) -> Callable[[], Awaitable[Told]]:
    """Check that no child of a supervisor is in a crash loop.

    Degraded by default: what makes a child crash again and again (a setting, a poisoned input)
    is often the same in all instances, and the rest of this one still works.

    Args:
        supervisor: A ``Supervisor``, or what has ``children`` like its; their supervisors count.
        fail: Whether a crash loop is a failure.

    Raises:
        ConfigError: Definite. It has no children.
    """
    if not hasattr(supervisor, "children"):
        raise ConfigError(f"supervisor: {type(supervisor).__name__} has no children to look at")
    bad = Status.FAILED if fail else Status.DEGRADED

    async def check() -> Told:
        children = list(_children(supervisor))
        looping = [one for one in children if _state(one) == "crash-loop"]
        if not looping:
            return Status.OK, f"{len(children)} children, none in a crash loop"
        shown = ", ".join(_looping(one) for one in looping[:_NAMES_MAX])
        more = f", and {len(looping) - _NAMES_MAX} more" if len(looping) > _NAMES_MAX else ""
        return bad, f"in a crash loop: {shown}{more}"

    return check


def _states(part: Any) -> tuple[dict[str, int], bool] | None:
    """Return how many breakers are in which state, and whether there is one for each key.

    ``None`` if there is no breaker.
    """
    state = getattr(part, "state", None)
    if isinstance(state, str):
        return {state: 1}, False
    snapshot = getattr(part, "snapshot", None)
    if not callable(snapshot):
        return None
    live: Any = snapshot()
    live = live.get("breaker", live)
    if isinstance(live.get("state"), str):
        return {live["state"]: 1}, False
    states = live.get("states")
    return (dict(states), True) if isinstance(states, dict) else None


def _children(supervisor: Any) -> Iterator[Any]:
    found = supervisor.children
    for child in found.values() if isinstance(found, dict) else found:
        yield child
        if hasattr(child, "children"):
            yield from _children(child)


def _state(child: Any) -> str:
    return str(getattr(child, "state", "")).lower().replace("_", "-")


def _looping(child: Any) -> str:
    name = getattr(child, "name", None) or getattr(getattr(child, "spec", None), "name", "?")
    exit_told = getattr(child, "last_exit", "")
    return f"{name} ({exit_told})" if exit_told else str(name)
