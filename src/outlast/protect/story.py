"""What a protected call remembers from its first failure on: the way off the success path.

Frames for threads and for coroutines come here with each error, so that what follows from it is
written once: settling the breaker, deciding about another attempt, telling of it.
"""

from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import Any, Final

from outlast.kernel import (
    Deadline,
    DeadlineError,
    RejectedError,
    TooLateError,
    World,
    current_deadline,
    current_world,
    happened,
)
from outlast.protect.call import CallInfo, current_call_var
from outlast.protect.core.breaker import Ticket
from outlast.protect.core.classify import retry_after
from outlast.protect.core.filter import names
from outlast.protect.core.note import add_note, get_mark, set_mark, shown, sign, signed
from outlast.protect.core.retry import MAY_HAVE_HAPPENED, GiveUp
from outlast.protect.plan import Plan

_NS: Final = 1_000_000_000
_LOOKED_AT_MAX: Final = 64
OVER: Final = -1
"""No attempt follows."""

RETRIED: Final = "__outlast_retried__"
"""Attribute of an exception that a retry gave up on: after how many attempts, as which one."""

GAVE_UP: Final = [0]
"""How often a retry has given up in this process. A call remembers the number at its beginning:
what an exception says of its retries counts only if it was said since. The same object may be
raised by many calls."""


_NOT_REPEATED: Final = (
    "not repeated: the call may have happened; repeat_indefinite=True if it may be repeated"
)


