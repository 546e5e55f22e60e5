"""The judge says of small histories what a second, naive judge says, whatever they hold."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.check import CounterExample, check, history_of, line_of, parse_lines
from outlast.kernel import HistoryEvent, Prng
from outlast.testing.histories import header_of, plant, simulate
from tests.support.check_brute import (
    MODELS,
    NO,
    Below,
    apply,
    first_state,
    has_order,
    lines_of,
    pair_up,
    small_history,
)

pytestmark = pytest.mark.timeout(120)

READS = ("read", "get", "dequeue")


@st.composite
def small(draw: st.DrawFn, model: str) -> list[str]:
    """Return the lines of a small history, drawn choice by choice."""
    return small_history(model, lambda bound: draw(st.integers(0, bound - 1)), 6)


@st.composite
def mutated(draw: st.DrawFn, model: str) -> list[str]:
    """Return the lines of a right history with one operation changed."""

    def below(bound: int) -> int:
        return draw(st.integers(0, bound - 1))

    events = simulate(
        model,
        5 + below(3),
        clients=2 + below(2),
        keys=1 + below(2),
        seed=below(1 << 20),
        info_share=0.2 * below(2),
        distinct=below(2) == 0,
    )
    header = header_of(model)
    lines = [json.loads(line_of(event)) for event in events]
    mutate(lines, below)
    return [json.dumps(line) for line in ([header] if header else []) + lines]


def mutate(events: list[dict[str, Any]], below: Below) -> None:
    """Change one operation: what it was told, what it asked, how it ended, or when."""
    way = below(5)
    if way == 0:
        move(events, below)
        return
    wanted = "invoke" if way == 1 else "ok"
    places = [at for at, event in enumerate(events) if event["type"] == wanted]
    if not places:
        return
    at = places[below(len(places))]
    event = events[at]
    if way == 2:
        end_otherwise(events, at, ("fail", "info")[below(2)])
    elif event["f"] == "txn":
        change_txn(events, at, below)
    elif (way == 1) != (event["f"] in READS):
        others = [
            other["value"]
            for other in events
            if other["f"] == event["f"] and (way == 1 or other["type"] == "ok")
        ]
        event["value"] = others[below(len(others))]
        if event["f"] in READS and isinstance(event["value"], int):
            event["value"] += below(3) - 1
    elif event["f"] == "cas":
        event["result"] = None if event.get("result") is False else False


def move(events: list[dict[str, Any]], below: Below) -> None:
    """Move one event to another place between the events of its process."""
    at = below(len(events))
    event = events.pop(at)
    mine = [n for n, other in enumerate(events) if other["process"] == event["process"]]
    low = max((n + 1 for n in mine if n < at), default=0)
    high = min((n for n in mine if n >= at), default=len(events))
    events.insert(low + below(high - low + 1), event)


def end_otherwise(events: list[dict[str, Any]], at: int, kind: str) -> None:
    """Let an operation end as ``kind``; after an info its client goes on under a new number."""
    event = events[at]
    event["type"] = kind
    if kind == "info":
        for later in events[at + 1 :]:
            if later["process"] == event["process"]:
                later["process"] = 1000


def change_txn(events: list[dict[str, Any]], at: int, below: Below) -> None:
    """Change one part of a transaction: what it read, or what it appended, question and answer."""
    event = events[at]
    parts = event["value"]
    n = below(len(parts))
    kind, key, value = parts[n]
    if kind == "r":
        shown = list(value or [])
        parts[n] = [kind, key, (shown[:-1], shown[1:], shown[::-1], [*shown, 1], None)[below(5)]]
        if event["type"] == "invoke":
            parts[n] = [kind, key, None]
        return
    changed = [kind, key, 1 + below(4)]
    for other in events:
        if other["process"] == event["process"] and len(other["value"]) > n:
            asked = [[*part[:2], part[2] if part[0] == "append" else None] for part in parts]
            told = [
                [*part[:2], part[2] if part[0] == "append" else None] for part in other["value"]
            ]
            if asked == told and other is not event:
                other["value"][n] = changed
    parts[n] = changed


def events_of(lines: list[str]) -> list[HistoryEvent]:
    """Return the same history as a drill would hand it over."""
    fields = [json.loads(line) for line in lines]
    return [
        HistoryEvent(
            line["process"],
            line["type"],
            line["f"],
            line.get("value"),
            line.get("key"),
            line.get("time", 0),
            line.get("result"),
        )
        for line in fields
        if "process" in line
    ]


def compare(model: str, lines: list[str]) -> None:
    """Judge a history twice, and the counter-example as well."""
    right = "valid" if has_order(model, lines) else "invalid"
    result = check(parse_lines(lines), model)
    shown = "\n".join(lines)
    said = f"{model}: {result.verdict} ({result.why}); the naive judge says {right} of\n{shown}"
    assert result.verdict == right, said
    header = pair_up(lines)[0]
    again = check(history_of(events_of(lines), header), model)
    assert again.verdict == right, f"as events: {said}"
    if result.counterexample is not None:
        alone = lines_of(result.counterexample.operations, header)
        assert not has_order(model, alone), f"{said}\nthe counter-example has an order:\n{alone}"
        follow(model, header, result.counterexample, said)


def follow(model: str, header: dict[str, Any], found: CounterExample, said: str) -> None:
    """Walk the longest order shown: every answer in it fits, and time never runs back."""
    state = first_state(model, header)
    before: list[Any] = []
    for op, _ in found.best:
        _, (naive,) = pair_up(lines_of([op], {}))
        state = apply(model, state, naive)
        assert state is not NO, f"{said}\nits longest order is none: {found.best}"
        late = [one for one in before if op.end is not None and op.end < one.start]
        assert not late, f"{said}\nits longest order runs against time: {found.best}"
        before.append(op)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_small_history_gets_the_verdict_of_the_naive_judge(model, data):
    compare(model, data.draw(small(model), label="lines"))


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_right_history_with_one_operation_changed_gets_the_verdict_of_the_naive_judge(
    model, data
):
    compare(model, data.draw(mutated(model), label="lines"))


# --- long ones -----------------------------------------------------------------------------------

LONG = [(400, 0.0, False), (2_000, 0.02, True), (6_000, 0.005, True)]


def long_history(model: str, count: int, info_share: float, distinct: bool) -> list[HistoryEvent]:
    """Return what eight clients of a right object saw."""
    return simulate(
        model, count, clients=8, keys=5, seed=count, info_share=info_share, distinct=distinct
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("count", "info_share", "distinct"), LONG)
@pytest.mark.parametrize("model", MODELS)
def test_a_long_right_history_is_valid(model, count, info_share, distinct):
    events = long_history(model, count, info_share, distinct)
    result = check(history_of(events, header_of(model)), model)
    assert result.verdict == "valid", f"simulate({model!r}, {count}, ...): {result}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", MODELS)
def test_one_wrong_answer_in_a_long_history_is_found_and_shown(model, seed):
    events = plant(long_history(model, 1_500, 0.01 * seed, distinct=True), seed)
    result = check(history_of(events, header_of(model)), model)
    assert result.verdict == "invalid", f"plant(simulate({model!r}, 1500, ...), {seed}): {result}"
    found = result.counterexample
    assert found is not None
    assert found.stuck in found.operations
    assert found.reason in result.why
    if len(found.operations) <= 8:
        alone = lines_of(found.operations, header_of(model))
        assert not has_order(model, alone), "\n".join([result.why, *alone])


# --- limits --------------------------------------------------------------------------------------


def sums(count: int) -> list[HistoryEvent]:
    """Return a counter with many uncertain even additions, and an odd sum that is read."""
    events = [
        HistoryEvent(n, kind, "add", 2 << n) for n in range(count) for kind in ("invoke", "info")
    ]
    read = HistoryEvent(count, "invoke", "read")
    return [*events, read, HistoryEvent(count, "ok", "read", (2 << count) - 3)]


def texts(count: int) -> list[HistoryEvent]:
    """Return concurrent additions to a text, a deletion among them, and what they never give."""
    asked = [("append", chr(97 + n)) for n in range(count)] + [("delete", None)]
    events = [HistoryEvent(n, "invoke", f, value) for n, (f, value) in enumerate(asked)]
    events += [HistoryEvent(n, "ok", f, value) for n, (f, value) in enumerate(asked)]
    read = HistoryEvent(99, "invoke", "get")
    return [*events, read, HistoryEvent(99, "ok", "get", "zz")]


def test_unknown_names_the_limit_of_time_and_what_would_help():
    result = check(history_of(sums(40)), "counter", seconds=0.001)
    assert result.verdict == "unknown"
    assert result.exit_code == 3
    assert result.counterexample is None
    assert result.why.startswith("the time limit of 0.001 s was reached")
    assert "a higher --seconds" in result.why
    assert "fewer info operations (there are 40)" in result.why


@pytest.mark.timeout(120)
def test_unknown_names_the_limit_of_memory_and_what_would_help():
    result = check(history_of(texts(14)), "kv", memory_bytes=1 << 20)
    assert result.verdict == "unknown"
    assert result.why.startswith("the memory limit of 1 MiB was reached")
    assert "a higher --memory" in result.why


@pytest.mark.timeout(120)
def test_what_is_decided_at_one_key_is_said_though_another_reached_a_limit():
    hard = [replace(event, key="hard") for event in texts(14)]
    wrong = [
        HistoryEvent(200, "invoke", "get", None, "easy"),
        HistoryEvent(200, "ok", "get", "zz", "easy"),
    ]
    result = check(history_of(hard + wrong), "kv", memory_bytes=1 << 20)
    assert result.verdict == "invalid"
    assert result.counterexample is not None
    assert result.counterexample.key == "easy"


@pytest.mark.parametrize("model", MODELS)
def test_a_small_history_needs_no_more_than_the_least_limits(model):
    for seed in range(30):
        lines = small_history(model, Prng(seed).below, 6)
        result = check(parse_lines(lines), model, seconds=60, memory_bytes=1 << 20)
        assert result.verdict != "unknown", f"seed {seed}: {result.why}"
