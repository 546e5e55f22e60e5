"""What becomes of a key: absent, in flight under a lease, done; and outcomes as bytes."""

import json

import pytest

from outlast.kernel import (
    CommandError,
    ConfigError,
    DataError,
    IndefiniteError,
    OverloadedError,
    RateLimitedError,
    ReplyLostError,
)
from outlast.protect.core.codec import DEPTH_MAX, Json, Raised, Returned, own, result_of
from outlast.protect.core.idempotency import (
    Begun,
    Done,
    InFlight,
    Mismatch,
    RecordTable,
    fingerprint_of,
)

S = 1_000_000_000


def table(capacity: int = 8, max_bytes: int = 1000) -> RecordTable:
    return RecordTable(capacity, max_bytes)


def test_the_first_begins_and_a_repeat_is_told_how_long_the_lease_lasts() -> None:
    records = table()
    assert isinstance(records.begin("k", "f", 10 * S, "a", 0), Begun)
    answer = records.begin("k", "f", 10 * S, "b", 4 * S)
    assert isinstance(answer, InFlight)
    assert answer.left_ns == 6 * S
    assert isinstance(records.begin("k", "f", 10 * S, "a", 4 * S), Begun)


def test_what_was_finished_is_given_to_repeats_until_its_time_is_over() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    assert records.finish("k", "a", 0, 100 * S, 5 * S)
    answer = records.begin("k", "f", 10 * S, "b", 105 * S - 1)
    assert isinstance(answer, Done)
    assert answer.outcome == 0
    assert isinstance(records.begin("k", "g", 10 * S, "b", 105 * S), Begun)
    assert len(records) == 1


def test_another_fingerprint_is_told_apart_in_flight_and_done_but_not_if_one_is_empty() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    assert isinstance(records.begin("k", "g", 10 * S, "b", 0), Mismatch)
    assert isinstance(records.begin("k", "g", 10 * S, "a", 0), Mismatch)
    records.finish("k", "a", "x", S, 0)
    assert isinstance(records.begin("k", "g", 10 * S, "b", 0), Mismatch)
    assert isinstance(records.begin("k", "", 10 * S, "b", 0), Done)


def test_a_lease_that_ran_out_lets_the_next_begin_and_fences_the_first() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    assert isinstance(records.begin("k", "f", 10 * S, "b", 10 * S - 1), InFlight)
    assert isinstance(records.begin("k", "f", 10 * S, "b", 10 * S), Begun)
    assert not records.finish("k", "a", "late", S, 11 * S)
    assert not records.renew("k", "a", 10 * S, 11 * S)
    records.release("k", "a")
    assert isinstance(records.begin("k", "f", 10 * S, "c", 11 * S), InFlight)
    assert records.finish("k", "b", "second", S, 12 * S)
    assert not records.finish("k", "a", "late", S, 12 * S)


def test_a_late_holder_that_nobody_replaced_may_still_finish() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    records.begin("other", "f", 10 * S, "b", 15 * S)
    assert records.finish("k", "a", "late", 100 * S, 16 * S)
    assert isinstance(records.begin("k", "f", S, "c", 17 * S), Done)


def test_renewing_moves_the_end_of_the_lease() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    assert records.renew("k", "a", 10 * S, 9 * S)
    assert isinstance(records.begin("k", "f", 10 * S, "b", 18 * S), InFlight)
    assert isinstance(records.begin("k", "f", 10 * S, "b", 19 * S), Begun)


def test_a_released_key_is_free_at_once() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    records.release("k", "b")
    assert records.knows("k", 0)
    records.release("k", "a")
    assert not records.knows("k", 0)
    assert isinstance(records.begin("k", "g", 10 * S, "b", 0), Begun)


def test_finishing_twice_with_one_token_is_no_second_outcome() -> None:
    records = table()
    records.begin("k", "f", 10 * S, "a", 0)
    assert records.finish("k", "a", 1, S, 0)
    assert records.finish("k", "a", 2, S, 0)
    answer = records.begin("k", "f", S, "b", 0)
    assert isinstance(answer, Done)
    assert answer.outcome == 1


