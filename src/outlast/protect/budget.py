"""``Budget``: one allowance for the retries and hedges of everything that is given it."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

from outlast.kernel import current_world
from outlast.protect.checks import DAY, check_ns, check_number
from outlast.protect.core.budget import MICRO, BudgetRules
from outlast.protect.forked import tell_of_forks
from outlast.protect.part import Part

_NS: Final = 1_000_000_000


class Budget(Part):
    """Extra attempts that calls may make: ``ratio`` of all calls, and ``floor`` per second.

    Give one object to every ``Retry`` and ``Hedge`` that calls the same service: what one uses up
    the others do not have. In the ``window`` seconds before each extra attempt, at most
    ``ratio * calls + floor * window`` are granted, itself included; so a failing service gets at
    most ``1 + ratio`` times the load it would have, plus the floor. Calls are taken to come evenly
    between two failures; those from before the very first one do not count.

    An extra attempt is paid for when it is granted, before the wait that precedes it. A budget
    that is used up keeps further ones from starting and ends none that runs; the caller gets the
    error that it would have retried. Safe to share between threads and event loops.

    Args:
        ratio: Extra attempts per call. 0 to 10.
        floor: Extra attempts per second besides, so that few calls can be retried. 0 or more.
        window: Seconds over which both are reckoned. 0.1 or more.
        store: Where processes share it, by ``name``; see ``outlast.protect.store``.
            An extra attempt for which no token is held asks it, and waits for its ``timeout``.
        name: In events and metrics; by default that of the first policy that uses it.

    Raises:
        ConfigError: Definite. A setting is wrong.

    >>> budget = Budget(ratio=0.1, floor=0.2, window=10)
    >>> [budget.try_spend() for _ in range(3)]
    [True, True, False]
    """

    position: ClassVar[str] = "budget"
    settings: ClassVar[tuple[str, ...]] = ("ratio", "floor", "window")

    __slots__ = ("_exhausted", "deposit", "rules")

    def __init__(
        self,
        ratio: float = 0.1,
        floor: float = 1.0,
        window: float = 10.0,
        *,
        store: Any = None,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self.rules = BudgetRules(threading.Lock(), *_settings(ratio, floor, window))
        if store is not None:
            from outlast.protect.shared_limits import SharedBudgetRules

            self.rules = SharedBudgetRules(self.rules, store, lambda: self.name)
        self.deposit: Callable[[], int] = self.rules.deposit
        """Call it once per logical call, when it begins. Atomic, and next to free."""
        self._exhausted = False
        tell_of_forks(self)

    @property
    def ratio(self) -> float:
        """Extra attempts per call."""
        return self.rules.ratio_micro / MICRO

    @property
    def floor(self) -> float:
        """Extra attempts per second besides."""
        return self.rules.floor_micro * _NS / self.rules.window_ns / MICRO

    @property
    def window(self) -> float:
        """Seconds over which both are reckoned."""
        return self.rules.window_ns / _NS

    @property
    def store(self) -> Any:
        """Where processes share it; ``None`` for this process alone."""
        return getattr(self.rules, "store", None)

    def try_spend(self, now_ns: int | None = None) -> bool:
        """Ask for one extra attempt; whether it may be made. Never waits.

        Args:
            now_ns: Monotonic time; read from the clock if not given.
        """
        if now_ns is None:
            now_ns = current_world().clock.monotonic_ns()
        if self.rules.ask(now_ns):
            self._exhausted = False
            return True
        if not self._exhausted:
            self._exhausted = True
            self._tell()
        return False

    def snapshot(self) -> dict[str, Any]:
        """Return calls and granted extra attempts of the last window, what is left, refusals."""
        rules = self.rules
        left = rules.left(current_world().clock.monotonic_ns())
        return {
            "calls": rules.calls, "granted": rules.grants, "left": left, "refused": rules.refused,
        }  # fmt: skip

    def reset(self) -> None:
        """Forget all calls and extra attempts so far."""
        self.rules.reset()
        self._exhausted = False

    def forked(self) -> None:
        """This is the child of a fork: the counts go on, the lock is nobody's."""
        self.rules.guard = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: no call has begun yet."""
        self.reset()
        self.rules.refused = 0

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; what was granted counts on."""
        merged = {name: getattr(self, name) for name in self.settings} | changes
        self.rules.change(*_settings(**merged))

    def _tell(self) -> None:
        from outlast.protect.events import BudgetExhausted

        rules = self.rules
        event = BudgetExhausted(name=self.name, calls=rules.calls, granted=rules.grants)
        current_world().events.emit(event)


def _settings(ratio: float, floor: float, window: float) -> tuple[int, int, int]:
    """Return the settings as the rules take them."""
    window_ns = check_ns("Budget", "window", window, 0.1, DAY)
    per_call = check_number("Budget", "ratio", ratio, 0, 10, what="extra attempts per call")
    per_second = check_number("Budget", "floor", floor, 0, 1e6, what="extra attempts per second")
    return round(per_call * MICRO), round(per_second * window_ns * MICRO / _NS), window_ns
