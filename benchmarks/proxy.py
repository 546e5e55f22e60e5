"""What passing through the fault proxy costs: round trips and throughput, direct and through it.

`python -m benchmarks.proxy [--seconds 3] [--loop uvloop]`. The proxy runs in a process of its
own, as do server and client: with two processors the three share them.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import sys
import threading
import time
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection as Channel
from typing import Any

from outlast.host import make_world
from outlast.inject import LinkFault, Proxy
from outlast.kernel import Prng

HOST = "127.0.0.1"
CHUNK = 1 << 18


def serve(channel: Channel) -> None:
    """Answer 64 bytes with 64 bytes, and swallow what comes on a connection that begins with S."""
    listener = socket.create_server((HOST, 0))
    channel.send(listener.getsockname()[1])

    def handle(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(CHUNK)
        first = sock.recv(1)
        if first == b"S":
            total = 0
            while got := sock.recv_into(buffer):
                total += got
            sock.sendall(total.to_bytes(8, "big"))
        else:
            sock.sendall(first)
            while got := sock.recv_into(buffer):
                sock.sendall(memoryview(buffer)[:got])
        sock.close()

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=handle, args=(sock,), daemon=True).start()


def run_proxy(channel: Channel, upstream: int, loop: str, idle_fault: bool) -> None:
    """Run one link until the channel closes."""

    async def main() -> None:
        world = make_world(seed=1)
        proxy = Proxy(world, Prng(1))
        link = await proxy.link("c-s", source="c", target="s", upstream=(HOST, upstream))
        if idle_fault:
            # A fault that changes nothing measurable: shows what the queues and timers cost.
            until = world.clock.monotonic_ns() + 600 * 10**9
            link.set("both", LinkFault(bytes_per_second=1 << 40), until)
        channel.send(link.port)
        await asyncio.Event().wait()

    if loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


def round_trips(port: int, seconds: float) -> list[float]:
    """Return round trip times in microseconds."""
    with socket.create_connection((HOST, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        message = b"p" * 64
        end = time.perf_counter() + seconds
        sock.sendall(b"p")
        sock.recv(1)
        while (begun := time.perf_counter()) < end:
            sock.sendall(message)
            got = 0
            while got < 64:
                got += len(sock.recv(64))
            times.append((time.perf_counter() - begun) * 1e6)
        return times


def gigabits(port: int, seconds: float) -> float:
    """Return what one connection carries."""
    with socket.create_connection((HOST, port)) as sock:
        sock.sendall(b"S")
        chunk = b"x" * CHUNK
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        total = int.from_bytes(sock.recv(8), "big")
        return total * 8 / (time.perf_counter() - begun) / 1e9


def measure(port: int, seconds: float) -> dict[str, float]:
    """Return p50 and p99 of round trips, and throughput."""
    times = sorted(round_trips(port, seconds))
    return {
        "rtt_p50_us": round(statistics.median(times), 1),
        "rtt_p99_us": round(times[int(len(times) * 0.99)], 1),
        "gbit_s": round(gigabits(port, seconds), 2),
    }


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    given = parser.parse_args()
    ours, theirs = Pipe()
    children = [Process(target=serve, args=(theirs,), daemon=True)]
    children[0].start()
    server: int = ours.recv()
    results: dict[str, Any] = {"loop": given.loop, "direct": measure(server, given.seconds)}
    for name, idle_fault in (("proxied", False), ("queued", True)):
        here, there = Pipe()
        child = Process(
            target=run_proxy, args=(there, server, given.loop, idle_fault), daemon=True
        )
        child.start()
        results[name] = measure(here.recv(), given.seconds)
        os.kill(child.pid or 0, signal.SIGTERM)
        child.join()
        results[name]["rtt_ratio"] = round(
            results[name]["rtt_p50_us"] / results["direct"]["rtt_p50_us"], 2
        )
        results[name]["gbit_ratio"] = round(
            results[name]["gbit_s"] / results["direct"]["gbit_s"], 2
        )
    children[0].terminate()
    children[0].join()
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
