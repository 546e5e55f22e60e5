"""When to stop calling something that fails, and when to try it again.

A breaker watches the outcomes of calls. While it is *closed* they pass; when too many fail it
*opens* and refuses them, which spares the caller the wait and the callee the load; after a while
it is *half-open* and lets a few probes through, whose outcome closes or reopens it (Nygard,
"Release It!", 2007, chapter 5).

The rules deal in **tickets**. A call that is let through gets one and gives it back with its
outcome. The ticket of a closed breaker is the :class:`Round` itself: one stay in the closed state.
Its successes are counted by one atomic increment, without a lock, and nobody looks at the counter
until something fails. An outcome of a call that was started in an earlier round lands in a
counter at which nobody looks any more: calls from before a trip can neither close nor reopen.

States: CLOSED -(trip)-> OPEN -(time)-> HALF_OPEN -(probes succeed)-> CLOSED, or -(a probe
fails)-> OPEN for longer.
"""

from collections.abc import Callable
from itertools import count
from typing import Final, Literal

from outlast.kernel import Prng
from outlast.protect.core.breaker_rules import Rules
from outlast.protect.core.window import FOREVER_NS, Window

CLOSED: Final = "CLOSED"
OPEN: Final = "OPEN"
HALF_OPEN: Final = "HALF_OPEN"

State = Literal["CLOSED", "OPEN", "HALF_OPEN"]
Mode = Literal["normal", "isolated", "disabled", "shadow"]


class Round:
    """One stay in one state; also the ticket of each call that a closed breaker lets through.

    Attributes:
        state: The state.
        passes: Whether calls pass without asking: closed or disabled.
        succeeded: Called with nothing when such a call has succeeded. Atomic.
        number: Grows with each round; shown in events.
        until_ns: Until when the bucket of a time window lasts; for ever where there is none.
    """

    __slots__ = ("mark", "number", "passes", "state", "succeeded", "until_ns")

    def __init__(self, state: State, number: int, *, passes: bool) -> None:
        self.state: State = state
        self.number = number
        self.passes = passes
        self.succeeded: Callable[[], object] = count().__next__
        self.until_ns = FOREVER_NS
        self.mark = 0

    def fresh(self) -> int:
        """Return how many calls have succeeded since the last time this was asked."""
        value: int = self.succeeded()  # type: ignore[assignment]
        new, self.mark = value - self.mark, value + 1
        return new


class Probe:
    """The ticket of a call that a half-open breaker lets through.

    Attributes:
        round: In which it was given.
        expires_ns: When its place is given to another one; what it answers later is ignored.
        until_ns: As that of a round; a probe is always settled with care.
        lease: What a shared breaker was given for it, if anything.
        succeeded: Set by the driver; called with nothing when the call has succeeded.
    """

    __slots__ = ("expires_ns", "lease", "round", "succeeded", "until_ns")

    def __init__(self, round: Round, expires_ns: int) -> None:
        self.round = round
        self.expires_ns = expires_ns
        self.until_ns = 0
        self.lease: object = None
        self.succeeded: Callable[[], object] = lambda: None


Ticket = Round | Probe


class Refused:
    """The call may not start. ``retry_after_ns`` is ``None`` where nobody can say."""

    __slots__ = ("reason", "retry_after_ns")

    def __init__(self, reason: str, retry_after_ns: int | None) -> None:
        self.reason = reason
        self.retry_after_ns = retry_after_ns


class Change:
    """The breaker went from one state to another; the driver tells of it outside of its lock."""

    __slots__ = ("before", "failures", "open_ns", "reason", "state")

    def __init__(
        self, before: State, state: State, reason: str, *, failures: int = 0, open_ns: int = 0
    ) -> None:
        self.before = before
        self.state = state
        self.reason = reason
        self.failures = failures
        self.open_ns = open_ns


