"""When which fault is injected: everything is drawn from one seed before the load begins.

The load runs quietly first, so that there is something to compare with. Then each fault gets a
slot of its own: it is injected at the slot's start, lasts a part of it, and the rest of the slot
is there to recover. The faults come in a drawn order, each as often as the others; a quiet end
closes the run. Two faults never overlap, so that what happens can be blamed on one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.kernel import ConfigError, Fault, Prng

_NS = 1_000_000_000
QUIET_START = 1.5
"""Least seconds of load before the first fault."""
QUIET_END = 2.5
"""Seconds of load after the last slot."""
SLOT_MIN = 3.5
"""Least seconds of one fault and the recovery from it."""
SLOT_MAX = 7.0
"""A slot is at most so long: more time means more faults."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of the plan, in nanoseconds since the load began.

    Attributes:
        fault: What is injected.
        at_ns: When; later if the target has not recovered from the one before.
        lasts_ns: How long, from injection to healing.
        draw: Number that chooses the victim among those that fit.
        number: Its place in the plan, from 0.
    """

    fault: Fault
    at_ns: int
    lasts_ns: int
    draw: int
    number: int = 0


def least_seconds(count: int) -> float:
    """Return how long a load with ``count`` faults must run at least.

    >>> least_seconds(2)
    11.0
    """
    return QUIET_START + count * SLOT_MIN + QUIET_END


def plan(faults: Sequence[Fault], seconds: float, seed: int) -> tuple[Planned, ...]:
    """Lay ``faults`` out over ``seconds`` of load.

    Every fault comes at least once. Longer runs have more rounds, each in an order of its own.

    Raises:
        ConfigError: Definite. There are no faults, or not all of them fit.
    """
    if not faults:
        message = "no faults are given: name at least one, such as --faults crash"
        raise ConfigError(message)
    if seconds < least_seconds(len(faults)):
        message = (
            f"--seconds {seconds:g}: {len(faults)} faults need at least"
            f" {least_seconds(len(faults)):g} s: give more seconds or fewer --faults"
        )
        raise ConfigError(message)
    prng = Prng(seed)
    start = max(QUIET_START, min(4.0, seconds * 0.06))
    room = seconds - start - QUIET_END
    if room < len(faults) * SLOT_MIN:
        start, room = QUIET_START, seconds - QUIET_START - QUIET_END
    rounds = max(1, round(room / SLOT_MAX / len(faults)))
    count = rounds * len(faults)
    slot_ns = int(room / count * _NS)
    order = [fault for _ in range(rounds) for fault in _shuffled(faults, prng)]
    start_ns = int(start * _NS)
    return tuple(
        Planned(
            fault,
            start_ns + number * slot_ns,
            _length(slot_ns, prng),
            prng.bits64(),
            number,
        )
        for number, fault in enumerate(order)
    )


def _shuffled(faults: Sequence[Fault], prng: Prng) -> list[Fault]:
    order = list(faults)
    prng.shuffle(order)
    return order


def _length(slot_ns: int, prng: Prng) -> int:
    """Draw how long a fault lasts: 45 to 60 % of its slot."""
    return slot_ns * prng.between(45, 60) // 100
