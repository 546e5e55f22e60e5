"""The guards of generators: tried again until the first item, then let run.

Nobody can take back an item that was delivered. So attempts end with the first one: an error
before it may be followed by another attempt, an error after it comes through. The permit is held
until the stream ends; the breaker hears of the whole. ``attempt_timeout`` bounds the time to the
first item, ``timeout`` the time spent inside the stream up to its end.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import Any, Final

from outlast.kernel import Deadline, current_deadline, current_world
from outlast.protect.block import Block, deposit
from outlast.protect.plan import Plan
from outlast.protect.story import Story, time_is_up

_NS: Final = 1_000_000_000
_END: Final = object()


def guard_generator(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the generator function ``function`` as ``plan`` protects it."""

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        story = Story(plan)
        at_ns = _end_of(plan)
        deposit(plan)
        item: Any = _END
        try:
            while True:
                block = Block(plan, at_ns)
                stream: Any = None
                try:
                    block.enter()
                    stream = function(*args, **kwargs)
                    item = next(stream, _END)
                    block.unbound()
                    break
                except BaseException as error:
                    raised, wait_ns = block.fail(error, story)
                    if wait_ns < 0:
                        if raised is error:
                            raise
                        raise raised from error
                story.world.clock.pause(wait_ns / _NS)
                story.again()
        finally:
            story.close()
        if item is _END:
            block.leave()
            return None
        try:
            answer = yield from _rest(stream, item, at_ns)
        except BaseException as error:
            block.fail(error, _last(plan))
            raise
        block.leave()
        return answer

    return protected


def _rest(stream: Any, item: Any, at_ns: int) -> Generator[Any, Any, Any]:
    """Hand on what ``stream`` still yields, with the deadline set while it runs."""
    while True:
        try:
            sent = yield item
        except GeneratorExit:
            stream.close()
            raise
        except BaseException as thrown:
            step, given = stream.throw, thrown
        else:
            step, given = stream.send, sent
        token = current_deadline.set(_earlier(at_ns)) if at_ns else None
        try:
            item = step(given)
        except StopIteration as end:
            return end.value
        finally:
            if token is not None:
                current_deadline.reset(token)


def guard_async_generator(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the asynchronous generator function ``function`` as ``plan`` protects it."""

    @wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        story = Story(plan)
        at_ns = _end_of(plan)
        deposit(plan)
        item: Any = _END
        try:
            while True:
                block = Block(plan, at_ns)
                stream: Any = None
                try:
                    await block.enter_async()
                    stream = function(*args, **kwargs)
                    item = await anext(stream, _END)
                    block.unbound()
                    break
                except BaseException as error:
                    raised, wait_ns = block.fail(error, story)
                    if wait_ns < 0:
                        if raised is error:
                            raise
                        raise raised from error
                await story.world.timers.sleep(wait_ns / _NS)
                story.again()
        finally:
            story.close()
        try:
            while item is not _END:
                try:
                    sent = yield item
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as thrown:
                    step = stream.athrow(thrown)
                else:
                    step = stream.asend(sent)
                item = await _step(plan, step, at_ns)
        except BaseException as error:
            block.fail(error, _last(plan))
            raise
        block.leave()

    return protected


async def _step(plan: Plan, step: Any, at_ns: int) -> Any:
    """Await one step of a stream until its end at ``at_ns``; ``_END`` after its last item."""
    if not at_ns:
        try:
            return await step
        except StopAsyncIteration:
            return _END
    watched = plan.whole_watches.enter(at_ns)
    try:
        item = await step
    except StopAsyncIteration:
        item = _END
    except BaseException as error:
        if watched.leave(error):
            raise time_is_up(plan, "timeout", plan.whole_ns, True) from error
        raise
    finally:
        watched.leave()
    return item


def _end_of(plan: Plan) -> int:
    return current_world().clock.monotonic_ns() + plan.whole_ns if plan.whole_ns else 0


def _earlier(at_ns: int) -> Deadline:
    mine, outer = Deadline(at_ns), current_deadline.get()
    return mine if outer is None else mine.earlier(outer)


def _last(plan: Plan) -> Story:
    """Return the story of an attempt after which none follows: an item was delivered."""
    bare = Plan(plan.name, plan.tally, breaker=plan.breaker, limit=plan.limit)
    return Story(bare)
