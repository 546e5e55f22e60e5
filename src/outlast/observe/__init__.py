"""Where events go: logging, Prometheus, OpenTelemetry, JSON lines.

Each ``to_…`` subscribes to a bus and returns a :class:`Sink` that ends with ``close()``. The names
of metrics are the same everywhere: :data:`METRICS`.
"""

from outlast.observe.bus import Sink
from outlast.observe.core.metrics import METRICS, Metric
from outlast.observe.jsonl import to_jsonl
from outlast.observe.live import live
from outlast.observe.logs import to_logging
from outlast.observe.otel import to_otel
from outlast.observe.prometheus import to_prometheus

__all__ = [
    "METRICS",
    "Metric",
    "Sink",
    "live",
    "to_jsonl",
    "to_logging",
    "to_otel",
    "to_prometheus",
]
