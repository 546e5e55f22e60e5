"""``Cache``: answers kept for a while, and shown a while longer when a call fails."""

import asyncio
from collections.abc import Callable, Hashable
from functools import partial, wraps
from typing import Any, ClassVar, Final

from outlast.kernel import (
    ConfigError,
    InvariantError,
    TooLateError,
    World,
    current_deadline,
    current_world,
)
from outlast.protect.checks import DAY, NS, check_ns, check_whole
from outlast.protect.core.cache import Entry, Shelf
from outlast.protect.flight import Flight, Flights
from outlast.protect.forked import tell_of_forks
from outlast.protect.kinds import check_lasting
from outlast.protect.part import Part

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]

_YEAR: Final = 366 * DAY


class _Keyword:
    def __repr__(self) -> str:
        return "keywords"


_KEYWORD: Final = _Keyword()
"""Stands in a key between positional and keyword arguments."""


class Cache(Part):
    """Keeps answers by the arguments of the call.

    A *fresh* answer is returned at once. Otherwise one caller fetches it, and those who ask for
    the same meanwhile, in whatever thread or event loop, wait for that one call, each no longer
    than its own deadline. If the one who fetches is cancelled or out of time, one of those who
    wait fetches in its place. The ``timeout`` of a policy begins inside of its cache: it bounds
    the fetch, and not the wait for another's. If the call fails, the last answer is shown for
    ``stale`` seconds after it ceased to be fresh (RFC 5861, ``stale-if-error``); without one,
    all of them see the error.

    What is kept is what was returned, ``None`` and ``False`` included, and it is handed to all
    callers: treat it as read-only. Awaitables and generators can be used only once and are
    refused.

    Args:
        ttl: How long an answer is fresh, in seconds.
        stale: How much longer it may be shown in place of an error, in seconds. 0 for never.
        max_entries: How many answers are kept; those not asked for lately go first.
        key: Makes the key from the arguments of the call. By default the arguments themselves
            (of a method the object, too), which must be hashable; as in a dict, 1, 1.0 and True
            are one key.
        single_flight: Whether those who ask for the same wait for one call.
        refresh_ahead: In so many last seconds of being fresh one caller fetches the answer anew:
            a coroutine in the background, a plain function on its caller's time.
        on: Errors that are answered with what is stale. Default: every ``Exception``.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        ConfigError: Definite. A setting is wrong.
        TypeError: The arguments are not hashable, or the answer can be used only once.
        DeadlineError: Indefinite. A plain function waited for another's call, and its deadline
            passed.
    """

    sees_arguments = True
    position: ClassVar[str] = "cache"
    settings = (
        "ttl", "stale", "max_entries", "key", "single_flight", "refresh_ahead", "on",
    )  # fmt: skip

    ttl: float
    stale: float
    max_entries: int
    key: Callable[..., Hashable] | None
    single_flight: bool
    refresh_ahead: float | None
    on: ErrorTypes

    __slots__ = (*settings, "_flights", "_fresh_ns", "_shelf", "fetched", "hits", "served_stale")

    def __init__(
        self,
        ttl: float = 60.0,
        *,
        stale: float = 3600.0,
        max_entries: int = 1024,
        key: Callable[..., Hashable] | None = None,
        single_flight: bool = True,
        refresh_ahead: float | None = None,
        on: ErrorTypes = Exception,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self._shelf = Shelf(ttl_ns=1, stale_ns=0, ahead_ns=0, max_entries=1)
        self._flights = Flights()
        self.hits = 0
        self.fetched = 0
        self.served_stale = 0
        self._set(
            ttl=ttl, stale=stale, max_entries=max_entries, key=key, single_flight=single_flight,
            refresh_ahead=refresh_ahead, on=on,
        )  # fmt: skip
        tell_of_forks(self)

    def _set(self, **values: Any) -> None:
        ttl_ns = check_ns("Cache", "ttl", values["ttl"], 1e-6, _YEAR)
        stale_ns = check_ns("Cache", "stale", values["stale"], 0.0, _YEAR)
        entries = check_whole("Cache", "max_entries", values["max_entries"], 1, 100_000_000)
        ahead, on, key = values["refresh_ahead"], values["on"], values["key"]
        ahead_ns = 0 if ahead is None else check_ns("Cache", "refresh_ahead", ahead, 0.0, _YEAR)
        if ahead_ns >= ttl_ns:
            raise ConfigError(
                f"Cache: refresh_ahead is {ahead!r} and ttl {values['ttl']!r}; less would be right"
            )
        kinds = on if isinstance(on, tuple) else (on,)
        if not kinds or not all(isinstance(k, type) and issubclass(k, Exception) for k in kinds):
            raise ConfigError(f"Cache: on is {on!r}; error classes would be right")
        if key is not None and not callable(key):
            raise ConfigError(f"Cache: key is {key!r}; a function of the arguments would be right")
        for name, value in values.items():
            setattr(self, name, value)
        shelf = self._shelf
        shelf.ttl_ns, shelf.stale_ns, shelf.ahead_ns = ttl_ns, stale_ns, ahead_ns
        self._fresh_ns = ttl_ns - ahead_ns
        with self._flights.lock:
            shelf.max_entries = entries
            shelf.make_room(entries)

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; what is kept is judged by the new ones."""
        self._set(**{name: changes.get(name, getattr(self, name)) for name in self.settings})

    def snapshot(self) -> dict[str, Any]:
        """Return how much is kept and how often it served; counts are close, not exact."""
        return {
            "entries": len(self._shelf),
            "hits": self.hits,
            "fetched": self.fetched,
            "served_stale": self.served_stale,
            "evicted": self._shelf.evicted,
            "in_flight": len(self._flights),
        }

    def forked(self) -> None:
        """This is the child of a fork: those who fetched something anew are not here."""
        self._shelf.unclaim()

    def begin_anew(self) -> None:
        """This is another world: nothing is kept yet, and nobody waits for a fetch of the last."""
        self.clear()
        self.hits = self.fetched = self.served_stale = self._shelf.evicted = 0

    # --- keys --------------------------------------------------------------------------------

    def key_of(self, *args: Any, **kwargs: Any) -> Hashable:
        """Return the key of a call with these arguments."""
        if self.key is not None:
            return self.key(*args, **kwargs)
        return (*args, _KEYWORD, *sorted(kwargs.items())) if kwargs else args

    def invalidate(self, key: Hashable) -> bool:
        """Forget the answer for ``key``, of every function that shares this cache.

        A call that is under way answers those who wait for it, and is not kept.

        Args:
            key: What ``key=`` made, or else :meth:`key_of` the arguments.

        Returns:
            Whether anything was forgotten.
        """
        found = False
        with self._flights.lock:
            for full in (*self._shelf.keys(), *self._flights.all_keys()):
                if full[1] == key:  # type: ignore[index]
                    found = self._shelf.drop(full) or found
                    self._flights.disown(full)
        return found

    def clear(self) -> None:
        """Forget everything."""
        with self._flights.lock:
            self._shelf.clear()
            for full in self._flights.all_keys():
                self._flights.disown(full)

    # --- wrapping ----------------------------------------------------------------------------

    def wrap_blocking(self, function: Callable[..., Any], policy_name: str) -> Callable[..., Any]:
        """Return ``function``, which blocks, with its answers kept."""
        find = self._shelf.find

        @wraps(function)
        def cached(*args: Any, **kwargs: Any) -> Any:
            key = (function, self.key_of(*args, **kwargs) if kwargs or self.key else args)
            world = current_world()
            try:
                entry = find(key)
            except TypeError as error:
                raise _unhashable(function, error) from error
            now_ns = world.clock.monotonic_ns()
            if entry is not None and now_ns - entry.stored_ns < self._fresh_ns:
                self.hits += 1
                return entry.value
            call = partial(function, *args, **kwargs)
            if entry is not None and self._ahead(entry, now_ns):
                if not entry.claim():
                    return entry.value
                try:
                    return self._fetch(key, call, world, entry)
                except Exception as error:
                    self._tell_refresh(world, policy_name, error)
                    return entry.value
                finally:
                    entry.claimed.clear()
            try:
                return self._fetch(key, call, world, entry)
            except Exception as error:
                return self._instead(key, error, world, policy_name)

        return cached

    def wrap_async(self, function: Callable[..., Any], policy_name: str) -> Callable[..., Any]:
        """Return ``function``, a coroutine function, with its answers kept."""
        find = self._shelf.find

        @wraps(function)
        async def cached(*args: Any, **kwargs: Any) -> Any:
            key = (function, self.key_of(*args, **kwargs) if kwargs or self.key else args)
            world = current_world()
            try:
                entry = find(key)
            except TypeError as error:
                raise _unhashable(function, error) from error
            now_ns = world.clock.monotonic_ns()
            if entry is not None and now_ns - entry.stored_ns < self._fresh_ns:
                self.hits += 1
                return entry.value
            call = partial(function, *args, **kwargs)
            if entry is not None and self._ahead(entry, now_ns):
                if entry.claim():
                    refresh = self._refresh(entry, key, call, world, policy_name)
                    world.spawn.task(refresh, name=f"cache {self.name or policy_name}")
                return entry.value
            try:
                return await self._fetch_async(key, call, world, entry)
            except Exception as error:
                return self._instead(key, error, world, policy_name)

        return cached

    def _ahead(self, entry: Entry, now_ns: int) -> bool:
        return self._shelf.state(entry, now_ns) == "ahead"

    async def _refresh(
        self, entry: Entry, key: Hashable, call: Callable[[], Any], world: World, name: str
    ) -> None:
        current_deadline.set(None)  # it is nobody's call: nobody's deadline counts
        try:
            await self._fetch_async(key, call, world, entry)
        except Exception as error:
            self._tell_refresh(world, name, error)
        finally:
            entry.claimed.clear()

    # --- one call per key --------------------------------------------------------------------

    def _fetch(
        self, key: Hashable, call: Callable[[], Any], world: World, seen: Entry | None
    ) -> Any:
        """Return an answer that is newer than ``seen``."""
        while self.single_flight:
            mine = Flight(self._flights, key, None)
            with _Landing(self, mine, key, world) as landing:
                flight = self._flights.join(mine)
                landing.leads = flight is mine
                if landing.leads and not landing.newer(seen):
                    landing.value = check_lasting(call(), "Cache")
            if landing.leads:
                return landing.value
            if flight.mine(None):
                break  # its own call has come round to it: waiting would be for ever
            if flight.wait(world):
                return flight.value()
        value = check_lasting(call(), "Cache")
        self._keep(key, value, world)
        return value

    async def _fetch_async(
        self, key: Hashable, call: Callable[[], Any], world: World, seen: Entry | None
    ) -> Any:
        """Return an answer that is newer than ``seen``."""
        while self.single_flight:
            task = asyncio.current_task()
            mine = Flight(self._flights, key, task)
            with _Landing(self, mine, key, world) as landing:
                flight = self._flights.join(mine)
                landing.leads = flight is mine
                if landing.leads and not landing.newer(seen):
                    landing.value = check_lasting(await call(), "Cache")
            if landing.leads:
                return landing.value
            if flight.mine(task):
                break
            if await flight.wait_async():
                return flight.value()
        value = check_lasting(await call(), "Cache")
        self._keep(key, value, world)
        return value

    def _keep(self, key: Hashable, value: Any, world: World) -> None:
        now_ns = world.clock.monotonic_ns()
        self.fetched += 1
        with self._flights.lock:
            self._shelf.put(key, value, now_ns)

    # --- in place of an error ----------------------------------------------------------------

    def _instead(self, key: Hashable, error: Exception, world: World, name: str) -> Any:
        """Return what is kept for ``key`` if it may be shown in place of ``error``."""
        now_ns = world.clock.monotonic_ns()
        entry = self._shelf.find(key)
        if (
            entry is None
            or isinstance(error, InvariantError)
            or not isinstance(error, self.on)
            or self._shelf.state(entry, now_ns) == "gone"
        ):
            raise error
        from outlast.protect.events import StaleServed

        self.served_stale += 1
        age = (now_ns - entry.stored_ns) / NS
        event = StaleServed(name=self.name or name, error=type(error).__name__, age=age)
        world.events.emit(event)
        return entry.value

    def _tell_refresh(self, world: World, name: str, error: Exception) -> None:
        from outlast.protect.events import RefreshFailed

        if isinstance(error, InvariantError):
            raise error
        event = RefreshFailed(name=self.name or name, error=type(error).__name__)
        world.events.emit(event)


class _Landing:
    """The end of a flight, whatever it is: those who wait hear of it.

    Entered before it is known who leads, so that no interrupt comes in between.
    """

    __slots__ = ("_cache", "_flight", "_found", "_key", "_world", "leads", "value")

    def __init__(self, cache: Cache, flight: Flight, key: Hashable, world: World) -> None:
        self._cache = cache
        self._flight = flight
        self._key = key
        self._world = world
        self._found = False
        self.leads = False
        self.value: Any = None

    def newer(self, seen: Entry | None) -> bool:
        """Whether another flight has landed after the caller looked; its answer is taken."""
        shelf = self._cache._shelf
        entry = shelf.find(self._key)
        if entry is None or entry is seen:
            return False
        if shelf.state(entry, self._world.clock.monotonic_ns()) not in {"fresh", "ahead"}:
            return False
        self.value, self._found = entry.value, True
        return True

    def __enter__(self) -> "_Landing":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self.leads:
            if error is not None:
                self._cache._flights.divert(self._flight)
            return
        try:
            self._land(error)
        except BaseException:
            self._cache._flights.divert(self._flight)
            raise

    def _land(self, error: BaseException | None) -> None:
        cache, flight = self._cache, self._flight
        if self._found:
            cache._flights.land(flight, self.value, None)
        elif error is None:
            now_ns = self._world.clock.monotonic_ns()
            cache.fetched += 1
            with cache._flights.lock:
                if not flight.disowned:
                    cache._shelf.put(self._key, self.value, now_ns)
            cache._flights.land(flight, self.value, None)
        elif isinstance(error, Exception) and not _out_of_time(error, self._world):
            cache._flights.land(flight, None, error)
        else:
            cache._flights.divert(flight)


def _out_of_time(error: Exception, world: World) -> bool:
    """Whether the caller's own deadline has ended its call: others may have more time."""
    limit = current_deadline.get()
    return (
        isinstance(error, TimeoutError | TooLateError)
        and limit is not None
        and limit.passed(world.clock.monotonic_ns())
    )


def _unhashable(function: Callable[..., Any], error: TypeError) -> TypeError:
    shown = getattr(function, "__qualname__", repr(function))
    return TypeError(
        f"Cache: the arguments of {shown} make no key ({error}); give key=, which makes one"
    )
