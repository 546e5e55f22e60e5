"""One node's part in sharing a breaker: what to report, when to follow the fleet, when not to.

The local breaker stays in charge of admission: while it is closed or open nothing is asked of
anybody. Beside it a node now and then reports and reads the shared record
(:mod:`outlast.protect.core.fleet`), and these rules say what the answer means for it:

- *Alone*: the record is closed, or the store cannot be reached. The breaker opens, probes and
  closes by itself; that it is open then is this node's evidence.
- *Following*: the record is open. The breaker is opened, and probes only under a lease. It
  leaves this state when the record has closed, and loses its leases, not its state, when the
  store is lost: from then on it probes by itself.

Only differences of the store's clock are used, so that skewed clocks of nodes do not matter.
"""

from typing import Final, NamedTuple

from outlast.kernel import Prng
from outlast.protect.core.fleet import View

_MS: Final = 1_000_000
_BACK_MAX: Final = 3


class AdoptOpen(NamedTuple):
    """Open the local breaker for ``open_ns`` from now."""

    open_ns: int


class AdoptClosed(NamedTuple):
    """Close the local breaker."""


class FleetNode:
    """What one node knows of the fleet's view of one breaker. Not thread-safe.

    Args:
        report_every_ns: How often a report is due that says nothing new. A third of the time
            for which the store counts it, so that two lost ones do no harm.
        ask_every_ns: How soon a lease that was refused may be asked for again.

    Attributes:
        epoch: The last one heard of; 0 before the first.
        following: Whether the fleet is open and the local breaker with it.
    """

    __slots__ = ("_ask_every_ns", "_ask_ns", "_back", "_latched", "_report_every_ns",
                 "_report_ns", "_said", "epoch", "following")  # fmt: skip

    def __init__(self, *, report_every_ns: int, ask_every_ns: int) -> None:
        self.epoch = 0
        self.following = False
        self._report_every_ns = report_every_ns
        self._ask_every_ns = ask_every_ns
        self._report_ns = 0
        self._ask_ns = 0
        self._said: tuple[bool, int] | None = None
        self._latched = False
        self._back = 0

    def tripped(self) -> None:
        """The local breaker opened by what it saw itself: to be reported, however short it is."""
        self._latched = True
        self.following = False

    def evidence(self, *, is_open: bool, now_ns: int) -> bool | None:
        """Return whether to report that the local breaker has tripped; ``None``: nothing is due.

        Args:
            is_open: Whether the local breaker is open or half-open now.
            now_ns: The local clock.
        """
        bad = self._latched or (is_open and not self.following)
        if self._said == (bad, self.epoch) and now_ns < self._report_ns:
            return None
        return bad

    def reported(self, bad: bool, epoch: int, now_ns: int) -> None:
        """A report of ``bad`` under ``epoch`` has reached the store."""
        if bad:
            self._latched = False
        self._said = (bad, epoch)
        self._report_ns = now_ns + self._report_every_ns

    def viewed(self, view: View, *, is_open: bool) -> AdoptOpen | AdoptClosed | None:
        """Return what a view of the record means for the local breaker.

        A view of an earlier epoch is late and ignored, unless it comes again and again: then
        the store has gone back, and what it says now is all there is.
        """
        if view.epoch < self.epoch:
            self._back += 1
            if self._back < _BACK_MAX:
                return None
        self._back = 0
        news = view.epoch != self.epoch
        self.epoch = view.epoch
        if view.state == "closed":
            followed, self.following = self.following, False
            return AdoptClosed() if followed and is_open else None
        if self.following and not news and is_open:
            return None
        self.following = True
        self._latched = False
        self._ask_ns = 0
        return AdoptOpen(view.open_left_ms * _MS)

    def may_ask(self, now_ns: int) -> bool:
        """Whether it is time to ask for a probe lease (again)."""
        return now_ns >= self._ask_ns

    def refused(self, now_ns: int) -> None:
        """No lease was to be had: do not ask again at once."""
        self._ask_ns = now_ns + self._ask_every_ns


class StoreHealth:
    """Whether to try a store that has failed: not before a wait that doubles. Not thread-safe.

    Args:
        base_ns: The first wait; half of each wait is random.
        cap_ns: The longest.
    """

    __slots__ = ("_base_ns", "_cap_ns", "_failures", "_until_ns")

    def __init__(self, *, base_ns: int, cap_ns: int) -> None:
        self._base_ns = base_ns
        self._cap_ns = cap_ns
        self._failures = 0
        self._until_ns = 0

    @property
    def lost(self) -> bool:
        """Whether the last call failed."""
        return self._failures > 0

    def may_try(self, now_ns: int) -> bool:
        """Whether a call may be made. One that may claims the turn: others wait for its end."""
        if not self._failures:
            return True
        if now_ns < self._until_ns:
            return False
        self._until_ns = now_ns + self._base_ns
        return True

    def failed(self, now_ns: int, prng: Prng) -> bool:
        """A call failed; whether that is news."""
        self._failures = min(self._failures + 1, 32)
        wait_ns = min(self._base_ns << (self._failures - 1), self._cap_ns)
        self._until_ns = now_ns + wait_ns // 2 + prng.below(wait_ns // 2 + 1)
        return self._failures == 1

    def worked(self) -> bool:
        """A call succeeded; whether that is news."""
        news = self._failures > 0
        self._failures = 0
        return news
