"""As much of HTTP/1.1 as a probe speaks: requests without a body, one after another.

Reading is done by ``h11``, which needs no socket (extra ``health``). A general server is long
because of bodies, upgrades and streams; a health page has none of them. What is no plain request
is refused, and what announces a body is answered and then closed, so that nothing of it can be
taken for the next request (RFC 9112, 9.3 and 11.2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from outlast.detect.core.health_text import Answer, Asked

_PHRASES: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    431: "Request Header Fields Too Large", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_PIPELINED_MAX: Final = 16
_KNOWN_MAX: Final = 32
_KNOWN_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request.

    Attributes:
        asked: What it asks.
        size: How many bytes it was.
        keep: Whether another one may follow on the connection.
        body: Whether a body follows, which is not for us.
    """

    asked: Asked
    size: int
    keep: bool
    body: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """No request that we take; the connection is closed after ``status``."""

    status: int


class Then(Enum):
    """What becomes of a connection once everything said on it was sent."""

    WAIT = auto()
    """More is awaited."""
    CLOSE = auto()
    """It is closed."""
    DRAIN = auto()
    """The end is sent, and what still comes is read to nowhere: closed at once, a connection
    with bytes unread is reset, and the reset overtakes the answer."""


def converse(
    raw: bytearray, limit: int, answer: Callable[[Asked], Answer], wall_ns: int
) -> tuple[bytes, Then]:
    """Take the requests that ``raw`` begins with out of it; return what to say, and what then.

    Args:
        raw: What has come and was not taken yet; what is no whole request stays in it.
        limit: The longest request, in bytes.
        answer: Answers one.
        wall_ns: Now, in nanoseconds since 1970.
    """
    said = b""
    for _ in range(_PIPELINED_MAX):
        found = parse(raw, limit)
        if found is None:
            return said, Then.WAIT
        if isinstance(found, Refusal):
            return said + render(refuse(found), wall_ns, keep=False), Then.DRAIN
        del raw[: found.size]
        said += render(answer(found.asked), wall_ns, keep=found.keep)
        if not found.keep:
            return said, Then.DRAIN if found.body else Then.CLOSE
    return said, Then.CLOSE if raw else Then.WAIT  # nobody asks so much at once


def parse(raw: bytes | bytearray, limit: int) -> Request | Refusal | None:
    """Read one request from the beginning of ``raw``; ``None`` if it is not whole yet.

    Probes ask the same again and again: what short texts mean is known from the last time.

    Args:
        raw: What has come so far.
        limit: The longest request, in bytes.
    """
    given = bytes(raw)
    return (_known if len(given) <= _KNOWN_BYTES_MAX else _parse)(given, limit)


def _parse(given: bytes, limit: int) -> Request | Refusal | None:
    import h11

    if not given:
        return None  # to h11 it would be the end of the connection
    reading = h11.Connection(h11.SERVER, max_incomplete_event_size=limit)
    try:
        reading.receive_data(given)
        event = reading.next_event()
        if event is h11.NEED_DATA:
            return Refusal(431) if len(given) >= limit else None
        if not isinstance(event, h11.Request):
            return Refusal(400)
        body = reading.next_event()
    except h11.RemoteProtocolError as error:
        status = error.error_status_hint
        return Refusal(status if status in _PHRASES else 400)
    if not event.http_version.startswith(b"1."):
        return Refusal(505)
    size = len(given) - len(reading.trailing_data[0])
    if size > limit:
        return Refusal(431)
    path = _path(event.target)
    if path is None:
        return Refusal(400)
    return Request(
        Asked(
            event.method.decode("ascii"),
            path,
            event.target.partition(b"?")[2].decode("ascii"),
            b",".join(value for name, value in event.headers if name == b"accept").decode(
                "latin-1"
            ),
        ),
        size,
        keep=reading.their_state is h11.DONE and event.http_version == b"1.1",
        body=not isinstance(body, h11.EndOfMessage),
    )


_known: Final = lru_cache(maxsize=_KNOWN_MAX)(_parse)


def _path(target: bytes) -> str | None:
    """Return the decoded path of a target in origin form, or in absolute form as to a proxy."""
    if target[:7].lower() == b"http://":
        target = b"/" + target[7:].partition(b"/")[2]
    if not target.startswith(b"/") or not target.isascii():
        return None
    path = target.partition(b"?")[0].decode("ascii")
    if "%" not in path:
        return path
    from urllib.parse import unquote

    return unquote(path)


def render(given: Answer, wall_ns: int, *, keep: bool) -> bytes:
    """Return a response as bytes."""
    lines = [f"HTTP/1.1 {given.status} {_PHRASES[given.status]}", _date(wall_ns // 1_000_000_000)]
    lines += [f"{name}: {value}" for name, value in given.headers]
    lines.append("connection: keep-alive" if keep else "connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + given.body


def refuse(refusal: Refusal) -> Answer:
    """Return the response to what was refused."""
    body = f"{_PHRASES[refusal.status].lower()}\n".encode()
    kind = ("content-type", "text/plain; charset=utf-8")
    return Answer(refusal.status, (kind, ("content-length", str(len(body)))), body)


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    """Return the header with the instant, in English whatever the locale (RFC 9110, 5.6.7)."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"date: {day}, {at.day:02} {month} {at.year} {at:%H:%M:%S} GMT"
