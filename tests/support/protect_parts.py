"""Parts that tell a bookkeeper what they let through, and settings of a policy from a seed."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from outlast.kernel import Prng, RejectedError, current_world
from outlast.protect import (
    AIMD,
    AdaptiveLimit,
    Budget,
    Bulkhead,
    CircuitBreaker,
    CountWindow,
    Fallback,
    Gradient,
    Hedge,
    Idempotency,
    Policy,
    RateLimit,
    Retry,
    SlidingWindow,
    TimeWindow,
    Vegas,
)
from outlast.protect.core.breaker import Probe, Ticket
from outlast.protect.shared import Shared
from tests.support.protect_service import Broken

NS = 1_000_000_000
ORDERS: tuple[tuple[str, ...], ...] = (
    (), (), (), ("limit", "retry"), ("breaker", "retry"), ("rate", "limit", "retry"),
    ("hedge", "retry"), ("limit", "hedge"),
)  # fmt: skip

probe_var: ContextVar[Probe | None] = ContextVar("probe", default=None)
"""The probe that was given to the attempt which is about to run."""


class WatchedBreaker(CircuitBreaker):
    """Knows which of the calls that run are probes."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.probing: dict[Probe, int] = {}

    def admit(self, policy: str = "") -> Ticket:
        probe_var.set(None)
        ticket = super().admit(policy)
        if isinstance(ticket, Probe):
            probe_var.set(ticket)
        return ticket

    def began(self) -> Probe | None:
        """An attempt runs; return its probe if it is one."""
        probe = probe_var.get()
        probe_var.set(None)
        if probe is None or probe.round is not self.core.round:
            return None
        self.probing[probe] = probe.expires_ns
        return probe

    def overlapping(self) -> int:
        """How many probes of the present round run and are not overdue."""
        now_ns = current_world().clock.monotonic_ns()
        here = self.core.round
        return sum(p.round is here and end > now_ns for p, end in self.probing.items())


class WatchedBudget(Budget):
    """Remembers when calls began and when extra attempts were granted."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.calls: list[int] = []
        self.granted: list[int] = []
        self.asked: list[int] = []
        deposit = self.deposit

        def counted() -> int:
            self.calls.append(current_world().clock.monotonic_ns())
            return deposit()

        self.deposit: Callable[[], int] = counted

    def try_spend(self, now_ns: int | None = None) -> bool:
        granted = super().try_spend(now_ns)
        self.asked.append(current_world().clock.monotonic_ns())
        if granted:
            self.granted.append(current_world().clock.monotonic_ns())
        return granted

    def excess(self) -> str:
        """Return what was granted beyond the bound, or nothing.

        In the window before each grant at most ``floor * window``, and ``ratio`` of the calls in
        it. Calls are known by their number between two questions: those since the last question
        before the window may all have been taken for calls within it.
        """
        window_ns = round(self.window * NS)
        for number, at_ns in enumerate(self.granted):
            since = at_ns - window_ns
            spent = sum(since < one for one in self.granted[: number + 1])
            known = max((one for one in self.asked if one < since - window_ns // 64), default=-1)
            calls = sum(known <= one <= at_ns for one in self.calls)
            most = self.floor * self.window + self.ratio * calls + 1e-6
            if spent > most:
                return f"{spent} extra attempts in a window that allows {most:.2f}"
        return ""


class Slots:
    """The slots that a rate limit gave out."""

    def __init__(self) -> None:
        self.due: list[int] = []

    def gave(self, now_ns: int, wait_ns: int) -> int:
        self.due.append(now_ns + wait_ns)
        return wait_ns

    def back(self, due_ns: int, cost: int, taken: bool) -> bool:
        if taken:
            self.due.remove(due_ns)
        return taken


class WatchedRate(RateLimit):
    """Remembers the slots that it gave out."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.slots = Slots()

    def reserve(self, now_ns: int) -> int:
        return self.slots.gave(now_ns, super().reserve(now_ns))

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        return self.slots.back(due_ns, cost, super().give_back(due_ns, cost))

    def excess(self) -> str:
        """Return a window with more slots than there may be, or nothing."""
        due, rate = sorted(self.slots.due), self.rate / self.per
        for first, begin in enumerate(due):
            for last in range(first + self.burst, len(due)):
                most = self.burst + rate * (due[last] - begin) / NS
                if last - first + 1 > most + 1e-6:
                    return f"{last - first + 1} calls in {due[last] - begin} ns, {most:.2f} may"
        return ""


