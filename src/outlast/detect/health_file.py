"""Health in a file, and the probe that reads a file or asks a URL."""

import os
import socket
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.core.health import GROUPS, Group, GroupHealth
from outlast.detect.core.health_file import FILE_BYTES_MAX, Probed, read_text, write_text
from outlast.detect.ticker import Ticker
from outlast.kernel import ConfigError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health import Health

_NS: Final = 1_000_000_000
_PAGES: Final = {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
_BODY_BYTES_MAX: Final = 1 << 18


class HealthFile:
    """Writes the snapshot to a file again and again, for probes that run a command.

    ``outlast health FILE`` reads it (exit 0 passing, 1 not, 2 cannot tell), and says no once the
    file is old. Each time a whole new file takes the place of the old one. A context manager; one
    daemon thread, which only reads snapshots; ``stop`` removes the file. A file that cannot be
    written grows old: the application goes on. Not after a fork.

    Args:
        health: What is read.
        path: The file; its directory must exist, in a container best on a ``tmpfs``.
        every: Seconds between writes.
        world: Clock; by default the current world where it is started.

    Raises:
        ConfigError: Definite. ``every`` is not positive.
    """

    def __init__(
        self,
        health: "Health",
        path: "str | os.PathLike[str]",
        *,
        every: float = 1.0,
        world: World | None = None,
    ) -> None:
        if not every > 0:
            raise ConfigError(f"HealthFile: every is {every:g}; above 0 would be right")
        self.path = os.fspath(path)
        self._health = health
        self._every = every
        self._world = world
        self._ticker: Ticker | None = None

    def __repr__(self) -> str:
        """Show the file."""
        return f"<HealthFile {self.path}>"

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop and remove the file."""
        self.stop()

    def start(self) -> None:
        """Write it now and begin to repeat. A second time: no effect.

        Raises:
            OSError: Definite. It cannot be written.
            RuntimeError: Definite. The system has no room for another thread.
        """
        if self._ticker is not None:
            return
        world = self._world or current_world()
        write_health_file(self._health, self.path, world=world)

        def write() -> None:
            with suppress(OSError):
                write_health_file(self._health, self.path, world=world)
                if self._ticker is None:  # this took longer than the stop has waited
                    os.unlink(self.path)

        self._ticker = Ticker("outlast-health-file", world, lambda: self._every, write)
        try:
            self._ticker.start()
        except RuntimeError:  # there is no room for a thread
            self._ticker = None
            with suppress(OSError):
                os.unlink(self.path)
            raise

    def stop(self) -> None:
        """Stop, and remove the file."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()
            with suppress(OSError):
                os.unlink(self.path)


def write_health_file(
    health: "Health", path: "str | os.PathLike[str]", *, world: World | None = None
) -> None:
    """Write the snapshot of ``health`` to ``path`` once, in the place of what was there.

    Raises:
        OSError: Definite. It cannot be written; what was there stays.
    """
    given = world or current_world()
    groups: dict[Any, GroupHealth] = dict(health.snapshot())
    text = write_text(groups, given.clock.wall_ns(), os.getpid())
    target = os.fspath(path)
    part = f"{target}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, target)
    except OSError:
        with suppress(OSError):
            os.unlink(part)
        raise


def probe_health(
    target: str, *, group: Group = "readiness", within: float = 5.0, world: World | None = None
) -> Probed:
    """Ask for the health of another process, once; what ``outlast health`` does.

    Args:
        target: ``http://…`` or ``https://…``, or the path of a file that :class:`HealthFile`
            writes.
        group: Which group of a file, or of a URL without a path; any other URL says it itself.
        within: Seconds within which a URL must have answered in whole, and a file been written.
        world: Clock; the current world by default.

    Raises:
        ConfigError: Definite. ``group`` or ``within`` is none, or the URL cannot be read.
    """
    if group not in GROUPS or not within > 0 or not isfinite(within * _NS):
        raise ConfigError(
            f"health: group is {group}, within {within:g}; one of {', '.join(GROUPS)}, and above"
            " 0 and finite would be right"
        )
    clock = (world or current_world()).clock
    within_ns = round(within * _NS)
    if "://" in target:
        return _ask(target, _PAGES[group], clock.monotonic_ns, within_ns)
    try:
        with open(target, "rb") as file:
            raw = file.read(FILE_BYTES_MAX)
    except OSError as error:
        return Probed(None, f"{target}: {error.strerror or type(error).__name__}")
    return read_text(raw.decode("utf-8", "replace"), group, clock.wall_ns(), within_ns)


# --- asking a URL ------------------------------------------------------------------------------


def _ask(url: str, page: str, now_ns: Any, within_ns: int) -> Probed:
    """Ask by HTTP/1.0, so that the end of the answer is the end of the connection.

    No client of the standard library bounds the whole exchange; here each wait gets what is left.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"health: {url}: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or not url.isascii():
        raise ConfigError(f"health: {url}: write http://HOST:PORT/readyz, https://…, or a file")
    path = (parts.path or page) + (f"?{parts.query}" if parts.query else "")
    if any(c.isspace() for c in url):
        raise ConfigError(f"health: {url!r} has a space in it; write %20")
    request = (
        f"GET {path} HTTP/1.0\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        "Accept: application/json\r\nUser-Agent: outlast-health\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
    end_ns = now_ns() + within_ns

    def left() -> float:
        seconds = (end_ns - now_ns()) / _NS
        if seconds <= 0:
            raise TimeoutError
        return float(seconds)

    raw = bytearray()
    try:
        address = (host, port or (443 if parts.scheme == "https" else 80))
        with socket.create_connection(address, left()) as plain:
            plain.settimeout(left())
            with _secured(plain, host) if parts.scheme == "https" else plain as one:
                one.sendall(request)
                while len(raw) < _BODY_BYTES_MAX:
                    one.settimeout(left())
                    piece = one.recv(65536)
                    if not piece:
                        break
                    raw += piece
    except TimeoutError:
        return Probed(None, f"{url}: no answer within {within_ns / _NS:g} s")
    except OSError as error:
        return Probed(None, f"{url}: {error.strerror or type(error).__name__}")
    except UnicodeError:
        return Probed(None, f"{url}: {host!r} cannot be the name of a host")
    return _answered(url, bytes(raw))


def _secured(plain: socket.socket, host: str) -> socket.socket:
    from ssl import create_default_context

    return create_default_context().wrap_socket(plain, server_hostname=host)


def _answered(url: str, raw: bytes) -> Probed:
    """Judge a response: 2xx passes, anything else does not; the body says more if it is ours."""
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Probed(None, f"{url}: the answer is not HTTP")
    code = int(words[1][:3])
    passing = 200 <= code < 300
    status = str(code)
    checks: tuple[dict[str, Any], ...] = ()
    from json import loads

    with suppress(ValueError, RecursionError, KeyError, TypeError):
        value = loads(body)
        if isinstance(value["status"], str):
            status = value["status"]
        checks = tuple(one for one in value.get("checks", ()) if isinstance(one, dict))
    return Probed(passing, " ".join(status.split()), checks)
