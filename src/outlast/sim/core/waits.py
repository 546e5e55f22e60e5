"""Which waits without an end are allowed, and what is said of the others."""

from collections.abc import Mapping
from typing import Final

from outlast.kernel import ConfigError

OPEN: Final = "nothing ends it if what it waits for never comes"
LATE: Final = "it went on after its deadline had passed"
LONG: Final = "it has waited for other tasks for too long"

_RIGHT: Final = {
    OPEN: "put it under asyncio.timeout, or hand down a deadline that ends it",
    LATE: "end it at the deadline that it was given",
    LONG: "put it under asyncio.timeout, or bound what those tasks do",
}


def explain_wait(place: str, why: str, *, host: str, seconds: float) -> str:
    """Say what is wrong with a wait, and what would be right."""
    return (
        f"unbounded wait in {place} (on {host}, at {seconds:.3f} s): {why};"
        f" {_RIGHT[why]}, or allow it with a reason"
    )


class Allowed:
    """Places where a wait may go on for ever, each with a reason.

    Args:
        reasons: The reason of each place.

    Raises:
        ConfigError: Definite. A reason is empty, or a place is none.
    """

    __slots__ = ("_met", "_reasons")

    def __init__(self, reasons: Mapping[str, str]) -> None:
        for place, reason in reasons.items():
            if place.count(": ") < 1 or ":" not in place.partition(": ")[0]:
                message = (
                    f"allowed wait {place!r} is no place; write 'module:function: expression'"
                )
                raise ConfigError(message)
            if not reason.strip():
                raise ConfigError(f"allowed wait {place!r} has no reason; say what ends it")
        self._reasons = dict(reasons)
        self._met: dict[str, None] = {}

    def covers(self, place: str) -> bool:
        """Whether a wait may go on for ever at ``place``; then the entry has been met."""
        if place not in self._reasons:
            return False
        self._met[place] = None
        return True

    def stale(self) -> list[str]:
        """Return the places that were never met."""
        return [place for place in self._reasons if place not in self._met]
