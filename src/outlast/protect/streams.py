"""The guards of generators: tried again until the first item, then let run.

Nobody can take back an item that was delivered. So attempts end with the first one: an error
before it may be followed by another attempt, an error after it comes through. The permit is held
until the stream ends; the breaker hears of the whole. ``attempt_timeout`` bounds the time to the
first item, ``timeout`` the time up to the end of the stream: it cancels a coroutine that is at
work, and no step is begun after it.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from inspect import isawaitable
from typing import Any, Final

from outlast.protect.block import Block, Call
from outlast.protect.plan import Plan
from outlast.protect.settle import abandoned

_NS: Final = 1_000_000_000
_DELIVERED: Final = "an item was delivered"
_END: Final = object()


def guard_generator(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the generator function ``function`` as ``plan`` protects it."""

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block, stream, item = _first(plan, function, args, kwargs)
        if stream is _END:
            return item
        try:
            answer = yield from _rest(block, stream, item)
        except BaseException as error:
            block.fail(error, _DELIVERED)
            raise
        block.leave()
        return answer

    return protected


def _first(
    plan: Plan, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Block, Any, Any]:
    """Return the block of the attempt that gave a first item, its stream, and the item.

    Of a stream without items: ``_END`` in its place, and what it returned.
    """
    call, retry = Call(plan, args, kwargs), plan.retry
    try:
        while True:
            block = Block(call)
            try:
                block.enter()
                stream = function(*args, **kwargs)
                item = next(stream)
            except StopIteration as end:
                block.leave()
                return block, _END, end.value
            except BaseException as error:
                wait_ns = block.fail(error)[1]
                if wait_ns < 0:
                    raise
                if retry is not None and retry.between is not None:
                    retry.between(error)  # type: ignore[arg-type]
            else:
                block.suspend()
                return block, stream, item
            call.story.world.clock.pause(wait_ns / _NS)
            call.story.advance()
    except BaseException as error:
        abandoned(plan, call.story, error)
        raise


def _rest(block: Block, stream: Any, item: Any) -> Generator[Any, Any, Any]:
    """Hand on what ``stream`` still yields, with the deadline in force while it runs."""
    while True:
        step, given = stream.send, None
        try:
            given = yield item
        except GeneratorExit:
            stream.close()
            raise
        except BaseException as thrown:
            step, given = stream.throw, thrown
        block.resume()
        try:
            item = step(given)
        except StopIteration as end:
            return end.value
        finally:
            given = None  # this frame may be in its traceback
            block.suspend()


def guard_async_generator(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the asynchronous generator function ``function`` as ``plan`` protects it."""

    @wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block, stream, item = await _first_async(plan, function, args, kwargs)
        while item is not _END:
            step, given = stream.asend, None
            try:
                given = yield item
            except GeneratorExit as error:
                try:
                    await stream.aclose()
                finally:
                    block.fail(error, _DELIVERED)
                raise
            except BaseException as thrown:
                step, given = stream.athrow, thrown
            try:
                item = await _step(block, step, given)
            finally:
                given = None  # this frame may be in its traceback

    return protected


async def _first_async(
    plan: Plan, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Block, Any, Any]:
    """Return the block of the attempt that gave a first item, its stream, and the item or _END."""
    call, retry = Call(plan, args, kwargs), plan.retry
    raised: BaseException | None = None
    try:
        while True:
            block = Block(call)
            try:
                await block.enter_async()
                stream = function(*args, **kwargs)
                item = await anext(stream, _END)
            except BaseException as error:
                raised, wait_ns = block.fail(error)
                if wait_ns < 0:
                    if raised is error:
                        raise
                    raise raised from error
                if retry is not None and retry.between is not None:
                    before = retry.between(raised)  # type: ignore[arg-type]
                    if isawaitable(before):
                        await before
            else:
                if item is _END:
                    block.leave()
                else:
                    block.suspend()
                return block, stream, item
            await call.story.world.timers.sleep(wait_ns / _NS)
            call.story.advance()
    except BaseException as error:
        abandoned(plan, call.story, error)
        raise
    finally:
        raised = None  # this frame may be in its traceback


async def _step(block: Block, step: Callable[[Any], Any], given: Any) -> Any:
    """Return the next item of a stream; ``_END`` after its last one."""
    raised: BaseException | None = None
    try:
        block.resume()
        item = await step(given)
    except StopAsyncIteration:
        block.leave()
        return _END
    except BaseException as error:
        raised, _ = block.fail(error, _DELIVERED)
        if raised is error:
            raise
        raise raised from error
    else:
        block.suspend()
        return item
    finally:
        raised = given = None  # this frame may be in its traceback
