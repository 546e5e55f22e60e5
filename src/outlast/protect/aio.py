"""The fused frame for coroutine functions: one Python frame around the call, whatever the parts.

``blocking`` is the same for plain functions. What differs: waits are awaited, and limits of time
cancel what they bound.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, Final

from outlast.kernel import current_deadline, current_world
from outlast.protect.opening import Opening
from outlast.protect.plan import Plan
from outlast.protect.settle import (
    abandoned,
    finish,
    give_back,
    judged,
    settle_hung,
    whole_is_up,
)
from outlast.protect.story import GAVE_UP, Replay, Story, refuse_late, time_is_up
from outlast.protect.watch import Watched

_NS: Final = 1_000_000_000


def guard_async(
    plan: Plan, function: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """Return the coroutine function ``function`` as ``plan`` protects it."""
    if plan.admits:
        return _guard_thrifty(plan, function)
    return _guard(plan, function)


def _guard_thrifty(
    plan: Plan, function: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """The frame of a plan that refuses no call, as long as there is no limit of time either."""
    succeeded, ambient, full = plan.succeeded, current_deadline.get, _guard(plan, function)
    marks = GAVE_UP

    @wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        if plan.bounded or ambient() is not None:
            return await full(*args, **kwargs)
        since = marks[0]
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            # From here on as if the full frame had made this attempt.
            replay = Replay(error, function).again_async
        else:
            succeeded()
            return result
        return await _guard(plan, replay, [since])(*args, **kwargs)

    return protected


def _guard(
    plan: Plan, function: Callable[..., Awaitable[Any]], marks: list[int] = GAVE_UP
) -> Callable[..., Awaitable[Any]]:
    succeeded, judges, name = plan.succeeded, plan.judges, plan.name
    named, core, breaker = plan.idempotency, plan.core, plan.breaker
    retry, rate, limit, fallback = plan.retry, plan.rate, plan.limit, plan.fallback
    deposit = None if retry is None or retry.budget is None else retry.budget.deposit
    taking, push = (None, None) if limit is None else (limit.taking, limit.push)
    quick = None if rate is None else rate.quick
    ambient, begin = current_deadline.get, plan.attempt_watches.begin
    limit_timed = limit is not None and limit.timed
    learned = rate.succeeded if plan.learns else None  # type: ignore[union-attr]
    clocked = limit_timed or plan.learns

    @wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        story = opening = bound = error = late = None
        since = marks[0]
        try:
            if plan.whole_ns or named is not None:
                opening = Opening(plan, args, kwargs)
                if plan.whole_ns:
                    bound = plan.whole_watches.enter(opening.at_ns)
            if deposit is not None:
                deposit()
            while True:
                ticket: Any = None
                permit: Any = None
                watched: Watched | None = None
                clock_ns: Any = None
                started_ns = 0
                ran = False
                try:
                    deadline = ambient()
                    if deadline is not None:
                        refuse_late(deadline, plan)
                    if core is not None:
                        ticket = core.round
                        if not ticket.passes:
                            ticket = breaker.admit(name)  # type: ignore[union-attr]
                    if rate is not None:
                        clock_ns = current_world().clock.monotonic_ns
                        if quick(clock_ns(), 0):  # type: ignore[misc]
                            await pace(rate)
                    if limit is not None:
                        try:
                            # As pop(), without a place for a signal in between.
                            for permit in taking:  # type: ignore[union-attr] # noqa: B007
                                break
                        except IndexError:
                            permit = await limit.acquire()
                    if clocked or (breaker is not None and breaker.timed):
                        clock_ns = current_world().clock.monotonic_ns
                        started_ns = clock_ns()
                    if plan.attempt_ns:
                        watched = begin(plan.attempt_ns)
                    ran = True
                    result = await function(*args, **kwargs)
                    if watched is not None:
                        watched.leave()
                    if limit is not None:
                        if limit_timed:
                            now_ns = clock_ns()
                            limit.sample(now_ns - started_ns, "ok", now_ns)  # type: ignore[attr-defined]
                        held, permit = permit, None
                        push(held)  # type: ignore[misc]
                        if limit.attention:
                            limit.settle_up()
                    if not judges:
                        if ticket is not None:
                            if not started_ns:
                                ticket.succeeded()
                            else:
                                now_ns = clock_ns()
                                if (
                                    now_ns < ticket.until_ns
                                    and now_ns - started_ns < breaker.quick_ns  # type: ignore[union-attr]
                                ):
                                    ticket.succeeded()
                                else:
                                    finish(plan, ticket, started_ns)
                        if learned is not None:
                            learned()
                        succeeded()
                        return result
                except BaseException as raised:
                    error = raised
                    if watched is not None and watched.leave(raised):
                        error = time_is_up(plan, "attempt_timeout", plan.attempt_ns, ran)
                        error.__cause__ = raised
                    if permit is not None:
                        give_back(limit, permit, started_ns, error)
                    if story is None:
                        story = Story(plan, since)
                    if bound is not None and bound.fired and ran and ticket is not None:
                        # It had the rest of the time and has not answered.
                        settle_hung(plan, ticket)
                        ticket = None
                    wait_ns = story.failed(error, ticket, started_ns, ran)
                    if wait_ns < 0:
                        if fallback is None or not fallback.answers(error):
                            if error is raised:
                                raise
                            raise error from raised
                        if bound is not None:
                            bound.leave()
                            bound = None
                        story.close()
                        if opening is not None:
                            opening.close()  # what is to be said instead is not late
                        return await fallback.value_async(error, args, kwargs)
                    if retry.between is not None:  # type: ignore[union-attr]
                        before = retry.between(error)  # type: ignore[union-attr,arg-type]
                        if isawaitable(before):
                            await before
                else:
                    story = story or Story(plan, since)
                    wait_ns = judged(plan, story, ticket, started_ns, result)
                    if wait_ns < 0:
                        return result
                await story.world.timers.sleep(wait_ns / _NS)
                story.again()
        except BaseException as raised:
            if bound is None or not bound.leave(raised):
                abandoned(plan, story, raised)
                raise
            late = whole_is_up(plan, story)
            if fallback is not None and fallback.answers(late):
                if story is not None:
                    story.close()
                opening.close()  # type: ignore[union-attr]
                return await fallback.value_async(late, args, kwargs)
            raise late from raised
        finally:
            error = late = None  # this frame is in their tracebacks
            if bound is not None:
                bound.leave()
            if story is not None:
                story.close()
            if opening is not None:
                opening.close()

    return protected


async def pace(rate: Any) -> None:
    """Wait for the turn that a rate limit gives.

    Raises:
        RateLimitedError: Definite. The wait would be too long, or end after the deadline.
    """
    world = current_world()
    now_ns = world.clock.monotonic_ns()
    wait_ns = rate.reserve(now_ns)
    if wait_ns:
        try:
            await world.timers.sleep(wait_ns / _NS)
        except BaseException:
            rate.give_back(now_ns + wait_ns)
            raise
