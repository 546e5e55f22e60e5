"""Sharing breakers, rates and budgets with other processes, without waiting for them.

One :class:`Shared` per store and process does all talking. Every ``interval`` a daemon thread
reports what the local breakers have come to and reads what the fleet has; admission in closed and
open state touches no network. Two things are asked when they are needed: a lease for a half-open
probe, and slots of a rate or tokens of a budget when the ones leased before are used up.

If the store does not answer, everything goes on with local state, ``StoreLost`` is emitted, and
nothing raises; the store is tried again after a wait that grows, and ``StoreRegained`` follows.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakSet, ref

from outlast.host import HostClock
from outlast.kernel import InvariantError, current_world
from outlast.kernel.registry import on_fresh_world
from outlast.protect.core.fleet_node import StoreHealth
from outlast.protect.store.api import FleetStore

if TYPE_CHECKING:
    from outlast.protect.shared_breaker import SharedBreaker
    from outlast.protect.shared_limits import SharedBudget, SharedRate

T = TypeVar("T")

_NS: Final = 1_000_000_000
_MS: Final = 1_000_000
_OUTBOX_MAX: Final = 256
_BACKOFF_NS: Final = (_NS // 2, 10 * _NS)


class Lost:
    """The store did not answer, or was not asked since it is lost."""


LOST: Final = Lost()


class _Client(Protocol):
    def sync(self) -> None: ...
    def forked(self) -> None: ...


_all: "WeakSet[Shared]" = WeakSet()


class Shared:
    """The link of this process to one store. Made by :func:`shared_of`.

    The thread is started with the first breaker, rate or budget that is shared, unless the store
    is in memory or time is virtual: there call :meth:`sync`, or run :meth:`pump` as a task. A
    forked child gets a thread and a name of its own. Safe to use from any thread.

    Args:
        store: Where state is shared.
        node: Name of this process to the others; that of the store, or drawn, if empty.
    """

    def __init__(self, store: FleetStore, *, node: str = "") -> None:
        self.store = store
        self._given = node or store.node
        self._drawn = ""
        self._clients: WeakSet[Any] = WeakSet()
        self._outbox: deque[Callable[[], None]] = deque(maxlen=_OUTBOX_MAX)
        self._closed = self._ending = False
        self._begin()
        _all.add(self)

    @property
    def node(self) -> str:
        """The name of this process to the others; drawn in the world that first asks."""
        if not self._given and not self._drawn:
            self._drawn = f"{current_world().prng.bits64():016x}"
        return self._given or self._drawn

    def _begin(self) -> None:
        self._drawn = ""
        self._health = StoreHealth(base_ns=_BACKOFF_NS[0], cap_ns=_BACKOFF_NS[1])
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._gate.acquire()
        self._thread: threading.Thread | None = None

    # --- who takes part --------------------------------------------------------------------------

    def add(self, client: _Client) -> None:
        """Let ``client`` take part for as long as somebody else refers to it."""
        with self._lock:
            self._clients.add(client)
        self._start()

    def _start(self) -> None:
        if getattr(self.store, "local", False) or self._ending:
            return
        if not isinstance(current_world().clock, HostClock):
            return
        with self._lock:
            if self._thread is not None:
                return
            # It keeps nobody alive: where nobody shares anything any more, it ends.
            gate = self._gate
            me = ref(self, lambda _: _open(gate))
            thread = threading.Thread(
                target=_work, args=(me, gate), name="outlast-shared", daemon=True
            )
            thread.start()
            self._thread = thread

    def wake(self) -> None:
        """Let the thread come now; without a thread nothing happens."""
        _open(self._gate)

    def later(self, send: Callable[[], None]) -> None:
        """Let the thread do ``send`` soon; without a thread it is done here and now."""
        if self._thread is None:
            send()
            return
        self._outbox.append(send)
        self.wake()

    def sync(self) -> None:
        """Report, read, and follow the fleet, once; raises nothing of the store's."""
        while self._outbox:
            try:
                send = self._outbox.popleft()
            except IndexError:
                break  # a fresh world has cleared it, or another thread was faster
            send()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.sync()

    async def pump(self) -> None:
        """Do what the thread does, as a task: for simulations. Ends by cancellation."""
        while not self._ending:
            self.sync()
            await current_world().timers.sleep(self.store.interval)

    def close(self) -> None:
        """End the thread, take reports back, and close the store."""
        self._ending = True
        thread = self._thread
        self.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(4 * self.store.timeout)
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            leave = getattr(client, "leave", None)
            if leave is not None:
                leave()
        self._closed = True
        self.store.close()

    # --- talking ---------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._health.lost

    def ask(self, call: Callable[[], T]) -> "T | Lost":
        """Return what the store answers to ``call``; ``LOST`` if it does not, or is closed."""
        world = current_world()
        with self._lock:
            if self._closed or not self._health.may_try(world.clock.monotonic_ns()):
                return LOST
        try:
            answer = call()
        except InvariantError:
            raise
        except Exception as error:
            with self._lock:
                news = self._health.failed(world.clock.monotonic_ns(), world.prng)
            if news:
                from outlast.protect.events import StoreLost

                cause = error.__cause__ or error
                world.events.emit(StoreLost(name=self._where(), error=type(cause).__name__))
            return LOST
        if self._health.lost:
            with self._lock:
                news = self._health.worked()
            if news:
                from outlast.protect.events import StoreRegained

                world.events.emit(StoreRegained(name=self._where()))
        return answer

    def _where(self) -> str:
        where = getattr(self.store, "where", None)
        return str(where()) if where is not None else type(self.store).__name__

    def _forked(self) -> None:
        had_thread = self._thread is not None
        self._outbox.clear()
        self._begin()
        for client in list(self._clients):
            client.forked()
        if had_thread:
            self._start()

    def _begin_anew(self) -> None:
        """This is another world: nothing is known of the store, or held of what it gave."""
        self._outbox.clear()
        with self._lock:
            self._drawn = ""
            self._health = StoreHealth(base_ns=_BACKOFF_NS[0], cap_ns=_BACKOFF_NS[1])
            clients = list(self._clients)
        for client in clients:
            client.forked()


