"""Health probes over HTTP while every dependency hangs: ``python -m benchmarks.health_http``.

Each library serves its health page in a process of its own, with three plain checks that hang.
Each probe makes a connection, as orchestrators do, 20 of them a second, whether the last one was
answered or not; another page of the same application is asked for before and after. Ours answers
on its own port: with the application idle, with its loop blocked, and while it computes in Python;
for comparison also on the loop of the application. What is asked of ours: p99 <= 1 ms, and no
thread per probe. A dash is a library that is not installed.

Between each two probes the same client asks a *bare* thread in the same process, which accepts,
reads, sends a fixed answer and closes, all blocking: what that takes is the client, the kernel,
and waking a thread of Python in that process on this machine in that minute.
"""

import argparse
import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, percentile, stop

HANG = threading.Event()
TIMEOUT = 2.0
CHECKS = 3
BARE = 2
"""Where the bare thread listens, from the first port of a server."""


@dataclass
class Row:
    """What the probes of one library saw. Times in seconds, ``None`` where nothing answered."""

    who: str
    note: str = ""
    probes: int = 0
    answered: int = 0
    p50: float | None = None
    p99: float | None = None
    worst: float | None = None
    bare_p50: float | None = None
    bare_p99: float | None = None
    threads_before: int = 0
    threads_after: int = 0
    other_before: float | None = None
    other_after: float | None = None
    missing: str = ""


# --- the servers; each runs in a process of its own --------------------------------------------


def hang() -> bool:
    """A check whose dependency never answers."""
    HANG.wait(600)
    return True


def hang_too() -> bool:
    return hang()


def hang_as_well() -> bool:
    return hang()


def compute() -> None:
    """Hold the interpreter's lock for as long as it lets one, for ever."""
    number = 1
    while True:
        number = number * 1_103_515_245 % 2_147_483_647


def serve_bare(port: int) -> None:
    """Serve beside, on a thread, what nothing written in Python can undercut: four calls."""
    listening = socket.create_server(("127.0.0.1", port))
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n"

    def serve() -> None:
        while True:
            one, _ = listening.accept()
            with suppress(OSError):  # it asked no longer
                one.recv(65536)
                one.sendall(answer)
            one.close()

    threading.Thread(target=serve, daemon=True).start()


def serve_ours(
    port: int, *, own: bool = True, blocked: bool = False, computes: bool = False
) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from outlast.detect import Health, HealthMiddleware, HealthServer

    health = Health()
    for number in range(CHECKS):
        health.add(f"hung {number}", hang, timeout=0.2, every=0.5)
    health.start()
    app: Any = Starlette(routes=[Route("/other", lambda _: PlainTextResponse("other"))])
    if own:
        HealthServer(health, f":{port}").start()
        config = uvicorn.Config(app, port=port + 1, log_level="error")
    else:
        config = uvicorn.Config(HealthMiddleware(app, health), port=port, log_level="error")
    print("up", flush=True)
    if blocked:
        HANG.wait()  # where the loop would run
    if computes:
        compute()
    uvicorn.Server(config).run()


