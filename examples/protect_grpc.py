"""Protect the unary calls of a gRPC channel: an interceptor."""

from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from outlast import Bulkhead, CircuitBreaker, Policy, Retry
from outlast.protect import classify, remaining
from outlast.protect.headers import inject

Details = namedtuple("Details", "method timeout metadata credentials wait_for_ready compression")


def failed(error: Exception) -> bool:
    """Whether the service failed, so that a repeat may help: NOT_FOUND is an answer."""
    return isinstance(error, grpc.RpcError) and classify(error) != "permanent"


class Protected(grpc.UnaryUnaryClientInterceptor):
    """Makes calls under ``policy``; those of the methods in ``once`` are never repeated."""

    def __init__(self, policy: Policy, once: set[str]) -> None:
        self.policy, self.once = policy, once
        self.policy_once = policy.replace(name=f"{policy.name} once", retry=None)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        def attempt() -> Any:
            told: dict[str, str] = {}
            inject(told)  # the attempt and the key; the time left is the timeout of the call
            metadata = [*(details.metadata or ()), *((k.lower(), v) for k, v in told.items())]
            sent = Details(
                details.method, remaining(details.timeout), metadata, details.credentials,
                details.wait_for_ready, details.compression)  # fmt: skip
            call = continuation(sent, request)
            call.result()  # raises what went wrong
            return call

        policy = self.policy_once if details.method in self.once else self.policy
        return policy.call(attempt)


calls = Counter[str]()


def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
    method = request.decode()
    calls[method] += 1
    if calls[method] < 3:
        context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
    return f"{context.time_remaining():.0f} s left".encode()


def main() -> None:
    calls.clear()
    server = grpc.server(ThreadPoolExecutor(4))
    methods = {name: grpc.unary_unary_rpc_method_handler(answer) for name in ("Get", "Buy")}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Rates", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    policy = Policy(
        "rates", timeout=5, retry=Retry(on=failed, base=0.01), limit=Bulkhead(20),
        breaker=CircuitBreaker(5, 30, counts=failed))  # fmt: skip
    with grpc.insecure_channel(f"127.0.0.1:{port}") as bare:
        channel = grpc.intercept_channel(bare, Protected(policy, once={"/Rates/Buy"}))
        print("Get:", channel.unary_unary("/Rates/Get")(b"Get").decode(), dict(calls))
        try:
            channel.unary_unary("/Rates/Buy")(b"Buy")
        except grpc.RpcError as error:
            print("Buy:", error.code().name, dict(calls))
    server.stop(None).wait()


def test_it_runs() -> None:
    main()


if __name__ == "__main__":
    main()
