"""Events as log records, JSON lines, Prometheus text and OpenTelemetry, with the same names."""

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from outlast import observe
from outlast.kernel import ConfigError, EventBus, NullEvents, current_world
from outlast.kernel.registry import watch
from outlast.observe.bus import facts_of, plain
from outlast.protect.events import CallRejected, CircuitOpened, RetryScheduled


def retry(error: str = "OSError") -> RetryScheduled:
    return RetryScheduled(name="rates", attempt=1, delay=0.5, error=error)


OPENED = CircuitOpened(name="rates", reason="streak", failures=5, seconds=30.0)
REJECTED = CallRejected(name="rates", part="breaker", reason="open")


class Limit:
    name, position = "sink-test", "limit"

    def describe(self) -> dict[str, Any]:
        return {"max_concurrent": 20}

    def snapshot(self) -> dict[str, Any]:
        return {"in_flight": 3}


# --- all ---------------------------------------------------------------------------------------

SINKS: dict[str, Callable[[Any], observe.Sink]] = {
    "logging": observe.to_logging,
    "jsonl": lambda events: observe.to_jsonl(io.StringIO(), events),
    "prometheus": lambda events: observe.to_prometheus(CollectorRegistry(), events),
    "otel": lambda events: observe.to_otel(MeterProvider(), events=events),
}


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_listens_until_it_is_closed(name: str) -> None:
    bus = EventBus()
    with SINKS[name](bus) as sink:
        assert len(bus._subscribers) == 1
    assert bus._subscribers == ()
    sink.close()


@pytest.mark.parametrize("name", SINKS)
def test_what_nobody_can_subscribe_to_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="an EventBus would be right"):
        SINKS[name](NullEvents())


def test_the_bus_of_the_current_world_is_the_usual_one() -> None:
    file = io.StringIO()
    with observe.to_jsonl(file):
        current_world().events.emit(retry())
    assert json.loads(file.getvalue())["event"] == "RetryScheduled"


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("prometheus_client", observe.to_prometheus, "prometheus"),
        ("opentelemetry", observe.to_otel, "otel"),
    ],
)
def test_a_package_that_is_missing_is_said_with_the_command_that_installs_it(
    package: str, call: Callable[[], object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'pip install "outlast\[{extra}\]"'):
        call()


def test_values_are_such_that_json_knows_them() -> None:
    assert plain([1, None, True, (2.5, "x")]) == [1, None, True, [2.5, "x"]]
    assert plain(float("inf")) == "inf"
    assert plain({"a": 1}) == "{'a': 1}"
    assert plain("a\nb") == "a b"
    assert len(plain("x" * 9999)) == 500
    assert facts_of(REJECTED) == {"name": "rates", "part": "breaker", "reason": "open"}


# --- logging -----------------------------------------------------------------------------------


def test_a_record_has_the_room_the_level_of_its_class_and_its_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = EventBus()
    with caplog.at_level(logging.DEBUG, "outlast"), observe.to_logging(bus):
        bus.emit(OPENED)
    record = caplog.records[0]
    assert (record.name, record.levelname) == ("outlast.protect", "WARNING")
    assert record.getMessage() == (
        "CircuitOpened name='rates' reason='streak' failures=5 seconds=30.0"
    )
    assert record.__dict__["event"] == "CircuitOpened"
    assert record.__dict__["outlast"]["failures"] == 5


def test_what_the_logger_does_not_want_is_not_even_put_into_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = EventBus()
    monkeypatch.setattr("outlast.observe.logs.text_of", lambda event: pytest.fail("not wanted"))
    with caplog.at_level(logging.INFO, "outlast"), observe.to_logging(bus):
        bus.emit(retry())
    assert bus.dropped == []
    assert caplog.records == []


def test_a_line_break_in_an_error_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    with caplog.at_level(logging.DEBUG, "outlast"), observe.to_logging(bus):
        bus.emit(retry("x\nCRITICAL root: all is lost"))
    assert "\n" not in caplog.records[0].getMessage()


def test_another_logger_may_be_named_and_gets_one_null_handler() -> None:
    for _ in range(2):
        observe.to_logging(EventBus(), logger="shop.outlast").close()
    handlers = logging.getLogger("shop.outlast").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]


def test_a_handler_that_raises_loses_its_line_and_stays() -> None:
    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no")

    bus, bad = EventBus(), Bad()
    logger = logging.getLogger("outlast-bad")
    logger.addHandler(bad)
    with observe.to_logging(bus, logger="outlast-bad") as sink:
        bus.emit(OPENED)
        bus.emit(OPENED)
    logger.removeHandler(bad)
    assert sink.lost == 2
    assert bus.dropped == []


# --- JSON lines --------------------------------------------------------------------------------


def test_each_event_is_one_line_and_a_file_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for event in (retry(), OPENED):
        bus = EventBus()
        with observe.to_jsonl(path, bus):
            bus.emit(event)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["time"] > 1_700_000_000_000_000_000
    assert {**first, "time": 0} == {
        "time": 0, "event": "RetryScheduled", "room": "protect", "level": "debug", "node": "",
        "name": "rates", "attempt": 1, "delay": 0.5, "error": "OSError",
    }  # fmt: skip
    assert second["event"] == "CircuitOpened"


