"""gRPC under a policy, by the interceptors of the examples, on real channels."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from outlast.kernel import CircuitOpenError, RateLimitedError, happened
from outlast.protect import (
    Bulkhead,
    CircuitBreaker,
    Idempotency,
    Policy,
    Retry,
    classify,
    current_attempt,
    current_incoming,
    deadline,
    remaining,
)
from tests.support.deadlines import ends_as
from tests.support.examples import example

pytestmark = pytest.mark.timeout(120)

shown = example("protect_grpc")
Guarded = example("protect_grpc_server").Guarded
Code = grpc.StatusCode
Handler = Callable[[bytes, Any], bytes]


@contextmanager
def serving(handler: Handler, *interceptors: Any) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=interceptors)
    methods = {"Get": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Rates", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(60)


def call(target: str, policy: Policy, once: bool = False, **more: Any) -> Any:
    with grpc.insecure_channel(target) as bare:
        methods = {"/Rates/Get"} if once else set()
        channel = grpc.intercept_channel(bare, shown.Protected(policy, methods))
        return channel.unary_unary("/Rates/Get")(b"EUR", **more)


def failing(*codes: Any) -> tuple[list[Any], Handler]:
    """Return what was seen, and a handler that fails with each code, then answers."""
    seen: list[Any] = []

    def handle(request: bytes, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        if len(seen) <= len(codes):
            code = codes[len(seen) - 1]
            if isinstance(code, tuple):
                code, pushback = code
                context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            context.abort(code, "told to")
        return b"1.08"

    return seen, handle


def policy(**parts: Any) -> Policy:
    retry = Retry(on=shown.failed, base=0.001)
    breaker = CircuitBreaker(3, 30, counts=shown.failed)
    return Policy("rates", **{"retry": retry, "breaker": breaker, **parts})


def test_a_call_is_repeated_with_its_number_and_its_key() -> None:
    seen, handle = failing(Code.UNAVAILABLE, Code.ABORTED)
    with serving(handle) as target:
        assert call(target, policy(idempotency=Idempotency())) == b"1.08"
    assert [each.get("outlast-attempt") for each in seen] == [None, "2", "3"]
    assert len({each["idempotency-key"] for each in seen}) == 1


def test_an_answer_is_not_repeated_and_opens_nothing() -> None:
    guarded = policy()
    seen, handle = failing(Code.NOT_FOUND)
    with serving(handle) as target, pytest.raises(grpc.RpcError) as caught:
        call(target, guarded)
    assert caught.value.code() is Code.NOT_FOUND
    assert len(seen) == 1
    assert guarded.parts["breaker"].failure_count == 0


def test_a_method_named_in_once_is_never_repeated() -> None:
    seen, handle = failing(Code.UNAVAILABLE)
    with serving(handle) as target, pytest.raises(grpc.RpcError):
        call(target, policy(), once=True)
    assert len(seen) == 1


def test_a_pushback_is_kept_to_and_one_below_zero_ends_the_call() -> None:
    seen, handle = failing((Code.UNAVAILABLE, "20"))
    with serving(handle) as target:
        assert call(target, policy()) == b"1.08"
    seen, handle = failing((Code.UNAVAILABLE, "-1"))
    with serving(handle) as target, pytest.raises(grpc.RpcError):
        call(target, policy())
    assert len(seen) == 1


def test_a_closed_port_is_unreachable_and_opens_the_breaker() -> None:
    guarded = policy()
    with pytest.raises(grpc.RpcError) as caught:
        call("127.0.0.1:1", guarded)
    assert (classify(caught.value), happened(caught.value)) == ("unreachable", "maybe")
    with pytest.raises(CircuitOpenError):
        call("127.0.0.1:1", guarded)


def test_the_deadline_of_the_context_is_that_of_the_call() -> None:
    release = threading.Event()

    def hang(request: bytes, context: Any) -> bytes:
        release.wait(60)
        return b""

    with serving(hang) as target:

        def wait(seconds: float) -> None:
            with deadline(seconds):
                call(target, policy(), timeout=60)

        error: Any = ends_as(grpc.RpcError, wait)
        release.set()
    assert error.code() is Code.DEADLINE_EXCEEDED


def test_a_server_works_under_the_time_and_the_attempt_of_its_caller() -> None:
    seen: list[Any] = []

    def look(request: bytes, context: Any) -> bytes:
        incoming = current_incoming()
        seen.append((remaining(), current_attempt(), incoming and incoming.key))
        if len(seen) == 1:
            context.abort(Code.UNAVAILABLE, "once more")
        return b"1.08"

    with serving(look, Guarded(Bulkhead(2))) as target, deadline(30):
        call(target, policy(idempotency=Idempotency(key=lambda: "k")))
    assert all(0 < left <= 30 for left, _, _ in seen)
    assert [attempt for _, attempt, _ in seen] == [1, 2]
    assert {key for _, _, key in seen} == {"k"}


def test_a_refusal_in_the_server_becomes_unavailable_with_a_pushback() -> None:
    def refuse(request: bytes, context: Any) -> bytes:
        raise RateLimitedError("too many", retry_after=0.5)

    with serving(refuse, Guarded(Bulkhead(2))) as target, pytest.raises(grpc.RpcError) as caught:
        call(target, policy(retry=None))
    assert caught.value.code() is Code.UNAVAILABLE
    assert [tuple(pair) for pair in caught.value.trailing_metadata()] == [
        ("grpc-retry-pushback-ms", "500")
    ]
