"""Small steps that both frames and the blocks share: giving back, judging results, refusing."""

from collections.abc import Callable
from typing import Any, NoReturn

from outlast.kernel import DeadlineError, TooLateError, current_world
from outlast.protect.core.breaker import Ticket
from outlast.protect.plan import Plan
from outlast.protect.story import OVER, Replay, Story, time_is_up


def give_back(limit: Any, permit: Any, started_ns: int, error: BaseException | None) -> None:
    """Give a permit back; a limit that adapts is told how long it was held, and the outcome."""
    try:
        if limit.timed and started_ns:
            now_ns = current_world().clock.monotonic_ns()
            if error is None:
                outcome = "ok"
            else:
                outcome = "failed" if isinstance(error, Exception) else "cancelled"
            limit.sample(now_ns - started_ns, outcome, now_ns)
    finally:
        limit.push(permit)
    if limit.attention:
        limit.settle_up()


def finish(plan: Plan, ticket: Ticket, started_ns: int) -> None:
    """Settle a successful call of a breaker that wants to know the time."""
    now_ns = current_world().clock.monotonic_ns()
    plan.breaker.success(ticket, now_ns - started_ns, now_ns)  # type: ignore[union-attr]


def settle_hung(plan: Plan, ticket: Ticket) -> None:
    """Settle a call that was cut off by the limit on the whole: its callee did not answer."""
    now_ns = current_world().clock.monotonic_ns()
    error = DeadlineError("the whole time passed")
    plan.breaker.failure(ticket, error, plan.whole_ns, now_ns)  # type: ignore[union-attr]


def judged(plan: Plan, story: Story, ticket: Ticket | None, started_ns: int, result: Any) -> int:
    """Settle a call by its result; return the wait before another attempt, or ``OVER``."""
    breaker, retry = plan.breaker, plan.retry
    bad = False
    if breaker is not None and ticket is not None:
        counts = breaker.counts_result
        try:
            bad = counts is not None and bool(counts(result))
        except BaseException:
            breaker.cancelled(ticket)
            raise
        now_ns = current_world().clock.monotonic_ns()
        elapsed_ns = now_ns - started_ns if started_ns else 0
        if bad:
            breaker.failure(ticket, None, elapsed_ns, now_ns)
        else:
            breaker.success(ticket, elapsed_ns, now_ns)
    if retry is not None and retry.on_result is not None and retry.on_result(result):
        wait_ns = story.unwanted(result)
        if wait_ns >= 0:
            return wait_ns
        bad = True
    story.counted = True
    if plan.learns and not bad:
        plan.rate.succeeded()  # type: ignore[union-attr]
    if bad:
        plan.tally.failed()
    else:
        plan.succeeded()
    return OVER


def whole_is_up(plan: Plan, story: Story | None) -> DeadlineError | TooLateError:
    """Return the error for a call that the limit on the whole has ended, and count the call."""
    story = story or Story(plan, 0)
    late = time_is_up(plan, "timeout", plan.whole_ns, story.ran)
    story.ended(late, story.ran)
    return late


def abandoned(plan: Plan, story: Story | None, error: BaseException) -> None:
    """Count a call that something else than an attempt has ended, such as a hook that raised."""
    story = story or Story(plan, 0)
    story.ended(error, True, answered=False)
    story.close()


def call_first(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call the first argument with the others; what ``policy.call`` protects."""
    return function(*args, **kwargs)


def refuse_coroutine(function: Callable[..., Any], result: Any, args: tuple[Any, ...]) -> NoReturn:
    """Raise because a plain function has returned a coroutine, which nobody here awaits.

    Args:
        function: What was protected.
        result: The coroutine.
        args: What it was called with.

    Raises:
        TypeError: Definite; the coroutine has not begun.
    """
    result.close()
    replay = getattr(function, "__self__", None)
    if isinstance(replay, Replay):
        function = replay.function
    if function is call_first:
        function = args[0]
    name = getattr(function, "__qualname__", repr(function))
    message = (
        f"{name} is a plain function and returned a coroutine, which would run unprotected: "
        "make it `async def`, or use `await policy.acall(function, …)`"
    )
    raise TypeError(message)