def test_a_path_that_cannot_be_opened_and_another_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        observe.to_jsonl(tmp_path / "none" / "x.jsonl", EventBus())
    with pytest.raises(ConfigError, match="target is a int"):
        observe.to_jsonl(3, EventBus())  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError("full"), ValueError("closed")])
def test_a_line_that_cannot_be_written_is_lost_and_the_next_is_tried(error: Exception) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if "RetryScheduled" in text:
                raise error
            return super().write(text)

    bus, file = EventBus(), Full()
    with observe.to_jsonl(file, bus) as sink:
        bus.emit(retry())
        bus.emit(OPENED)
    assert sink.lost == 1
    assert json.loads(file.getvalue())["event"] == "CircuitOpened"


def test_a_line_that_the_disk_took_in_part_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:10])

    monkeypatch.setattr("outlast.observe.jsonl.FileIO", Short)
    bus = EventBus()
    with observe.to_jsonl(tmp_path / "x", bus) as sink:
        bus.emit(retry())
    assert sink.lost == 1
    assert (tmp_path / "x").read_text() == '{"time": 1\n'


# --- metrics -----------------------------------------------------------------------------------


def test_prometheus_reads_what_was_counted_and_what_is_alive() -> None:
    bus, registry, limit = EventBus(), CollectorRegistry(), Limit()
    watch(limit)
    with observe.to_prometheus(registry, bus):
        bus.emit(retry())
        bus.emit(retry())
        bus.emit(REJECTED)
        text = generate_latest(registry).decode()
    assert 'outlast_retries_total{policy="rates"} 2.0' in text
    assert 'outlast_rejected_total{part="breaker",policy="rates",reason="open"} 1.0' in text
    assert 'outlast_permits_in_use{limit="sink-test"} 3.0' in text
    assert 'outlast_permits_limit{limit="sink-test"} 20.0' in text
    assert "outlast" not in generate_latest(registry).decode()


def test_a_registry_takes_one_collector_and_after_it_is_closed_another() -> None:
    registry = CollectorRegistry(auto_describe=True)
    with observe.to_prometheus(registry, EventBus()), pytest.raises(ConfigError, match="one for"):
        observe.to_prometheus(registry, EventBus())
    observe.to_prometheus(registry, EventBus()).close()


def otel_names(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    data = reader.get_metrics_data()
    return {
        metric.name: [(dict(p.attributes or {}), p.value) for p in metric.data.data_points]  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.data.data_points
    }


def test_opentelemetry_has_the_same_names_labels_and_values() -> None:
    bus, reader, limit = EventBus(), InMemoryMetricReader(), Limit()
    watch(limit)
    sink = observe.to_otel(MeterProvider([reader]), events=bus)
    bus.emit(retry())
    bus.emit(REJECTED)
    found = otel_names(reader)
    assert found["outlast_retries_total"] == [({"policy": "rates"}, 1.0)]
    labels = {"policy": "rates", "part": "breaker", "reason": "open"}
    assert found["outlast_rejected_total"] == [(labels, 1.0)]
    assert ({"limit": "sink-test"}, 3.0) in found["outlast_permits_in_use"]
    assert {*found} <= {metric.name for metric in observe.METRICS}
    sink.close()
    assert otel_names(reader) == {}


def test_an_event_goes_onto_the_span_that_is_current() -> None:
    bus, spans = EventBus(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with observe.to_otel(MeterProvider(), events=bus):
        bus.emit(OPENED)
        with provider.get_tracer("shop").start_as_current_span("order"):
            bus.emit(retry())
    (span,) = spans.get_finished_spans()
    (event,) = span.events
    assert event.name == "RetryScheduled"
    attributes = dict(event.attributes or {})
    assert attributes["outlast.name"] == "rates"
    assert attributes["outlast.level"] == "debug"


def test_with_a_tracer_an_event_outside_of_any_span_is_a_span() -> None:
    bus, spans = EventBus(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with observe.to_otel(MeterProvider(), provider.get_tracer("shop"), bus):
        bus.emit(OPENED)
    (span,) = spans.get_finished_spans()
    assert span.name == "CircuitOpened"
    assert dict(span.attributes or {})["outlast.failures"] == 5


# --- live --------------------------------------------------------------------------------------


def test_live_rows_hold_settings_and_state_and_looking_never_fails() -> None:
    class Bad(Limit):
        def snapshot(self) -> dict[str, Any]:
            raise RuntimeError("no")

    good, bad = observe.live([Limit(), Bad()])
    assert good == {
        "kind": "Limit", "name": "sink-test", "position": "limit",
        "settings": {"max_concurrent": 20}, "state": {"in_flight": 3},
    }  # fmt: skip
    assert bad["error"] == "RuntimeError: no"
    kept = Limit()
    watch(kept)
    assert any(row["kind"] == "Limit" for row in observe.live())
