"""The metrics: one table for every sink, so that a dashboard fits whatever carries them.

There are two kinds of source. An *event* that is emitted counts one up; the *state* of what is
alive is read when somebody asks, so that the success path of a call pays for no metric. Events
are known here by the name of their class and by field, since the room that defines them lies
above this one.

Labels are bounded: values are short, text with figures in it is no label, and a metric has at
most :data:`SERIES_MAX` series; what comes beyond that is counted under ``other``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

Kind = Literal["counter", "gauge"]
Labels = tuple[str, ...]
Readings = dict[str, dict[Labels, float]]
"""Values by name of the metric, then by the values of its labels."""

SERIES_MAX: Final = 1000
"""Series of one metric at most."""

OTHER: Final = "other"
_LABEL_MAX: Final = 100
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z_\- ]{0,39}")


class Metric(NamedTuple):
    """One metric: its name, kind, labels, meaning, and where it comes from."""

    name: str
    kind: Kind
    labels: Labels
    meaning: str
    source: str


def _counted(name: str, labels: str, meaning: str, event: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), meaning, f"events {event}")


def _read(name: str, kind: Kind, labels: str, meaning: str) -> Metric:
    return Metric(name, kind, tuple(labels.split()), meaning, "state, when asked")


METRICS: Final[tuple[Metric, ...]] = (
    _read("outlast_calls_total", "counter", "policy outcome",
          "Calls that a policy has ended, by outcome."),
    _counted("outlast_retries_total", "policy", "Attempts made again after one that failed.",
             "RetryScheduled"),
    _counted("outlast_retries_given_up_total", "policy",
             "Failures that no attempt followed: the caller got the error.", "RetryGaveUp"),
    _counted("outlast_rejected_total", "policy part reason",
             "Calls refused before any work began.", "CallRejected"),
    _read("outlast_breaker_state", "gauge", "breaker", "0 closed, 1 half-open, 2 open."),
    _counted("outlast_breaker_transitions_total", "breaker state",
             "Times that a breaker went into a state.",
             "CircuitOpened, CircuitHalfOpened, CircuitClosed"),
    _read("outlast_permits_in_use", "gauge", "limit", "Calls running under a limit."),
    _read("outlast_permits_limit", "gauge", "limit", "Calls that a limit lets run at once."),
    _read("outlast_queue_length", "gauge", "limit", "Calls waiting for a permit."),
    _counted("outlast_limit_changes_total", "limit", "Times that a limit changed by itself.",
             "LimitChanged"),
    _read("outlast_threads_abandoned", "gauge", "limit",
          "Threads still in a call that nobody waits for any more."),
    _counted("outlast_hedges_total", "policy", "Attempts started beside one that was slow.",
             "HedgeStarted"),
    _counted("outlast_hedges_won_total", "policy", "Such attempts that answered first.",
             "HedgeWon"),
    _read("outlast_hedge_delay_seconds", "gauge", "hedge",
          "How long an attempt takes before another one starts beside it."),
    _read("outlast_budget_available", "gauge", "budget",
          "Retries and hedges that the budget would grant now."),
    _read("outlast_budget_granted_total", "counter", "budget",
          "Retries and hedges that the budget granted."),
    _read("outlast_budget_refused_total", "counter", "budget",
          "Retries and hedges that the budget refused."),
    _counted("outlast_budget_exhausted_total", "budget",
             "Times that a budget was used up after it had something left.", "BudgetExhausted"),
    _read("outlast_rate_available", "gauge", "rate",
          "Calls that a rate limit would let begin now."),
    _counted("outlast_fallbacks_total", "policy", "Calls answered by the fallback.",
             "FallbackUsed"),
    _counted("outlast_stale_served_total", "policy",
             "Calls answered with an old value since the call failed.", "StaleServed"),
    _read("outlast_cache_entries", "gauge", "cache", "Values kept."),
    _read("outlast_cache_hits_total", "counter", "cache", "Calls answered with a fresh value."),
    _read("outlast_cache_misses_total", "counter", "cache",
          "Calls that had to be made, since no fresh value was kept."),
    _counted("outlast_deadlines_passed_total", "policy", "Calls that ended at their deadline.",
             "DeadlinePassed"),
    _counted("outlast_votes_dissented_total", "policy",
             "Instances whose answer the majority did not share.", "VoteDissented"),
    _counted("outlast_faults_injected_total", "policy", "Faults that a policy injected.",
             "FaultInjected"),
    _counted("outlast_store_lost_total", "store",
             "Times that a shared store was lost and state became local.", "StoreLost"),
    _read("outlast_health_passing", "gauge", "health group",
          "1 if a group of checks passes, 0 if it does not."),
    _read("outlast_members", "gauge", "group state",
          "Members of a group by state, as seen from here."),
    _read("outlast_pool_instances", "gauge", "pool standing",
          "Instances of a pool by what it thinks of them."),
    _counted("outlast_peers_suspected_total", "monitor level",
             "Times that a heartbeat monitor suspected a peer, by the level reached.",
             "PeerSuspected"),
    _counted("outlast_own_pauses_total", "local",
             "Times that this process itself stood still and accused nobody for it.",
             "LocalPaused"),
    _counted("outlast_member_changes_total", "state",
             "Times that a member was seen to come into a state.",
             "MemberJoined, MemberAlive, MemberRejoined, MemberSuspected, MemberUnreachable, "
             "MemberDead, MemberLeft"),
    _counted("outlast_suspicions_refuted_total", "", "Suspicions that the suspect refuted.",
             "SuspicionRefuted"),
    _counted("outlast_health_changes_total", "check status",
             "Times that a health check came to another status.", "HealthChanged"),
    _counted("outlast_children_ended_total", "child",
             "Times that something supervised ended.", "ChildExited"),
    _counted("outlast_children_restarted_total", "child",
             "Times that something supervised was started again.", "ChildRestarting"),
    _counted("outlast_crash_loops_total", "child",
             "Times that something ended more often than its supervisor allows.", "CrashLoop"),
    _counted("outlast_stalls_total", "what",
             "Times that an event loop, the process, a thread or a task stood still too long.",
             "LoopStalled, ProcessStalled, ThreadsStuck, TaskStuck"),
    _counted("outlast_deadlocks_total", "", "Deadlocks found.", "DeadlockFound"),
    _counted("outlast_resources_low_total", "resource",
             "Times that a resource grew towards its limit or came near it.",
             "ResourceGrew, ResourceNearLimit"),
    _counted("outlast_clock_jumps_total", "", "Times that the wall clock jumped.", "ClockJumped"),
    _counted("outlast_instances_ejected_total", "pool reason",
             "Times that a pool stopped sending to an instance.", "InstanceEjected"),
    _counted("outlast_instances_readmitted_total", "pool",
             "Times that a pool sent to such an instance again.", "InstanceReadmitted"),
    _counted("outlast_events_total", "event", "Events of every kind.", "all"),
)  # fmt: skip
"""Every metric of policies, parts and detection; the reference page is made from it."""

BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}


# --- events ------------------------------------------------------------------------------------

_NAME: Final = ("policy", "name")
_EVENTS: Final[Mapping[str, tuple[str, tuple[tuple[str, ...], ...]]]] = {
    "RetryScheduled": ("outlast_retries_total", (_NAME,)),
    "RetryGaveUp": ("outlast_retries_given_up_total", (_NAME,)),
    "CallRejected": ("outlast_rejected_total", (_NAME, ("part",), ("reason",))),
    "CircuitOpened": ("outlast_breaker_transitions_total", (("breaker", "name"), ("=open",))),
    "CircuitHalfOpened": (
        "outlast_breaker_transitions_total", (("breaker", "name"), ("=half-open",))
    ),
    "CircuitClosed": ("outlast_breaker_transitions_total", (("breaker", "name"), ("=closed",))),
    "LimitChanged": ("outlast_limit_changes_total", (("limit_name", "name"),)),
    "BudgetExhausted": ("outlast_budget_exhausted_total", (("budget", "name"),)),
    "HedgeStarted": ("outlast_hedges_total", (_NAME,)),
    "HedgeWon": ("outlast_hedges_won_total", (_NAME,)),
    "FallbackUsed": ("outlast_fallbacks_total", (_NAME,)),
    "StaleServed": ("outlast_stale_served_total", (_NAME,)),
    "DeadlinePassed": ("outlast_deadlines_passed_total", (_NAME,)),
    "VoteDissented": ("outlast_votes_dissented_total", (_NAME,)),
    "FaultInjected": ("outlast_faults_injected_total", (_NAME,)),
    "StoreLost": ("outlast_store_lost_total", (("store", "name"),)),
    "PeerSuspected": ("outlast_peers_suspected_total", (("monitor",), ("reached",))),
    "LocalPaused": ("outlast_own_pauses_total", (("local",),)),
    "MemberJoined": ("outlast_member_changes_total", (("=joined",),)),
    "MemberAlive": ("outlast_member_changes_total", (("=alive",),)),
    "MemberRejoined": ("outlast_member_changes_total", (("=rejoined",),)),
    "MemberSuspected": ("outlast_member_changes_total", (("=suspect",),)),
    "MemberUnreachable": ("outlast_member_changes_total", (("=unreachable",),)),
    "MemberDead": ("outlast_member_changes_total", (("=dead",),)),
    "MemberLeft": ("outlast_member_changes_total", (("=left",),)),
    "SuspicionRefuted": ("outlast_suspicions_refuted_total", ()),
    "HealthChanged": ("outlast_health_changes_total", (("check",), ("after",))),
    "ChildExited": ("outlast_children_ended_total", (("child",),)),
    "ChildRestarting": ("outlast_children_restarted_total", (("child",),)),
    "CrashLoop": ("outlast_crash_loops_total", (("child",),)),
    "LoopStalled": ("outlast_stalls_total", (("=loop",),)),
    "ProcessStalled": ("outlast_stalls_total", (("=process",),)),
    "ThreadsStuck": ("outlast_stalls_total", (("=thread",),)),
    "TaskStuck": ("outlast_stalls_total", (("=task",),)),
    "DeadlockFound": ("outlast_deadlocks_total", ()),
    "ResourceGrew": ("outlast_resources_low_total", (("resource",),)),
    "ResourceNearLimit": ("outlast_resources_low_total", (("resource",),)),
    "ClockJumped": ("outlast_clock_jumps_total", ()),
    "InstanceEjected": ("outlast_instances_ejected_total", (("name",), ("why",))),
    "InstanceReadmitted": ("outlast_instances_readmitted_total", (("name",),)),
}  # fmt: skip
"""By event: the metric, and for each label the fields to take it from (``=word``: that word)."""


def counts_of(event: object) -> list[tuple[str, Labels]]:
    """Return the series that ``event`` counts for, each as metric and labels."""
    kind = type(event).__name__
    found: list[tuple[str, Labels]] = [("outlast_events_total", (label(kind),))]
    if kind in _EVENTS:
        name, fields = _EVENTS[kind]
        found.append((name, tuple(_label_from(event, choice) for choice in fields)))
    return found


def _label_from(event: object, fields: tuple[str, ...]) -> str:
    for field in fields:
        if field.startswith("="):
            return field[1:]
        value = getattr(event, field, None)
        if isinstance(value, str):
            if field == "reason" and not _WORDS.fullmatch(value):
                return OTHER
            return label(value)
    return ""


def label(value: object) -> str:
    """Return ``value`` as the value of a label: one short line."""
    return _CONTROL.sub(" ", str(value))[:_LABEL_MAX]


# --- state -------------------------------------------------------------------------------------

STATES: Final[Mapping[str, int]] = {"CLOSED": 0, "HALF_OPEN": 1, "OPEN": 2}

OUTCOMES: Final = ("succeeded", "failed", "rejected", "cancelled", "fell_back")
"""How a call ends: each call is counted under one of them."""

_GAUGES: Final[Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "limit": (
        ("outlast_permits_in_use", ("in_flight", "in_use")),
        ("outlast_permits_limit", ("limit", "max_concurrent", "max_threads")),
        ("outlast_queue_length", ("waiting", "queued")),
        ("outlast_threads_abandoned", ("abandoned",)),
    ),
    "breaker": (("outlast_breaker_state", ("state",)),),
    "hedge": (("outlast_hedge_delay_seconds", ("delay", "after")),),
    "budget": (
        ("outlast_budget_available", ("available", "left")),
        ("outlast_budget_granted_total", ("granted", "spent")),
        ("outlast_budget_refused_total", ("refused", "denied")),
    ),
    "rate": (("outlast_rate_available", ("free", "available")),),
    "cache": (
        ("outlast_cache_entries", ("entries",)),
        ("outlast_cache_hits_total", ("hits",)),
        ("outlast_cache_misses_total", ("misses", "fetched")),
    ),
}
"""By position of a part: the metrics, and the keys of its state or settings, the first found."""


_ROWS: Final = (
    ("members", "outlast_members", "state"),
    ("instances", "outlast_pool_instances", "standing"),
)
"""Lists of rows in a state: the key, the metric, and the field of a row that is counted."""


def readings(things: Iterable[Any]) -> Readings:
    """Return what the state of ``things`` says in numbers.

    Two of the same name make one series: numbers are added, of states the worse one counts. A
    thing without a name has no series, and one whose ``snapshot`` raises is left out.
    """
    found: Readings = {}
    for thing in _with_parts(things):
        name = getattr(thing, "name", "")
        if not name:
            continue
        try:
            state = thing.snapshot()
            settings = thing.describe()
        except Exception:  # noqa: S112 - a scrape shows what there is to show
            continue
        position = getattr(thing, "position", "")
        if hasattr(thing, "parts"):
            _calls(found, label(name), state)
        _seen(found, label(name), state)
        for metric, keys in _GAUGES.get(position, ()):
            value = _number(state, settings, keys)
            if value is not None:
                join = max if metric == "outlast_breaker_state" else float.__add__
                _put(found, metric, (label(name),), value, join)
    return found


def _with_parts(things: Iterable[Any]) -> Iterator[Any]:
    """Yield each thing, the parts that it has, and the budgets that those have: each once."""
    seen: set[int] = set()
    for thing in things:
        parts = getattr(thing, "parts", None)
        inside = list(parts.values()) if isinstance(parts, Mapping) else []
        budgets = [getattr(part, "budget", None) for part in (thing, *inside)]
        for one in (thing, *inside, *budgets):
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                yield one


def _calls(found: Readings, name: str, state: Mapping[str, Any]) -> None:
    calls = state.get("calls")
    if not isinstance(calls, Mapping):
        return
    for outcome in OUTCOMES:
        count = calls.get(outcome)
        if isinstance(count, int | float):
            labels = (name, label(outcome))
            _put(found, "outlast_calls_total", labels, float(count), float.__add__)


def _seen(found: Readings, name: str, state: Mapping[str, Any]) -> None:
    """Count what detection says of many things at once: groups, members, instances."""
    groups = state.get("groups")
    if isinstance(groups, Mapping):
        for group, one in groups.items():
            passing = isinstance(one, Mapping) and one.get("passing") is True
            _put(found, "outlast_health_passing", (name, label(group)), float(passing), min)
    for key, metric, field in _ROWS:
        rows = state.get(key)
        for one in rows if isinstance(rows, list) else ():
            if isinstance(one, Mapping) and isinstance(one.get(field), str):
                labels = (name, label(one[field]))
                _put(found, metric, labels, 1.0, float.__add__)


def _number(
    state: Mapping[str, Any], settings: Mapping[str, Any], keys: tuple[str, ...]
) -> float | None:
    for key in keys:
        for source in (state, settings):
            value = source.get(key)
            if key == "state" and isinstance(value, str):
                value = STATES.get(value.upper().replace("-", "_"))
            if isinstance(value, int | float):
                return float(value)
    return None


def _put(
    found: Readings,
    metric: str,
    labels: Labels,
    value: float,
    join: Callable[[float, float], float],
) -> None:
    series = found.setdefault(metric, {})
    key = bounded(series, labels)
    series[key] = join(series[key], value) if key in series else value


def bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    """Return ``labels``, or ``other`` for each where a metric has all the series it may have."""
    if labels in series or len(series) < SERIES_MAX:
        return labels
    return (OTHER,) * len(labels)
