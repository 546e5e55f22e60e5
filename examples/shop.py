"""A small replicated service: orders on three nodes, each acknowledged by a majority on disk.

``python -m shop --port 8001 --data shop-1`` with ``OUTLAST_PEERS=n2=127.0.0.1:8002,…``. A PUT is
answered once a majority has fsynced the order; a GET asks a majority and answers with the union,
so that it shows every order that was acknowledged before. ``SHOP_LOSES=1`` answers before
anything is on any disk but the first, which is how such services lose orders.
"""

import argparse
import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PEERS = [p.partition("=")[2] for p in os.environ.get("OUTLAST_PEERS", "").split(",") if p]
NEEDED = (len(PEERS) + 1) // 2 + 1
LOSES = bool(os.environ.get("SHOP_LOSES"))
POOL = ThreadPoolExecutor(64)


def ask(peer: str, method: str, path: str) -> bytes:
    request = urllib.request.Request(f"http://{peer}/local{path}", method=method)
    with urllib.request.urlopen(request, timeout=1.0) as answer:  # noqa: S310
        return bytes(answer.read())


def everywhere(own: Any, method: str, path: str) -> list[bytes] | None:
    """Do it here and at the peers; return the first answers of a majority, None without one."""
    calls = [POOL.submit(own), *(POOL.submit(ask, peer, method, path) for peer in PEERS)]
    answers = []
    for call in as_completed(calls):
        if call.exception() is None:
            answers.append(call.result() or b"[]")
        if len(answers) >= NEEDED:
            return answers
    return None


class Shop(BaseHTTPRequestHandler):
    folder: Path
    protocol_version = "HTTP/1.1"

    def keep(self, order: str) -> None:
        file = os.open(self.folder / str(int(order)), os.O_CREAT | os.O_WRONLY)
        os.write(file, order.encode())  # a full disk shows here
        os.fsync(file)
        os.close(file)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def orders(self) -> bytes:
        whole = (path for path in self.folder.iterdir() if path.stat().st_size)
        return json.dumps(sorted(int(path.name) for path in whole)).encode()

    def do_PUT(self) -> None:
        order = self.path.rpartition("/")[2]
        if self.path.startswith("/local"):
            self.keep(order)
            return self.answer(200)
        if LOSES:
            self.keep(order)
            return self.answer(200)
        path = f"/orders/{order}"
        return self.answer(200 if everywhere(lambda: self.keep(order), "PUT", path) else 503)

    def do_GET(self) -> None:
        if self.path == "/readyz":
            return self.answer(200)
        if self.path.startswith("/local"):
            return self.answer(200, self.orders())
        found = everywhere(self.orders, "GET", "/orders")
        union = sorted({order for part in found or () for order in json.loads(part)})
        return self.answer(200 if found else 503, json.dumps(union).encode())

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    Shop.folder = given.data
    Shop.folder.mkdir(parents=True, exist_ok=True)
    ThreadingHTTPServer(("127.0.0.1", given.port), Shop).serve_forever()


if __name__ == "__main__":
    main()
