"""Checks of what answers on the network: a TCP port, an HTTP page."""

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from outlast.detect.core.health import Status
from outlast.kernel import ConfigError

_LINE_BYTES_MAX: Final = 4096
_USER_AGENT: Final = "outlast-health"

Told = tuple[Status, str]


def tcp(address: str, *, timeout: float = 1.0) -> Callable[[], Told]:
    """Check that something accepts connections at ``host:port``.

    It tells that a process listens, not that it works. A name is looked up on the check's own
    thread, so that a resolver that hangs holds up nobody else.

    Args:
        address: ``host:port``; an IPv6 address in brackets.
        timeout: Seconds to connect.

    Raises:
        ConfigError: Definite. No such address, or the timeout is not positive.
    """
    _check_timeout("tcp", timeout)
    host, port = _split("tcp", address)
    return _Tcp(host, port, timeout)


class _Tcp:
    """Connects and hangs up."""

    needs_network = True

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._host, self._port, self._timeout = host, port, timeout
        self.target = f"{_bracket(host)}:{port}"

    def __repr__(self) -> str:
        return f"<check tcp {self.target}>"

    def __call__(self) -> Told:
        try:
            socket.create_connection((self._host, self._port), self._timeout).close()
        except OSError as error:
            return Status.FAILED, f"{self.target}: {cause(error, self._timeout)}"
        return Status.OK, self.target

    async def simulated(self) -> Told:
        """Do the same in the simulator, where no blocking socket works."""
        protocol = asyncio.Protocol
        try:
            async with asyncio.timeout(self._timeout):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    protocol, self._host, self._port
                )
        except OSError as error:
            return Status.FAILED, f"{self.target}: {cause(error, self._timeout)}"
        transport.close()
        return Status.OK, self.target


def http(
    url: str,
    *,
    expect: int | Collection[int] = 200,
    timeout: float = 1.0,
    headers: Mapping[str, str] | None = None,
    context: Any = None,
    client: Any = None,
) -> Callable[[], Told] | Callable[[], Awaitable[Told]]:
    """Check that a page answers with the status that is expected. The body is not read.

    Ask the readiness of what you depend on directly, not a page that asks others in turn: two
    services that ask each other never get up.

    Args:
        url: ``http://`` or ``https://``. User and password in it are sent, and never told.
        expect: The status or statuses that are good. A redirect is an answer, not followed.
        timeout: Seconds for each step: to connect, to answer.
        headers: Sent as they are.
        context: ``ssl.SSLContext`` for https; by default the system's, with verification.
        client: An ``httpx.Client`` or ``httpx.AsyncClient`` to ask with; by default a connection
            of its own each time.

    Raises:
        ConfigError: Definite. Not such a URL, a status out of range, or the timeout is not
            positive.
    """
    _check_timeout("http", timeout)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:  # its text may hold what is not to be told
        raise ConfigError("http: url is no address; http://host:port/path would be") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"http: {_told(url)!r} is no address; http://host:port/path would be")
    good = frozenset((expect,) if isinstance(expect, int) else expect)
    if not good or not all(100 <= one <= 599 for one in good):
        raise ConfigError(f"http: expect is {sorted(good)}; statuses from 100 to 599")
    if client is None:
        return _Http(url, good, timeout, dict(headers or {}), context)
    if inspect.iscoroutinefunction(getattr(client, "get", None)):
        return _HttpxAsync(url, good, timeout, dict(headers or {}), client)
    return _Httpx(url, good, timeout, dict(headers or {}), client)


class _Page:
    """A URL and what it should answer."""

    needs_network = True

    def __init__(
        self, url: str, good: frozenset[int], timeout: float, headers: dict[str, str]
    ) -> None:
        self._url, self._good, self._timeout, self._headers = url, good, timeout, headers
        self.target = _told(url)

    def __repr__(self) -> str:
        return f"<check http {self.target}>"

    def _judge(self, status: int) -> Told:
        if status in self._good:
            return Status.OK, f"{self.target}: answered {status}"
        return Status.FAILED, f"{self.target}: answered {status}, not {_listed(self._good)}"

    def _lost(self, error: Exception) -> Told:
        return Status.FAILED, f"{self.target}: {cause(error, self._timeout)}"