class Story:
    """One call that has failed at least once, or is told from its beginning.

    Args:
        plan: What protects it.
        since: The number in ``GAVE_UP`` when it began.
        call: Who asks, and under which key, if it is not what the context says.

    Attributes:
        attempt: Number of the attempt under way.
        counted: Whether its end was counted.
        delay_ns: The wait before it.
        failed_as: The last error that was not a refusal by a part of the policy, as a line.
        ran: Whether the function was called in any attempt.
        uncertain: Whether any attempt may have had an effect.
        world: In which the call is made.
    """

    __slots__ = (
        "_call", "_failure", "_plan", "_since", "_token", "attempt", "counted", "delay_ns",
        "failed_as", "ran", "uncertain", "world",
    )  # fmt: skip

    def __init__(self, plan: Plan, since: int, call: CallInfo | None = None) -> None:
        self._plan = plan
        self._since = since
        self._call = call or current_call_var.get()
        self._token: Token[CallInfo | None] | None = None
        self._failure: Exception | None = None
        self.failed_as = ""
        self.world: World = current_world()
        self.attempt = 1
        self.counted = False
        self.delay_ns = 0
        self.ran = False
        self.uncertain = False

    def failed(
        self,
        error: BaseException,
        ticket: Ticket | None,
        started_ns: int,
        ran: bool,
        *,
        last: str = "",
    ) -> int:
        """An attempt has raised ``error``: settle it and return the wait before the next one.

        Args:
            error: What was raised; by a part of the policy, if the function was not reached.
            ticket: Of the breaker.
            started_ns: When the attempt began, if the plan measures it.
            ran: Whether the function was called.
            last: Why no attempt can follow, whatever the rules say.

        Returns:
            Nanoseconds, or ``OVER`` if no attempt follows.
        """
        world = self.world
        now_ns = world.clock.monotonic_ns()
        failing = self._plan.failing
        ran = ran or (failing is not None and failing.raised(error))
        self.ran = self.ran or ran
        self._settle(error, ticket, now_ns - started_ns if started_ns else 0, now_ns, ran)
        if not isinstance(error, Exception):
            return OVER
        if ran:
            self.uncertain = self.uncertain or happened(error) == "maybe"
            ours = self._plan.wraps and isinstance(error, RejectedError)  # a part further in
            if self._plan.learns and not ours:
                self._plan.rate.heard(error, started_ns or None)  # type: ignore[union-attr]
        if self._plan.retry is None:
            if not ran and isinstance(error, RejectedError):
                sign(error, self._plan.tally.timed_out)  # a retry may stand further out
            self.ended(error, ran)
            return OVER
        return self._decide(error, now_ns, ran, last)

    def unwanted(self, result: object) -> int:
        """An attempt has returned a result after which to call again, if that is still possible.

        Returns:
            Nanoseconds, or ``OVER`` if the result is to be returned as it is.
        """
        retry = self._plan.retry
        if retry is None:
            return OVER
        world = self.world
        now_ns = world.clock.monotonic_ns()
        decision = self._collapsed() or retry.rules.again(
            attempt=self.attempt,
            now_ns=now_ns,
            deadline=current_deadline.get(),
            prng=world.prng,
            previous_ns=self.delay_ns,
            asked=retry_after(result, world.clock.wall_ns()),
        )
        return self._taken(decision, now_ns, type(result).__name__)

    def advance(self) -> None:
        """Count the next attempt."""
        self.attempt += 1
        self._plan.tally.retried()

    def announce(self) -> None:
        """Let what is called from now on know the attempt, until :meth:`withdraw`."""
        call = self._call
        first = 1 if call is None else call.attempt
        info = CallInfo(
            None if call is None else call.key,
            self.attempt if self.attempt > 1 else first,
            0 if call is None else call.hedge,
            policy=self._plan.name,
        )
        if self._token is None:
            self._token = current_call_var.set(info)
        else:
            current_call_var.set(info)

    def again(self) -> None:
        """Begin the next attempt."""
        self.advance()
        self.announce()

    def close(self) -> None:
        """The call has ended."""
        self._failure = None  # this object is in the frames of its traceback
        self.withdraw()

    def withdraw(self) -> None:
        """What was announced holds no longer."""
        token, self._token = self._token, None
        if token is not None:
            put_back(current_call_var, token)

    def ended(self, error: BaseException, ran: bool, *, answered: bool = True) -> None:
        """Count the call, which ends with ``error``.

        Args:
            error: What it ends with.
            ran: Whether the function was called in the last attempt.
            answered: Whether a fallback is asked.
        """
        if self.counted:
            return
        self.counted = True
        plan = self._plan
        if not isinstance(error, Exception):
            plan.tally.cancelled()
        elif answered and plan.fallback is not None and plan.fallback.answers(error):
            plan.tally.fell_back()
        elif isinstance(error, RejectedError) and (plan.wraps or not ran):
            plan.tally.rejected()
        else:
            plan.tally.failed()

    # --- inside ----------------------------------------------------------------------------------

    def _settle(
        self, error: BaseException, ticket: Ticket | None, elapsed_ns: int, now_ns: int, ran: bool
    ) -> None:
        breaker = self._plan.breaker
        if breaker is None or ticket is None:
            return
        if ran and isinstance(error, Exception):
            breaker.failure(ticket, error, elapsed_ns, now_ns)
        else:
            breaker.cancelled(ticket)

    def _decide(self, error: Exception, now_ns: int, ran: bool, last: str) -> int:
        retry = self._plan.retry
        world = self.world
        decision: Any = self._collapsed()
        refused = self._is_refusal(error, ran)
        if decision is None and retry is not None:
            already = _retried(error, self._since) if retry.nested == "collapse" else 0
            if already:
                decision = GiveUp(f"an inner call has made {already} attempts already")
            else:
                decision = retry.rules.decide(
                    error,
                    attempt=self.attempt,
                    now_ns=now_ns,
                    deadline=current_deadline.get(),
                    prng=world.prng,
                    previous_ns=self.delay_ns,
                    asked=retry_after(error, world.clock.wall_ns()),
                    **({"recognised": True} if self._is_recognised(error) else {}),
                )
            if (
                refused
                and not isinstance(decision, GiveUp)
                and not names(retry.on, error, RejectedError)
            ):
                decision = GiveUp(f"the policy refuses, and on names no {type(error).__name__}")
        if last and not isinstance(decision, GiveUp):
            decision = GiveUp(last)
        delay_ns = self._taken(decision, now_ns, type(error).__name__)
        if delay_ns < 0:
            self._gave_up(error, decision)
            if refused:
                self._tell_failure(error)
            self.ended(error, ran)
        elif not refused:
            plan = self._plan
            # Nobody keeps an error longer than it is needed.
            self._failure = error if plan.wraps or not plan.admits else None
            self.failed_as = shown(error)
        return delay_ns

    def _is_refusal(self, error: Exception, ran: bool) -> bool:
        """Whether a part of this policy has refused the attempt, here or in an inner frame."""
        return isinstance(error, RejectedError) and (
            not ran or signed(error, self._plan.tally.timed_out)
        )

    def _is_recognised(self, error: Exception) -> bool:
        """Whether a limit of this policy has cut off an attempt that can be told from others."""
        plan = self._plan
        return (
            plan.keyed and isinstance(error, DeadlineError) and signed(error, plan.tally.timed_out)
        )

    def _collapsed(self) -> GiveUp | None:
        """Why no repeat is made at all: somebody further out repeats."""
        retry, call = self._plan.retry, self._call
        if call is None or call.attempt < 2 or retry is None or retry.nested == "allow":
            return None
        return GiveUp(f"this is within attempt {call.attempt} of another call")

    def _taken(self, decision: Any, now_ns: int, shown: str) -> int:
        """Let the budget agree to another attempt, and tell what was decided."""
        plan, world = self._plan, self.world
        budget = None if plan.retry is None else plan.retry.budget
        if isinstance(decision, GiveUp):
            reason = decision.reason
        elif budget is not None and not budget.try_spend(now_ns):
            reason = decision = "the retry budget is used up"
        else:
            from outlast.protect.events import RetryScheduled

            self.delay_ns = decision.delay_ns
            seconds = decision.delay_ns / _NS
            world.events.emit(
                RetryScheduled(name=plan.name, attempt=self.attempt, delay=seconds, error=shown)
            )
            return self.delay_ns
        from outlast.protect.events import RetryGaveUp

        world.events.emit(
            RetryGaveUp(name=plan.name, attempt=self.attempt, reason=reason, error=shown)
        )
        return OVER

    def _gave_up(self, error: Exception, decision: Any) -> None:
        if self.uncertain and happened(error) == "no":
            # This attempt surely did nothing; the call may have, by an earlier one.
            set_mark(error, "happened", "maybe")
        reason = decision.reason if isinstance(decision, GiveUp) else "the budget is used up"
        if self.attempt > 1:
            add_note(error, f"after {self.attempt} attempts: {reason}")
            GAVE_UP[0] += 1
            set_mark(error, RETRIED, (self.attempt, GAVE_UP[0]))
        elif reason is MAY_HAVE_HAPPENED and self._plan.retry.attempts != 1:  # type: ignore[union-attr]
            add_note(error, _NOT_REPEATED)

    def _tell_failure(self, error: Exception) -> None:
        """Say on a refusal, with which a call ends, how the attempts before it have failed."""
        failure = self._failure
        if self.failed_as:
            add_note(error, f"the last attempt that was made failed: {self.failed_as}")
        if failure is None or error.__context__ is not None:
            return
        if all(seen is not error for seen in _seen_in(failure)):
            error.__context__ = failure


