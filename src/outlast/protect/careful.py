"""The parts of a policy as they act on HTTP requests: what must not be repeated is not.

A transport is given a policy that somebody has written for calls in general. In front of its
retry, hedge and breaker stand the three classes here. They know the request under way, add what
is true of requests, and leave everything else to the part: settings, state, waits, budgets.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from functools import wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from outlast.kernel import Deadline, InvariantError, Prng, RejectedError, happened
from outlast.protect.call import current_call
from outlast.protect.core.note import add_note
from outlast.protect.core.repeat import IDEMPOTENT, why_not
from outlast.protect.core.retry import GiveUp, RetryAfter
from outlast.protect.forked import tell_of_forks
from outlast.protect.headers import current_incoming
from outlast.protect.keyed import Keyed

if TYPE_CHECKING:
    from outlast.protect.breaker import CircuitBreaker
    from outlast.protect.hedge import Hedge
    from outlast.protect.policy import Policy
    from outlast.protect.retry import Retry


class Asked:
    """One request under way, with all its attempts.

    Attributes:
        request: As it was given to the transport.
        method: In capital letters.
        promised: Whether a repeat is recognised, or known to do no harm.
        once: Whether the body can be read only once.
        spent: Whether it was read, in that case.
        opened: Responses that attempts have got and nobody has closed.
        ended: Whether the request has ended: a response that comes now is nobody's.
    """

    __slots__ = ("ended", "method", "once", "opened", "promised", "request", "spent")

    def __init__(self, request: Any, method: str, *, promised: bool) -> None:
        self.request = request
        self.method = method
        self.promised = promised
        self.once = False
        self.spent = False
        self.opened: list[Any] = []
        self.ended = False

    def drain(self) -> Iterator[Any]:
        """Yield the responses that are open, each once; more may be added meanwhile."""
        while self.opened:
            yield self.opened.pop()


asked_var: Final[ContextVar[Asked | None]] = ContextVar("outlast_asked", default=None)


def current_asked() -> Asked:
    """Return the request under way."""
    asked = asked_var.get()
    if asked is None:
        raise InvariantError("no request is under way")
    return asked


class StatusFailure(Exception):
    """A response whose status is a failure; for the parts, which look at errors.

    Attributes:
        status: The status code.
    """

    status: int = 0


def key_to_send() -> str | None:
    """Return the idempotency key that ``inject`` would send."""
    call, came_in = current_call(), current_incoming()
    if call is None or (came_in is not None and call.key == came_in.key):
        return None
    return call.key


def careful(
    policy: "Policy",
    statuses: frozenset[int],
    drop: Callable[[Asked], Any],
    *,
    can_wait: bool,
) -> "Policy":
    """Return ``policy`` as it acts on requests: same state, same name, same counts.

    Args:
        policy: As the user wrote it.
        statuses: After which to ask again.
        drop: Closes the responses that the request has got so far.
        can_wait: Whether ``drop`` returns an awaitable.
    """
    parts = policy.parts
    changed: dict[str, Any] = {}
    if "retry" in parts:
        kind = CarefulRetryAsync if can_wait else CarefulRetry
        changed["retry"] = kind(parts["retry"], statuses, drop)
    if "hedge" in parts:
        changed["hedge"] = CarefulHedge(parts["hedge"])
    breaker = parts.get("breaker")
    if breaker is not None:
        keyed = isinstance(breaker, Keyed)
        changed["breaker"] = StatusBreakers(breaker) if keyed else StatusBreaker(breaker)
    return policy.variant(changed)


class CarefulRetry:
    """A retry that sends no request again which may do harm the second time."""

    position = "retry"

    def __init__(
        self, retry: "Retry", statuses: frozenset[int], drop: Callable[[Asked], Any]
    ) -> None:
        self._retry = retry
        self._statuses = statuses
        self._drop = drop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._retry, name)

    @property
    def rules(self) -> "CarefulRetry":
        """What the frame asks for decisions."""
        return self

    @property
    def on_result(self) -> Callable[[Any], bool] | None:
        """The retry's own, for requests that may be repeated."""
        wanted = self._retry.on_result
        if wanted is None:
            return None
        return lambda response: wanted(response) and self._why_not(None) is None

    def decide(self, error: BaseException, **seen: Any) -> RetryAfter | GiveUp:
        """Decide what follows a failed attempt; see ``RetryRules.decide``."""
        rules = self._retry.rules
        if not isinstance(error, StatusFailure):
            decision = rules.decide(error, **seen)
        elif error.status in self._statuses:
            decision = rules.again(**seen)
        else:
            return GiveUp(f"{error.status} is not among the statuses to retry")
        if isinstance(decision, GiveUp):
            return decision
        reason = self._why_not(error)
        if reason is None:
            return decision
        add_note(error, f"not repeated: {reason}")
        return GiveUp(reason)

    def again(
        self,
        *,
        attempt: int,
        now_ns: int,
        deadline: Deadline | None,
        prng: Prng,
        previous_ns: int = 0,
        asked: float | None = None,
    ) -> RetryAfter | GiveUp:
        """Decide whether attempts and time are left; see ``RetryRules.again``."""
        return self._retry.rules.again(
            attempt=attempt, now_ns=now_ns, deadline=deadline, prng=prng,
            previous_ns=previous_ns, asked=asked,
        )  # fmt: skip

    def between(self, error: Exception) -> Any:
        """Give the connection of a failed response back before the wait."""
        before = self._retry.between
        self._drop(current_asked())
        return None if before is None else before(error)

    def _why_not(self, error: BaseException | None) -> str | None:
        """Return why the request under way may not be sent again after ``error``."""
        asked = current_asked()
        answer = "maybe" if error is None else happened(error)
        return why_not(asked.method, promised=asked.promised, happened=answer, spent=asked.spent)


