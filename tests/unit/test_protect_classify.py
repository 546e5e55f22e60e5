"""What kind of failure an error is, and when the callee wants to be called again."""

import asyncio
import email.message
import errno
import json
import socket
import ssl
import urllib.error
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum
from typing import Any

import aiohttp
import httpx
import pytest
import redis
import requests
import urllib3
from aiohttp.client_reqrep import ConnectionKey

from outlast import kernel
from outlast.protect.core.classify import Kind, classify, classify_response, retry_after

NS = 1_000_000_000
POOL = urllib3.HTTPConnectionPool("a")


def errno_error(number: int) -> OSError:
    return OSError(number, "x")


def httpx_status(status: int, headers: dict[str, str] | None = None) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://a")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("x", request=request, response=response)


def requests_status(status: int, **headers: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return requests.HTTPError("x", response=response)


def urllib_status(status: int, **headers: str) -> urllib.error.HTTPError:
    message = email.message.Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://a", status, "x", message, None)


def retries_ended(reason: Exception) -> urllib3.exceptions.MaxRetryError:
    return urllib3.exceptions.MaxRetryError(POOL, "/", reason)


def aiohttp_key() -> ConnectionKey:
    return ConnectionKey("a", 80, False, True, None, None, None)


class Code(Enum):
    """As ``grpc.StatusCode`` has them: the value is a pair."""

    UNAVAILABLE = (14, "unavailable")
    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    INVALID_ARGUMENT = (3, "invalid argument")


class RpcError(Exception):
    """As ``grpc.RpcError`` of a unary call."""

    def __init__(self, code: object, *pairs: tuple[str, str]) -> None:
        super().__init__(code)
        self._code, self._pairs = code, pairs

    def code(self) -> object:
        return self._code

    def trailing_metadata(self) -> object:
        return self._pairs


RpcError.__module__ = "grpc._channel"


class AwsError(Exception):
    """As ``botocore.exceptions.ClientError``."""

    def __init__(self, code: object, status: object, headers: object = None) -> None:
        self.response = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
        }


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


