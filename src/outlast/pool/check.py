"""Active checks: asking each instance from time to time whether it works."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from outlast.kernel import ConfigError, World
from outlast.pool.core.instance import Instance
from outlast.protect.checks import DAY, check_number, check_whole

_LINE_MAX: Final = 1024
_PORTS: Final = {"http": 80, "https": 443}


class Ask(Protocol):
    """Asks one instance; ``None`` is good, else what was wrong."""

    def __call__(self, instance: Instance) -> Awaitable[str | None]:
        """Ask."""
        ...


class Check:
    """How instances are checked; made by :func:`http_check` and :func:`call_check`.

    Args:
        what: In a few words.
        every: Seconds between two checks of one instance.
        timeout: Seconds after which one has failed.
        fail_after: Failures in a row that take an instance out.
        pass_after: Successes in a row that bring it back.
        ask: A coroutine function that returns what was wrong, or ``None``.
        blocking: Or a plain function, which runs on a thread and may hang without harm.

    Raises:
        ConfigError: A value is out of range.
    """

    __slots__ = ("ask", "blocking", "every", "fail_after", "pass_after", "timeout", "what")

    def __init__(
        self,
        what: str,
        *,
        every: float,
        timeout: float,
        fail_after: int,
        pass_after: int,
        ask: Ask | None = None,
        blocking: Callable[[Instance], str | None] | None = None,
    ) -> None:
        self.what = what
        self.every = check_number("check", "every", every, 0.01, DAY, what="seconds")
        self.timeout = check_number("check", "timeout", timeout, 0.001, DAY, what="seconds")
        self.fail_after = check_whole("check", "fail_after", fail_after, 1, 1000)
        self.pass_after = check_whole("check", "pass_after", pass_after, 1, 1000)
        self.ask = ask
        self.blocking = blocking

    def hysteresis(self) -> dict[str, Any]:
        """Return how many in a row make a difference."""
        return {"fail_after": self.fail_after, "pass_after": self.pass_after}

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "what": self.what, "every": self.every, "timeout": self.timeout, **self.hysteresis(),
        }  # fmt: skip


def http_check(
    path: str = "/readyz",
    *,
    every: float = 2.0,
    timeout: float = 1.0,
    fail_after: int = 3,
    pass_after: int = 2,
) -> Check:
    """Check instances whose addresses are ``http`` or ``https`` URLs by a GET of ``path``.

    Any status from 200 to 399 is good. A connection is made for each check, so that a check also
    finds out whether new ones are taken. Certificates are verified.

    Args:
        path: Begins with a slash; it takes the place of a path in the address.
        every: Seconds between two checks of one instance.
        timeout: Seconds after which one has failed.
        fail_after: Failures in a row that take an instance out.
        pass_after: Successes in a row that bring it back.

    Raises:
        ConfigError: A value is out of range, or ``path`` is none.
    """
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(f"http_check: path is {path!r}; such as /readyz would be right")

    async def ask(instance: Instance) -> str | None:
        return await _get(instance, path)

    return Check(
        f"GET {path}", every=every, timeout=timeout, fail_after=fail_after,
        pass_after=pass_after, ask=ask,
    )  # fmt: skip


def call_check(
    function: Callable[[Instance], Any],
    *,
    every: float = 2.0,
    timeout: float = 1.0,
    fail_after: int = 3,
    pass_after: int = 2,
) -> Check:
    """Check instances by a function: ``False`` and errors are bad, anything else is good.

    Args:
        function: Given an :class:`Instance`. A plain one runs on a thread; while it hangs, that
            instance is not asked again, and the threads are four at most.
        every: Seconds between two checks of one instance.
        timeout: Seconds after which one has failed.
        fail_after: Failures in a row that take an instance out.
        pass_after: Successes in a row that bring it back.

    Raises:
        ConfigError: A value is out of range, or it is no function.
    """
    if not callable(function):
        raise ConfigError(f"check is {function!r}; http_check(…) or a function would be right")
    name = getattr(function, "__qualname__", type(function).__name__)
    settings: dict[str, Any] = {
        "every": every, "timeout": timeout, "fail_after": fail_after, "pass_after": pass_after,
    }  # fmt: skip
    if inspect.iscoroutinefunction(function):

        async def ask(instance: Instance) -> str | None:
            return "it returned False" if await function(instance) is False else None

        return Check(name, ask=ask, **settings)

    def blocking(instance: Instance) -> str | None:
        return "it returned False" if function(instance) is False else None

    return Check(name, blocking=blocking, **settings)


def check_of(given: Any) -> Check:
    """Return the check that a user means.

    Raises:
        ConfigError: It is none.
    """
    return given if isinstance(given, Check) else call_check(given)


class Checker:
    """Runs the checks of one pool: each instance once at a time, and few threads.

    Args:
        name: Of the pool.
        check: What to do.
        world: Threads and timers.
        told: Called with the address and what was wrong, or ``None``.
    """

    PARALLEL: Final = 16
    THREADS: Final = 4

    def __init__(
        self, name: str, check: Check, world: World, told: Callable[[str, str | None], None]
    ) -> None:
        self._check = check
        self._world = world
        self._told = told
        self._slots = asyncio.Semaphore(self.PARALLEL)
        self._lanes = [f"pool {name} check {number}" for number in range(self.THREADS)]
        self._hanging: set[str] = set()

    async def run(self, instance: Instance) -> None:
        """Check one instance once, and tell what came of it; nothing if no thread is free."""
        async with self._slots:
            reason: str | None = None
            try:
                async with asyncio.timeout(self._check.timeout):
                    if self._check.ask is not None:
                        reason = await self._check.ask(instance)
                    elif not await self._beside(instance):
                        return
            except TimeoutError:
                reason = f"no answer within {self._check.timeout:g} s"
            except _WrongError as wrong:
                reason = str(wrong)
            except Exception as error:
                reason = type(error).__name__
            self._told(instance.address, reason)

    async def _beside(self, instance: Instance) -> bool:
        """Ask on a thread; ``False`` if all of them hang.

        Raises:
            TimeoutError: The instance's last check hangs still.
            _WrongError: It is not well.
        """
        address, ask = instance.address, self._check.blocking
        if address in self._hanging:
            raise TimeoutError
        if not self._lanes or ask is None:
            return False
        lane = self._lanes.pop()
        self._hanging.add(address)

        def call() -> str | None:
            try:
                return ask(instance)
            finally:
                # A thread is free when its call has returned, whoever waits for it or not.
                self._hanging.discard(address)
                self._lanes.append(lane)

        # Shielded: a call that was cancelled while it waits for its thread would never be made,
        # and would give nothing back.
        reason = await asyncio.shield(self._world.offload.run(lane, call))
        if reason is not None:
            raise _WrongError(reason)
        return True


class _WrongError(Exception):
    """An instance is not well."""


async def _get(instance: Instance, path: str) -> str | None:
    """GET a path and return what is wrong with the answer, ``None`` if nothing is."""
    url = urlsplit(instance.address)
    if url.scheme not in _PORTS or not url.hostname:
        return f"{instance.address} is no http URL"
    port = url.port or _PORTS[url.scheme]
    name = instance.host or url.hostname
    more: dict[str, Any] = {}
    if url.scheme == "https":
        more = {"ssl": _trust(), "server_hostname": name}
    reader, writer = await asyncio.open_connection(url.hostname, port, limit=2 * _LINE_MAX, **more)
    try:
        host = f"[{name}]" if ":" in name else name
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: outlast\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(request.encode("ascii"))
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    words = line[:_LINE_MAX].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return "the answer is not HTTP"
    status = int(words[1][:4])
    return None if 200 <= status < 400 else f"status {status}"


_contexts: list[Any] = []


def _trust() -> Any:
    """Return what verifies certificates; reading them all is done once."""
    if not _contexts:
        import ssl

        _contexts.append(ssl.create_default_context())
    return _contexts[0]
