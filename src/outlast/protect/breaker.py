"""``CircuitBreaker``: stops calling what fails, and tries it again with care."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final, Literal, Protocol

from outlast.kernel import (
    CircuitOpenError,
    CommandError,
    InFlightError,
    TooLateError,
    World,
    current_world,
)
from outlast.protect.breaker_permit import BreakerPermit, permit_of
from outlast.protect.core.breaker import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    BreakerCore,
    Change,
    Mode,
    Probe,
    Refused,
    Round,
    Ticket,
)
from outlast.protect.core.breaker_rules import Rules, check_seconds, read_rules
from outlast.protect.core.filter import ErrorFilter, check_filter, matches
from outlast.protect.core.window import FOREVER_NS, CountWindow, TimeWindow
from outlast.protect.forked import tell_of_forks
from outlast.protect.if_free import if_free
from outlast.protect.part import Part

_NS: Final = 1_000_000_000

BreakerState = Literal["CLOSED", "OPEN", "HALF_OPEN"]


class Shared(Protocol):
    """What a breaker that is shared by processes asks of the link to the others."""

    def tripped(self, now_ns: int, open_ns: int) -> None:
        """This breaker has opened by what it saw itself. Must not wait."""
        ...

    def may_probe(self, now_ns: int) -> object:
        """Return a lease for a probe, or ``None`` if others have them all. May wait shortly."""
        ...

    def probe_settled(self, lease: object, ok: bool | None) -> None:
        """A probe under ``lease`` has ended; ``None`` if it told nothing. May wait shortly."""
        ...


class CircuitBreaker(Part):
    """Refuses calls while the callee fails, and tries it again after a while.

    While it is ``CLOSED`` calls pass. It opens after ``failure_threshold`` failures one after
    another, or when the share of failed or slow calls in ``window`` reaches a rate. While it is
    ``OPEN`` calls are refused with ``CircuitOpenError``. After ``recovery_timeout`` it is
    ``HALF_OPEN``: ``probes_concurrent`` calls at a time are let through; after ``probes`` of them
    succeeded it is closed, and a failed one opens it again for longer: twice as long each round,
    up to ``recovery_cap``, less a random half.

    A probe that is cancelled or has not ended after ``probe_timeout`` tells nothing: its place
    goes to another call. Outcomes of calls from before the last change of state are ignored. The
    exceptions of the callee come through as they are.

    Usable as ``breaker=`` of a policy, alone as a decorator, in ``with breaker:``, and in two
    phases by :meth:`try_admit`. Safe to share between threads and event loops; a forked child has
    a copy of its own. Does not pickle.

    Args:
        failure_threshold: Failures one after another that open it; 5 unless a rate is given.
        recovery_timeout: Seconds that it stays open the first time.
        failure_rate: Share of failed calls in the window from which on it opens, in (0, 1].
        slow_call: Seconds from which on a call is slow.
        slow_rate: Share of slow calls in the window from which on it opens, in (0, 1].
        window: Which calls the rates are of: ``CountWindow(100)`` or ``TimeWindow(30)``.
        min_calls: Rates of fewer calls open nothing; 20, or less in a smaller window.
        probes: Successful probes after which it closes.
        probes_concurrent: Probes under way at the same time.
        probe_timeout: Seconds after which a probe's place is given to another call.
        recovery_cap: Longest time open, in seconds; ten times ``recovery_timeout`` by default.
        counts: Exceptions that are failures: classes, or a function of the exception; if it
            raises, the exception is one. Answers (``CommandError``), a repeat that met its own
            twin (``InFlightError``), ``TooLateError`` and cancellation never are.
        counts_result: A function that tells of a result whether it is a failure.
        store: Where processes share it; see ``outlast.protect.store``.
        name: In events and metrics.

    Raises:
        ConfigError: A value is out of range, or two contradict each other.

    >>> breaker = CircuitBreaker(failure_threshold=5, recovery_timeout=60)
    >>> breaker.state, breaker.failure_count
    ('CLOSED', 0)
    """

    CLOSED: Final = CLOSED
    OPEN: Final = OPEN
    HALF_OPEN: Final = HALF_OPEN

    position: ClassVar[str] = "breaker"
    settings: ClassVar[tuple[str, ...]] = (
        "failure_threshold", "recovery_timeout", "failure_rate", "slow_call", "slow_rate",
        "window", "min_calls", "probes", "probes_concurrent", "probe_timeout", "recovery_cap",
    )  # fmt: skip

    __slots__ = (
        "_core", "_lock", "_rules", "_slow_ns", "_store", "counts", "counts_result",
        "failure_threshold", "min_calls", "quick_ns", "recovery_cap", "shared", "timed",
    )  # fmt: skip

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_timeout: float = 60.0,
        *,
        failure_rate: float | None = None,
        slow_call: float | None = None,
        slow_rate: float | None = None,
        window: CountWindow | TimeWindow | None = None,
        min_calls: int | None = None,
        probes: int = 1,
        probes_concurrent: int = 1,
        probe_timeout: float = 10.0,
        recovery_cap: float | None = None,
        counts: ErrorFilter = Exception,
        counts_result: Callable[[Any], bool] | None = None,
        store: Any = None,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self.counts = check_filter("CircuitBreaker", "counts", counts)
        self.counts_result = counts_result
        self.failure_threshold = failure_threshold
        self.min_calls = min_calls
        self.recovery_cap = recovery_cap
        rules = read_rules(
            failure_threshold=failure_threshold, recovery_timeout=recovery_timeout,
            failure_rate=failure_rate, slow_call=slow_call, slow_rate=slow_rate, window=window,
            min_calls=min_calls, probes=probes, probes_concurrent=probes_concurrent,
            probe_timeout=probe_timeout, recovery_cap=recovery_cap,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._core = BreakerCore(rules)
        self._take(rules)
        self.shared: Shared | None = None
        self._store = store
        tell_of_forks(self)
        if store is not None:
            from outlast.protect.shared import share_breaker

            share_breaker(self, store)

    def _take(self, rules: Rules) -> None:
        self._rules = self._core.rules = rules
        self.timed = rules.timed
        self._slow_ns = rules.slow_ns
        self.quick_ns = FOREVER_NS if rules.slow_ns is None else rules.slow_ns

    # --- what a policy's frame uses --------------------------------------------------------------

    @property
    def round(self) -> Round:
        """The present stay in one state; while it ``passes``, it is the ticket of every call."""
        return self._core.round

    @property
    def core(self) -> BreakerCore:
        """The rules, for frames that read ``core.round``."""
        return self._core

    def admit(self, policy: str = "") -> Ticket:
        """Return a ticket for a call; asked while ``round.passes`` is false.

        Raises:
            CircuitOpenError: Definite. The breaker is open, isolated, or has its probes out.
        """
        world = current_world()
        now_ns = world.clock.monotonic_ns()
        with self._lock:
            before = self._core.state
            answer = self._core.admit(now_ns)
            halved = before == OPEN and self._core.state == HALF_OPEN
            shadow = self._core.mode == "shadow"
        if halved:
            from outlast.protect.events import CircuitHalfOpened

            world.events.emit(CircuitHalfOpened(name=self.name))
        if isinstance(answer, Probe):
            return self._armed(answer, now_ns, world, policy)
        if isinstance(answer, Refused):
            if shadow:
                self._tell_refused(world, policy, answer.reason, shadow=True)
                return self._core.round
            raise self._refusal(world, policy, answer)
        return answer

    def success(self, ticket: Ticket, elapsed_ns: int, now_ns: int) -> None:
        """A call has succeeded after ``elapsed_ns``."""
        slow_ns = self._slow_ns
        if slow_ns is not None and elapsed_ns >= slow_ns:
            world = current_world()
            with self._lock:
                change = self._core.was_slow(ticket, now_ns, world.prng)
            self._settled(ticket, change, now_ns, world, ok=change is None or change.state != OPEN)
            return
        if self.timed and isinstance(ticket, Round) and now_ns >= ticket.until_ns:
            with self._lock:
                self._core.tick(now_ns)
        ticket.succeeded()

    def failure(
        self, ticket: Ticket, error: BaseException | None, elapsed_ns: int, now_ns: int
    ) -> None:
        """A call has failed with ``error``; ``None`` for a result that is a failure."""
        if error is not None and not self.is_failure(error):
            if isinstance(error, Exception) and not isinstance(error, TooLateError):
                self.success(ticket, elapsed_ns, now_ns)
            else:
                self.cancelled(ticket)
            return
        world = current_world()
        slow = self._slow_ns is not None and elapsed_ns >= self._slow_ns
        with self._lock:
            change = self._core.failed(ticket, now_ns, world.prng, slow=slow)
        self._settled(ticket, change, now_ns, world, ok=False)

    def cancelled(self, ticket: Ticket) -> None:
        """A call has ended without telling anything of the callee."""
        if not isinstance(ticket, Probe):
            return
        ticket.expires_ns = -1  # overdue is as good as given back
        if_free(self._lock, partial(self._core.cancelled, ticket))
        if self.shared is not None and ticket.lease is not None:
            self.shared.probe_settled(ticket.lease, None)

    def is_failure(self, error: BaseException) -> bool:
        """Whether ``error`` speaks against the callee."""
        return (
            isinstance(error, Exception)
            and not isinstance(error, CommandError | InFlightError | TooLateError)
            and matches(self.counts, error, otherwise=True)
        )

    # --- for users -------------------------------------------------------------------------------

    def try_admit(self) -> BreakerPermit:
        """Return the right to make one call, to be settled by its outcome.

        Raises:
            CircuitOpenError: Definite. The call must not be made.
            ConfigError: Definite. It has a store and no name.
        """
        return permit_of(self)

    @property
    def state(self) -> BreakerState:
        """``"CLOSED"``, ``"OPEN"`` or ``"HALF_OPEN"``: what a call would meet now."""
        return self._core.state_at(current_world().clock.monotonic_ns())

    @property
    def mode(self) -> Mode:
        """``"normal"``, ``"isolated"``, ``"disabled"`` or ``"shadow"``."""
        return self._core.mode

    @property
    def failure_count(self) -> int:
        """Failures since the last success; while it is open, those that opened it."""
        with self._lock:
            return self._core.failures()

    @property
    def retry_after(self) -> float | None:
        """Seconds until it is half-open; ``None`` if it is not open, or isolated."""
        left_ns = self._core.open_left_ns(current_world().clock.monotonic_ns())
        return left_ns / _NS if left_ns else None

    def isolate(self) -> None:
        """Refuse every call until :meth:`enable` or :meth:`reset`."""
        self._become("isolated")

    def disable(self) -> None:
        """Let every call pass and count nothing until :meth:`enable` or :meth:`reset`."""
        self._become("disabled")

    def shadow(self) -> None:
        """Count, change state and tell of it, but refuse nothing."""
        self._become("shadow")

    def enable(self) -> None:
        """Go back to normal after :meth:`isolate`, :meth:`disable` or :meth:`shadow`."""
        self._become("normal")

    def reset(self) -> None:
        """Close, forget all failures, and be in normal mode."""
        with self._lock:
            change = self._core.reset()
        self._tell(change, current_world())

    def trip(self, seconds: float | None = None) -> None:
        """Open now, for ``seconds`` or ``recovery_timeout``; recovery is as after failures.

        Nothing happens while it is isolated or disabled.

        Raises:
            ConfigError: Definite. ``seconds`` is not a finite number above 0.
        """
        if seconds is not None:
            check_seconds("seconds", seconds)
        world = current_world()
        open_ns = self._rules.recovery_ns if seconds is None else round(seconds * _NS)
        with self._lock:
            change = self._core.open(open_ns, world.clock.monotonic_ns(), "tripped by hand")
        self._tell(change, world)

    # --- for the fleet ---------------------------------------------------------------------------

    def adopt_open(self, open_for_ns: int) -> None:
        """Open because the fleet has agreed that the callee fails."""
        world = current_world()
        with self._lock:
            change = self._core.open(open_for_ns, world.clock.monotonic_ns(), "the fleet opened")
        self._tell(change, world)

    def adopt_closed(self) -> None:
        """Close because the fleet has seen a probe succeed."""
        with self._lock:
            change = self._core.close("the fleet closed")
        self._tell(change, current_world())

    # --- settings and state ----------------------------------------------------------------------

    @property
    def store(self) -> Any:
        """Where processes share it; ``None`` for this process alone."""
        return self._store

    @property
    def recovery_timeout(self) -> float:
        """Seconds that it stays open the first time."""
        return self._rules.recovery_ns / _NS

    @property
    def failure_rate(self) -> float | None:
        """Share of failed calls from which on it opens."""
        return self._rules.failure_rate

    @property
    def slow_call(self) -> float | None:
        """Seconds from which on a call is slow."""
        return None if self._rules.slow_ns is None else self._rules.slow_ns / _NS

    @property
    def slow_rate(self) -> float | None:
        """Share of slow calls from which on it opens."""
        return self._rules.slow_rate

    @property
    def window(self) -> CountWindow | TimeWindow:
        """Which calls the rates are of."""
        return self._rules.window

    @property
    def probes(self) -> int:
        """Successful probes after which it closes."""
        return self._rules.probes

    @property
    def probes_concurrent(self) -> int:
        """Probes under way at the same time."""
        return self._rules.probes_concurrent

    @property
    def probe_timeout(self) -> float:
        """Seconds after which a probe's place is given to another call."""
        return self._rules.probe_ns / _NS

    def apply(self, changes: dict[str, Any]) -> None:
        """Take new settings: state, failures and open time stay; a changed window begins anew."""
        merged = {name: getattr(self, name) for name in self.settings} | changes
        rules = read_rules(**merged)
        with self._lock:
            for name in ("failure_threshold", "min_calls", "recovery_cap"):
                if name in changes:
                    setattr(self, name, changes[name])
            rewindow = rules.window != self._rules.window or rules.rated != self._rules.rated
            self._take(rules)
            if rewindow:
                self._core.rewindow()

    def snapshot(self) -> dict[str, Any]:
        """Return state, mode, failures, seconds left open and probes under way."""
        return {
            "state": self.state,
            "mode": self.mode,
            "failure_count": self.failure_count,
            "retry_after": self.retry_after,
            "probes_live": self._core.probes_live,
        }

    def forked(self) -> None:
        """This is the child of a fork: state and counts go on, the lock is nobody's."""
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: closed, nothing counted, nothing told. The mode stays."""
        with self._lock:
            self._core.begin_anew()

    # --- inside ----------------------------------------------------------------------------------

    def _become(self, mode: Mode) -> None:
        with self._lock:
            before, state = self._core.mode, self._core.state
            self._core.become(mode)
        if before == mode:
            return
        world = current_world()
        from outlast.protect.events import CircuitModeChanged

        world.events.emit(CircuitModeChanged(name=self.name, before=before, mode=mode))
        if state != CLOSED:
            self._tell(Change(state, CLOSED, f"now {mode}"), world)

    def _armed(self, probe: Probe, now_ns: int, world: World, policy: str) -> Ticket:
        """Make ``probe`` ready to be settled, with the leave of the fleet where there is one."""
        probe.succeeded = partial(self._probe_succeeded, probe)
        if self.shared is None:
            return probe
        try:
            probe.lease = self.shared.may_probe(now_ns)
        except BaseException:
            with self._lock:
                self._core.cancelled(probe)
            raise
        if probe.lease is None:
            with self._lock:
                self._core.cancelled(probe)
                shadow, current = self._core.mode == "shadow", self._core.round
            if shadow:
                return current
            refused = Refused("the circuit is half-open and others have its probes", None)
            raise self._refusal(world, policy, refused)
        return probe

    def _probe_succeeded(self, probe: Probe) -> None:
        world = current_world()
        now_ns = world.clock.monotonic_ns()
        with self._lock:
            change = self._core.probe_succeeded(probe, now_ns)
        self._settled(probe, change, now_ns, world, ok=True)

    def _settled(
        self, ticket: Ticket, change: Change | None, now_ns: int, world: World, *, ok: bool
    ) -> None:
        self._tell(change, world)
        shared = self.shared
        if shared is None:
            return
        if isinstance(ticket, Probe):
            if ticket.lease is not None:
                shared.probe_settled(ticket.lease, ok)
        elif change is not None and change.state == OPEN:
            shared.tripped(now_ns, change.open_ns)

    def _refusal(self, world: World, policy: str, refused: Refused) -> CircuitOpenError:
        self._tell_refused(world, policy, refused.reason, shadow=False)
        after_ns = refused.retry_after_ns
        name = self.name or policy
        return CircuitOpenError(
            f"{name}: {refused.reason}" if name else refused.reason,
            retry_after=None if after_ns is None else after_ns / _NS,
        )

    def _tell_refused(self, world: World, policy: str, reason: str, *, shadow: bool) -> None:
        from outlast.protect.events import CallRejected

        name = policy or self.name
        part = "breaker (shadow)" if shadow else "breaker"
        world.events.emit(CallRejected(name=name, part=part, reason=reason))

    def _tell(self, change: Change | None, world: World) -> None:
        if change is None:
            return
        from outlast.protect.events import CircuitClosed, CircuitOpened

        if change.state == OPEN:
            opened = CircuitOpened(
                name=self.name, reason=change.reason, failures=change.failures,
                seconds=change.open_ns / _NS,
            )  # fmt: skip
            world.events.emit(opened)
        else:
            world.events.emit(CircuitClosed(name=self.name, reason=change.reason))
