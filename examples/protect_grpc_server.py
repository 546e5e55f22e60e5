"""Protect a gRPC server: it keeps to the caller's deadline and sheds what is above its limit."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc

from outlast import Bulkhead, RejectedError
from outlast.protect import deadline, incoming, remaining
from outlast.protect.part import Part


class Guarded(grpc.ServerInterceptor):
    """Serves unary calls under ``limit``, with the time and the attempt that the caller told.

    Policies inside then end in time, and repeat nothing that the caller repeats.
    """

    def __init__(self, limit: Part) -> None:
        self.limit = limit

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            left = context.time_remaining()
            try:
                with incoming(context.invocation_metadata()), deadline(left or float("inf")):
                    return self.limit.call(handler.unary_unary, request, context)
            except RejectedError as error:  # nothing was done, here or further in
                wait = str(int(1000 * (error.retry_after or 0.1)))
                context.set_trailing_metadata((("grpc-retry-pushback-ms", wait),))
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return grpc.unary_unary_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer)  # fmt: skip


def main() -> None:
    begun, finish = Event(), Event()

    def get(request: bytes, context: grpc.ServicerContext) -> bytes:
        begun.set()
        finish.wait(5)
        return f"{remaining():.0f} s left".encode()

    server = grpc.server(ThreadPoolExecutor(4), interceptors=[Guarded(Bulkhead(1))])
    methods = {"Get": grpc.unary_unary_rpc_method_handler(get)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Rates", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/Rates/Get")
        first = method.future(b"EUR", timeout=5)
        begun.wait(5)
        try:
            method(b"EUR", timeout=5)
        except grpc.RpcError as error:
            print("second:", error.code().name, error.details(), error.trailing_metadata())
        finish.set()
        print("first:", first.result().decode())
    server.stop(None).wait()


def test_it_runs() -> None:
    main()


if __name__ == "__main__":
    main()
