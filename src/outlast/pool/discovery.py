"""Where the instances of a pool are: a list, DNS, a membership, anything that can be asked.

Each source tells what it has found, or the error that kept it from finding anything. An answer
that names nobody counts as an error: whoever looks things up may be cut off, and the instances of
the last good answer are there more often than not.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from outlast.kernel import ConfigError, World
from outlast.pool.core.instance import Found, Instance, found_of, instances_of
from outlast.protect.checks import DAY, check_number

Told = Callable[[Found | Exception], None]
"""Called with each answer, or with the error in its place. It raises nothing."""

_EVERY: Final = 5.0
_ASK_SECONDS: Final = 30.0
_VALUE_MAX: Final = 500


class Source(Protocol):
    """Where instances come from."""

    async def follow(self, world: World, told: Told) -> None:
        """Tell what is found, again whenever it changes, until cancelled."""
        ...

    def describe(self) -> str:
        """Return what it is, in a few words."""
        ...


class Static:
    """Instances that are known beforehand."""

    def __init__(self, instances: tuple[Instance, ...]) -> None:
        self.found = Found(instances)

    async def follow(self, world: World, told: Told) -> None:
        """Tell them once."""
        told(self.found)

    def describe(self) -> str:
        """Return how many there are."""
        return f"{len(self.found.instances)} given"


class Asked:
    """A function that returns the instances, asked from time to time; see :class:`Pool`.

    What it returns may be a list, an awaitable of one, or an asynchronous iterator of lists. A
    plain function runs on a thread. What has not answered after 30 seconds has failed: a coroutine
    is cancelled and asked again, a thread cannot be, and is waited for on.
    """

    def __init__(self, ask: Callable[[], Any], name: str, every: float, most: int) -> None:
        self._ask = ask
        self._name = name
        self._every = every
        self._most = most
        self._beside: asyncio.Future[Any] | None = None

    async def follow(self, world: World, told: Told) -> None:
        """Ask, and ask again."""
        try:
            while True:
                try:
                    await self._follow(world, told)
                except Exception as error:
                    told(error)
                await world.timers.sleep(self._every)
        finally:
            if self._beside is not None:
                self._beside.cancel()
                self._beside = None

    async def _follow(self, world: World, told: Told) -> None:
        """Ask once, and tell the answer; of a stream, all that comes."""
        limit = asyncio.timeout(_ASK_SECONDS)
        try:
            async with limit:
                given = await self._answer(world)
        except TimeoutError as error:
            if not limit.expired():
                raise  # the function's own
            raise TimeoutError(f"no answer within {_ASK_SECONDS:g} s") from error
        if hasattr(type(given), "__aiter__"):
            async for one in given:
                told(found_of(one, self._most))
        else:
            told(found_of(given, self._most))

    async def _answer(self, world: World) -> Any:
        ask = self._ask
        if inspect.iscoroutinefunction(ask):
            return await ask()
        if inspect.isasyncgenfunction(ask):
            return ask()
        if self._beside is None:
            self._beside = asyncio.ensure_future(world.offload.run(f"pool {self._name}", ask))
        beside = self._beside
        try:
            given = await asyncio.shield(beside)
        finally:
            if beside.done():
                self._beside = None
        return await given if inspect.isawaitable(given) else given

    def describe(self) -> str:
        """Return the name of the function."""
        return f"{getattr(self._ask, '__qualname__', type(self._ask).__name__)}()"


class Streamed:
    """An asynchronous iterator of lists; when it has ended, the last one stays."""

    def __init__(self, stream: AsyncIterator[Any], most: int) -> None:
        self._stream = stream
        self._most = most

    async def follow(self, world: World, told: Told) -> None:
        """Tell each list as it comes."""
        try:
            async for one in self._stream:
                try:
                    found: Found | Exception = found_of(one, self._most)
                except Exception as error:
                    found = error  # the next list may be right
                told(found)
        except Exception as error:
            told(error)

    def describe(self) -> str:
        """Return its type."""
        return type(self._stream).__name__


class Dns:
    """The addresses behind a name, looked up again and again.

    Each address becomes an instance that knows its name (:attr:`Instance.host`), for the ``Host``
    header and the certificate. When a look-up fails, takes longer than ``timeout`` or finds
    nothing, the last good answer stays. One look-up is under way at a time: it costs one thread
    of the loop's executor, however long it hangs.

    Args:
        name: ``host:port``, or a URL whose scheme and path the addresses get.
        every: Seconds between look-ups. Resolvers do not tell how long an answer holds.
        timeout: Seconds after which a look-up has failed.

    Raises:
        ConfigError: There is no port, or a time is out of range.

    >>> Dns("http://shop:8080/api").describe()
    'DNS http://shop:8080/api'
    """

    def __init__(self, name: str, *, every: float = _EVERY, timeout: float = 5.0) -> None:
        scheme, mark, rest = name.rpartition("://")
        place, slash, path = rest.partition("/")
        host, _, port = place.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"Dns: name is {name!r}; host:port or http://host:port, for example")
        self._name = name
        self._host = host.strip("[]")
        self._port = int(port)
        self._before = scheme + mark
        self._after = slash + path
        self._every = check_number("Dns", "every", every, 0.01, DAY, what="seconds")
        self._timeout = check_number("Dns", "timeout", timeout, 0.01, DAY, what="seconds")

    async def follow(self, world: World, told: Told) -> None:
        """Look up, and look up again."""
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[Any] | None = None
        try:
            while True:
                if looking is None:
                    looking = asyncio.ensure_future(self._look_up(loop))
                await asyncio.wait([looking], timeout=self._timeout)
                if not looking.done():
                    told(TimeoutError(f"no answer within {self._timeout:g} s"))
                else:
                    ended, looking = looking, None
                    told(ended.exception() or ended.result())  # type: ignore[arg-type]
                await world.timers.sleep(self._every)
        finally:
            if looking is not None:
                looking.cancel()

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> Found:
        import socket

        rows = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        found = sorted({str(row[4][0]) for row in rows})
        shown = (f"[{one}]" if ":" in one else one for one in found)
        return Found(
            tuple(
                Instance(f"{self._before}{one}:{self._port}{self._after}", host=self._host)
                for one in shown
            )
        )

    def describe(self) -> str:
        """Return the name."""
        return f"DNS {self._name}"


class Membership:
    """The members of a group, such as :class:`outlast.detect.Members`, that offer the service.

    A member offers it by its metadata: under ``port_key`` a port on its own host, ``host:port``,
    or a URL; ``weight`` and ``zone`` may stand there, too. An alive member gets calls, a suspected
    one only when others are few, and one that is unreachable, dead or has left is removed.

    Args:
        members: Has ``members()``, whose items have ``address``, ``state`` and ``metadata``; and
            ``watch(callback)``, which returns what ends it.
        port_key: Name in the metadata.
        scheme: Put before what has none; empty for nothing.
    """

    def __init__(self, members: Any, port_key: str = "http", *, scheme: str = "http") -> None:
        for method in ("members", "watch"):
            if not callable(getattr(members, method, None)):
                raise ConfigError(f"Membership: {members!r} has no {method}()")
        self._members = members
        self._port_key = port_key
        self._scheme = scheme

    async def follow(self, world: World, told: Told) -> None:
        """Tell who is there, again whenever a member changes."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        end = self._members.watch(lambda _member: loop.call_soon_threadsafe(changed.set))
        try:
            while True:
                changed.clear()
                told(self.found())
                await changed.wait()
        finally:
            end()

    def found(self) -> Found:
        """Return who is there now.

        What members say of themselves is not trusted: where it makes no sense it is skipped.
        """
        there: list[Instance] = []
        avoid: set[str] = set()
        for member in self._members.members():
            state = str(getattr(member.state, "value", member.state))
            if state not in {"alive", "suspect"}:
                continue
            instance = self._offered(str(member.address), member.metadata or {})
            if instance is None:
                continue
            there.append(instance)
            if state == "suspect":
                avoid.add(instance.address)
        return Found(tuple(there), frozenset(avoid))

    def _offered(self, address: str, metadata: Any) -> Instance | None:
        said = metadata.get(self._port_key)
        if not isinstance(said, str) or not 0 < len(said) <= _VALUE_MAX or not said.isprintable():
            return None
        if said.isascii() and said.isdigit():
            said = f"{address.rpartition(':')[0]}:{said}"
        if self._scheme and "://" not in said:
            said = f"{self._scheme}://{said}"
        try:
            if "://" in said:
                url = urlsplit(said)
                if url.hostname is None or url.port == 0:
                    return None
            weight = float(metadata.get("weight", 1.0))
            return Instance(said, weight, zone=str(metadata.get("zone", ""))[:_VALUE_MAX])
        except (ValueError, TypeError, OverflowError):  # no URL, or no number
            return None

    def describe(self) -> str:
        """Return what it looks for."""
        return f"members with {self._port_key}"


def source_of(given: Any, name: str, most: int) -> Source:
    """Return the source that a user means.

    Raises:
        ConfigError: It is none, or an empty list.
    """
    if callable(getattr(given, "follow", None)):
        source: Source = given
        return source
    if hasattr(type(given), "__anext__"):
        return Streamed(given, most)
    if callable(given):
        return Asked(given, name, _EVERY, most)
    if not isinstance(given, str | bytes) and isinstance(given, Iterable):
        instances = instances_of(given, most)
        if instances:
            return Static(instances)
    raise ConfigError(
        f"Pool {name!r}: source is {given!r}; a list of addresses, Dns(…), Membership(…), a "
        "function or an asynchronous iterator would be right"
    )
