"""A node's metrics, as Prometheus reads them."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from outlast.cluster.metrics import Metrics

FACTS: dict[str, Any] = {
    "node": "n1",
    "term": 3,
    "leading": 1,
    "ready": True,
    "commit_index": 90,
    "applied_index": 89,
    "fsyncs": 41,
    "commands": 1_000,
    "members": [{"node": "n2", "lag": 4}, {"node": "n3", "lag": None}],
}


def samples(facts: dict[str, Any]) -> dict[tuple[str, str], float]:
    text = Metrics(lambda: facts).render().decode()
    return {
        (sample.name, sample.labels.get("member", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels["node"] == facts["node"]
    }


def test_what_the_node_knows_is_counted_and_what_it_does_not_know_is_left_out() -> None:
    found = samples(FACTS)
    assert found == {
        ("outlast_term", ""): 3,
        ("outlast_leading", ""): 1,
        ("outlast_ready", ""): 1,
        ("outlast_commit_index", ""): 90,
        ("outlast_applied_index", ""): 89,
        ("outlast_fsyncs_total", ""): 41,
        ("outlast_commands_total", ""): 1_000,
        ("outlast_replication_lag_entries", "n2"): 4,
    }


def test_the_values_are_those_of_the_scrape() -> None:
    facts = dict(FACTS)
    metrics = Metrics(lambda: facts)
    first = metrics.render()
    facts["term"] = 4
    assert b'outlast_term{node="n1"} 4.0' in metrics.render()
    assert b'outlast_term{node="n1"} 3.0' in first


def test_every_metric_has_a_meaning() -> None:
    text = Metrics(lambda: FACTS).render().decode()
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    told = {
        line.split()[2]: line.split(maxsplit=3)[3]
        for line in text.splitlines()
        if line.startswith("# HELP")
    }
    assert named == told.keys()
    assert all(meaning.endswith(".") for meaning in told.values())


def test_a_node_that_is_still_starting_has_metrics() -> None:
    assert samples({"node": "n1", "ready": False}) == {("outlast_ready", ""): 0}
