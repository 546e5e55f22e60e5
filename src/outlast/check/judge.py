"""The judge with a clock: how long it may take, and how much it may hold."""

import mmap
from collections.abc import Iterable

from outlast.check.core.history import History, history_of
from outlast.check.core.judge import Limits, judge
from outlast.check.core.model import Model
from outlast.check.core.result import Result
from outlast.host.clock import HostClock
from outlast.kernel import ConfigError, HistoryEvent


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def check(
    history: History | Iterable[HistoryEvent],
    model: str | Model,
    *,
    seconds: float = 60.0,
    memory_bytes: int = 1 << 30,
) -> Result:
    """Judge whether some order of the operations explains every answer.

    Args:
        history: A history, or the events of one.
        model: Name of a model, such as ``register``, or a :class:`Model` of your own.
        seconds: Time limit. Above 0.
        memory_bytes: Limit for what the search remembers: what it counts, or the growth of the
            process where the system tells it (Linux), whichever is more. At least 1 MiB.

    Returns:
        The result. Its verdict is ``unknown`` only when one of the two limits was reached.

    Raises:
        ConfigError: The model is unknown, a limit is out of range, or an operation does not fit
            the model; the message names the line.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds is {seconds!r}; a number above 0 would be right")
    if memory_bytes < 1 << 20:
        raise ConfigError(f"memory_bytes is {memory_bytes!r}; at least {1 << 20} would be right")
    judged = history if isinstance(history, History) else history_of(history)
    clock = HostClock()
    begin = clock.monotonic_ns()
    before = resident_bytes()
    limits = Limits(
        seconds,
        memory_bytes,
        lambda: (clock.monotonic_ns() - begin) / 1e9,
        lambda: resident_bytes() - before,
    )
    return judge(judged, model, limits)
