"""Health over HTTP from a thread of its own: it answers while the application cannot.

A health page that shares the application's loop answers nothing when that loop is blocked, and
one that shares its thread pool hangs with a hung dependency. This server has a thread and a port
of its own, and only reads what the checks left. Nothing can prove more from inside: C code that
holds the interpreter's lock stops this thread, too.
"""

import socket
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.health_thread import HealthThread, Limits
from outlast.kernel import ConfigError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health import Health

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0
_BACKLOG: Final = 128


class HealthServer:
    """Serves the pages of :func:`outlast.detect.health_app` on a port of its own.

    One daemon thread; a probe starts no other. Requests are read by ``h11``
    (extra ``health``). Usable as a context manager. ``start``, ``stop`` and the properties may be
    called from any thread; after a fork, the child has no server: start one there. Not for the
    simulator, where :func:`health_app` is served on the loop instead.

    Strangers cannot use it up: a connection that was not given an answer for ``idle`` seconds is
    closed, above ``connections`` the one that has waited longest is closed, so that a new probe
    is answered rather than refused, and a request has at most ``header_bytes``. It speaks as much
    of HTTP/1.1 as probes do: a request with a body is answered, and its connection closed. No
    TLS, and no access log.

    Args:
        health: What is read.
        address: ``":9090"`` (this machine only, 127.0.0.1), ``"0.0.0.0:9090"`` (every interface,
            as for probes of Kubernetes) or another ``"host:port"``. Port 0 takes a free one.
        details: Whether checks are shown, as for :class:`~outlast.detect.HealthMiddleware`.
        connections: How many are open at most.
        header_bytes: The longest request, without its body.
        idle: Seconds for which a connection may stay without an answer given on it.
        world: Clock for the instants in bodies; by default that of the caller of ``start``.

    Raises:
        ConfigError: Definite. A number out of range, no address, or ``h11`` is missing.
    """

    def __init__(
        self,
        health: "Health",
        address: str = ":9090",
        *,
        details: bool = True,
        connections: int = 64,
        header_bytes: int = 8192,
        idle: float = 5.0,
        world: World | None = None,
    ) -> None:
        if connections < 1 or header_bytes < 256 or not idle > 0:
            raise ConfigError(
                f"HealthServer: connections is {connections}, header_bytes {header_bytes}, idle"
                f" {idle:g}; at least 1, at least 256 and above 0 would be right"
            )
        self._host, self._port = _read_address(address)
        if find_spec("h11") is None:
            message = 'HealthServer: it needs h11: pip install "outlast[health]"'
            raise ConfigError(message)
        self._health = health
        self._details = details
        self._limits = Limits(connections, header_bytes, idle)
        self._world = world
        self._lock = threading.Lock()
        self._thread: HealthThread | None = None

    def __repr__(self) -> str:
        """Show where it serves."""
        state = "serving" if self.serving else "not started"
        return f"<HealthServer {self.url} {state}>"

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        return self.start()

    async def __aexit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    @property
    def port(self) -> int:
        """The port; once started the one in use, if 0 was asked for."""
        return self._port

    @property
    def url(self) -> str:
        """Where it serves, such as ``http://127.0.0.1:9090``."""
        host = self._host
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def serving(self) -> bool:
        """Whether its thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self) -> Self:
        """Begin to serve; return when a probe is answered. A second time changes nothing.

        Raises:
            OSError: Definite. The address is in use or not ours.
        """
        with self._lock:
            if self.serving:
                return self
            listening = self._listen()
            try:
                port = listening.getsockname()[1]
                thread = self._make(listening)
            except BaseException:
                listening.close()
                raise
            try:
                thread.start()
            except BaseException:  # no thread to be had, for one
                thread.close()
                raise
            self._thread, self._port = thread, port
            thread.ready.wait(_START_SECONDS)
            if not thread.is_alive():
                raise RuntimeError(f"{self!r} ended while it started: its thread said why")
        return self

    def stop(self) -> None:
        """Stop serving and wait for the thread, at most two seconds. Again: no effect."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.end()
        if thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    # --- inside -----------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        found = socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, address = found[0][0], found[0][4]
        return socket.create_server(address, family=family, backlog=_BACKLOG)

    def _make(self, listening: socket.socket) -> HealthThread:
        clock = (self._world or current_world()).clock
        return HealthThread(self._health.read, self._details, clock, self._limits, listening)


def serve(health: "Health", address: str = ":9090", **settings: Any) -> HealthServer:
    """Serve ``health`` on ``address`` and return the started server; see :class:`HealthServer`."""
    return HealthServer(health, address, **settings).start()


def _read_address(text: str) -> tuple[str, int]:
    """Return host and port; the parser of ``wire`` would need the extra ``client``."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or (":" in host) != bracketed or any(c.isspace() or c in "/@" for c in host):
        raise ConfigError(
            f'HealthServer: address is {text!r}; ":9090", "0.0.0.0:9090" or "[::1]:9090" would be'
            " right"
        )
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > 65_535:
        raise ConfigError(f"HealthServer: address is {text!r}; a port is 0 to 65535")
    return host or "127.0.0.1", int(port)
