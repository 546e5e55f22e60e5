"""Instances of a small HTTP service, each a process of its own, of which some do not work well.

    python -m tests.support.pool_service [--slow SECONDS] [--lie]

``GET /square/N`` answers ``{"n": N, "square": N * N, "who": PID}``, after a while if it is slow,
and with another square if it lies. ``GET /readyz`` is answered by 200. It prints its port.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Handler(BaseHTTPRequestHandler):
    """Answers as the process was told."""

    protocol_version = "HTTP/1.1"
    slow = 0.0
    lie = False

    def do_GET(self) -> None:
        self.close_connection = self.headers.get("Connection") == "close"
        if not self.path.startswith("/square/"):
            self.answer(b"ok")
            return
        time.sleep(self.slow)
        number = int(self.path.rpartition("/")[2].partition("?")[0])
        square = number * number + (1 if self.lie else 0)
        body = {"n": number, "square": square, "who": os.getpid()}
        self.answer(json.dumps(body).encode())

    do_POST = do_GET

    def answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """With room for many connections at once."""

    daemon_threads = True
    request_queue_size = 128


class Instance:
    """One process of the service."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pool_service", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._port = 0

    @property
    def url(self) -> str:
        if not self._port:
            assert self.process.stdout is not None
            self._port = int(self.process.stdout.readline())
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def running(*kinds: Sequence[str]) -> Iterator[list[Instance]]:
    """Run one instance for each of ``kinds``, which are their arguments."""
    made: list[Instance] = []
    try:
        made.extend(Instance(*arguments) for arguments in kinds)
        for one in made:
            assert one.url
        yield made
    finally:
        for one in made:
            one.close()


def is_right(response: Any) -> bool:
    """Whether an answer can be right: what a caller knows beforehand."""
    body = response.json()
    return bool(body["square"] == body["n"] ** 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--lie", action="store_true")
    chosen = parser.parse_args()
    Handler.slow, Handler.lie = chosen.slow, chosen.lie
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
