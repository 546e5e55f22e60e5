"""The link between one breaker and the others of its name; see :mod:`outlast.protect.shared`."""

import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.kernel import current_world
from outlast.protect.core.fleet import FleetRules, Lease, View
from outlast.protect.core.fleet_node import AdoptOpen, FleetNode
from outlast.protect.shared import Lost, Shared
from outlast.protect.shared_key import store_name

if TYPE_CHECKING:
    from outlast.protect.breaker import CircuitBreaker

_NS: Final = 1_000_000_000
_REPORT_TTL_INTERVALS: Final = 6
_FLEET_MODES: Final = ("normal", "shadow")


class LocalProbe:
    """The leave to probe without the fleet, which is closed or cannot be reached."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "LocalProbe()"


LOCAL: Final = LocalProbe()


class SharedBreaker:
    """The link between one breaker and the record that the fleet has of it.

    A breaker without a name is not shared: its policy or its maker has to give it one.

    Attributes:
        key: For which key of a ``Keyed`` the breaker is, as a digest; empty if for none.
    """

    __slots__ = ("__weakref__", "_breaker", "_lock", "_node", "_shared", "key")

    def __init__(self, shared: Shared, breaker: "CircuitBreaker") -> None:
        self.key = ""
        self._shared = shared
        self._breaker = breaker
        self.forked()

    def forked(self) -> None:
        """Begin anew, under the name of this process."""
        every_ns = int(self._shared.store.interval * _NS)
        self._lock = threading.Lock()
        self._node = FleetNode(
            report_every_ns=every_ns * _REPORT_TTL_INTERVALS // 3, ask_every_ns=every_ns // 5
        )

    @property
    def store_name(self) -> str:
        """The name of the record; empty if there is none."""
        return store_name(self._breaker.name, self.key)

    @property
    def following(self) -> bool:
        """Whether the fleet is open, and this breaker with it."""
        return self._node.following

    def rules(self) -> FleetRules:
        """Return how the fleet agrees, from the settings of the store and of the breaker."""
        store, breaker = self._shared.store, self._breaker
        open_ms = max(1, round(breaker.recovery_timeout * 1000))
        cap = breaker.recovery_cap
        return FleetRules(
            quorum_permille=round(store.quorum * 1000),
            min_nodes=store.min_nodes,
            report_ttl_ms=max(1, round(store.interval * 1000 * _REPORT_TTL_INTERVALS)),
            open_ms=open_ms,
            open_max_ms=10 * open_ms if cap is None else max(open_ms, round(cap * 1000)),
            probes=breaker.probes_concurrent,
            successes=breaker.probes,
        )

    # --- what the breaker calls ------------------------------------------------------------------

    def tripped(self, now_ns: int, open_ns: int) -> None:
        """The breaker has opened by what it saw itself: the fleet is told soon."""
        with self._lock:
            self._node.tripped()
        self._shared.wake()

    def may_probe(self, now_ns: int) -> Lease | LocalProbe | None:
        """Return the leave to probe: of the fleet while it is open, or this node's own."""
        shared, node = self._shared, self._node
        with self._lock:
            following, epoch, may_ask = node.following, node.epoch, node.may_ask(now_ns)
        name = self.store_name
        if not following or not name:
            return LOCAL
        if not may_ask:
            return None
        ttl_ms = max(1, round(self._breaker.probe_timeout * 1000))
        lease = shared.ask(
            partial(shared.store.lease_probe, name, shared.node, epoch, ttl_ms, self.rules())
        )
        if isinstance(lease, Lost):
            return LOCAL
        if lease is None:
            with self._lock:
                node.refused(now_ns)
            shared.wake()  # the fleet may have closed, or opened anew
        return lease

    def probe_settled(self, lease: object, ok: bool | None) -> None:
        """A probe has ended: the fleet is told soon, if it was the fleet's."""
        if isinstance(lease, Lease):
            self._shared.later(partial(self._settle, lease, ok))

    def _settle(self, lease: Lease, ok: bool | None) -> None:
        store = self._shared.store
        view = self._shared.ask(partial(store.settle, lease, ok, self.rules()))
        if not isinstance(view, Lost):
            self._follow(view)

    # --- what the thread calls -------------------------------------------------------------------

    def sync(self) -> None:
        """Report if something is due, and follow what the fleet says."""
        breaker, shared, node = self._breaker, self._shared, self._node
        name = self.store_name
        if not name:
            return
        if not node.epoch:
            self._look(name)
        now_ns = current_world().clock.monotonic_ns()
        is_open = self._is_open()
        with self._lock:
            bad = node.evidence(is_open=is_open, now_ns=now_ns)
            epoch = node.epoch
        if bad is None or not epoch or breaker.mode not in _FLEET_MODES:
            self._look(name)
            return
        view = shared.ask(
            partial(shared.store.report, name, shared.node, epoch, bad, self.rules())
        )
        if isinstance(view, Lost):
            return
        if view.epoch == epoch or view.state != "closed":
            with self._lock:
                node.reported(bad, epoch, now_ns)
        self._follow(view)

    def leave(self) -> None:
        """Take back what this node reported."""
        name = self.store_name
        if name:
            self._shared.ask(partial(self._shared.store.leave, name, self._shared.node))

    def _look(self, name: str) -> None:
        view = self._shared.ask(partial(self._shared.store.view, name))
        if not isinstance(view, Lost):
            self._follow(view)

    def _follow(self, view: View) -> None:
        is_open = self._is_open()
        with self._lock:
            change = self._node.viewed(view, is_open=is_open)
        if change is None:
            return
        if isinstance(change, AdoptOpen):
            self._breaker.adopt_open(change.open_ns)
        else:
            self._breaker.adopt_closed()

    def _is_open(self) -> bool:
        return self._breaker.mode in _FLEET_MODES and self._breaker.state != "CLOSED"
