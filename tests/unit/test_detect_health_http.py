"""The little HTTP of the health server: what it takes, what it refuses, what it sends."""

import pytest

from outlast.detect.core.health_http import (
    Refusal,
    Request,
    Then,
    converse,
    parse,
    refuse,
    render,
)
from outlast.detect.core.health_text import NO_PAGE, Answer, Asked

LIMIT = 1000


def request(*lines: str, first: str = "GET /readyz HTTP/1.1") -> bytes:
    return "\r\n".join((first, *lines, "", "")).encode("latin-1")


def taken(*lines: str, first: str = "GET /readyz HTTP/1.1") -> Request:
    found = parse(request("Host: x", *lines, first=first), LIMIT)
    assert isinstance(found, Request)
    return found


def test_a_request_is_read() -> None:
    raw = request(
        "Host: x", "ACCEPT:  application/json ", "Accept: text/plain",
        first="GET /readyz/a%20b?verbose&exclude=%2F HTTP/1.1",
    )  # fmt: skip
    assert parse(raw + b"GET /next", LIMIT) == Request(
        Asked("GET", "/readyz/a b", "verbose&exclude=%2F", "application/json,text/plain"),
        len(raw),
        keep=True,
        body=False,
    )


def test_a_request_that_is_not_whole_is_waited_for() -> None:
    raw = request("Host: x")
    assert [parse(raw[:size], LIMIT) for size in range(len(raw))] == [None] * len(raw)


def test_a_request_is_as_long_as_the_limit_at_most() -> None:
    raw = request("Host: x", "X: " + "y" * 100)
    assert isinstance(parse(raw, len(raw)), Request)
    assert parse(raw, len(raw) - 1) == Refusal(431)
    assert parse(b"x" * 10, 10) == Refusal(431)


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("GET /readyz", 400), ("GET  /readyz HTTP/1.1", 400), ("/readyz", 400), ("", 400),
        ("G=T / HTTP/1.1", 400), (" / HTTP/1.1", 400),
        ("GET readyz HTTP/1.1", 400), ("OPTIONS * HTTP/1.1", 400), ("GET /\xe4 HTTP/1.1", 400),
        ("GET / HTTP/2.0", 505), ("GET / http/1.1", 400), ("GET / HTTP/1.1 ", 400),
        ("GET /\0 HTTP/1.1", 400), ("GET / HTTP/1.1\rX: y", 400),
        ("CONNECT x:80 HTTP/1.1", 400),
    ],
)  # fmt: skip
def test_what_is_no_plain_request_is_refused(first: str, status: int) -> None:
    assert parse(request("Host: x", first=first), LIMIT) == Refusal(status)


@pytest.mark.parametrize("line", ["no colon", ": empty", "a b: c", "a : b", "\xe4: b"])
def test_what_is_no_header_is_refused(line: str) -> None:
    assert parse(request("Host: x", line), LIMIT) == Refusal(400)


def test_a_target_as_to_a_proxy_is_understood() -> None:
    assert taken(first="GET http://x:1/readyz?verbose HTTP/1.1").asked.path == "/readyz"
    assert taken(first="GET HTTP://x HTTP/1.1").asked.path == "/"


def test_connections_are_kept_if_the_client_can() -> None:
    assert taken().keep
    assert not taken("Connection: Close").keep
    assert not taken("Connection: te, close").keep
    assert not taken(first="GET / HTTP/1.0").keep


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_what_announces_a_body_is_the_last_request(line: str) -> None:
    found = taken(line)
    assert (found.keep, found.body) == (False, True)


def test_an_announced_body_of_nothing_is_none() -> None:
    found = taken("Content-Length: 0")
    assert (found.keep, found.body) == (True, False)


def test_a_response_has_a_date_in_english_and_says_whether_it_is_the_last() -> None:
    given = Answer(200, (("content-length", "3"),), b"ok\n")
    assert render(given, 784_111_777 * 10**9, keep=True) == (
        b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 3\r\n"
        b"connection: keep-alive\r\n\r\nok\n"
    )
    assert b"connection: close" in render(given, 0, keep=False)


@pytest.mark.parametrize("status", [400, 431, 505])
def test_each_refusal_can_be_sent(status: int) -> None:
    given = refuse(Refusal(status))
    assert render(given, 0, keep=False).startswith(b"HTTP/1.1 %d " % status)
    assert int(dict(given.headers)["content-length"]) == len(given.body)


def test_the_missing_page_says_its_length() -> None:
    assert int(dict(NO_PAGE.headers)["content-length"]) == len(NO_PAGE.body)


# --- conversations ---------------------------------------------------------------------------


def told(asked: Asked) -> Answer:
    return Answer(200, (), asked.path.encode() + b";")


def say(raw: bytearray) -> tuple[list[bytes], Then]:
    """What is said to ``raw``: the body of each answer; of what is refused, its first line."""
    said, then = converse(raw, LIMIT, told, 0)
    pieces = said.split(b"HTTP/1.1 ")[1:]
    bodies = [one.partition(b"\r\n\r\n")[2] for one in pieces if one.startswith(b"200")]
    return bodies + [one.partition(b"\r\n")[0] for one in pieces if one[:3] != b"200"], then


def test_requests_that_came_together_are_answered_in_order_and_the_rest_is_kept() -> None:
    one, two = (request("Host: x", first=f"GET /{name} HTTP/1.1") for name in ("one", "two"))
    raw = bytearray(one + two + b"GET /three")
    assert say(raw) == ([b"/one;", b"/two;"], Then.WAIT)
    assert raw == b"GET /three"
    raw += b" HTTP/1.1\r\nHost: x\r\n\r\n"
    assert say(raw) == ([b"/three;"], Then.WAIT)


def test_nothing_is_said_before_a_request_is_whole() -> None:
    raw = bytearray(request("Host: x")[:-1])
    assert say(raw) == ([], Then.WAIT)
    assert raw == request("Host: x")[:-1]


def test_what_comes_after_a_last_request_is_not_answered() -> None:
    last = request("Host: x", "Connection: close", first="GET /last HTTP/1.1")
    assert say(bytearray(last + request("Host: x"))) == ([b"/last;"], Then.CLOSE)


def test_after_an_announced_body_and_after_a_refusal_the_rest_is_drained() -> None:
    posted = request("Host: x", "Content-Length: 9", first="POST /post HTTP/1.1")
    assert say(bytearray(posted + b"GET / HTT")) == ([b"/post;"], Then.DRAIN)
    refused = request("Host: x") + b"NO\r\n\r\n"
    assert say(bytearray(refused)) == ([b"/readyz;", b"400 Bad Request"], Then.DRAIN)


@pytest.mark.parametrize(("asked", "then"), [(16, Then.WAIT), (17, Then.CLOSE)])
def test_so_many_requests_at_once_are_answered_and_one_more_is_the_end(
    asked: int, then: Then
) -> None:
    assert say(bytearray(request("Host: x") * asked)) == ([b"/readyz;"] * 16, then)


def test_only_short_requests_are_remembered() -> None:
    from outlast.detect.core.health_http import _known

    before = _known.cache_info()
    for number in range(100):
        parse(request("Host: x", f"X: {number}" + "y" * 1100), 4096)
    assert _known.cache_info() == before
    for number in range(100):
        parse(request("Host: x", f"X: {number}"), LIMIT)
    assert _known.cache_info().currsize == before.maxsize
