"""Work that is done once for each idempotency key: the receiving half."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from outlast.kernel import (
    ConfigError,
    DeadlineError,
    DefiniteError,
    InFlightError,
    KeyReusedError,
    OverloadedError,
    ReplyLostError,
    UnavailableError,
    World,
    current_deadline,
    current_world,
    happened,
)
from outlast.protect.call import current_call
from outlast.protect.core.codec import Codec, Json, Outcome, Raised, Returned, own, result_of
from outlast.protect.core.filter import ErrorFilter, matches
from outlast.protect.core.idempotency import Answer, Begun, Done, InFlight, fingerprint_of
from outlast.protect.headers import current_incoming
from outlast.protect.kinds import check_function, check_lasting, kind_of
from outlast.protect.sender import mint_key
from outlast.protect.store.api import RecordStore
from outlast.protect.store.records import MemoryRecords

P = ParamSpec("P")
R = TypeVar("R")

_NS = 1_000_000_000
_LANE: Final = "protect-records"
_ROW_MAX: Final = 512


class Flight:
    """Work that has begun under a key. Made by :class:`Idempotent`; used once."""

    __slots__ = ("key", "store", "timer", "token", "world")

    def __init__(self, key: str, token: str, store: RecordStore, world: World) -> None:
        self.key = key
        self.token = token
        self.store = store
        self.world = world
        self.timer: Any = None


class Idempotent:
    """Do the work once for each key, and give every repeat the outcome of the first.

    A decorator for functions and coroutine functions; the middlewares use it, too. What a repeat
    gets: while the first is under way :class:`~outlast.kernel.InFlightError`; with other
    arguments :class:`~outlast.kernel.KeyReusedError`; afterwards the same return value or the
    same error, as it was. Without a key the work simply runs.

    What is promised: work that ended with an outcome is not run again before ``ttl`` is over.
    Work that ended without one may be: the key of a worker that died, or that hung past its
    ``lease``, is free when the lease has run out, and what a hung one finishes late is fenced
    off (event ``OutcomeFenced``); one that is cancelled, or gives up because the deadline of its
    caller has passed, frees its key at once. Coroutines renew their
    lease while they run, so only a process or event loop that hangs loses it. Blocking functions
    do not: give them a ``lease`` longer than they can take.

    Args:
        store: Where the records are; the memory of this process by default.
        ttl: Seconds for which an outcome is kept.
        lease: Seconds for which work may go without a sign of life.
        key: Makes the key from the arguments; ``None`` as a result means no key. By default the
            key of the call: ``current_call().key``, as sent by :class:`Idempotency` or
            received by :class:`~outlast.protect.headers.incoming`.
        fingerprint: Makes from the arguments a text that is equal in a true repeat. By default a
            digest of those that are plain data; ``self`` and other objects do not count.
        errors: Which errors are outcomes that are kept: a class, several, or a function of the
            error. Those that surely had no effect (``happened(error) == "no"``) never are:
            they free the key, and a repeat runs.
            By default all others are kept, since the work may have been done; so is one about
            which the function raises.
        codec: Makes bytes of outcomes for stores that are not in this process. What it cannot
            keep is remembered as done without an answer: repeats get ``ReplyLostError``.
        require: Whether a call without a key is refused.
        store_down: What to do when the store gives no answer: ``"local"`` keeps records in this
            process meanwhile, so that repeats sent to another one may run again; ``"refuse"``
            raises ``UnavailableError``.
        name: Name in events, and the first part of every key in the store; by default the name
            of the function, where that is its own: a lambda, a function within a function, a
            ``partial`` or an object needs ``name`` beside ``store``.

    Raises:
        ConfigError: An argument is out of range; when it decorates, what it decorates needs a
            name.
        TypeError: It decorates a generator, or what it decorates returned something that can be
            used only once: a generator, or something to await.
    """

    __slots__ = (
        "_alone", "_codec", "_errors", "_fingerprint", "_key", "_labels", "_lease_ns",
        "_meanwhile", "_store_down", "_ttl_ns", "name", "required", "store",
    )  # fmt: skip

    def __init__(
        self,
        store: RecordStore | None = None,
        *,
        ttl: float = 86400.0,
        lease: float = 30.0,
        key: Callable[..., str | None] | None = None,
        fingerprint: Callable[..., str] | None = None,
        errors: ErrorFilter = Exception,
        codec: Codec | None = None,
        require: bool = False,
        store_down: Literal["local", "refuse"] = "local",
        name: str = "",
    ) -> None:
        for setting, value in (("ttl", ttl), ("lease", lease)):
            if not 0 < value < float("inf"):
                message = f"Idempotent: {setting} is {value!r}; it must be above 0 seconds"
                raise ConfigError(message)
        functions: dict[str, object] = {"key": key, "fingerprint": fingerprint}
        for setting, function in functions.items():
            if not (function is None or callable(function)):
                message = f"Idempotent: {setting} is {function!r}; it must be a function, or None"
                raise ConfigError(message)
        if store_down not in {"local", "refuse"}:
            message = f"Idempotent: store_down is {store_down!r}; it must be 'local' or 'refuse'"
            raise ConfigError(message)
        self.name = name
        self._alone = store is None
        self._labels: set[str] = set()
        self.store: RecordStore = MemoryRecords() if store is None else store
        self._meanwhile = MemoryRecords()  # keeps records while the store gives no answer
        self._ttl_ns = max(1, round(ttl * _NS))
        self._lease_ns = max(1, round(lease * _NS))
        self._key = key
        self._fingerprint = fingerprint
        self._errors = _filter(errors)
        self._codec: Codec = Json() if codec is None else codec
        self.required = require
        self._store_down = store_down

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return ``function`` so that it is done once for each key.

        Raises:
            TypeError: It is no function, or a generator: what was yielded cannot be given again.
            ConfigError: It has no name of its own, so that another might get its outcomes.
        """
        check_function(function)
        kind = kind_of(function)
        if kind.endswith("generator"):
            raise TypeError("Idempotent: a generator cannot be done once and replayed")
        label = self.name or self._label_of(function)
        if kind == "async":
            work = cast("Callable[..., Awaitable[Any]]", function)

            @functools.wraps(function)
            async def once_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                key = self._key_of(args, kwargs)
                if key is None:
                    return await work(*args, **kwargs)
                print_ = self._print_of(args, kwargs)
                return await self.arun(_row(label, key), print_, work, *args, **kwargs)

            return cast("Callable[P, R]", once_async)

        @functools.wraps(function)
        def once(*args: P.args, **kwargs: P.kwargs) -> R:
            key = self._key_of(args, kwargs)
            if key is None:
                return function(*args, **kwargs)
            print_ = self._print_of(args, kwargs)
            return self.run(_row(label, key), print_, function, *args, **kwargs)

        return once

    def run(
        self,
        key: str,
        fingerprint: str,
        function: Callable[..., R],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> R:
        """Call ``function`` under ``key``, or return or raise what was kept.

        Raises:
            InFlightError: Definite. It is under way; ``retry_after`` is what is left of its
                lease.
            KeyReusedError: Definite. The key came with another ``fingerprint``.
            ReplyLostError: It was done, but its outcome could not be kept.
            UnavailableError: Definite. No answer from the store, and ``store_down="refuse"``.
        """
        begun = self.begin(key, fingerprint)
        if not isinstance(begun, Flight):
            return cast("R", result_of(begun))
        try:
            value = check_lasting(function(*args, **kwargs), "Idempotent")
        except BaseException as error:
            self.settle(begun, Raised(error))
            raise
        self.settle(begun, Returned(value))
        return value

    async def arun(
        self,
        key: str,
        fingerprint: str,
        function: Callable[..., Awaitable[R]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> R:
        """Await ``function`` under ``key``; see :meth:`run`."""
        begun = await self.abegin(key, fingerprint)
        if not isinstance(begun, Flight):
            return cast("R", result_of(begun))
        try:
            value = check_lasting(await function(*args, **kwargs), "Idempotent")
        except BaseException as error:
            await self.asettle(begun, Raised(error))
            raise
        await self.asettle(begun, Returned(value))
        return value

    def begin(self, key: str, fingerprint: str) -> Flight | Outcome:
        """Start work under ``key``, or return what was kept of it; for middlewares.

        Every :class:`Flight` must be settled. Raises as :meth:`run` does.
        """
        flight = self._flight(key)
        try:
            answer = self._asking(flight, fingerprint)()
        except Exception as error:
            answer = self._instead(flight, fingerprint, error)
        return self._judge(answer, flight)

    async def abegin(self, key: str, fingerprint: str) -> Flight | Outcome:
        """Start work under ``key``; see :meth:`begin`. Renews the lease while the work runs."""
        flight = self._flight(key)
        ask = self._asking(flight, fingerprint)
        try:
            answer = ask() if flight.store.local else await flight.world.offload.run(_LANE, ask)
        except Exception as error:
            answer = self._instead(flight, fingerprint, error)
        except BaseException:
            # Cancelled: the call to the store goes on, so what it began is freed after it.
            if not flight.store.local:
                flight.world.spawn.task(self._free(flight), name="outlast-free-record")
            raise
        begun = self._judge(answer, flight)
        if begun is flight:
            self._keep_alive(flight)
        return begun

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        """End ``flight``: keep ``outcome``, or free the key. Never raises for the store."""
        settle = self._settling(flight, outcome)
        try:
            kept = settle()
        except Exception as error:
            self._not_kept(flight, error)
        else:
            self._tell(flight, kept=kept)

    async def asettle(self, flight: Flight, outcome: Outcome) -> None:
        """End ``flight``; see :meth:`settle`."""
        if flight.timer is not None:
            flight.timer.cancel()
            flight.timer = None
        if flight.store.local:
            self.settle(flight, outcome)
            return
        settle = self._settling(flight, outcome)
        pending: asyncio.Future[bool] | None = None
        try:
            pending = asyncio.ensure_future(flight.world.offload.run(_LANE, settle))
            # Whoever is cancelled now waits no longer; the store hears of it all the same.
            kept = await asyncio.shield(pending)
        except Exception as error:
            self._not_kept(flight, error)
        except BaseException:
            if pending is not None:
                pending.add_done_callback(functools.partial(self._settled_later, flight))
            raise
        else:
            self._tell(flight, kept=kept)

    def lost(self, flight: Flight) -> Outcome:
        """Return the outcome of work that was done, but whose answer is not kept."""
        return Raised(ReplyLostError(f"{self._label(flight)}: done, but its answer was not kept"))

    def keeps(self, error: BaseException) -> bool:
        """Whether ``error`` is an outcome that is kept."""
        if isinstance(error, ReplyLostError):
            return True
        if isinstance(error, DeadlineError) and _time_is_up():
            return False  # the caller's time was up: as good as cancelled
        if not isinstance(error, Exception) or happened(error) == "no":
            return False
        return matches(self._errors, error, otherwise=True)  # the work may have been done

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "name": self.name,
            "store": type(self.store).__name__,
            "ttl": self._ttl_ns / _NS,
            "lease": self._lease_ns / _NS,
            "require": self.required,
            "store_down": self._store_down,
        }

    # --- inside ------------------------------------------------------------------------------

    def _label_of(self, function: Callable[..., Any]) -> str:
        """Return the name under which the outcomes of ``function`` are kept."""
        name = getattr(function, "__qualname__", None)
        label = f"{getattr(function, '__module__', '')}.{name or type(function).__qualname__}"
        if name is None or "<" in name:  # <lambda>, <locals>: others may be called the same
            if not self._alone or label in self._labels:
                raise ConfigError(
                    f"Idempotent: {label} may be the name of several functions, which would get "
                    "each other's outcomes; give name=, of which each has its own"
                )
            self._labels.add(label)
        return label

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        key = _sent_key() if self._key is None else self._key(*args, **kwargs)
        if key is None and self.required:
            raise ConfigError("Idempotent: the call has no idempotency key, and one is required")
        shown: object = key
        if shown is not None and (shown == "" or not isinstance(shown, str)):
            raise ConfigError(f"Idempotent: key returned {key!r}; it must be a text, or None")
        return key

    def _print_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if self._fingerprint is not None:
            return self._fingerprint(*args, **kwargs)
        return fingerprint_of(args, kwargs)

    def _flight(self, key: str) -> Flight:
        """Return a flight on the store, or on what was kept here while the store was down."""
        away = not self.store.local and self._meanwhile.knows(key)
        return Flight(key, mint_key(), self._meanwhile if away else self.store, current_world())

    def _asking(self, flight: Flight, fingerprint: str) -> Callable[[], Answer]:
        store, key, token, lease_ns = flight.store, flight.key, flight.token, self._lease_ns
        return lambda: store.begin(key, fingerprint, lease_ns, token)

    def _instead(self, flight: Flight, fingerprint: str, error: Exception) -> Answer:
        """Answer without the store: from this process's own records, or by refusing."""
        if flight.store.local or isinstance(error, OverloadedError):
            raise error
        from outlast.protect.events import RecordsLost

        here = self._store_down == "local"
        kept = "in this process" if here else "nowhere: calls are refused"
        event = RecordsLost(name=self._label(flight), error=repr(error), kept=kept)
        flight.world.events.emit(event)
        if not here:
            raise UnavailableError("idempotency records: no answer from the store") from error
        flight.store = self._meanwhile
        return self._asking(flight, fingerprint)()

    def _judge(self, answer: Answer, flight: Flight) -> Flight | Outcome:
        """Return the flight that has begun, or what was kept; raise what refuses."""
        if isinstance(answer, Begun):
            return flight
        if isinstance(answer, InFlight):
            message = f"{self._label(flight)}: the first call with this key is under way"
            raise InFlightError(message, retry_after=answer.left_ns / _NS)
        if not isinstance(answer, Done):
            message = f"{self._label(flight)}: this key came before with another request"
            raise KeyReusedError(message)
        from outlast.protect.events import OutcomeReplayed

        flight.world.events.emit(OutcomeReplayed(name=self._label(flight)))
        if flight.store.local:
            return cast("Outcome", answer.outcome)
        try:
            return self._codec.decode(answer.outcome)
        except DefiniteError as error:
            # Not to be passed on as it is: what cannot be read is the answer, not the work.
            raise ReplyLostError(f"{self._label(flight)}: {error}") from error

    def _settling(self, flight: Flight, outcome: Outcome) -> Callable[[], bool]:
        """Return the call to the store that ends ``flight``."""
        key, token, store = flight.key, flight.token, flight.store
        if isinstance(outcome, Raised) and not self.keeps(outcome.error):

            def release() -> bool:
                store.release(key, token)
                return True

            return release
        kept = own(outcome) if store.local else self._encoded(flight, outcome)
        ttl_ns = self._ttl_ns
        return lambda: store.finish(key, token, kept, ttl_ns)

    def _encoded(self, flight: Flight, outcome: Outcome) -> bytes:
        try:
            return self._codec.encode(outcome)
        except Exception as error:
            from outlast.protect.events import OutcomeNotKept

            event = OutcomeNotKept(name=self._label(flight), reason=str(error))
            flight.world.events.emit(event)
            return Json().encode(self.lost(flight))

    def _settled_later(self, flight: Flight, pending: "asyncio.Future[bool]") -> None:
        """The store has heard of the end of a flight for which nobody waits any more."""
        if pending.cancelled():
            return
        error = pending.exception()
        if error is None:
            self._tell(flight, kept=pending.result())
        elif isinstance(error, Exception):
            self._not_kept(flight, error)

    def _tell(self, flight: Flight, *, kept: bool) -> None:
        if not kept:
            from outlast.protect.events import OutcomeFenced

            flight.world.events.emit(OutcomeFenced(name=self._label(flight)))

    def _not_kept(self, flight: Flight, error: Exception) -> None:
        from outlast.protect.events import OutcomeNotKept

        flight.world.events.emit(OutcomeNotKept(name=self._label(flight), reason=repr(error)))

    def _keep_alive(self, flight: Flight) -> None:
        """Renew the lease each third of it, until the flight is settled."""
        world = flight.world
        due_ns = world.clock.monotonic_ns() + self._lease_ns // 3

        def renew() -> None:
            if flight.store.local:
                if flight.store.renew(flight.key, flight.token, self._lease_ns):
                    self._keep_alive(flight)
            else:
                self._keep_alive(flight)
                world.spawn.task(self._renew(flight), name="outlast-renew-record")

        flight.timer = world.timers.call_at(due_ns, renew)

    async def _renew(self, flight: Flight) -> None:
        store, key, token, lease_ns = flight.store, flight.key, flight.token, self._lease_ns
        try:
            held = await flight.world.offload.run(_LANE, lambda: store.renew(key, token, lease_ns))
        except Exception:
            return  # the next third tries again; two in a row may fail before the lease is lost
        if not held and flight.timer is not None:
            flight.timer.cancel()

    async def _free(self, flight: Flight) -> None:
        store, key, token = flight.store, flight.key, flight.token
        with suppress(Exception):
            await flight.world.offload.run(_LANE, lambda: store.release(key, token))

    def _label(self, flight: Flight) -> str:
        """Return a name without the key, which is the caller's own."""
        return self.name or flight.key.partition(":")[0]


def _filter(errors: ErrorFilter) -> ErrorFilter:
    given: object = errors
    if isinstance(given, tuple):
        if all(isinstance(cls, type) for cls in given):
            return errors
    elif callable(given):
        return errors
    raise ConfigError(
        f"Idempotent: errors is {errors!r}; it must be exception classes, or a function"
    )


def _sent_key() -> str | None:
    """Return the key of the call under way, or that of the request being served."""
    call, came_in = current_call(), current_incoming()
    if call is not None and call.key is not None:
        return call.key
    return None if came_in is None else came_in.key


def _time_is_up() -> bool:
    limit = current_deadline.get()
    return limit is not None and limit.passed(current_world().clock.monotonic_ns())


def _row(label: str, key: str) -> str:
    """Return the key of the record: of a bounded length, whatever the caller sends."""
    row = f"{label}:{key}"
    return row if len(row) <= _ROW_MAX else f"{label[:128]}:{fingerprint_of(row)}"