CASES: list[tuple[BaseException, Kind]] = [
    # ours
    (kernel.CommandError("no"), "answer"),
    (kernel.NoEffectError("x"), "answer"),
    (kernel.RateLimitedError(), "throttled"),
    (kernel.OverloadedError(), "throttled"),
    (kernel.BulkheadFullError(), "throttled"),
    (kernel.CircuitOpenError(), "unreachable"),
    (kernel.UnavailableError(), "unreachable"),
    (kernel.TooLateError(), "permanent"),
    (kernel.ConfigError("x"), "permanent"),
    (kernel.InvariantError("x"), "permanent"),
    (kernel.DiskFullError(), "transient"),
    (kernel.ElsewhereError(), "transient"),
    (kernel.DeadlineError("x"), "transient"),
    (kernel.ConnectionLostError("x"), "transient"),
    (kernel.OutlastError("x"), "transient"),
    # no failures
    (asyncio.CancelledError(), "answer"),
    (KeyboardInterrupt(), "answer"),
    (GeneratorExit(), "answer"),
    # Python's own
    (TimeoutError(), "transient"),
    (ConnectionResetError(), "transient"),
    (OSError("x"), "transient"),
    (RuntimeError("x"), "transient"),
    (ConnectionRefusedError(), "unreachable"),
    (errno_error(errno.EHOSTUNREACH), "unreachable"),
    (errno_error(errno.ENETUNREACH), "unreachable"),
    (errno_error(errno.ETIMEDOUT), "transient"),
    (errno_error(errno.EMFILE), "transient"),
    (errno_error(errno.ENOENT), "permanent"),
    (PermissionError(), "permanent"),
    (TypeError(), "permanent"),
    (KeyError(), "permanent"),
    (json.JSONDecodeError("x", "", 0), "permanent"),
    (socket.gaierror(-2, "x"), "unreachable"),
    (ssl.SSLCertVerificationError("x"), "permanent"),
    (ssl.SSLError("x"), "transient"),
    (urllib.error.URLError(ConnectionRefusedError()), "unreachable"),
    (urllib.error.URLError(socket.gaierror(-2, "x")), "unreachable"),
    (urllib.error.URLError("unknown"), "transient"),
    (urllib_status(404), "permanent"),
    (urllib_status(503), "transient"),
    (urllib_status(503, Retry_After="1"), "throttled"),
    # httpx
    (httpx.ConnectError("x"), "unreachable"),
    (httpx.ConnectTimeout("x"), "unreachable"),
    (caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError("x")), "permanent"),
    (httpx.ReadTimeout("x"), "transient"),
    (httpx.RemoteProtocolError("x"), "transient"),
    (httpx.PoolTimeout("x"), "throttled"),
    (httpx.InvalidURL("x"), "permanent"),
    (httpx.UnsupportedProtocol("x"), "permanent"),
    (httpx_status(429), "throttled"),
    (httpx_status(500), "transient"),
    (httpx_status(422), "permanent"),
    # requests, urllib3
    (requests.ReadTimeout(), "transient"),
    (requests.ConnectTimeout(), "unreachable"),
    (requests.exceptions.InvalidURL("x"), "permanent"),
    (requests.exceptions.MissingSchema("x"), "permanent"),
    (requests_status(429), "throttled"),
    (requests_status(502), "transient"),
    (requests.ConnectionError("x"), "transient"),
    (
        requests.ConnectionError(
            retries_ended(urllib3.exceptions.NameResolutionError("a", POOL, socket.gaierror(-2)))  # type: ignore[arg-type]
        ),
        "unreachable",
    ),
    (
        requests.exceptions.SSLError(
            retries_ended(urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("x")))
        ),
        "permanent",
    ),
    (urllib3.exceptions.EmptyPoolError(POOL, "x"), "throttled"),
    (urllib3.exceptions.ProtocolError("x", ConnectionResetError()), "transient"),
    # aiohttp
    (aiohttp.ClientConnectorError(aiohttp_key(), OSError("x")), "unreachable"),
    (aiohttp.ConnectionTimeoutError("x"), "unreachable"),
    (
        aiohttp.ClientConnectorCertificateError(aiohttp_key(), ssl.CertificateError("x")),
        "permanent",
    ),
    (aiohttp.ServerDisconnectedError(), "transient"),
    (aiohttp.InvalidURL("x"), "permanent"),
    (aiohttp.SocketTimeoutError("x"), "transient"),
    (aiohttp.ClientResponseError(None, (), status=429, headers={}), "throttled"),  # type: ignore[arg-type]
    # redis
    (redis.ConnectionError("x"), "transient"),
    (redis.TimeoutError("x"), "transient"),
    (redis.BusyLoadingError("x"), "transient"),
    (redis.ReadOnlyError("x"), "transient"),
    (redis.AuthenticationError("x"), "permanent"),
    (redis.ResponseError("WRONGTYPE"), "permanent"),
    (redis.OutOfMemoryError("x"), "throttled"),
    (redis.WatchError("x"), "answer"),
    # gRPC
    (RpcError(Code.UNAVAILABLE), "transient"),
    (RpcError(Code.RESOURCE_EXHAUSTED), "throttled"),
    (RpcError(Code.INVALID_ARGUMENT), "permanent"),
    (RpcError(Code.UNAVAILABLE, ("grpc-retry-pushback-ms", "-1")), "permanent"),
    (RpcError(None), "transient"),
    # AWS
    (AwsError("ThrottlingException", 400), "throttled"),
    (AwsError("InternalError", 500), "transient"),
    (AwsError("NoSuchBucket", 404), "permanent"),
    (AwsError(None, None), "transient"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), CASES, ids=lambda value: repr(value)[:60])
def test_errors_have_a_kind(error: BaseException, kind: Kind) -> None:
    assert classify(error) == kind


def test_a_class_of_the_same_name_from_elsewhere_is_not_believed() -> None:
    class PoolTimeout(Exception):
        """Ours by name only."""

    class Own(httpx.PoolTimeout):
        """Derived from one that is known."""

    assert classify(PoolTimeout()) == "transient"
    assert classify(Own("x")) == "throttled"


def test_a_number_that_is_no_status_is_not_taken_for_one() -> None:
    class Coded(Exception):
        """``SystemExit`` and database errors have a ``code`` as well."""

        code = 429

    assert classify(Coded()) == "transient"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "answer"), (304, "answer"), (400, "permanent"), (401, "permanent"),
        (404, "permanent"), (408, "transient"), (409, "permanent"), (425, "transient"),
        (429, "throttled"), (500, "transient"), (501, "permanent"), (502, "transient"),
        (503, "transient"), (504, "transient"), (505, "permanent"), (522, "transient"),
    ],
)  # fmt: skip
def test_responses_have_a_kind(status: int, kind: Kind) -> None:
    assert classify_response(status) == kind


