"""The fused frame for plain functions: one Python frame around the call, whatever the parts.

A call that succeeds at once takes no lock and calls no Python function of ours, unless its parts
need the time. What follows from a failure is in ``story``; what the parts do, in the parts.
``aio`` is the same for coroutine functions, line by line; a property test compares the two.
"""

from collections.abc import Callable
from functools import wraps
from types import CoroutineType
from typing import Any, Final

from outlast.kernel import Deadline, current_deadline, current_world
from outlast.protect.opening import Opening
from outlast.protect.plan import Plan
from outlast.protect.settle import abandoned, finish, give_back, judged, refuse_coroutine
from outlast.protect.story import GAVE_UP, Replay, Story, refuse_late

_NS: Final = 1_000_000_000


def guard_blocking(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` as ``plan`` protects it."""
    if plan.admits:
        return _guard_thrifty(plan, function)
    return _guard(plan, function)


def _guard_thrifty(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """The frame of a plan that refuses no call, as long as there is no limit of time either."""
    succeeded, ambient, full = plan.succeeded, current_deadline.get, _guard(plan, function)
    marks = GAVE_UP

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        if plan.bounded or ambient() is not None:
            return full(*args, **kwargs)
        since = marks[0]
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            # From here on as if the full frame had made this attempt.
            replay = Replay(error, function).again
        else:
            if result.__class__ is CoroutineType:
                plan.tally.failed()
                refuse_coroutine(function, result, args)
            succeeded()
            return result
        return _guard(plan, replay, [since])(*args, **kwargs)

    return protected


def _guard(
    plan: Plan, function: Callable[..., Any], marks: list[int] = GAVE_UP
) -> Callable[..., Any]:
    succeeded, judges, name = plan.succeeded, plan.judges, plan.name
    named, core, breaker = plan.idempotency, plan.core, plan.breaker
    retry, rate, limit, fallback = plan.retry, plan.rate, plan.limit, plan.fallback
    deposit = None if retry is None or retry.budget is None else retry.budget.deposit
    taking, push = (None, None) if limit is None else (limit.taking, limit.push)
    limit_timed = limit is not None and limit.timed
    learned = rate.succeeded if plan.learns else None  # type: ignore[union-attr]
    clocked = limit_timed or plan.learns
    quick = None if rate is None else rate.quick
    ambient, put, reset = current_deadline.get, current_deadline.set, current_deadline.reset

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        story = opening = None
        since = marks[0]
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
                last = ""
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
                            pace(rate)
                    if limit is not None:
                        try:
                            # As pop(), without a place for a signal in between.
                            for permit in taking:  # type: ignore[union-attr] # noqa: B007
                                break
                        except IndexError:
                            permit = limit.acquire_blocking()
                    if clocked or (breaker is not None and breaker.timed):
                        clock_ns = current_world().clock.monotonic_ns
                        started_ns = clock_ns()
                    if plan.attempt_ns:
                        clock_ns = clock_ns or current_world().clock.monotonic_ns
                        at_ns = clock_ns() + plan.attempt_ns
                        if deadline is None or deadline.at_ns > at_ns:
                            inner = put(Deadline(at_ns))
                    ran = True
                    result = function(*args, **kwargs)
                    if inner is not None:
                        # Forgotten first: what interrupts us here must not undo it twice.
                        held, inner = inner, None
                        reset(held)
                    if limit is not None:
                        if limit_timed:
                            now_ns = clock_ns()
                            limit.sample(now_ns - started_ns, "ok", now_ns)  # type: ignore[attr-defined]
                        held, permit = permit, None
                        push(held)  # type: ignore[misc]
                        if limit.attention:
                            limit.settle_up()
                    if result.__class__ is CoroutineType:
                        ran, last = False, "this is no failure of the callee"
                        refuse_coroutine(function, result, args)
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
                except BaseException as error:
                    if permit is not None:
                        give_back(limit, permit, started_ns, error)
                    if inner is not None:
                        reset(inner)
                    if story is None:
                        story = Story(plan, since)
                    wait_ns = story.failed(error, ticket, started_ns, ran, last=last)
                    if wait_ns < 0:
                        if fallback is None or not fallback.answers(error):
                            raise
                        story.close()
                        if opening is not None:
                            opening.close()  # what is to be said instead is not late
                        return fallback.value_blocking(error, args, kwargs)
                    if retry.between is not None:  # type: ignore[union-attr]
                        retry.between(error)  # type: ignore[union-attr,arg-type]
                else:
                    story = story or Story(plan, since)
                    wait_ns = judged(plan, story, ticket, started_ns, result)
                    if wait_ns < 0:
                        return result
                story.world.clock.pause(wait_ns / _NS)
                story.again()
        except BaseException as error:
            abandoned(plan, story, error)
            raise
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