def _open(gate: "threading.Lock") -> None:
    with suppress(RuntimeError):  # it is open already
        gate.release()


def _work(me: "ref[Shared]", gate: "threading.Lock") -> None:
    """Look after the links of one store, in a thread, until it is closed or forgotten."""
    while True:
        shared = me()
        if shared is None or shared._ending or gate is not shared._gate:
            return
        shared.sync()
        world = current_world()
        # Processes that started together do not come together.
        seconds = shared.store.interval * (800 + world.prng.below(401)) / 1000
        del shared
        world.clock.wait(gate, seconds)


def shared_of(store: Any) -> Shared:
    """Return the link of this process to ``store``, made on first use."""
    shared: Shared | None = getattr(store, "shared", None)
    if shared is None:
        shared = store.shared = Shared(store)
    return shared


def share_breaker(breaker: Any, store: Any) -> "SharedBreaker":
    """Let ``breaker`` be one with those of its name in other processes; sets its ``shared``."""
    from outlast.protect.shared_breaker import SharedBreaker

    shared = store if isinstance(store, Shared) else shared_of(store)
    link = SharedBreaker(shared, breaker)
    breaker.shared = link
    shared.add(link)
    return link


def share_rate(store: Any, *, lease_ns: int = 50 * _MS) -> "SharedRate":
    """Return slots of a rate that processes share, for ``RateLimit(store=…)``."""
    from outlast.protect.shared_limits import SharedRate

    shared = store if isinstance(store, Shared) else shared_of(store)
    link = SharedRate(shared, lease_ns=lease_ns)
    shared.add(link)
    return link


def share_budget(
    store: Any,
    name: Callable[[], str],
    settings: Callable[[], tuple[int, int]],
    deposits: Callable[[], int],
) -> "SharedBudget":
    """Return tokens of a budget that processes share, for ``Budget(store=…)``."""
    from outlast.protect.shared_limits import SharedBudget

    shared = store if isinstance(store, Shared) else shared_of(store)
    link = SharedBudget(shared, name, settings, deposits)
    shared.add(link)
    return link


def _after_fork() -> None:
    for shared in tuple(_all):
        shared._forked()


def _in_another_world() -> None:
    for shared in tuple(_all):
        shared._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
on_fresh_world(_in_another_world)
