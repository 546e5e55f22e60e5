"""``BreakerPermit``: the right to make one call, in two phases."""

from typing import TYPE_CHECKING

from outlast.kernel import World, current_world
from outlast.protect.core.breaker import Ticket
from outlast.protect.shared_key import check_shared

if TYPE_CHECKING:
    from outlast.protect.breaker import CircuitBreaker


class BreakerPermit:
    """The right to make one call; from :meth:`CircuitBreaker.try_admit`.

    Settle it once: :meth:`succeed`, :meth:`fail` or :meth:`cancel`; further ones do nothing. As a
    context manager it settles itself by what the block raises.
    """

    __slots__ = ("_breaker", "_started_ns", "_ticket", "_world")

    def __init__(self, breaker: "CircuitBreaker", ticket: Ticket, world: World) -> None:
        self._breaker = breaker
        self._ticket: Ticket | None = ticket
        self._world = world
        self._started_ns = world.clock.monotonic_ns()

    def succeed(self) -> None:
        """The call has succeeded."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            now_ns = self._world.clock.monotonic_ns()
            self._breaker.success(ticket, now_ns - self._started_ns, now_ns)

    def fail(self, error: BaseException | None = None) -> None:
        """The call has failed, with ``error`` if there was one."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            now_ns = self._world.clock.monotonic_ns()
            self._breaker.failure(ticket, error, now_ns - self._started_ns, now_ns)

    def cancel(self) -> None:
        """The call has ended without telling anything of the callee."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._breaker.cancelled(ticket)

    def __enter__(self) -> "BreakerPermit":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.succeed()
        else:
            self.fail(error)


def permit_of(breaker: "CircuitBreaker") -> BreakerPermit:
    """Return what :meth:`CircuitBreaker.try_admit` does.

    Raises:
        CircuitOpenError: Definite. The call must not be made.
        ConfigError: Definite. It has a store and no name.
    """
    check_shared(breaker)
    current = breaker.round
    ticket: Ticket = current if current.passes else breaker.admit()
    return BreakerPermit(breaker, ticket, current_world())
