"""Whose fault an error is."""

import errno
import ssl
from typing import Any

import httpx
import pytest

from outlast.kernel import (
    CommandError,
    ConfigError,
    ConnectionLostError,
    DeadlineError,
    InvariantError,
    RateLimitedError,
    TooLateError,
)
from outlast.pool.core.blame import Verdict, blame
from outlast.pool.failover import may_repeat


def status(code: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://a/")
    response = httpx.Response(code, headers=headers, request=request)
    return httpx.HTTPStatusError("x", request=request, response=response)


def of_certificate() -> httpx.ConnectError:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = OSError()
    error.__cause__.__cause__ = ssl.SSLCertVerificationError("expired")
    return error


def in_a_circle() -> httpx.UnsupportedProtocol:
    error = httpx.UnsupportedProtocol("x")
    inner = OSError()
    error.__cause__, inner.__context__ = inner, error
    return error


class Code:
    def __init__(self, name: str) -> None:
        self.name = name


class RpcError(Exception):
    """As gRPC's own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def code(self) -> Code:
        return Code(self._name)


RpcError.__module__ = "grpc._channel"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionRefusedError(), "failed"),
        (ConnectionResetError(), "failed"),
        (ConnectionLostError("x"), "failed"),
        (httpx.ReadError("x"), "failed"),
        (status(500), "failed"),
        (status(503), "failed"),
        (status(504), "failed"),
        (of_certificate(), "failed"),
        (TimeoutError(), "late"),
        (DeadlineError("x"), "late"),
        (httpx.ReadTimeout("x"), "late"),
        (httpx.ConnectTimeout("x"), "late"),
        (status(429), "busy"),
        (status(503, **{"Retry-After": "3"}), "busy"),
        (status(404), "ok"),
        (CommandError("x"), "ok"),
        (RateLimitedError("x"), "ours"),
        (TooLateError("x"), "ours"),
        (ConfigError("x"), "ours"),
        (InvariantError("x"), "ours"),
        (httpx.PoolTimeout("x"), "ours"),
        (httpx.UnsupportedProtocol("x"), "ours"),
        (in_a_circle(), "ours"),
        (KeyError("x"), "ours"),
        (OSError(errno.EMFILE, "too many open files"), "ours"),
        (KeyboardInterrupt(), "cut"),
        (RpcError("UNAVAILABLE"), "failed"),
        (RpcError("DEADLINE_EXCEEDED"), "late"),
        (RpcError("NOT_FOUND"), "ok"),
        (RpcError("RESOURCE_EXHAUSTED"), "busy"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whose_fault_it_is(error: BaseException, verdict: Verdict) -> None:
    assert blame(error) == verdict


@pytest.mark.parametrize(
    ("error", "idempotent", "answer"),
    [
        (ConnectionRefusedError(), False, True),
        (ConnectionResetError(), False, False),
        (ConnectionResetError(), True, True),
        (RateLimitedError("x"), False, True),
        (TooLateError("x"), True, False),
        (KeyError("x"), True, False),
        (CommandError("x"), True, False),
        (KeyboardInterrupt(), True, False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_what_is_asked_of_another_instance(error: Any, idempotent: bool, answer: bool) -> None:
    assert may_repeat(error, idempotent) is answer
