"""The httpx transports: bodies that are read once, responses that must be closed, hedges."""

from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest

from outlast.kernel import DeadlineError
from outlast.protect import Fallback, Hedge, Idempotency, Policy, Retry, incoming
from tests.support.http_story import KINDS, Body, Kind, Service, Story

BOTH = pytest.mark.parametrize("kind", KINDS)


def retry(**more: Any) -> Retry:
    return Retry(httpx.TransportError, base=1, cap=8, jitter="none", **more)


def patient(**parts: Any) -> Policy:
    return Policy("shop", **{"retry": retry(), **parts})


def chunks(kind: Kind, *parts: bytes) -> Any:
    """Return a body that can be read once."""

    def once() -> Iterator[bytes]:
        yield from parts

    async def once_async() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return once() if kind == "blocking" else once_async()


# --- bodies of requests --------------------------------------------------------------------------


@BOTH
def test_a_body_that_can_be_read_once_is_not_sent_again_and_the_error_says_why(kind: Kind) -> None:
    service = Service(httpx.ReadError("reset"), 200)
    with pytest.raises(httpx.ReadError) as caught:
        Story(kind, patient(), service).ask("PUT", content=chunks(kind, b"a", b"b"))
    assert service.bodies == [b"ab"]
    note = "not repeated: the body of the request was read and cannot be read again"
    assert caught.value.__notes__ == [note]


@BOTH
def test_a_body_that_can_be_read_once_is_sent_again_if_nothing_of_it_was_read(kind: Kind) -> None:
    service = Service(httpx.ConnectError("no"), 200, reads=False)
    assert (
        Story(kind, patient(), service).ask("PUT", content=chunks(kind, b"a")).status_code == 200
    )
    assert len(service.seen) == 2


@BOTH
def test_a_multipart_body_of_known_length_is_held_and_sent_again(kind: Kind) -> None:
    service = Service(503, 200)
    files = {"file": ("a.txt", BytesIO(b"hello"))}
    assert Story(kind, patient(), service).ask("PUT", files=files).status_code == 200
    assert service.bodies[0] == service.bodies[1]
    assert b"hello" in service.bodies[0]


@BOTH
def test_a_body_longer_than_replay_max_is_sent_once(kind: Kind) -> None:
    service = Service(503, 200)
    files = {"file": ("a.txt", BytesIO(b"hello"))}
    story = Story(kind, patient(), service, replay_max=10)
    assert story.ask("PUT", files=files).status_code == 503
    assert len(service.seen) == 1


@BOTH
def test_a_policy_that_repeats_nothing_holds_no_body(kind: Kind) -> None:
    service = Service(200, reads=False)
    content = chunks(kind, b"abc")
    headers = {"Content-Length": "3"}
    Story(kind, Policy("shop"), service).ask("PUT", content=content, headers=headers)
    assert not isinstance(service.seen[0].stream, httpx.ByteStream)


# --- responses -----------------------------------------------------------------------------------


@BOTH
def test_a_response_is_closed_before_the_wait_for_the_next_attempt(kind: Kind) -> None:
    body, closed = Body(b"long"), list[int]()
    service = Service((503, body), 200)
    note = patient(retry=retry(between=lambda error: closed.append(body.closed)))
    assert Story(kind, note, service, read_max=0).ask().status_code == 200
    assert closed == [1]
    assert body.read == 0


@BOTH
def test_a_response_that_gave_way_to_an_error_or_a_fallback_is_closed(kind: Kind) -> None:
    body = Body(b"long")
    spare = Fallback(lambda error: httpx.Response(200, text=type(error).__name__))
    story = Story(kind, Policy("shop", fallback=spare), Service((500, body)), read_max=0)
    assert story.ask().status_code == 200
    assert body.closed == 1


@BOTH
def test_a_short_body_is_part_of_the_attempt_so_that_one_that_breaks_off_is_repeated(
    kind: Kind,
) -> None:
    broken = Body(b"ha", error=httpx.ReadError("broken off"))
    service = Service(broken, Body(b"ha", b"lf"))
    assert Story(kind, patient(), service).ask().content == b"half"
    assert broken.closed == 1


@BOTH
def test_a_long_body_is_left_to_the_caller(kind: Kind) -> None:
    body = Body(b"ha", b"lf")
    response = Story(kind, patient(), Service(body), read_max=3).ask(streamed=True)
    assert (body.read, body.closed) == (0, 1)
    assert not response.is_stream_consumed


@BOTH
def test_a_slow_body_does_not_outlast_the_attempt(kind: Kind) -> None:
    body = Body(*[b"x"] * 100, takes=1)
    with pytest.raises(DeadlineError):
        Story(kind, Policy("shop", attempt_timeout=5), Service(body)).ask()
    assert body.read in {4, 5}
    assert body.closed == 1


def test_a_body_that_is_whole_when_time_is_up_is_returned() -> None:
    body = Body(b"x", b"y", takes=3)
    assert (
        Story("blocking", Policy("shop", attempt_timeout=5), Service(body)).ask().content == b"xy"
    )


# --- hedges of coroutines (those of plain functions need threads: see the integration tests) ---


def test_a_slow_get_is_hedged_and_a_slow_post_is_not() -> None:
    policy = Policy("shop", hedge=Hedge(1.0))
    service = Service(60.0, 200)
    assert Story("async", policy, service).ask().content == b"said"
    assert (service.at, service.cancelled) == ([0, 1], 1)
    service = Service(60.0, 200)
    assert Story("async", policy, service).ask("POST").content == b"late"
    assert service.at == [0]


def test_a_hedged_request_with_a_key_is_hedged_and_one_whose_body_is_gone_is_not() -> None:
    policy = Policy("shop", hedge=Hedge(1.0), idempotency=Idempotency())
    service = Service(60.0, 200)
    assert Story("async", policy, service).ask("POST").content == b"said"
    assert len({request.headers["Idempotency-Key"] for request in service.seen}) == 1
    service = Service(60.0, 200)
    assert (
        Story("async", policy, service).ask("PUT", content=chunks("async", b"a")).content
        == b"late"
    )
    assert service.at == [0]


def test_a_key_that_came_in_lets_nothing_be_hedged() -> None:
    policy = Policy("shop", hedge=Hedge(1.0), idempotency=Idempotency(key=lambda _: "theirs"))
    service = Service(60.0, 200)
    with incoming({"Idempotency-Key": "theirs"}):
        assert Story("async", policy, service).ask("POST").content == b"late"
    assert service.at == [0]


def test_a_response_that_lost_against_a_hedge_is_closed() -> None:
    late, soon = Body(b"late", takes=9), Body(b"soon")
    story = Story("async", Policy("shop", hedge=Hedge(1.0)), Service(late, soon))
    assert story.ask().content == b"soon"
    assert (late.closed, soon.closed) == (1, 1)