class _Http(_Page):
    """Asks with the standard library, on the check's thread."""

    def __init__(
        self,
        url: str,
        good: frozenset[int],
        timeout: float,
        headers: dict[str, str],
        context: Any,
    ) -> None:
        super().__init__(url, good, timeout, headers)
        self._context = context
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"User-Agent": _USER_AGENT, "Connection": "close"} | self._headers
        if parts.username is not None and "Authorization" not in self._headers:
            self._headers["Authorization"] = _basic(parts.username, parts.password or "")

    def __call__(self) -> Told:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        try:
            if self._tls:
                connection: HTTPConnection = HTTPSConnection(
                    self._host, self._port, timeout=self._timeout, context=self._tls_context()
                )
            else:
                connection = HTTPConnection(self._host, self._port, timeout=self._timeout)
            with contextlib.closing(connection):
                connection.request("GET", self._path, headers=self._headers)
                return self._judge(connection.getresponse().status)
        except (OSError, HTTPException, ValueError) as error:
            return self._lost(error)

    def _tls_context(self) -> Any:
        if self._context is None:
            import ssl

            self._context = ssl.create_default_context()
        return self._context

    async def simulated(self) -> Told:
        """Ask in the simulator, where no blocking socket works."""
        lines = [f"GET {self._path} HTTP/1.1", f"Host: {_bracket(self._host)}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, limit=_LINE_BYTES_MAX
                )
                try:
                    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                    answer = (await reader.readline()).decode("latin-1").split()
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            return self._lost(error)
        if len(answer) < 2 or not answer[0].startswith("HTTP/") or not answer[1].isdigit():
            return Status.FAILED, f"{self.target}: no answer in HTTP"
        return self._judge(int(answer[1]))


class _Httpx(_Page):
    """Asks with a client that is given; its redirects, proxies and certificates are its own."""

    def __init__(
        self, url: str, good: frozenset[int], timeout: float, headers: dict[str, str], client: Any
    ) -> None:
        super().__init__(url, good, timeout, headers)
        self._client = client

    def __call__(self) -> Told:
        try:
            with self._client.stream(
                "GET", self._url, timeout=self._timeout, headers=self._headers
            ) as answer:
                return self._judge(int(answer.status_code))
        except Exception as error:
            return self._lost(error)


class _HttpxAsync(_Page):
    """The same with an asynchronous client, on the loop that runs the checks."""

    def __init__(
        self, url: str, good: frozenset[int], timeout: float, headers: dict[str, str], client: Any
    ) -> None:
        super().__init__(url, good, timeout, headers)
        self._client = client

    async def __call__(self) -> Told:
        try:
            async with self._client.stream(
                "GET", self._url, timeout=self._timeout, headers=self._headers
            ) as answer:
                return self._judge(int(answer.status_code))
        except Exception as error:
            return self._lost(error)


def cause(error: BaseException, timeout: float) -> str:
    """Return why something could not be reached, in words without addresses or secrets."""
    if isinstance(error, TimeoutError) or type(error).__name__.endswith("Timeout"):
        return f"no answer within {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "refused, nothing listens there"
    if isinstance(error, socket.gaierror):
        return "the name is not known"
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")
    if isinstance(reason, str) and reason and type(error).__module__ == "ssl":
        return f"TLS: {reason}"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror.lower()
    return type(error).__name__


def _told(url: str) -> str:
    """Return of a URL what may be told: no user, password, query or fragment."""
    parts = urlsplit(url)
    host = _bracket(parts.hostname or "")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _basic(user: str, password: str) -> str:
    from base64 import b64encode

    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return f"Basic {b64encode(pair).decode('ascii')}"


def _split(kind: str, address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{kind}: address is {address!r}; host:port would be right")
    return host, int(port)


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listed(statuses: frozenset[int]) -> str:
    ordered = sorted(statuses)
    shown = ", ".join(str(one) for one in ordered[:5])
    return f"{shown}, …" if len(ordered) > 5 else shown


def _check_timeout(kind: str, timeout: float) -> None:
    if not 0 < timeout < inf:
        raise ConfigError(f"{kind}: timeout is {timeout:g} s; above 0 and finite")
