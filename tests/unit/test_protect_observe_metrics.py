"""Which metric an event counts for, and what the state of a part says in numbers."""

from typing import Any

import pytest

from outlast import detect, pool
from outlast.detect import Health, HealthChanged, LoopStalled, PeerSuspected, Status
from outlast.kernel import Event
from outlast.observe.core import metrics
from outlast.observe.core.metrics import METRICS, OTHER, bounded, counts_of, label, readings
from outlast.observe.meter import Meter
from outlast.pool import Pool
from outlast.protect import events
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.events import CallRejected, CircuitOpened, RetryScheduled
from outlast.protect.policy import Policy


class Fake:
    def __init__(
        self,
        name: str,
        position: str,
        state: dict[str, Any],
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.position = name, position
        self._state, self._settings = state, settings or {}

    def snapshot(self) -> dict[str, Any]:
        return self._state

    def describe(self) -> dict[str, Any]:
        return self._settings


class FakePolicy(Fake):
    def __init__(self, name: str, state: dict[str, Any], **parts: Fake) -> None:
        super().__init__(name, "", state)
        self.parts = parts


class Broken(Fake):
    def snapshot(self) -> dict[str, Any]:
        raise RuntimeError("no")


def retry() -> RetryScheduled:
    return RetryScheduled(name="rates", attempt=1, delay=0.1, error="OSError")


def rejected(reason: str) -> CallRejected:
    return CallRejected(name="rates", part="breaker", reason=reason)


def test_names_are_unique_and_counters_end_in_total_and_gauges_do_not() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith("outlast_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_every_metric_has_a_source_and_every_source_a_metric_with_as_many_labels() -> None:
    from_events = {name: len(fields) for name, fields in metrics._EVENTS.values()}
    from_state = {name for table in metrics._GAUGES.values() for name, _ in table}
    from_state |= {name for _, name, _ in metrics._ROWS} | {"outlast_health_passing"}
    assert {*from_events, *from_state, "outlast_events_total", "outlast_calls_total"} == {
        *metrics.BY_NAME
    }
    for name, count in from_events.items():
        assert len(metrics.BY_NAME[name].labels) == count


def test_labels_of_an_event_are_fields_that_it_has() -> None:
    for name, (_, labels) in metrics._EVENTS.items():
        cls = next(getattr(room, name) for room in (events, detect, pool) if hasattr(room, name))
        for choice in labels:
            fields = cls.__dataclass_fields__
            assert any(field.startswith("=") or field in fields for field in choice), name


def test_an_event_counts_for_its_metric_and_for_all_events() -> None:
    assert counts_of(retry()) == [
        ("outlast_events_total", ("RetryScheduled",)),
        ("outlast_retries_total", ("rates",)),
    ]
    opened = CircuitOpened(name="eur", reason="streak", failures=5, seconds=30.0)
    assert counts_of(opened)[1] == ("outlast_breaker_transitions_total", ("eur", "open"))


def test_an_event_that_is_not_in_the_table_counts_among_all() -> None:
    assert counts_of(Event()) == [("outlast_events_total", ("Event",))]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("queue full", "queue full"), ("the wait of 0.31 s does not fit", OTHER), ("x" * 50, OTHER)],
)
def test_a_reason_with_figures_in_it_is_no_label(reason: str, shown: str) -> None:
    assert counts_of(rejected(reason))[1] == (
        "outlast_rejected_total",
        ("rates", "breaker", shown),
    )


def test_a_label_is_one_short_line() -> None:
    assert label("a\nb\x00" + "c" * 200) == "a b " + "c" * 96


def test_a_field_that_is_missing_gives_an_empty_label() -> None:
    class HedgeWon:
        policy = 3

    assert counts_of(HedgeWon())[1] == ("outlast_hedges_won_total", ("",))


def test_the_state_of_a_limit_is_three_gauges() -> None:
    limit = Fake("db", "limit", {"in_flight": 3, "waiting": 1}, {"max_concurrent": 20})
    assert readings([limit]) == {
        "outlast_permits_in_use": {("db",): 3.0},
        "outlast_permits_limit": {("db",): 20.0},
        "outlast_queue_length": {("db",): 1.0},
    }


def test_what_a_limit_has_come_to_counts_before_what_was_set() -> None:
    limit = Fake("db", "limit", {"limit": 7}, {"max_concurrent": 20})
    assert readings([limit])["outlast_permits_limit"] == {("db",): 7.0}


@pytest.mark.parametrize(
    ("state", "number"), [("CLOSED", 0.0), ("half-open", 1.0), ("HALF_OPEN", 1.0), ("OPEN", 2.0)]
)
def test_the_state_of_a_breaker_is_a_number(state: str, number: float) -> None:
    found = readings([Fake("eur", "breaker", {"state": state})])
    assert found == {"outlast_breaker_state": {("eur",): number}}


def test_a_state_that_is_not_known_is_left_out() -> None:
    assert readings([Fake("eur", "breaker", {"state": "AJAR"})]) == {}


def test_of_breakers_with_one_name_the_worse_counts_and_limits_are_added() -> None:
    closed, opened = (Fake("a", "breaker", {"state": state}) for state in ("CLOSED", "OPEN"))
    for order in (
        [closed, opened],
        [opened, closed],
        [opened, Fake("a", "breaker", {"state": "OPEN"})],
    ):
        assert readings(order)["outlast_breaker_state"] == {("a",): 2.0}
    limits = [Fake("a", "limit", {"in_flight": 2}), Fake("a", "limit", {"in_flight": 3})]
    assert readings(limits)["outlast_permits_in_use"] == {("a",): 5.0}


