"""The same clients without ``await``, for threads, Django, Flask, scripts and notebooks.

``blocking.connect`` and ``blocking.open`` take what :func:`outlast.connect` and
:func:`outlast.open` take. The coroutines run in one background thread per process
(``host.portal``), which starts at the first call.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from outlast.cluster.connect import connect as _connect
from outlast.host.portal import PORTAL, Portal
from outlast.kernel import ConfigError, UnavailableError
from outlast.state import Operation, StateMachine
from outlast.state import open as _open

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=StateMachine)


class AsyncClient(Protocol):
    """What both asyncio clients offer, as far as it is used here."""

    async def __aenter__(self) -> Any:
        """Begin."""
        ...

    async def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a command or query."""
        ...

    async def call_json(
        self, name: str, arguments: Mapping[str, Any], *, query: bool = ...
    ) -> Any:
        """Run one by name."""
        ...

    async def close(self) -> None:
        """End."""
        ...


class Client(Generic[M]):
    """Calls commands and queries of a machine and waits for their answers.

    Safe to use from any number of threads, also inside a running event loop (which waits
    meanwhile). After a fork a client of a cluster connects anew, with a session of its own; an
    embedded machine stays with the process that opened it. Not picklable. The deadline and the
    idempotency key of the calling thread hold.
    """

    def __init__(
        self,
        make: Callable[[], AsyncClient],
        *,
        what: str,
        survives_fork: bool,
        portal: Portal = PORTAL,
    ) -> None:
        self._make = make
        self._what = what
        self._survives_fork = survives_fork
        self._portal = portal
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[AsyncClient] | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show what it talks to and its state."""
        used = "open" if self._opening is not None else "not yet used"
        return f"<blocking.Client {self._what} {'closed' if self._closed else used}>"

    def __enter__(self) -> Self:
        """Open now, so that what is wrong shows here."""
        self._check()
        self._portal.call(self._client)
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a command or query of the machine and return what it returned.

        Raises:
            CommandError: The command ran and raised this.
            CommandTypeError: Definite. Arguments do not fit.
            DeadlineError: Indefinite, if it had been sent.
            UnavailableError: Definite. No leader was found in time, or this client is closed.
            KeyboardInterrupt: At once; what was sent is not recalled.
        """
        self._check()

        async def run() -> R:
            client = await self._client()
            return await client.call(operation, *args, **kwargs)

        return self._portal.call(run)

    def call_json(self, name: str, arguments: Mapping[str, Any], *, query: bool = False) -> Any:
        """Run command ``name`` (or a query) with plain values; errors as :meth:`call`."""
        self._check()

        async def run() -> Any:
            client = await self._client()
            return await client.call_json(name, arguments, query=query)

        return self._portal.call(run)

    def close(self) -> None:
        """Close; calls of other threads under way end with an indefinite error. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._opening is not None and self._pid == os.getpid():
            self._portal.call(self._close)

    def _check(self) -> None:
        if self._closed:
            message = f"the client of {self._what} is closed"
            raise UnavailableError(message)
        if self._pid != os.getpid():
            if not self._survives_fork:
                message = (
                    f"{self._what} was opened by process {self._pid} and this is its child"
                    f" {os.getpid()}: open it after the fork, or connect to a cluster"
                )
                raise ConfigError(message)
            self._pid = os.getpid()

    async def _client(self) -> AsyncClient:
        """Return the asyncio client of the running loop; callers that come together share it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._opening = None
        if self._opening is None or _failed(self._opening):
            # Not in the context of the first caller: its deadline is not that of the client.
            self._opening = loop.create_task(self._open(), context=contextvars.Context())
        return await asyncio.shield(self._opening)

    async def _open(self) -> AsyncClient:
        client = self._make()
        await client.__aenter__()
        return client

    async def _close(self) -> None:
        opening = self._opening
        if opening is None or _failed(opening):
            return
        client = await opening
        await client.close()


def _failed(opening: "asyncio.Task[AsyncClient]") -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


@overload
def connect(
    machine: type[M],
    addresses: str | Sequence[str],
    *,
    timeout: float = ...,
    routes: Mapping[str, str] | None = ...,
    token: str | None = ...,
    tls_cert: str | None = ...,
    tls_key: str | None = ...,
    tls_ca: str | None = ...,
) -> Client[M]: ...


@overload
def connect(
    machine: None,
    addresses: str | Sequence[str],
    *,
    timeout: float = ...,
    routes: Mapping[str, str] | None = ...,
    token: str | None = ...,
    tls_cert: str | None = ...,
    tls_key: str | None = ...,
    tls_ca: str | None = ...,
) -> Client[Any]: ...


def connect(
    machine: type[Any] | None,
    addresses: str | Sequence[str],
    *,
    timeout: float = 10.0,
    routes: Mapping[str, str] | None = None,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_ca: str | None = None,
) -> Client[Any]:
    """Return a blocking client of the cluster at ``addresses``, for ``with`` or direct use.

    Nothing is dialled before it is entered or first used, so it may be made at import time and
    before a fork. Arguments and errors are those of :func:`outlast.connect`.
    """

    def make() -> AsyncClient:
        return _connect(
            machine,
            addresses,
            timeout=timeout,
            routes=routes,
            token=token,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_ca=tls_ca,
        )

    make()  # so that wrong arguments show here
    given = addresses if isinstance(addresses, str) else ",".join(addresses)
    return Client(make, what=given, survives_fork=True)


def open(
    machine: type[M], path: str | os.PathLike[str] | None = None, *, timeout: float = 10.0
) -> Client[M]:
    """Return a blocking client of a machine in this process, kept in ``path``.

    Without ``path`` it is kept in memory only. Arguments and errors are those of
    :func:`outlast.open`; a directory is opened at first use and by one process at a time.
    """
    _open(machine, path, timeout=timeout)  # so that wrong arguments show here
    what = f"{machine.__name__} in {'memory' if path is None else os.fspath(path)}"
    return Client(lambda: _open(machine, path, timeout=timeout), what=what, survives_fork=False)


__all__ = ["Client", "connect", "open"]
