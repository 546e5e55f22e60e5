"""A node's metrics in Prometheus' text format, read from its status at scrape time.

Nothing is counted twice: the collector reads what the node knows anyway, so that a metric
costs the hot path nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES = {
    "term": "Raft term as this node sees it.",
    "leading": "1 on the node that leads.",
    "ready": "1 while the node can serve commands or reads.",
    "commit_index": "Highest index known committed.",
    "applied_index": "Highest index applied here.",
    "first_index": "First index still in the log.",
    "snapshot_index": "Index that the newest verified snapshot covers.",
    "sessions": "Client sessions open.",
    "connections": "Connections open on the listener.",
    "pending_commands": "Commands submitted here and not yet answered.",
    "oldest_write_seconds": "Age of the oldest disk write under way.",
    "uptime_seconds": "Seconds since the node started.",
}
_COUNTERS = {
    "commands": "Commands that this node put into the log.",
    "entries": "Entries of commands that this node put into the log.",
    "fsyncs": "Times the log's file was flushed to disk.",
    "bytes_written": "Bytes written to the log's files.",
    "term_changes": "Changes of term or leader seen since the node started.",
}


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        facts = self._status()
        labels = [str(facts.get("node", ""))]
        for name, meaning in _GAUGES.items():
            if name in facts:
                gauge = GaugeMetricFamily(f"outlast_{name}", meaning, labels=["node"])
                gauge.add_metric(labels, float(facts[name]))
                yield gauge
        for name, meaning in _COUNTERS.items():
            if name in facts:
                counter = CounterMetricFamily(f"outlast_{name}", meaning, labels=["node"])
                counter.add_metric(labels, float(facts[name]))
                yield counter
        lag = GaugeMetricFamily(
            "outlast_replication_lag_entries",
            "Entries that a member is behind the leader; on the leader only.",
            labels=["node", "member"],
        )
        for row in facts.get("members", ()):
            if row.get("lag") is not None:
                lag.add_metric([*labels, str(row["node"])], float(row["lag"]))
        yield lag


class Metrics:
    """Renders the metrics of one node."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_StatusCollector(status))

    def render(self) -> bytes:
        """Return the metrics as Prometheus text."""
        return generate_latest(self._registry)
