"""The client's side of a session: numbers, window, what an answer means."""

import asyncio

import msgspec
import pytest

from outlast.kernel import (
    CommandError,
    ConfigError,
    ElsewhereError,
    OverloadedError,
    happened,
)
from outlast.state import (
    ClientSession,
    Reply,
    RequestWindow,
    current_idempotency_key,
    decode_reply,
    decode_reply_error,
    encode_error_reply,
    encode_reply,
    idempotency_key,
    result_of,
)
from outlast.state.core.envelope import decode_command


def test_numbers_grow_and_ack_below_is_the_lowest_unanswered() -> None:
    window = RequestWindow(9)
    first, second, third = (window.begin("add", b"") for _ in range(3))
    assert [r.seq for r in (first, second, third)] == [1, 2, 3]
    window.end(second)
    assert window.ack_below == 1
    window.end(first)
    assert window.ack_below == 3
    assert decode_command(window.attempt(third)).ack_below == 3


def test_a_repeat_keeps_its_number_and_arguments() -> None:
    window = RequestWindow(9)
    request = window.begin("add", b"args", "key")
    bodies = [decode_command(window.attempt(request)) for _ in range(2)]
    assert bodies[0] == bodies[1]
    assert request.attempt_count == 2


def test_the_window_bounds_what_is_unanswered() -> None:
    window = RequestWindow(9, 2)
    first = window.begin("add", b"")
    second = window.begin("add", b"")
    assert window.full
    with pytest.raises(OverloadedError, match="2 requests"):
        window.begin("add", b"")
    window.end(second)
    assert window.full, "the window begins at the lowest unanswered, not at the count"
    window.end(first)
    assert window.room == 2
    with pytest.raises(ConfigError, match="257"):
        RequestWindow(9, 257)


def test_a_request_that_was_given_up_is_in_the_way_until_it_is_resolved() -> None:
    window = RequestWindow(9)
    sent, unsent = window.begin("add", b""), window.begin("add", b"")
    window.attempt(sent)
    window.give_up(unsent)
    window.give_up(sent)
    assert window.unresolved == [1]
    assert window.ack_below == 1
    window.resolved(1)
    assert window.unresolved == []
    assert window.ack_below == 3


def test_an_error_crosses_the_wire_in_its_class_with_its_fields() -> None:
    reply = decode_reply(encode_error_reply(ElsewhereError("not here", hint="n2")))
    assert reply.status == 2
    error = decode_reply_error(reply)
    assert isinstance(error, ElsewhereError)
    assert (str(error), error.hint, error.happened) == ("not here", "n2", "no")
    foreign = decode_reply(encode_error_reply(ValueError("odd")))
    assert foreign.status == 3
    assert str(decode_reply_error(foreign)) == "ValueError: odd"


def test_an_unknown_class_keeps_whether_it_happened() -> None:
    body = msgspec.msgpack.encode(["NewerError", "said", {}])
    assert happened(decode_reply_error(Reply(2, 1, b"", body))) == "no"
    assert happened(decode_reply_error(Reply(3, 1, b"", body))) == "maybe"
    lying = msgspec.msgpack.encode(["FencedError", "said", {}])
    assert happened(decode_reply_error(Reply(3, 1, b"", lying))) == "maybe"
    assert happened(decode_reply_error(Reply(3, 1, b"", b"\xc1"))) == "maybe"


def test_a_reply_becomes_a_result_or_raises() -> None:
    ok = decode_reply(encode_reply(Reply(0, 4, b"d", b"\x07")))
    assert result_of(ok, msgspec.msgpack.decode, CommandError) == 7
    with pytest.raises(CommandError):
        result_of(Reply(1, 4, b"d", b"x"), msgspec.msgpack.decode, CommandError)
    elsewhere = decode_reply(encode_error_reply(ElsewhereError()))
    with pytest.raises(ElsewhereError):
        result_of(elsewhere, msgspec.msgpack.decode, CommandError)


def test_the_key_belongs_to_its_block() -> None:
    with idempotency_key("order-17"):
        assert current_idempotency_key() == "order-17"
    assert current_idempotency_key() == ""
    with pytest.raises(ConfigError, match="256 characters"), idempotency_key("k" * 256):
        pass


@pytest.mark.anyio
async def test_takers_wait_in_order_while_the_window_is_used_up() -> None:
    session = ClientSession(9, window=2)
    assert [await session.take(), await session.take()] == [1, 2]
    waiting = [asyncio.create_task(session.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    session.give_back(2)
    await asyncio.sleep(0)
    assert not any(task.done() and not task.cancelled() for task in waiting)
    session.give_back(1)
    assert [await waiting[1], await waiting[2]] == [3, 4]
    assert session.ack_below == 3