class WatchedWindow(SlidingWindow):
    """Remembers the slots that it gave out."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.slots = Slots()

    def reserve(self, now_ns: int) -> int:
        return self.slots.gave(now_ns, super().reserve(now_ns))

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        return self.slots.back(due_ns, cost, super().give_back(due_ns, cost))

    def excess(self) -> str:
        """Return a window with more slots than there may be, or nothing."""
        due, per_ns = sorted(self.slots.due), round(self.per * NS)
        for first in range(len(due) - self.limit):
            if due[first + self.limit] - due[first] < per_ns:
                return f"{self.limit + 1} calls within {due[first + self.limit] - due[first]} ns"
        return ""


class Settings:
    """A whole policy, drawn. The same for all lives of a client.

    Attributes:
        plain: Whether each running attempt holds exactly one permit: canonical order.
        blocks: Whether calls can also be made as blocks.
    """

    def __init__(self, prng: Prng, *, shared: bool) -> None:
        chance = prng.chance
        self.seed = prng.bits64()
        self.shared = shared
        self.timeout = prng.choice((0.15, 0.4, 1.0, 2.0))
        self.bounded = chance(5, 6)
        self.attempt_timeout = prng.choice((0.03, 0.1, 0.3))
        self.attempt_bounded = not self.bounded or chance(3, 4)
        self.attempts = prng.between(1, 5)
        self.hedged = chance(1, 2)
        self.hedge_attempts = prng.between(2, 3)
        self.concurrent = prng.between(1, 3)
        self.broken = chance(4, 5)
        order = prng.choice(ORDERS)
        self.order = order
        self.plain = not order
        self.fallback = chance(1, 4)
        self.blocks = self.plain and not self.hedged and not self.fallback

    @property
    def attempts_most(self) -> int:
        """How many attempts one call may take."""
        return self.attempts * (self.hedge_attempts if self.hedged else 1)


def make_policy(name: str, settings: Settings, shared: Shared | None) -> Policy:
    """Return a new policy with parts of its own; the draws are the same for each life."""
    prng = Prng(settings.seed)
    budget = _budget(prng)
    parts: dict[str, Any] = {"retry": _retry(prng, settings, budget)}
    hedge = _hedge(prng, settings, budget)
    breaker, rate, limit = _breaker(prng, settings, shared), _rate(prng), _limit(prng)
    if settings.hedged:
        parts["hedge"] = hedge
    if settings.broken:
        parts["breaker"] = breaker
    parts |= {"rate": rate} if rate is not None else {}
    parts |= {"limit": limit} if limit is not None else {}
    if settings.fallback:
        parts["fallback"] = Fallback(-1, on=(OSError, RejectedError, Broken))
    return Policy(
        name,
        timeout=settings.timeout if settings.bounded else None,
        attempt_timeout=settings.attempt_timeout if settings.attempt_bounded else None,
        idempotency=Idempotency(),
        order=_known(settings.order, parts),
        **parts,
    )


def _known(order: Sequence[str], parts: dict[str, Any]) -> Sequence[str]:
    return [one for one in order if one in parts]


def _budget(prng: Prng) -> WatchedBudget | None:
    ratio, floor = prng.choice((0.0, 0.1, 0.3, 1.0)), prng.choice((0.0, 1.0, 5.0))
    budget = WatchedBudget(ratio, floor, prng.choice((0.5, 2.0)))
    return budget if prng.chance(4, 5) else None


def _retry(prng: Prng, settings: Settings, budget: WatchedBudget | None) -> Retry:
    return Retry(
        on=(OSError, Broken, RejectedError),
        attempts=settings.attempts,
        base=prng.choice((0.005, 0.02, 0.1)),
        cap=0.3,
        retry_after_cap=0.5,
        jitter=prng.choice(("full", "equal", "decorrelated", "none")),
        repeat_indefinite=prng.chance(3, 4),
        budget=budget,
    )


def _hedge(prng: Prng, settings: Settings, budget: WatchedBudget | None) -> Hedge:
    return Hedge(
        prng.choice((0.005, 0.02, 0.1)),
        percentile=prng.choice((None, 0.8, 0.95)),
        attempts=settings.hedge_attempts,
        budget=budget,
        on=prng.choice((None, (OSError, Broken))),
        min_samples=5,
    )


def _breaker(prng: Prng, settings: Settings, shared: Shared | None) -> WatchedBreaker:
    recovery = prng.choice((0.2, 0.5, 1.0))
    how: dict[str, Any] = {"failure_threshold": prng.between(1, 6)}
    kind = prng.below(4)
    window = CountWindow(20) if prng.chance(1, 2) else TimeWindow(1.0, buckets=5)
    if kind == 1:
        how = {"failure_rate": 0.5, "window": window, "min_calls": 5}
    elif kind == 2:
        how = {"slow_call": 0.2, "slow_rate": 0.6, "window": window, "min_calls": 5}
    elif kind == 3:
        how |= {"failure_rate": 0.4, "window": window, "min_calls": 8}
    return WatchedBreaker(
        recovery_timeout=recovery,
        recovery_cap=3 * recovery,
        probes=prng.between(1, 3),
        probes_concurrent=settings.concurrent,
        probe_timeout=prng.choice((0.2, 1.0)),
        store=shared,
        name="api",
        **how,
    )


def _rate(prng: Prng) -> WatchedRate | WatchedWindow | None:
    kind, wait = prng.below(3), prng.choice((0.0, 0.05, 0.3))
    if kind == 1:
        return WatchedRate(prng.between(20, 200), burst=prng.between(1, 20), max_wait=wait)
    if kind == 2:
        return WatchedWindow(prng.between(5, 40), prng.choice((0.1, 0.25)), max_wait=wait)
    return None


def _limit(prng: Prng) -> Bulkhead | AdaptiveLimit | None:
    kind, queue = prng.below(3), prng.choice((0, 2, 10))
    size, wait = prng.between(1, 12), prng.choice((None, 0.02, 0.2)) if queue else None
    algorithms: list[Any] = [Gradient(), Vegas(), AIMD(), AIMD(threshold=0.1, backoff=0.5)]
    algorithm = prng.choice(algorithms)
    if kind == 1:
        return Bulkhead(size, queue=queue, max_wait=wait)
    if kind == 2:
        reserve = prng.choice((0.0, 0.3))
        return AdaptiveLimit(
            algorithm, initial=size, max=30, queue=queue, max_wait=wait, reserve=reserve
        )
    return None