def test_calls_of_a_policy_are_counted_by_outcome_and_nothing_twice() -> None:
    calls = {"succeeded": 5, "failed": 1, "retried": 9, "cancelled": "many"}
    policies = [FakePolicy("rates", {"calls": calls}), FakePolicy("odd", {"calls": 3})]
    assert readings(policies) == {
        "outlast_calls_total": {("rates", "succeeded"): 5.0, ("rates", "failed"): 1.0}
    }


def test_parts_of_policies_and_their_budgets_are_read_once_however_many_share_them() -> None:
    limit, retry_part = Fake("db", "limit", {"in_flight": 1}), Fake("r", "retry", {})
    budget = Fake("all", "budget", {"granted": 4, "refused": 2, "left": 8})
    retry_part.budget = budget  # type: ignore[attr-defined]
    policies = [FakePolicy(name, {}, limit=limit, retry=retry_part) for name in "ab"]
    assert readings([*policies, budget]) == {
        "outlast_permits_in_use": {("db",): 1.0},
        "outlast_budget_granted_total": {("all",): 4.0},
        "outlast_budget_refused_total": {("all",): 2.0},
        "outlast_budget_available": {("all",): 8.0},
    }


def test_a_policy_of_ours_says_how_its_calls_ended_and_what_its_parts_do() -> None:
    policy = Policy("rates", breaker=CircuitBreaker(3), limit=Bulkhead(7))
    assert policy.call(len, "abc") == 3
    found = readings([policy])
    assert found["outlast_calls_total"]["rates", "succeeded"] == 1.0
    assert found["outlast_breaker_state"] == {("rates",): 0.0}
    assert found["outlast_permits_limit"] == {("rates",): 7.0}
    assert found["outlast_permits_in_use"] == {("rates",): 0.0}


def test_what_has_no_name_or_cannot_be_read_is_left_out() -> None:
    things = [Fake("", "limit", {"in_flight": 1}), Broken("b", "limit", {}), object()]
    assert readings(things) == {}


def test_a_metric_has_no_more_series_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 2)
    meter = Meter(lambda: [Fake(f"l{n}", "limit", {"in_flight": 1}) for n in range(5)])
    for n in range(5):
        meter.take(CallRejected(name=f"p{n}", part="rate", reason="full"))
    found = meter.read()
    series = found["outlast_rejected_total"]
    assert series[OTHER, OTHER, OTHER] == 3.0
    assert sum(series.values()) == 5.0
    assert sum(found["outlast_permits_in_use"].values()) == 5.0
    assert bounded({("a",): 1, ("b",): 1}, ("a",)) == ("a",)


def test_reading_a_meter_does_not_change_what_it_counts() -> None:
    meter = Meter(lambda: [])
    meter.take(retry())
    assert meter.read() == meter.read()
    assert meter.read_one("outlast_retries_total") == {("rates",): 1.0}
    meter.take(retry())
    assert meter.read()["outlast_retries_total"] == {("rates",): 2.0}
    assert meter.read_one("outlast_permits_limit") == {}


class Said:
    """Something that says a state."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.name, self._state = name, state

    def describe(self) -> dict[str, Any]:
        return {}

    def snapshot(self) -> dict[str, Any]:
        return self._state


def test_groups_members_and_instances_are_counted_by_state() -> None:
    health = Said("shop", {"groups": {"readiness": {"passing": True}, "liveness": {"passing": 0}}})
    members = Said("n1", {"members": [{"state": "alive"}, {"state": "alive"}, {"state": "dead"}]})
    pool = Said("api", {"instances": [{"standing": "live"}, {"standing": "ejected"}, {}, 3]})
    found = readings([health, members, pool])
    assert found["outlast_health_passing"] == {
        ("shop", "readiness"): 1.0, ("shop", "liveness"): 0.0,
    }  # fmt: skip
    assert found["outlast_members"] == {("n1", "alive"): 2.0, ("n1", "dead"): 1.0}
    assert found["outlast_pool_instances"] == {("api", "live"): 1.0, ("api", "ejected"): 1.0}


def test_real_health_and_pools_are_counted() -> None:
    health = Health(name="observed")
    health.report("db", Status.FAILED)
    pool = Pool("observed", ["http://a:1", "http://b:1"])
    found = readings([health._watched, pool])
    assert found["outlast_health_passing"]["observed", "readiness"] == 0.0
    with pool.endpoint():
        pass
    assert readings([pool])["outlast_pool_instances"] == {("observed", "live"): 2.0}


def test_events_of_detection_are_counted_under_what_they_are_of() -> None:
    counted = dict(
        count
        for event in (
            PeerSuspected(monitor="m", peer="p", reached="evict", suspicion=9.0, silence=1.0),
            HealthChanged(check="db", before="ok", after="failed", detail=""),
            LoopStalled(loop="main", seconds=1.0, stack="", task=""),
        )
        for count in counts_of(event)
        if count[0] != "outlast_events_total"
    )
    assert counted == {
        "outlast_peers_suspected_total": ("m", "evict"),
        "outlast_health_changes_total": ("db", "failed"),
        "outlast_stalls_total": ("loop",),
    }
