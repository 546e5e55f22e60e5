"""Services that go wrong, for drills that must notice: a set of numbers over HTTP.

``ODD`` in the environment says how. Every node keeps its own numbers in its own directory, asks
nobody, and answers at once; so it is safe only as long as all clients use one node.
"""

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ODD = os.environ.get("ODD", "")
FOLDER = Path(os.environ["OUTLAST_DIR"])
PORT = int(os.environ["OUTLAST_PORT"])
AGAIN = (FOLDER / "started").exists()
ASKED = threading.Event()
"""Set once it was asked whether it is ready: then the drill is about to begin."""


class Numbers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        if ODD == "never-again" and AGAIN:
            return self.answer(503)
        (FOLDER / self.path.rpartition("/")[2]).write_text("x")
        return self.answer(200)

    def do_GET(self) -> None:
        if self.path == "/readyz":
            ASKED.set()
            return self.answer(200)
        if ODD == "never-again" and AGAIN:
            return self.answer(503)
        found = sorted(int(path.name) for path in FOLDER.iterdir() if path.name.isdigit())
        return self.answer(200, json.dumps(found).encode())

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def go_around() -> None:
    """Stay connected to a neighbour's own port, which no configuration tells."""
    (FOLDER / "port").write_text(str(PORT))
    neighbour = FOLDER.parent / ("n2" if FOLDER.name == "n1" else "n1") / "port"
    while not (neighbour.exists() and neighbour.read_text()):
        time.sleep(0.05)
    kept = socket.create_connection(("127.0.0.1", int(neighbour.read_text())))
    kept.recv(1)


def die() -> None:
    """End once, some seconds after the drill has begun."""
    ASKED.wait()
    time.sleep(4.0)
    print("the disk is on fire", flush=True)
    os._exit(3)


def main() -> None:
    if ODD == "no-start":
        print("opening the safe", flush=True)
        sys.exit("cannot open the safe: no key")
    (FOLDER / "started").touch()
    if ODD == "around":
        threading.Thread(target=go_around, daemon=True).start()
    if ODD == "dies" and not AGAIN and FOLDER.name == "n2":
        threading.Thread(target=die, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", PORT), Numbers).serve_forever()


if __name__ == "__main__":
    main()
