"""Unmodified programs read time and randomness from the simulation that runs them.

``with ambient(source):`` replaces what a Python program takes from the machine without asking
anybody: the clocks of ``time`` and ``datetime``, ``time.sleep``, ``random``, ``os.urandom``,
``secrets`` and ``uuid``, and the handlers of ``signal``. It does so in the thread that entered it
and nowhere else, for all who imported these names in whatever way, and puts everything back at
the end. What stays real, because nobody can replace it, is told.

Not replaced: ``localtime`` uses the machine's time zone; locks, events and queues of
``threading`` wait in real time; extension modules that ask the operating system themselves.
"""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from outlast.kernel.errors import ConfigError
from outlast.sim import escape, fakes
from outlast.sim.escape import Escape, ignore
from outlast.sim.fakes import GENERATORS, Source, real_monotonic_ns
from outlast.sim.interrupts import GUARD, held
from outlast.sim.search import find_clock_readers, found

__all__ = ["Source", "ambient", "find_clock_readers", "installed", "real_monotonic_ns"]

_FRESH: Final[tuple[tuple[str, str, Any], ...]] = (
    # With neither of these, uuid1 takes the Python way: time_ns, getrandbits, getnode.
    ("uuid", "_generate_time_safe", None),
    ("uuid", "_UuidCreate", None),
    # The last identifier made pushes the next one forward in time, whatever the run.
    ("uuid", "_last_timestamp", None),
    ("uuid", "_last_timestamp_v6", None),
    ("uuid", "_last_timestamp_v7", None),
    ("uuid", "_last_counter_v7", 0),
    # Made when the first temporary file is.
    ("tempfile", "_name_sequence", None),
)
"""What standard modules remember from one run to the next: module, name, value to begin with."""
_NUMPY_SEED: Final = (1 << 32) - 1


@contextmanager
def ambient(
    source: Source,
    notes: Callable[[Escape], None] = ignore,
    refused: Callable[[Escape], None] = ignore,
) -> Iterator[None]:
    """Give this thread the clocks, random numbers and signal handlers of ``source``.

    Every ``random.Random`` that is known (the hidden one, those found when modules were last
    imported, those seeded inside an earlier simulation) is seeded from ``source.seed()`` and gets
    its state back at the end; one that is made or seeded inside without an argument draws its
    seed from the source. ``numpy.random`` is treated alike if it is loaded.

    Entering takes well under a millisecond, except for the first time in a process and after
    imports: then the process is searched, which takes some tenths of a second.

    Args:
        source: What the simulation offers; asked each time that a program asks.
        notes: Told of what weakens the simulation: first of who holds a real clock that cannot be
            replaced, then of each place that changes a real file or the like. These depend on
            what the process has loaded, so they are no part of a trace.
        refused: Told of each :class:`~outlast.kernel.EscapeError` just before it is raised.

    Raises:
        ConfigError: Definite. A simulation runs in this process already.
    """
    if fakes.active():
        raise ConfigError("ambient: a simulation runs in this process already; they do not nest")
    with held() as opened:
        search = found()
        with escape.watching(notes, refused):
            for reader in search.readers:
                notes(reader)
            restore = _reseed(source.seed())
            try:
                fakes.begin(source)
                search.put(True)
                GUARD.open = opened
                GUARD.let_through()
                yield
            finally:
                GUARD.open = False
                try:
                    search.look()  # modules imported inside hold the stand-ins
                finally:
                    search.put(False)
                    fakes.end()
                    restore()


def installed() -> bool:
    """Whether this thread runs inside :func:`ambient`."""
    return fakes.here()


def _reseed(seed: int) -> Callable[[], None]:
    """Seed what draws random numbers, and return what gives it its state back.

    All get the same state: who was found first must not matter.
    """
    generators = list(GENERATORS.values())
    states = [random.Random.getstate(each) for each in generators]
    remembered = [
        (vars(sys.modules[module]), name, vars(sys.modules[module])[name], fresh)
        for module, name, fresh in _FRESH
        if hasattr(sys.modules.get(module), name)
    ]
    numpy: Any = sys.modules.get("numpy.random")
    numpy_state = numpy.get_state() if hasattr(numpy, "get_state") else None

    state = random.Random(seed).getstate()  # noqa: S311  (repeatable on purpose)
    for each in generators:
        random.Random.setstate(each, state)
    for space, name, _, fresh in remembered:
        space[name] = fresh
    if numpy_state is not None:
        numpy.seed(seed & _NUMPY_SEED)

    def restore() -> None:
        for each, before in zip(generators, states, strict=True):
            random.Random.setstate(each, before)
        for space, name, before, _ in remembered:
            space[name] = before
        if numpy_state is not None:
            numpy.set_state(numpy_state)

    return restore