class BreakerCore:
    """The rules of one breaker. Not thread-safe; the driver holds its lock for each call.

    Only ``round`` is read without it: one attribute, replaced as a whole.
    """

    __slots__ = (
        "_failed_rounds", "_failures", "_good", "_live", "_number", "_open_until_ns", "_window",
        "mode", "round", "rules", "state",
    )  # fmt: skip

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.mode: Mode = "normal"
        self.state: State = CLOSED
        self._number = 0
        self._failures = 0
        self._failed_rounds = 0
        self._open_until_ns = 0
        self._good = 0
        self._live: list[Probe] = []
        self._window: Window | None = None
        self.round = self._begin(CLOSED)

    # --- calls -----------------------------------------------------------------------------------

    def admit(self, now_ns: int) -> Ticket | Refused:
        """Let a call through, or not. Only asked while ``round.passes`` is false."""
        if self.mode == "isolated":
            return Refused("the breaker is isolated", None)
        if self.state == OPEN and now_ns >= self._open_until_ns:
            self._become(HALF_OPEN)
        if self.state == HALF_OPEN:
            return self._admit_probe(now_ns)
        if self.state == OPEN:
            return Refused("the circuit is open", self._open_until_ns - now_ns)
        return self.round

    def _admit_probe(self, now_ns: int) -> Ticket | Refused:
        live = self._live = [probe for probe in self._live if probe.expires_ns > now_ns]
        rules = self.rules
        # Fewer may be asked for now than have succeeded already: one more settles it.
        if len(live) >= min(rules.probes_concurrent, max(rules.probes - self._good, 1)):
            soonest = min(probe.expires_ns for probe in live)
            return Refused("the circuit is half-open and its probes are under way",
                           soonest - now_ns)  # fmt: skip
        probe = Probe(self.round, now_ns + rules.probe_ns)
        live.append(probe)
        return probe

    def failed(self, ticket: Ticket, now_ns: int, prng: Prng, *, slow: bool) -> Change | None:
        """A call failed: count it, and open if that was one too many."""
        if isinstance(ticket, Probe):
            if not self._returned(ticket, now_ns):
                return None
            return self._reopen("a probe failed", now_ns, prng)
        if not self._counts(ticket):
            return None
        good = ticket.fresh()
        self._failures = 1 if good else self._failures + 1
        if self._window is not None:
            self._roll(ticket, good, now_ns)
            self._window.add(failed=True, slow=slow)
        return self._judge(now_ns, prng)

    def was_slow(self, ticket: Ticket, now_ns: int, prng: Prng) -> Change | None:
        """A call succeeded, but took too long."""
        if isinstance(ticket, Probe):
            if not self._returned(ticket, now_ns):
                return None
            if self.rules.slow_rate is not None:
                return self._reopen("a probe was slow", now_ns, prng)
            return self._good_probe()
        if not self._counts(ticket):
            return None
        good = ticket.fresh()
        self._failures = 0
        if self._window is None:
            return None
        self._roll(ticket, good, now_ns)
        self._window.add(failed=False, slow=True)
        return self._judge(now_ns, prng)

    def probe_succeeded(self, probe: Probe, now_ns: int) -> Change | None:
        """A probe succeeded in time: close, once enough have."""
        return self._good_probe() if self._returned(probe, now_ns) else None

    def cancelled(self, ticket: Ticket) -> None:
        """A call ended without telling anything: its probe's place is free again."""
        if isinstance(ticket, Probe) and ticket in self._live:
            self._live.remove(ticket)

    def tick(self, now_ns: int) -> None:
        """The bucket of the time window is over: count what it has seen, begin another."""
        current = self.round
        if self._window is not None and current.state == CLOSED:
            self._roll(current, current.fresh(), now_ns)

    # --- by hand, or by the fleet ----------------------------------------------------------------

    def become(self, mode: Mode) -> None:
        """Go to another mode. Back to normal from isolated or disabled begins closed."""
        if mode == self.mode:
            return
        self.mode = mode
        self._failed_rounds = 0
        self._become(CLOSED)

    def reset(self) -> Change | None:
        """Close, forget all that was counted, and be in normal mode."""
        before, self.mode = self.state, "normal"
        self._failed_rounds = 0
        self._become(CLOSED)
        return Change(before, CLOSED, "reset") if before != CLOSED else None

    def begin_anew(self) -> None:
        """Be as newly made, but for the mode, which was chosen by hand: the clock is another."""
        self._number = self._failed_rounds = self._open_until_ns = 0
        self._become(CLOSED)

    def open(self, open_ns: int, now_ns: int, reason: str) -> Change | None:
        """Open for ``open_ns``, whatever was counted; the fleet says so, or a test."""
        if self.mode not in {"normal", "shadow"}:
            return None
        before, failures = self.state, self.failures()
        self._become(OPEN)
        self._open_until_ns = now_ns + open_ns
        if before == OPEN:
            return None
        return Change(before, OPEN, reason, failures=failures, open_ns=open_ns)

    def close(self, reason: str) -> Change | None:
        """Close, whatever was counted; the fleet says so."""
        if self.state == CLOSED:
            return None
        before = self.state
        self._failed_rounds = 0
        self._become(CLOSED)
        return Change(before, CLOSED, reason)

    def rewindow(self) -> None:
        """Begin another window: its length was changed. The round and its failures stay."""
        if self.state == CLOSED and self.mode != "disabled":
            self.failures()  # what has succeeded so far is of the window that ends
            self._window = self.rules.window.begin() if self.rules.rated else None
            self.round.until_ns = 0 if self._window is not None else FOREVER_NS

    # --- what can be asked -----------------------------------------------------------------------

    def state_at(self, now_ns: int) -> State:
        """Return the state that a call would meet now."""
        if self.mode == "isolated":
            return OPEN
        if self.state == OPEN and now_ns >= self._open_until_ns:
            return HALF_OPEN
        return self.state

    def failures(self) -> int:
        """Return the failures since the last success; those that opened it while it is open."""
        if self.state == CLOSED and self.mode != "disabled":
            good = self.round.fresh()
            if good:
                self._failures = 0
                if self._window is not None:
                    self._window.good(good)
        return self._failures

    def open_left_ns(self, now_ns: int) -> int:
        """Return how long it will stay open; 0 if it is not open."""
        return max(self._open_until_ns - now_ns, 0) if self.state == OPEN else 0

    @property
    def probes_live(self) -> int:
        """Probes under way, those that are overdue included."""
        return len(self._live)

    # --- inside ----------------------------------------------------------------------------------

    def _counts(self, ticket: Ticket) -> bool:
        """Whether the outcome of a call without a probe's ticket is looked at."""
        return ticket is self.round and self.state == CLOSED and self.mode != "disabled"

    def _returned(self, probe: Probe, now_ns: int) -> bool:
        """Take a probe back; whether its outcome still counts."""
        if probe not in self._live:
            return False
        self._live.remove(probe)
        return probe.round is self.round and now_ns < probe.expires_ns

    def _good_probe(self) -> Change | None:
        self._good += 1
        if self._good < self.rules.probes:
            return None
        self._failed_rounds = 0
        self._become(CLOSED)
        return Change(HALF_OPEN, CLOSED, "probes succeeded")

    def _roll(self, current: Round, good: int, now_ns: int) -> None:
        window = self._window
        if window is not None:
            window.good(good)
            current.until_ns = window.turn(now_ns)

    def _judge(self, now_ns: int, prng: Prng) -> Change | None:
        reason = self._trip_reason()
        if reason is None:
            return None
        failures = self._failures
        open_ns = self.rules.open_ns(0, prng)
        self._become(OPEN)
        self._open_until_ns = now_ns + open_ns
        return Change(CLOSED, OPEN, reason, failures=failures, open_ns=open_ns)

    def _trip_reason(self) -> str | None:
        rules = self.rules
        if rules.threshold is not None and self._failures >= rules.threshold:
            return f"{self._failures} failures one after another"
        window = self._window
        if window is None:
            return None
        calls = window.calls
        if calls < rules.min_calls:
            return None
        if rules.failure_rate is not None and window.failures >= rules.failure_rate * calls:
            return f"{window.failures} of {calls} calls failed"
        if rules.slow_rate is not None and window.slow >= rules.slow_rate * calls:
            return f"{window.slow} of {calls} calls were slow"
        return None

    def _reopen(self, reason: str, now_ns: int, prng: Prng) -> Change:
        self._failed_rounds += 1
        open_ns = self.rules.open_ns(self._failed_rounds, prng)
        self._become(OPEN)
        self._open_until_ns = now_ns + open_ns
        return Change(HALF_OPEN, OPEN, reason, failures=self._failures, open_ns=open_ns)

    def _become(self, state: State) -> None:
        self.state = state
        self._good = 0
        self._live = []
        if state == CLOSED:
            self._failures = 0
        self.round = self._begin(state)

    def _begin(self, state: State) -> Round:
        self._number += 1
        passes = self.mode == "disabled" or (state == CLOSED and self.mode != "isolated")
        begun = Round(state, self._number, passes=passes)
        if state == CLOSED and self.mode != "disabled" and self.rules.rated:
            self._window = self.rules.window.begin()
            begun.until_ns = 0
        else:
            self._window = None
        return begun
