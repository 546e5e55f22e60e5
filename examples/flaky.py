"""A web server that fails as it is told, for the examples beside it."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace


@contextmanager
def serving(*answers: int) -> Iterator[SimpleNamespace]:
    """Serve on loopback: a status for each request, 0 to hang up; in the end the last for all."""
    service = SimpleNamespace(answers=list(answers), asked=[])

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            service.asked.append(self.command)
            status = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"1.08")

        do_GET = do_POST = do_PUT = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        service.url = f"http://127.0.0.1:{server.server_port}"
        yield service
        server.shutdown()


def test_it_answers() -> None:
    with serving(200) as service, urllib.request.urlopen(service.url) as response:  # noqa: S310
        print(response.read(), service.asked)


if __name__ == "__main__":
    test_it_answers()