def test_a_503_that_says_when_to_come_again_is_an_overload() -> None:
    assert classify_response(503, retry_after=0.0) == "throttled"
    assert (
        classify(httpx_status(503, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}))
        == "throttled"
    )


# --- retry_after ------------------------------------------------------------------------------

AT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * NS


def said(value: object, wall_ns: int = 0) -> float | None:
    failed: Any = Exception()
    failed.headers = {"Retry-After": value}
    return retry_after(failed, wall_ns)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("120", 120), (" 7 ", 7), ("1.5", 1.5), (b"3", 3), ("99999999", 99_999_999)],
)
def test_seconds_are_read(value: object, seconds: float) -> None:
    assert said(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "", "-1", "soon", "1e9", "nan", "inf", "٣", "1" * 30, "..", None, 5.0,
        "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 PST", "a b c d e", "a b c d e GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 1994 08:61:37 GMT",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_as_if_not_said(value: object) -> None:
    assert said(value) is None


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_dates_are_read_in_all_three_forms_of_http(text: str) -> None:
    assert said(text, AT_NS - 30 * NS) == 30
    assert said(text, AT_NS + NS) == 0


def test_dates_are_right_on_every_day_of_four_centuries() -> None:
    for day in range(0, 146_097, 97):
        moment = datetime.fromtimestamp(day * 86_400 + 45_296, tz=UTC)
        assert said(format_datetime(moment, usegmt=True), 0) == day * 86_400 + 45_296


def test_two_digits_of_a_year_far_ahead_mean_the_century_before() -> None:
    now_ns = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * NS
    assert said("Sunday, 06-Nov-94 08:49:37 GMT", now_ns) == 0
    wait = said("Wednesday, 01-Jan-31 00:00:00 GMT", now_ns)
    assert wait == 365 * 86_400


def test_every_library_is_asked_in_its_way() -> None:
    for error in (
        kernel.RateLimitedError(retry_after=4.0),
        httpx_status(429, {"retry-after": "4"}),
        requests_status(429, **{"retry-after": "4"}),
        urllib_status(429, Retry_After="4"),
        aiohttp.ClientResponseError(None, (), status=429, headers={"Retry-After": "4"}),  # type: ignore[arg-type]
        httpx_status(429, {"Retry-After-Ms": "4000", "Retry-After": "9"}),
        httpx_status(429, {"Retry-After": "4"}).response,
        RpcError(Code.UNAVAILABLE, ("a", "b"), ("grpc-retry-pushback-ms", "4000")),
        AwsError("SlowDown", 503, {"retry-after": "4"}),
    ):
        assert retry_after(error, 0) == 4, error


def test_who_said_nothing_is_not_quoted() -> None:
    for outcome in (
        kernel.RateLimitedError(),
        kernel.RateLimitedError(retry_after=-1.0),
        kernel.RateLimitedError(retry_after=float("nan")),
        httpx_status(429),
        RpcError(Code.UNAVAILABLE),
        RpcError(Code.UNAVAILABLE, ("grpc-retry-pushback-ms", "-1")),
        AwsError("SlowDown", 503),
        ValueError("x"),
        "text",
        None,
    ):
        assert retry_after(outcome, 0) is None


def test_a_foreign_object_that_fails_when_looked_at_does_no_harm() -> None:
    class Sly(Exception):
        @property
        def response(self) -> object:
            raise RuntimeError("not yet")

        @property
        def headers(self) -> object:
            class Headers:
                def get(self, name: str) -> str:
                    raise KeyError(name)

            return Headers()

    class Broken(RpcError):
        def code(self) -> object:
            raise RuntimeError("no code")

    class Odd(RpcError):
        def trailing_metadata(self) -> object:
            return 5

    Broken.__module__ = Odd.__module__ = "grpc.aio"
    assert classify(Sly()) == "transient"
    assert retry_after(Sly(), 0) is None
    assert retry_after(Broken(Code.UNAVAILABLE), 0) is None
    assert retry_after(Odd(Code.UNAVAILABLE), 0) is None
    odd = Odd(Code.UNAVAILABLE)
    odd.trailing_metadata = None  # type: ignore[assignment,method-assign]
    assert retry_after(odd, 0) is None
    broken = AwsError("x", 400)
    broken.response = {"Error": 5, "ResponseMetadata": 5}  # type: ignore[dict-item]
    assert classify(broken) == "transient"
    assert retry_after(broken, 0) is None