def serve_fastapi_health(port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from fastapi_health import health

    app = FastAPI()
    # It makes parameters of the names of the conditions, so that they must differ.
    app.add_api_route("/readyz", health([hang, hang_too, hang_as_well]))
    app.add_api_route("/other", lambda: "other")
    print("up", flush=True)
    uvicorn.run(app, port=port, log_level="error")


def serve_py_healthcheck(port: int) -> None:
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from healthcheck import HealthCheck

    health = HealthCheck(checkers=[lambda: (hang(), "ok") for _ in range(CHECKS)])

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/other":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"other"]
        message, status, headers = health.run()
        start_response(f"{status} X", list(headers.items()))
        return [message.encode()]

    server = make_server("127.0.0.1", port, app, Server, Quiet)
    print("up", flush=True)
    server.serve_forever()


SERVERS: dict[str, tuple[Callable[[int], None], str, int]] = {
    "outlast": (serve_ours, "its own thread and port", 1),
    "outlast, in the app": (lambda port: serve_ours(port, own=False), "on the loop of the app", 0),
    "outlast, app blocked": (lambda port: serve_ours(port, blocked=True), "its own thread", 1),
    "outlast, app computes": (
        lambda port: serve_ours(port, computes=True),
        "waits for the interpreter",
        1,
    ),
    "fastapi-health": (serve_fastapi_health, "runs the checks for each probe", 0),
    "py-healthcheck": (serve_py_healthcheck, "a thread a request, no limit of time", 0),
}
"""How to serve, what it does, and at which port from the first the application answers."""


# --- the probes -------------------------------------------------------------------------------


def ask(port: int, path: str, timeout: float = TIMEOUT) -> float | None:
    """Seconds until a new connection was answered in full; ``None`` if it was not."""
    begun = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            while one.recv(65536):
                pass
    except OSError:
        return None
    return time.perf_counter() - begun


def probe(ports: list[int], path: str, probes: int, pace: float) -> list[list[float | None]]:
    """Start probes at a pace, on one thread, and take the answers as they come.

    Each port is probed once in each ``pace`` seconds, one after the other and evenly spread.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    waiting: dict[socket.socket, tuple[int, float]] = {}
    found: list[list[float | None]] = [[] for _ in ports]
    every, left, which = pace / len(ports), probes * len(ports), 0
    beat = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        while left or waiting:
            if left and time.perf_counter() >= beat:
                begun = time.perf_counter()
                one = socket.socket()
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.connect(("127.0.0.1", ports[which]))
                one.sendall(request)
                selector.register(one, selectors.EVENT_READ)
                waiting[one] = which, begun
                which, left, beat = (which + 1) % len(ports), left - 1, beat + every
            due = min([beat] * (left > 0) + [at + TIMEOUT for _, at in waiting.values()])
            ready = selector.select(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            ended = [key.fileobj for key, _ in ready if not key.fileobj.recv(65536)]  # type: ignore[union-attr]
            late = [one for one, (_, at) in waiting.items() if now - at >= TIMEOUT]
            for one in {*ended, *late}:  # type: ignore[assignment]
                place, begun = waiting.pop(one)
                found[place].append(now - begun if one in ended else None)
                selector.unregister(one)
                one.close()
    return found


def threads(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Threads:"):
            return int(line.split()[1])
    return 0


def measure(who: str, port: int, probes: int, pace: float) -> Row:
    """Serve, probe at a pace without waiting for answers, and look what has become of the rest."""
    _, note, beside = SERVERS[who]
    row = Row(who, note, probes)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.health_http", "--serve", who, "--port", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "up":
            lines = process.communicate(timeout=5)[1].strip().splitlines() or ["no message"]
            row.missing = lines[-1]
            return row
        time.sleep(1.0)  # a first run of the checks, and imports
        row.other_before = ask(port + beside, "/other")
        ask(port, "/livez", 0.2)
        ask(port + BARE, "/")
        row.threads_before = threads(process.pid)
        found, bare = probe([port, port + BARE], "/readyz", probes, pace)
        row.threads_after = threads(process.pid)
        row.other_after = ask(port + beside, "/other", 5.0)
        times, bare_times = (
            sorted(one for one in each if one is not None) for each in (found, bare)
        )
        row.answered = len(times)
        if times:
            row.p50, row.p99 = percentile(times, 0.5), percentile(times, 0.99)
            row.worst = times[-1]
        if bare_times:
            row.bare_p50, row.bare_p99 = percentile(bare_times, 0.5), percentile(bare_times, 0.99)
        return row
    finally:
        process.kill()
        stop(process)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def shown(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1e3:.2f}"


def ratio(ours: float | None, bare: float | None) -> str:
    return f"{ours / bare:.1f}x" if ours and bare else "-"


def report(rows: list[Row]) -> list[str]:
    lines = [
        f"{'':22} {'answered':>9} {'p50 ms':>8} {'p99 ms':>8} {'worst ms':>9} "
        f"{'bare thread p50, p99 ms':>24} {'ratio':>10} {'threads':>9} {'other page ms':>16}"
    ]
    for row in rows:
        if row.missing:
            lines.append(f"{row.who:22} - {row.missing}")
            continue
        ratios = f"{ratio(row.p50, row.bare_p50)} {ratio(row.p99, row.bare_p99)}"
        lines.append(
            f"{row.who:22} {f'{row.answered}/{row.probes}':>9} {shown(row.p50):>8} "
            f"{shown(row.p99):>8} {shown(row.worst):>9} "
            f"{f'{shown(row.bare_p50)} {shown(row.bare_p99)}':>24} {ratios:>10} "
            f"{f'{row.threads_before}->{row.threads_after}':>9} "
            f"{f'{shown(row.other_before)} -> {shown(row.other_after)}':>16}  {row.note}"
        )
    return lines


def main() -> int:
    """Run as asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a tenth of the probes")
    parser.add_argument("--only", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--serve", choices=list(SERVERS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=18090, help="the first of those used")
    given = parser.parse_args()
    if given.serve:
        serve_bare(given.port + BARE)
        SERVERS[given.serve][0](given.port)
        return 0
    probes = 60 if given.quick else 300
    rows = []
    for number, who in enumerate(given.only):
        ours = who.startswith("outlast")
        count = probes if ours else min(probes, 60)  # 45 are enough to fill a pool of 40 threads
        rows.append(measure(who, given.port + 3 * number, count, 0.05))
        print(f"{who}: measured", file=sys.stderr)
    if given.json:
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}))
        return 0
    print(machine())
    print("\n".join(report(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
