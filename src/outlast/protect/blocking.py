"""The fused frame for plain functions: one Python frame around the call, whatever the parts.

A call that succeeds at once takes no lock and calls no Python function of ours, unless its parts
need the time. What follows from a failure is in ``story``; what the parts do, in the parts.
``aio`` is the same for coroutine functions, line by line; a property test compares the two.
"""

from collections.abc import Callable
from functools import wraps
from types import CoroutineType
from typing import Any, Final

from outlast.kernel import current_deadline, current_world
from outlast.protect.opening import Opening
from outlast.protect.plan import Plan
from outlast.protect.settle import finish, give_back, judged, refuse_coroutine
from outlast.protect.story import Replay, Story, begin_deadline, refuse_late

_NS: Final = 1_000_000_000


def guard_blocking(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` as ``plan`` protects it."""
    if plan.admits:
        return _guard_thrifty(plan, function)
    return _guard(plan, function)


def _guard_thrifty(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """The frame of a plan that refuses no call, as long as there is no limit of time either."""
    succeeded, ambient, full = plan.succeeded, current_deadline.get, _guard(plan, function)

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        if plan.bounded or ambient() is not None:
            return full(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            # From here on as if the full frame had made this attempt.
            replay = Replay(error, function).again
        else:
            if result.__class__ is CoroutineType:
                refuse_coroutine(function, result)
            succeeded()
            return result
        return _guard(plan, replay)(*args, **kwargs)

    return protected


def _guard(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    succeeded, judges, name = plan.succeeded, plan.judges, plan.name
    named, core, breaker = plan.idempotency, plan.core, plan.breaker
    retry, rate, limit, fallback = plan.retry, plan.rate, plan.limit, plan.fallback
    deposit = None if retry is None or retry.budget is None else retry.budget.deposit
    pop, push = (None, None) if limit is None else (limit.pop, limit.push)
    limit_timed = limit is not None and limit.timed
    ambient, reset = current_deadline.get, current_deadline.reset

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        story = opening = None
        try:
            if plan.whole_ns or named is not None:
                opening = Opening(plan, args, kwargs)
            if deposit is not None:
                deposit()
            while True:
                ticket: Any = None
                permit: Any = None
                inner = None
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
                        pace(rate)
                    if limit is not None:
                        try:
                            permit = pop()  # type: ignore[misc]
                        except IndexError:
                            permit = limit.acquire_blocking()
                    if limit_timed or (breaker is not None and breaker.timed):
                        clock_ns = current_world().clock.monotonic_ns
                        started_ns = clock_ns()
                    if plan.attempt_ns:
                        inner, _ = begin_deadline(plan.attempt_ns)
                    ran = True
                    result = function(*args, **kwargs)
                    if inner is not None:
                        # Forgotten first: what interrupts us here must not undo it twice.
                        held, inner = inner, None
                        reset(held)
                    if limit is not None:
                        held, permit = permit, None
                        if limit_timed:
                            give_back(limit, held, started_ns, None)
                        else:
                            push(held)  # type: ignore[misc]
                            if limit.attention:
                                limit.settle_up()
                    if result.__class__ is CoroutineType:
                        refuse_coroutine(function, result)
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
                        succeeded()
                        return result
                except BaseException as error:
                    if permit is not None:
                        give_back(limit, permit, started_ns, error)
                    if inner is not None:
                        reset(inner)
                    if story is None:
                        story = Story(plan)
                    wait_ns = story.failed(error, ticket, started_ns, ran)
                    if wait_ns < 0:
                        if fallback is None or not fallback.answers(error):
                            raise
                        if opening is not None:
                            opening.close()  # what is to be said instead is not late
                        plan.tally.fell_back()
                        return fallback.value_blocking(error, args, kwargs)
                    if retry.between is not None:  # type: ignore[union-attr]
                        retry.between(error)  # type: ignore[union-attr,arg-type]
                else:
                    story = story or Story(plan)
                    wait_ns = judged(plan, story, ticket, started_ns, result)
                    if wait_ns < 0:
                        return result
                story.world.clock.pause(wait_ns / _NS)
                story.again()
        finally:
            if story is not None:
                story.close()
            if opening is not None:
                opening.close()

    return protected


def pace(rate: Any) -> None:
    """Wait for the turn that a rate limit gives.

    Raises:
        RateLimitedError: Definite. The wait would be too long, or end after the deadline.
    """
    world = current_world()
    now_ns = world.clock.monotonic_ns()
    wait_ns = rate.reserve(now_ns)
    if wait_ns:
        try:
            world.clock.pause(wait_ns / _NS)
        except BaseException:
            rate.give_back(now_ns + wait_ns)
            raise
