"""The load on etcd, in a process of its own: put 64 bytes, N callers, a connection for each.

Two clients, because the better of them stands for etcd: `gateway` is HTTP/1.1 with kept
connections against the JSON gateway, `grpc` is grpcio's asyncio client.
"""

import argparse
import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable

from benchmarks.common import VALUE_BYTES, closed_loop, run_loop

Address = tuple[str, int]
Operation = Callable[[], Awaitable[object]]


class Refused(OSError):
    """The server answered with an error: no leader, or a request that timed out inside it."""


class HttpConnection(asyncio.Protocol):
    """One request at a time over a kept connection. Knows only what etcd's gateway sends."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        name = head.lower().find(b"content-length:")
        if name < 0:
            self.fail(Refused("an answer without a length"))
            return
        length = int(head[name + 15 :].split(b"\r\n", 1)[0])
        if len(rest) < length or self.waiter is None:
            return
        self.buffer.clear()
        if head.startswith(b"HTTP/1.1 200"):
            self.waiter.set_result(bytes(rest))
        else:
            self.fail(Refused(bytes(rest[:200]).decode(errors="replace")))

    def fail(self, error: OSError) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.fail(ConnectionResetError("the server closed the connection"))

    async def request(self, message: bytes) -> bytes:
        if self.transport is None:
            raise ConnectionResetError("the connection is closed")
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self.waiter

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class GatewayCaller:
    """Puts one key again and again; after an error it goes on with the next endpoint."""

    def __init__(self, endpoints: list[Address], key: bytes, timeout: float) -> None:
        self.endpoints = endpoints
        self.at = 0
        self.timeout = timeout
        self.connection: HttpConnection | None = None
        body = json.dumps(
            {
                "key": base64.b64encode(key).decode(),
                "value": base64.b64encode(b"v" * VALUE_BYTES).decode(),
            }
        ).encode()
        self.message = (
            b"POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    async def __call__(self) -> object:
        try:
            async with asyncio.timeout(self.timeout):
                if self.connection is None:
                    host, port = self.endpoints[self.at]
                    loop = asyncio.get_running_loop()
                    _, self.connection = await loop.create_connection(HttpConnection, host, port)
                return await self.connection.request(self.message)
        except OSError:
            self.close()
            self.at = (self.at + 1) % len(self.endpoints)
            raise

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest: field 1 is the key, field 2 the value, both length-delimited.

    Both are below 128 bytes, so that a length is one byte.
    """
    return b"\x0a%c%s\x12%c%s" % (len(key), key, len(value), value)


class GrpcCaller:
    """The same over gRPC: one channel, and so one connection, for each caller and endpoint."""

    def __init__(self, endpoints: list[Address], key: bytes, timeout: float) -> None:
        import grpc.aio

        self.failed = grpc.aio.AioRpcError
        self.timeout = timeout
        self.at = 0
        self.request = put_request(key, b"v" * VALUE_BYTES)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [
            grpc.aio.insecure_channel(f"{host}:{port}", options=options)
            for host, port in endpoints
        ]
        # Without serializers, messages are bytes.
        self.puts = [channel.unary_unary("/etcdserverpb.KV/Put") for channel in self.channels]

    async def __call__(self) -> object:
        try:
            return await self.puts[self.at](self.request, timeout=self.timeout)
        except self.failed as error:
            self.at = (self.at + 1) % len(self.puts)
            raise Refused(error.details()) from error

    async def aclose(self) -> None:
        for channel in self.channels:
            await channel.close()


async def load(options: argparse.Namespace) -> str:
    """Run the callers and return the result as JSON."""
    endpoints = [(host, int(port)) for host, port in (e.split(":") for e in options.endpoints)]
    pids = [int(pid) for pid in options.pids.split(",") if pid]
    keys = [b"bench/%06d" % n for n in range(options.callers)]
    kind = {"gateway": GatewayCaller, "grpc": GrpcCaller}[options.client]
    callers = [kind(endpoints, key, options.op_timeout) for key in keys]
    seen = await closed_loop(callers, options.seconds, warm_up=options.warm_up, pids=pids)
    for caller in callers:
        with contextlib.suppress(OSError):
            if isinstance(caller, GrpcCaller):
                await caller.aclose()
            else:
                caller.close()
    return seen.result("etcd", options.client, options.callers).to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoints", nargs="+", help="HOST:PORT of members, the leader first")
    parser.add_argument("--client", choices=["gateway", "grpc"], default="gateway")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--op-timeout", type=float, default=5.0)
    parser.add_argument("--pids", default="", help="whose CPU time to report, with commas")
    print(run_loop(load(parser.parse_args())))


if __name__ == "__main__":
    main()