def test_a_full_table_forgets_the_oldest_outcome_and_never_a_living_flight() -> None:
    records = table(capacity=2)
    records.begin("flight", "", 10 * S, "a", 0)
    records.begin("done", "", 10 * S, "b", 0)
    records.finish("done", "b", "x", 100 * S, 0)
    assert isinstance(records.begin("new", "", 10 * S, "c", S), Begun)
    assert (len(records), records.evicted) == (2, 1)
    assert records.begin("more", "", 10 * S, "d", S) is None
    assert isinstance(records.begin("flight", "", 10 * S, "e", S), InFlight)


def test_what_is_past_its_time_makes_room_without_counting_as_evicted() -> None:
    records = table(capacity=2)
    records.begin("dead", "", 10 * S, "a", 0)
    records.begin("done", "", 10 * S, "b", 0)
    records.finish("done", "b", "x", S, 0)
    assert isinstance(records.begin("one", "", 10 * S, "c", 20 * S), Begun)
    assert isinstance(records.begin("two", "", 10 * S, "d", 20 * S), Begun)
    assert (len(records), records.evicted) == (2, 0)


def test_outcomes_are_bounded_in_bytes() -> None:
    records = table(max_bytes=10)
    for number in range(3):
        records.begin(f"k{number}", "", S, "a", 0)
        records.finish(f"k{number}", "a", b"12345", 100 * S, 0)
    assert records.counts() == (0, 2, 10)
    records.begin("sized", "", S, "a", 0)
    records.finish("sized", "a", Returned("x", 10), 100 * S, 0)
    assert records.counts() == (0, 1, 10)
    records.begin("free", "", S, "a", 0)
    records.finish("free", "a", "x" * 99, 100 * S, 200 * S)
    assert records.evicted == 3


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0)])
def test_bounds_below_one_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        RecordTable(*bounds)


def test_answers_show_themselves() -> None:
    shown = [repr(Begun()), repr(InFlight(5)), repr(Done(0)), repr(Mismatch())]
    assert shown == ["Begun()", "InFlight(5)", "Done(0)", "Mismatch()"]


# --- fingerprints ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 23), (12, 3)),
        ((True,), (1,)),
        (("1",), (1,)),
        ((b"a",), ("a",)),
        (([1], [2]), ([1, 2], [])),
        (([[1], 2],), ([[1, 2]],)),
        (({"a": 1, "b": 2},), ({"a": 2, "b": 1},)),
        ((None,), ("None",)),
        ((0.0,), (-0.0,)),
        ((), (None,)),
    ],
)
def test_different_plain_data_have_different_fingerprints(one: object, other: object) -> None:
    assert fingerprint_of(one) != fingerprint_of(other)


def test_the_order_of_a_dict_and_objects_without_a_value_do_not_count() -> None:
    assert fingerprint_of({"a": 1, 2: "b"}) == fingerprint_of({2: "b", "a": 1})
    assert fingerprint_of(object()) == fingerprint_of(object())
    assert fingerprint_of({1, 2}) == fingerprint_of({3})
    assert fingerprint_of("\ud800") != fingerprint_of("")


def test_endless_nesting_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert fingerprint_of(loop) == fingerprint_of(loop)


# --- codec ----------------------------------------------------------------------------------


class Odd(Exception):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None, False, 0, 0.0, "", b"", [], {}, (), "ü\u2028", 2**80, 1.5, b"\x00\xff",
        [1, (2, b"3")], {"a": {"b": (None,)}}, {1: "x", None: 2}, {"$bytes": "AA=="},
        {"$tuple": [1]}, {"$dict": [[1, 2]]}, float("inf"),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(value: object) -> None:
    back = Json().decode(Json().encode(Returned(value)))
    assert isinstance(back, Returned)
    assert back.value == value
    assert type(back.value) is type(value)


@pytest.mark.parametrize("value", [{1}, object(), bytearray(b"x"), [frozenset()], Odd])
def test_what_cannot_be_kept_exactly_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        Json().encode(Returned(value))


