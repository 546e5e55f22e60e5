"""Metrics and traces for OpenTelemetry; needs the extra ``otel`` (its API alone)."""

from collections.abc import Callable, Iterable
from typing import Any

from outlast.kernel import ConfigError, Event, Events
from outlast.observe.bus import Sink, bus_for, facts_of, room_of
from outlast.observe.core.metrics import METRICS, Metric
from outlast.observe.meter import Meter


def to_otel(meter_provider: Any = None, tracer: Any = None, events: Events | None = None) -> Sink:
    """Offer the metrics of ``docs/reference/metrics.md``, and put events into traces.

    All instruments are observable ones: the SDK asks for them when it exports. Each event becomes
    a span event of the span that is current where it is emitted, with its fields as attributes
    ``outlast.FIELD``; one that no recording span surrounds goes to the metrics alone, unless
    ``tracer`` is given.

    Args:
        meter_provider: Makes the meter; the global one of OpenTelemetry by default.
        tracer: Makes a span of no length for each event that no recording span surrounds.
        events: The bus to listen to; that of the current world by default.

    Raises:
        ConfigError: Definite. The extra is not installed, or ``events`` is no bus.
    """
    try:
        from opentelemetry import metrics, trace
    except ModuleNotFoundError as error:
        raise ConfigError('to_otel needs opentelemetry: pip install "outlast[otel]"') from error
    bus = bus_for(events, "to_otel")
    meter = Meter()
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    closed: list[bool] = []
    instruments = provider.get_meter("outlast")
    for metric in METRICS:
        make = (
            instruments.create_observable_counter
            if metric.kind == "counter"
            else instruments.create_observable_gauge
        )
        make(
            metric.name,
            callbacks=[_observer(metric, meter, closed, metrics.Observation)],
            description=metric.meaning,
        )

    def take(event: Event) -> None:
        meter.take(event)
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(type(event).__name__, _attributes(event))
        elif tracer is not None:
            tracer.start_span(type(event).__name__, attributes=_attributes(event)).end()

    unsubscribe = bus.subscribe(take)

    def end() -> None:
        unsubscribe()
        # An instrument cannot be taken back; one that is closed says nothing.
        closed.append(True)

    return Sink(end)


def _observer(
    metric: Metric, meter: Meter, closed: list[bool], observation: Callable[..., Any]
) -> Callable[[Any], Iterable[Any]]:
    def observe(_: Any) -> Iterable[Any]:
        if closed:
            return []
        return [
            observation(value, dict(zip(metric.labels, labels, strict=True)))
            for labels, value in meter.read_one(metric.name).items()
        ]

    return observe


def _attributes(event: Event) -> dict[str, Any]:
    """Return the fields as OpenTelemetry takes them: plain values, lists of text, no ``None``."""
    found: dict[str, Any] = {"outlast.room": room_of(event), "outlast.level": event.level}
    if event.node:
        found["outlast.node"] = event.node
    for name, value in facts_of(event).items():
        if isinstance(value, list):
            found[f"outlast.{name}"] = [str(item) for item in value]
        elif value is not None:
            found[f"outlast.{name}"] = value
    return found