class CarefulRetryAsync(CarefulRetry):
    """The same where closing a response is awaited."""

    async def between(self, error: Exception) -> None:
        """Give the connection of a failed response back before the wait."""
        before = self._retry.between
        await self._drop(current_asked())
        made = None if before is None else before(error)
        if isawaitable(made):
            await made


class CarefulHedge:
    """A hedge that sends no request twice which may do harm the second time."""

    position = "hedge"

    def __init__(self, hedge: "Hedge") -> None:
        self._hedge = hedge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hedge, name)

    def wrap_blocking(
        self, function: Callable[..., Any], name: str, *, deposit: bool = True
    ) -> Callable[..., Any]:
        """Return ``function`` hedged where that is harmless; see ``Hedge``."""
        hedged = self._hedge.wrap_blocking(function, name, deposit=deposit)

        @wraps(function)
        def chosen(*args: Any, **kwargs: Any) -> Any:
            return (hedged if _harmless() else function)(*args, **kwargs)

        return chosen

    def wrap_async(
        self, function: Callable[..., Any], name: str, *, deposit: bool = True
    ) -> Callable[..., Any]:
        """Return ``function`` hedged where that is harmless; see ``Hedge``."""
        hedged = self._hedge.wrap_async(function, name, deposit=deposit)

        @wraps(function)
        async def chosen(*args: Any, **kwargs: Any) -> Any:
            return await (hedged if _harmless() else function)(*args, **kwargs)

        return chosen


def _harmless() -> bool:
    """Whether the request under way may be sent twice at the same time."""
    asked = current_asked()
    if asked.once:
        return False
    return asked.promised or asked.method in IDEMPOTENT or key_to_send() is not None


class StatusBreaker:
    """A breaker to which a status below 500 speaks for the server: it works, and says no.

    What was refused on our own side, such as a request for which no time was left, tells nothing.
    """

    position = "breaker"

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._breaker = breaker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._breaker, name)

    def failure(
        self, ticket: Any, error: BaseException | None, elapsed_ns: int, now_ns: int
    ) -> None:
        """A call has failed; see ``CircuitBreaker.failure``."""
        if isinstance(error, StatusFailure) and error.status < 500:
            self._breaker.success(ticket, elapsed_ns, now_ns)
        elif isinstance(error, RejectedError):
            self._breaker.cancelled(ticket)
        else:
            self._breaker.failure(ticket, error, elapsed_ns, now_ns)


class StatusBreakers(Keyed[Any]):
    """The breakers of a ``Keyed``, each behind a ``StatusBreaker``."""

    core: Any = None
    counts_result: Any = None

    __slots__ = ("_gate", "_keyed", "_known")

    def __init__(self, keyed: Keyed[Any]) -> None:
        self._keyed = keyed
        self.position = keyed.position  # type: ignore[misc]
        self.name = keyed.name
        self.by = keyed.by
        self.max_keys = keyed.max_keys
        self.store = keyed.store
        self._gate = threading.Lock()
        self._known: OrderedDict[int, StatusBreaker] = OrderedDict()
        tell_of_forks(self)

    def part(self, key: Hashable) -> Any:
        """Return the breaker of ``key``: the same object for as long as the part is the same."""
        part = self._keyed.part(key)
        with self._gate:
            # Each holds its part: an id in here is nobody else's.
            found = self._known.setdefault(id(part), StatusBreaker(part))
            self._known.move_to_end(id(part))
            while len(self._known) > self.max_keys:
                self._known.popitem(last=False)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the settings of the parts that stand behind."""
        return self._keyed.describe()

    def snapshot(self) -> dict[str, Any]:
        """Return the live state of the parts that stand behind."""
        return self._keyed.snapshot()

    def __len__(self) -> int:
        return len(self._keyed)

    def forked(self) -> None:
        """This is the child of a fork: the lock is nobody's."""
        self._gate = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world; the keys are those of the other ``Keyed``."""
        with self._gate:
            self._known.clear()