def test_nesting_is_bounded_both_ways() -> None:
    deep: object = 1
    for _ in range(DEPTH_MAX + 1):
        deep = [deep]
    with pytest.raises(TypeError, match="nested deeper"):
        Json().encode(Returned(deep))
    with pytest.raises(DataError):
        Json().decode(b'{"v":1,"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_errors_of_ours_and_named_ones_come_back_as_they_were() -> None:
    codec = Json(errors=[ValueError])
    ours = codec.decode(codec.encode(Raised(RateLimitedError("slow down", retry_after=2.5))))
    assert isinstance(ours, Raised)
    assert isinstance(ours.error, RateLimitedError)
    assert (str(ours.error), ours.error.retry_after) == ("slow down", 2.5)
    named = codec.decode(codec.encode(Raised(ValueError("a", 2))))
    assert isinstance(named, Raised)
    assert type(named.error) is ValueError
    assert named.error.args == ("a", 2)


def test_a_foreign_error_comes_back_as_a_command_error_with_its_name() -> None:
    back = Json().decode(Json().encode(Raised(Odd("boom"))))
    assert isinstance(back, Raised)
    assert isinstance(back.error, CommandError)
    assert (back.error.type_name, back.error.args) == ("Odd", ("boom",))


def test_a_class_that_is_not_named_here_is_never_made() -> None:
    raw = Json(errors=[ValueError]).encode(Raised(ValueError("x")))
    back = Json().decode(raw)
    assert isinstance(back, Raised)
    assert isinstance(back.error, ReplyLostError)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b'{"v":2,"value":1}', b'{"v":1}',
        b'{"v":1,"error":{}}', b'{"v":1,"value":{"$bytes":"%"}}', b'{"v":1,"value":{"$tuple":1}}',
        b'{"v":1,"value":{"$dict":[[[],1]]}}', b'{"v":1,"error":{"ours":"X"}}', b"9" * 20_000_000,
    ],
)  # fmt: skip
def test_bytes_that_make_no_outcome_are_a_data_error(raw: bytes) -> None:
    with pytest.raises(DataError):
        Json().decode(raw)


def test_fields_of_a_kept_error_cannot_touch_what_is_private() -> None:
    body = {"ours": "OverloadedError", "args": ["m"], "fields": {"__class__": 1, "x": 2}}
    back = Json().decode(json.dumps({"v": 1, "error": body}).encode())
    assert isinstance(back, Raised)
    assert isinstance(back.error, OverloadedError)
    assert vars(back.error) == {"x": 2}
    unknown = json.dumps({"v": 1, "error": {**body, "ours": "Nothing"}}).encode()
    stranger = Json().decode(unknown)
    assert isinstance(stranger, Raised)
    assert isinstance(stranger.error, IndefiniteError)


def test_bytes_of_what_is_past_its_time_go_without_counting_as_evicted() -> None:
    records = table(max_bytes=10)
    records.begin("old", "", S, "a", 0)
    records.finish("old", "a", b"x" * 10, S, 0)
    records.begin("new", "", S, "a", 0)
    records.finish("new", "a", b"y" * 10, 100 * S, 5 * S)
    assert records.counts() == (0, 1, 10)
    assert records.evicted == 0


class Slotted(Exception):
    __slots__ = ("part",)


def test_a_kept_error_has_its_own_notes_cause_and_fields() -> None:
    error = Odd("x")
    error.add_note("one")
    error.__cause__ = ValueError("why")
    kept = own(Raised(error))
    assert isinstance(kept, Raised)
    error.add_note("two")
    assert kept.error is not error
    assert (kept.error.__notes__, kept.error.__cause__) == (["one"], error.__cause__)
    assert own(Returned(1)).value == 1  # type: ignore[union-attr]
    with pytest.raises(Odd) as caught:
        result_of(kept)
    assert caught.value is not kept.error
    assert kept.error.__traceback__ is None


@pytest.mark.parametrize("error", [Slotted("x"), OSError(2, "x"), UnicodeError("x")])
def test_an_error_that_a_copy_might_change_is_kept_itself(error: Exception) -> None:
    kept = own(Raised(error))
    assert isinstance(kept, Raised)
    assert (kept.error is error) == (not isinstance(error, UnicodeError))
    assert kept.error.args == error.args
