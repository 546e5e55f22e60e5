"""Slots of a rate and tokens of a budget that processes share, leased a few at a time."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from outlast.kernel import current_world
from outlast.protect.core.budget import MICRO, BudgetRules, Span
from outlast.protect.core.rate import Gcra
from outlast.protect.core.shares import Taken
from outlast.protect.shared import Lost, Shared, share_budget, share_rate
from outlast.protect.shared_key import no_name, store_name

_MS: Final = 1_000_000
_NS: Final = 1_000_000_000
_CAP_MILLI: Final = 10_000
_SLOTS_MAX: Final = 4_096
_HELD_MAX: Final = 100


class _Slot(NamedTuple):
    """A slot that this process may use, and between when."""

    ready_ns: int
    until_ns: int


class SharedRate:
    """Slots of a rate that the processes share, leased a few at a time.

    A lease is for as many slots as ``lease_ns`` gives (at least one, at most the burst). A slot
    that was not used within ``lease_ns`` is given up. The store has decided at some instant
    between question and answer: a slot that is kept begins no sooner than if that was the answer,
    and ends no later than if it was the question. So in any time ``W`` all processes together
    start at most ``burst + rate * (W + lease_ns)`` calls, however many they are.

    Args:
        shared: The link.
        lease_ns: See above.
    """

    __slots__ = ("__weakref__", "_lease_ns", "_shared", "_slots")

    def __init__(self, shared: Shared, *, lease_ns: int = 50 * _MS) -> None:
        self._shared = shared
        self._lease_ns = lease_ns
        self._slots: deque[_Slot] = deque(maxlen=_SLOTS_MAX)

    def reserve(
        self,
        name: str,
        now_ns: int,
        *,
        interval_ns: int,
        burst: int,
        max_wait_ns: int,
        cost: int = 1,
    ) -> Taken | None:
        """Take ``cost`` slots; ``None`` if the store is lost and the local rate is to decide."""
        slots = self._slots
        if cost > 1:
            return self._lease(
                name, now_ns, cost, interval_ns=interval_ns, burst=burst, max_wait_ns=max_wait_ns,
                keep=0,
            )  # fmt: skip
        while slots:
            try:
                slot = slots.popleft()
            except IndexError:
                break  # another thread was faster
            if now_ns < slot.until_ns:
                return self._use(slot, now_ns, max_wait_ns)
        few = max(1, min(burst, _SLOTS_MAX, self._lease_ns // max(1, interval_ns)))
        taken = self._lease(
            name, now_ns, few, interval_ns=interval_ns, burst=burst, max_wait_ns=max_wait_ns
        )
        if taken is not None and not taken.granted and few > 1:
            taken = self._lease(
                name, now_ns, 1, interval_ns=interval_ns, burst=burst, max_wait_ns=max_wait_ns
            )
        return taken

    def _lease(
        self,
        name: str,
        now_ns: int,
        cost: int,
        *,
        interval_ns: int,
        burst: int,
        max_wait_ns: int,
        keep: int | None = None,
    ) -> Taken | None:
        store = self._shared.store
        taken = self._shared.ask(
            partial(store.take, name, interval_ns, burst * interval_ns, cost, max_wait_ns)
        )
        if isinstance(taken, Lost):
            return None
        if taken.granted:
            kept = cost - 1 if keep is None else keep
            ready_ns = current_world().clock.monotonic_ns() + taken.wait_ns
            until_ns = now_ns + taken.wait_ns + self._lease_ns
            if ready_ns < until_ns:
                self._slots.extend([_Slot(ready_ns, until_ns)] * kept)
        return taken

    def _use(self, slot: _Slot, now_ns: int, max_wait_ns: int) -> Taken:
        wait_ns = max(0, slot.ready_ns - now_ns)
        if wait_ns > max_wait_ns:
            self._slots.append(slot)
            return Taken(granted=False, wait_ns=wait_ns)
        return Taken(granted=True, wait_ns=wait_ns)

    def give_back(self, due_ns: int, cost: int = 1) -> None:
        """Return slots that were to be used at ``due_ns``: this process may use them soon."""
        self._slots.extend([_Slot(due_ns, due_ns + self._lease_ns)] * cost)

    @property
    def lost(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._shared.lost

    def sync(self) -> None:
        """Nothing is due."""

    def forked(self) -> None:
        """Leave the slots to the parent."""
        self._slots = deque(maxlen=_SLOTS_MAX)


class SharedBudget:
    """Tokens of a budget that the processes share, leased a few at a time.

    What is deposited is gathered and handed over with the next lease or look. Tokens held are
    spent without asking; after each look as many are held as were spent since the one before.
    All processes together never spend more than was deposited and the floor gave.

    Args:
        shared: The link.
        name: Reads the name of the budget.
        settings: Reads the floor in thousandths of tokens per second, and the cap in thousandths.
        deposits: Returns how many thousandths were deposited since it was last called.
    """

    __slots__ = (
        "__weakref__", "_deposits", "_held", "_lock", "_name", "_owed", "_settings", "_shared",
        "_spent",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        name: Callable[[], str],
        settings: Callable[[], tuple[int, int]],
        deposits: Callable[[], int],
    ) -> None:
        self._shared = shared
        self._name = name
        self._settings = settings
        self._deposits = deposits
        self.forked()

    def forked(self) -> None:
        """Leave tokens and deposits to the parent."""
        self._held: deque[None] = deque(maxlen=_HELD_MAX)
        self._lock = threading.Lock()
        self._owed = 0
        self._spent = 0

    def try_spend(self) -> bool | None:
        """Take one token; ``None`` if the store is lost and the local budget is to decide."""
        self._spent += 1
        try:
            self._held.pop()
        except IndexError:
            granted = self._lease(1)
            return None if granted is None else granted > 0
        return True

    def sync(self) -> None:
        """Hand over deposits, and hold as many tokens as were lately spent."""
        if not self._name():
            return
        spent, self._spent = self._spent, 0
        granted = self._lease(max(0, min(spent, _HELD_MAX) - len(self._held)))
        if granted:
            self._held.extend([None] * granted)

    def _lease(self, want: int) -> int | None:
        floor, cap = self._settings()
        new = self._deposits()
        with self._lock:
            total, self._owed = min(self._owed + new, cap), 0
        if not want and not total:
            return 0
        store = self._shared.store
        granted = self._shared.ask(partial(store.spend, self._name(), total, floor, cap, want))
        if isinstance(granted, Lost):
            with self._lock:
                self._owed += total
            return None
        return granted


class SharedGcra(Gcra):
    """A rate that processes share, and the local one while the store is lost.

    Args:
        local: The settings.
        store: Where processes share it.
        link: Where slots come from.
        name: Reads the name of the rate.

    Attributes:
        key: For which key of a ``Keyed`` it is, as a digest; empty if for none.
    """

    __slots__ = ("_link", "_name", "key", "store")

    def __init__(self, local: Gcra, store: Any, link: SharedRate, name: Callable[[], str]) -> None:
        super().__init__(local.guard, local.rate_micro, local.per_ns, local.burst)
        self.store = store
        self.key = ""
        self._link = link
        self._name = name

    def reserve(self, now_ns: int, max_wait_ns: int, cost: int = 1) -> int:
        """Take slots of all processes; as ``Gcra.reserve``.

        Raises:
            ConfigError: Definite. It has no name under which processes could share it.
        """
        name = self._name()
        if not name:
            raise no_name("RateLimit")
        taken = self._link.reserve(
            store_name(name, self.key), now_ns,
            interval_ns=-(-self.per_ns * MICRO // self.rate_micro),
            burst=self.burst, max_wait_ns=max_wait_ns, cost=cost,
        )  # fmt: skip
        if taken is None:
            return super().reserve(now_ns, max_wait_ns, cost)
        return taken.wait_ns if taken.granted else -taken.wait_ns

    def quick(self, now_ns: int, max_wait_ns: int, cost: int = 1) -> int:
        """Refuse: the store is to be asked once for each call and not twice."""
        return -1

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        """Take slots back: another call of this process can have them."""
        if self._link.lost:
            return super().give_back(due_ns, cost)
        self._link.give_back(due_ns, cost)
        return True


class SharedBudgetRules(BudgetRules):
    """The allowance of all processes together, and the local one while the store is lost.

    Here it is a bucket: calls put ``ratio`` tokens in, time puts ``floor`` in, and what is saved
    up is bounded by the floor of one window, ``ratio`` of this node's calls in it, and ten.

    Args:
        local: The settings.
        store: Where tokens come from.
        name: Reads the name of the budget.
    """

    __slots__ = ("_earned_micro", "_link", "_name", "store")

    def __init__(self, local: BudgetRules, store: Any, name: Callable[[], str]) -> None:
        self._earned_micro = 0
        super().__init__(local.guard, local.ratio_micro, local.floor_micro, local.window_ns)
        self._name = name
        self.store = store
        self._link = share_budget(store, name, self._bounds, self._earned)

    def ask(self, now_ns: int) -> bool:
        """Return whether one extra attempt is granted; as ``BudgetRules.ask``.

        Raises:
            ConfigError: Definite. It has no name under which processes could share it.
        """
        if not self._name():
            raise no_name("Budget")
        granted = self._link.try_spend()
        if granted is None:
            return super().ask(now_ns)
        with self.guard:
            span = self._learn(now_ns)
            if granted:
                span.grants += 1
                self.grants += 1
            else:
                self.refused += 1
        return granted

    def _learn(self, now_ns: int) -> Span:
        before = self._read
        span = super()._learn(now_ns)
        self._earned_micro += (self._read - 1 - before) * self.ratio_micro
        return span

    def _forget(self) -> None:
        super()._forget()
        self._earned_micro = 0

    def _bounds(self) -> tuple[int, int]:
        cap_micro = self.floor_micro + self.ratio_micro * self.calls
        return self.floor_micro * _NS // self.window_ns // 1000, cap_micro // 1000 + _CAP_MILLI

    def _earned(self) -> int:
        now_ns = current_world().clock.monotonic_ns()
        with self.guard:
            self._learn(now_ns)
            milli, self._earned_micro = divmod(self._earned_micro, 1000)
        return milli


def shared_gcra(local: Gcra, store: Any, name: Callable[[], str]) -> SharedGcra:
    """Return ``local`` shared by processes, for ``RateLimit(store=…)``."""
    return SharedGcra(local, store, share_rate(store), name)
