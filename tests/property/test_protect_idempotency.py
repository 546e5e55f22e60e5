"""Against a plain model: no outcome is lost or run again while it is kept; wire round trips."""

import string
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from outlast.protect.core.codec import Json, Returned
from outlast.protect.core.idempotency import Begun, Done, InFlight, RecordTable, fingerprint_of
from outlast.protect.headers import encode_grpc, extract

KEYS = st.sampled_from(["k1", "k2", "k3"])
TOKENS = st.integers(0, 5).map(str)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), KEYS, TOKENS, st.integers(1, 20)),
        st.tuples(st.just("finish"), KEYS, TOKENS, st.integers(1, 40)),
        st.tuples(st.just("release"), KEYS, TOKENS, st.just(0)),
        st.tuples(st.just("renew"), KEYS, TOKENS, st.integers(1, 20)),
        st.tuples(st.just("pass"), st.just(""), st.just(""), st.integers(0, 15)),
    ),
    max_size=60,
)


class Model:
    """What the protocol says, without bounds or order: one dict of what holds each key.

    A flight is forgotten no sooner than twice its lease after it was begun or renewed.
    """

    def __init__(self) -> None:
        self.now = 0
        self.flights: dict[str, tuple[str, int, int]] = {}
        self.done: dict[str, tuple[str, int, int]] = {}

    def begin(self, key: str, token: str, lease: int) -> tuple[Any, ...]:
        if key in self.done and self.now < self.done[key][1]:
            return ("done", self.done[key][2])
        self.done.pop(key, None)
        holder = self.flights.get(key)
        if holder is not None and self.now < holder[1] and holder[0] != token:
            return ("in flight", holder[1] - self.now)
        self.hold(key, token, lease)
        return ("begun",)

    def hold(self, key: str, token: str, lease: int) -> None:
        self.flights[key] = (token, self.now + lease, self.now + 2 * lease)

    def holds(self, key: str, token: str, said: bool) -> bool:
        """Whether the token holds the key; what the table ``said`` where it may have forgotten."""
        holder, _, forget = self.flights.get(key, ("", 0, 0))
        return holder == token and (said or self.now < forget)


def shown(answer: Any) -> tuple[Any, ...]:
    if isinstance(answer, Begun):
        return ("begun",)
    if isinstance(answer, InFlight):
        return ("in flight", answer.left_ns)
    assert isinstance(answer, Done)
    return ("done", answer.outcome)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_the_table_answers_as_the_model_does(steps: list[tuple[str, str, str, int]]) -> None:
    table, model = RecordTable(10, 1000), Model()
    for number, (step, key, token, span) in enumerate(steps):
        if step == "pass":
            model.now += span
        elif step == "begin":
            answer = table.begin(key, "f", span, token, model.now)
            assert shown(answer) == model.begin(key, token, span)
        elif step == "finish":
            again = key not in model.flights and model.done.get(key, ("", 0, 0))[0] == token
            said = table.finish(key, token, number, span, model.now)
            holds = model.holds(key, token, said)
            assert said == (holds or again)
            if holds:
                del model.flights[key]
                model.done[key] = (token, model.now + span, number)
        elif step == "renew":
            said = table.renew(key, token, span, model.now)
            assert said == model.holds(key, token, said)
            if said:
                model.hold(key, token, span)
        else:
            table.release(key, token)
            if model.flights.get(key, ("", 0, 0))[0] == token:
                del model.flights[key]


@settings(deadline=None, max_examples=100)
@given(STEPS, st.integers(1, 3))
def test_a_table_stays_within_its_bounds_and_keeps_living_flights(
    steps: list[tuple[str, str, str, int]], capacity: int
) -> None:
    table, now = RecordTable(capacity, 5), 0
    living: dict[str, tuple[str, int]] = {}
    for step, key, token, span in steps:
        if step == "pass":
            now += span
        elif step == "begin":
            answer = table.begin(key, "", span, token, now)
            holder = living.get(key)
            if holder is not None and now < holder[1] and holder[0] != token:
                assert isinstance(answer, InFlight)
            elif isinstance(answer, Begun):
                living[key] = (token, now + span)
        elif step == "finish" and table.finish(key, token, b"xxx", span, now):
            living.pop(key, None)
        elif step == "release":
            table.release(key, token)
            if living.get(key, ("", 0))[0] == token:
                del living[key]
        assert len(table) <= capacity
        assert table.counts()[2] <= 5


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(PLAIN)
def test_plain_values_survive_the_codec_exactly(value: Any) -> None:
    back = Json().decode(Json().encode(Returned(value)))
    assert isinstance(back, Returned)
    assert repr(back.value) == repr(value)
    assert fingerprint_of(back.value) == fingerprint_of(value)


@settings(deadline=None)
@given(st.integers(1, 10**17))
def test_a_grpc_timeout_reads_back_no_longer_and_hardly_shorter(left_ns: int) -> None:
    text = encode_grpc(left_ns)
    assert len(text) <= 9
    read = extract({"grpc-timeout": text}, cap=1e12).timeout
    assert read is not None
    back_ns = read * 1e9
    assert back_ns <= left_ns * (1 + 1e-12)
    assert back_ns >= left_ns * (1 - 1e-4) or left_ns >= 10**8 * 60 * 10**9


NAMES = st.sampled_from(
    ["grpc-timeout", "Outlast-Timeout-Ms", "outlast-attempt", "Idempotency-Key",
     "x-envoy-attempt-count", "grpc-previous-rpc-attempts", "x-request-timeout-ms"]
)  # fmt: skip
HOSTILE = st.text(max_size=300) | st.text(string.digits + "numSMH+-_. ", max_size=12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(NAMES | st.text(max_size=9), HOSTILE), max_size=12))
def test_no_headers_of_strangers_make_it_raise_or_leave_its_bounds(
    headers: list[tuple[str, str]],
) -> None:
    found = extract(headers, cap=5.0)
    assert found.timeout is None or 0 <= found.timeout <= 5.0
    assert 1 <= found.attempt <= 1000
    assert found.key is None or 0 < len(found.key) <= 255
