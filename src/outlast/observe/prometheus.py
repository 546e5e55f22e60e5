"""Metrics for Prometheus; needs the extra ``prometheus``."""

from collections.abc import Iterator
from typing import Any

from outlast.kernel import ConfigError, Events
from outlast.observe.bus import Sink, bus_for
from outlast.observe.core.metrics import METRICS, Metric, Readings
from outlast.observe.meter import Meter


def to_prometheus(registry: Any = None, events: Events | None = None) -> Sink:
    """Offer the metrics of ``docs/reference/metrics.md`` to a registry of prometheus_client.

    Events are counted from now on. Gauges and counts of calls are read from the live policies
    when the registry is scraped, and cost nothing between.

    Args:
        registry: A ``CollectorRegistry``; the default one of prometheus_client by default.
        events: The bus to listen to; that of the current world by default.

    Raises:
        ConfigError: Definite. The extra is not installed, the registry has these metrics
            already, or ``events`` is no bus.
    """
    try:
        from prometheus_client import REGISTRY
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ModuleNotFoundError as error:
        raise ConfigError(
            'to_prometheus needs prometheus_client: pip install "outlast[prometheus]"'
        ) from error
    bus = bus_for(events, "to_prometheus")
    meter = Meter()

    def family(metric: Metric, found: Readings) -> Any:
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        made = make(metric.name, metric.meaning, labels=metric.labels)
        for labels, value in found.get(metric.name, {}).items():
            made.add_metric(labels, value)
        return made

    class Collector:
        """Reads the meter at scrape time."""

        def describe(self) -> Iterator[Any]:
            """Name the metrics, so that a second collector of them is refused."""
            return (family(metric, {}) for metric in METRICS)

        def collect(self) -> Iterator[Any]:
            """Read them."""
            found = meter.read()
            return (family(metric, found) for metric in METRICS)

    target = REGISTRY if registry is None else registry
    collector = Collector()
    try:
        target.register(collector)
    except ValueError as error:
        raise ConfigError(f"to_prometheus: {error}; one for each registry is enough") from error
    unsubscribe = bus.subscribe(meter.take)

    def end() -> None:
        unsubscribe()
        target.unregister(collector)

    return Sink(end)