class Replay:
    """A function whose first call has been made already, and has raised ``error``."""

    __slots__ = ("_error", "function")

    def __init__(self, error: BaseException, function: Any) -> None:
        self._error: BaseException | None = error
        self.function = function

    def again(self, *args: Any, **kwargs: Any) -> Any:
        """Raise the first time, and call the function from then on."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # this frame is in its traceback
        return self.function(*args, **kwargs)

    async def again_async(self, *args: Any, **kwargs: Any) -> Any:
        """Raise the first time, and await the function from then on."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # this frame is in its traceback
        return await self.function(*args, **kwargs)


def _retried(error: BaseException, since: int) -> int:
    """Return how many attempts an inner policy has made of what ended in ``error``; 0 if none."""
    for seen in _seen_in(error):
        match get_mark(seen, RETRIED):
            case (int(attempts), int(number)) if number > since:
                return attempts
    return 0


def _seen_in(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, what it came from, and what is in groups among these; not without end."""
    waiting: list[BaseException] = [error]
    for _ in range(_LOOKED_AT_MAX):
        if not waiting:
            return
        seen = waiting.pop()
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            waiting.extend(seen.exceptions[:_LOOKED_AT_MAX])
        before = seen.__context__ if seen.__cause__ is None else seen.__cause__
        if before is not None:
            waiting.append(before)


def put_back(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Give ``variable`` the value that it had before ``token``.

    A coroutine that nobody will go on with is closed in whatever context it is found in; then
    there is nothing to put back.
    """
    try:  # noqa: SIM105 - each call with a limit of time comes by, and this costs nothing
        variable.reset(token)
    except ValueError:
        pass


def begin_deadline(limit_ns: int) -> tuple[Token[Deadline | None] | None, int]:
    """Hand down that a block has ``limit_ns`` left, unless there is less already.

    Returns:
        What undoes it, ``None`` if nothing was to be set; and when the block must end.
    """
    at_ns = current_world().clock.monotonic_ns() + limit_ns
    outer = current_deadline.get()
    if outer is not None and outer.at_ns <= at_ns:
        return None, at_ns
    return current_deadline.set(Deadline(at_ns)), at_ns


def refuse_late(deadline: Deadline, plan: Plan) -> None:
    """Raise if ``deadline`` has passed: nothing is begun whose answer nobody waits for.

    Raises:
        TooLateError: Definite.
    """
    world = current_world()
    if deadline.passed(world.clock.monotonic_ns()):
        from outlast.protect.events import CallRejected

        reason = "the deadline had passed before it began"
        world.events.emit(CallRejected(name=plan.name, part="deadline", reason=reason))
        raise TooLateError(f"{plan.name}: {reason}" if plan.name else reason)


def time_is_up(plan: Plan, part: str, limit_ns: int, ran: bool) -> DeadlineError | TooLateError:
    """Return the error for a limit that has ended a call, and tell of it."""
    from outlast.protect.events import DeadlinePassed

    seconds = limit_ns / _NS
    plan.tally.timed_out()
    event = DeadlinePassed(name=plan.name, part=part, seconds=seconds)
    current_world().events.emit(event)
    name = f"{plan.name}: " if plan.name else ""
    late: DeadlineError | TooLateError
    if ran:
        late = DeadlineError(f"{name}{part} of {seconds:g} s passed")
    else:
        late = TooLateError(f"{name}{part} of {seconds:g} s passed before it began")
    sign(late, plan.tally.timed_out)
    return late
