"""Counts events, and reads what is alive when it is asked: what all sinks of metrics share."""

import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from outlast.kernel import Event
from outlast.kernel.registry import watched
from outlast.observe.core.metrics import BY_NAME, Labels, Readings, bounded, counts_of, readings


class _Series:
    """Counts up without a lock: drawing from a ``count`` is one atomic step.

    Reading draws as well, and takes its own draws off again; one reader at a time.
    """

    __slots__ = ("_reads", "up")

    def __init__(self) -> None:
        self.up: Callable[[], int] = count().__next__
        self._reads = 0

    def read(self) -> int:
        value = self.up() - self._reads
        self._reads += 1
        return value


class Meter:
    """All metrics of one sink.

    Args:
        things: Returns what is alive; :func:`outlast.kernel.registry.watched` by default.
    """

    def __init__(self, things: Callable[[], Iterable[Any]] = watched) -> None:
        self._things = things
        self._series: dict[str, dict[Labels, _Series]] = {}
        self._reading = threading.Lock()

    def take(self, event: Event) -> None:
        """Count an event."""
        for metric, labels in counts_of(event):
            series = self._series.get(metric)
            if series is None:
                series = self._series.setdefault(metric, {})
            key = bounded(series, labels)
            one = series.get(key)
            if one is None:
                one = series.setdefault(key, _Series())
            one.up()

    def read(self) -> Readings:
        """Return every metric that has a value now."""
        found = readings(self._things())
        for metric in list(self._series):
            found[metric] = self._counted(metric)
        return found

    def read_one(self, metric: str) -> dict[Labels, float]:
        """Return the values of one metric."""
        if BY_NAME[metric].source.startswith("events"):
            return self._counted(metric)
        return readings(self._things()).get(metric, {})

    def _counted(self, metric: str) -> dict[Labels, float]:
        with self._reading:
            series = list(self._series.get(metric, {}).items())
            return {key: float(one.read()) for key, one in series}
