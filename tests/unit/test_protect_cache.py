"""``Cache``: fresh, stale, one call per key."""

import asyncio
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import (
    ConfigError,
    DeadlineError,
    EventBus,
    InvariantError,
    current_world,
)
from outlast.protect.cache import Cache
from outlast.protect.core.cache import Shelf
from outlast.protect.deadline import deadline
from outlast.protect.policy import Policy
from tests.support.beside import stage

assert outlast.host


class Source:
    """Counts its calls, and fails when told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls = 0
        self.error: BaseException | None = None
        self.seconds = seconds

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        current_world().clock.pause(self.seconds)
        if self.error is not None:
            raise self.error
        return self.calls

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        mine = self.calls
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return mine


def test_a_fresh_answer_is_returned_without_a_call() -> None:
    with stage() as here:
        source, cache = Source(), Cache(10.0)
        read = cache.wrap_blocking(source.read, "p")
        assert read(1) == 1
        here.pause(9.9)
        assert read(1) == 1
        here.pause(0.1)
        assert read(1) == 2
        assert cache.snapshot()["hits"] == 1


def test_other_arguments_are_another_answer() -> None:
    with stage():
        read = Cache().wrap_blocking(Source().read, "p")
        assert [read(1), read(2), read(1, a=2), read(a=2, b=3), read(b=3, a=2)] == [1, 2, 3, 4, 4]
        assert read(1, a=2) == 3


@pytest.mark.parametrize("value", [None, False, 0, ""])
def test_an_empty_answer_is_kept_as_it_is(value: Any) -> None:
    with stage():
        calls: list[int] = []
        read = Cache().wrap_blocking(lambda: calls.append(1) or value, "p")
        assert read() == value
        assert read() == value
        assert len(calls) == 1


def test_two_functions_on_one_cache_do_not_mix_their_answers() -> None:
    with stage():
        cache = Cache(key=lambda n: n)
        one, two = cache.wrap_blocking(lambda n: "a", "p"), cache.wrap_blocking(lambda n: "b", "p")
        assert (one(1), two(1), one(1)) == ("a", "b", "a")


def test_a_failed_call_is_answered_with_what_is_stale_and_told() -> None:
    with stage() as here:
        source = Source()
        read = Cache(10.0, stale=20.0).wrap_blocking(source.read, "p")
        read()
        here.pause(29.0)
        source.error = OSError()
        assert read() == 1
        assert here.told() == ["StaleServed"]
        here.pause(1.0)
        with pytest.raises(OSError):
            read()


def test_only_errors_of_on_are_answered_and_never_an_invariant() -> None:
    with stage() as here:
        source = Source()
        read = Cache(1.0, on=(OSError, InvariantError)).wrap_blocking(source.read, "p")
        read()
        here.pause(2.0)
        for error in (ValueError(), InvariantError("x"), KeyboardInterrupt()):
            source.error = error
            with pytest.raises(type(error)):
                read()


def test_an_error_is_not_kept() -> None:
    with stage():
        source = Source()
        read = Cache().wrap_blocking(source.read, "p")
        source.error = OSError()
        with pytest.raises(OSError):
            read()
        source.error = None
        assert read() == 2


def test_forgetting_a_key_or_everything() -> None:
    with stage():
        cache = Cache()
        read = cache.wrap_blocking(Source().read, "p")
        assert [read(1), read(2)] == [1, 2]
        assert cache.invalidate(cache.key_of(1))
        assert not cache.invalidate((1,))
        assert [read(1), read(2)] == [3, 2]
        cache.clear()
        assert read(2) == 4


def test_arguments_that_are_not_hashable_are_refused_by_name() -> None:
    with stage(), pytest.raises(TypeError, match=r"arguments of Source.read make no key.*key="):
        Cache().wrap_blocking(Source().read, "p")([1])


def test_what_can_be_used_only_once_is_refused() -> None:
    with stage():
        with pytest.raises(TypeError, match="a coroutine can be used only once"):
            Cache().wrap_blocking(Source().fetch, "p")()
        with pytest.raises(TypeError, match="a generator can be used only once"):
            Cache().wrap_blocking(lambda: (n for n in "ab"), "p")()


def test_a_key_function_makes_the_key() -> None:
    with stage():
        cache = Cache(key=lambda request: request["id"])
        read = cache.wrap_blocking(Source().read, "p")
        assert [read({"id": 1, "x": 2}), read({"id": 1, "x": 3}), read({"id": 2})] == [1, 1, 2]
        assert cache.invalidate(1)


def test_a_plain_function_is_fetched_ahead_by_one_caller_whose_failure_is_only_told() -> None:
    with stage() as here:
        source = Source()
        read = Cache(10.0, refresh_ahead=2.0).wrap_blocking(source.read, "p")
        assert read() == 1
        here.pause(8.5)
        source.error = OSError()
        assert read() == 1
        assert here.told() == ["RefreshFailed"]
        source.error = None
        assert read() == 3
        assert read() == 3


def test_a_function_that_asks_for_its_own_key_calls_itself() -> None:
    with stage():
        deep: list[int] = []

        def read() -> int:
            deep.append(1)
            return 7 if len(deep) > 1 else guarded() + 1

        guarded: Callable[[], int] = Cache().wrap_blocking(read, "p")
        assert guarded() == 8


# --- coroutines ----------------------------------------------------------------------------------


def story(cache: Cache, source: Source, tell: Callable[[Any], Any]) -> Any:
    async def main() -> Any:
        return await tell(cache.wrap_async(source.fetch, "p"))

    return sim.run(main)


def test_those_who_ask_for_the_same_wait_for_one_call() -> None:
    async def tell(fetch: Any) -> Any:
        return await asyncio.gather(*[fetch(1) for _ in range(5)], fetch(2))

    source = Source(1.0)
    assert story(Cache(), source, tell) == [1, 1, 1, 1, 1, 2]
    assert source.calls == 2


def test_all_of_them_see_the_error() -> None:
    async def tell(fetch: Any) -> Any:
        return await asyncio.gather(*[fetch(1) for _ in range(3)], return_exceptions=True)

    source = Source(1.0)
    source.error = OSError("x")
    assert story(Cache(), source, tell) == [source.error] * 3
    assert source.calls == 1


def test_without_single_flight_each_calls_for_itself() -> None:
    async def tell(fetch: Any) -> Any:
        return await asyncio.gather(*[fetch(1) for _ in range(3)])

    assert story(Cache(single_flight=False), Source(1.0), tell) == [1, 2, 3]


def test_if_the_leader_is_cancelled_a_follower_leads() -> None:
    async def tell(fetch: Any) -> Any:
        tasks = [asyncio.ensure_future(fetch(1)) for _ in range(4)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    source = Source(1.0)
    told = story(Cache(), source, tell)
    assert isinstance(told[0], asyncio.CancelledError)
    assert told[1:] == [2, 2, 2]
    assert source.calls == 2


def test_a_follower_that_is_cancelled_leaves_the_others_alone() -> None:
    async def tell(fetch: Any) -> Any:
        tasks = [asyncio.ensure_future(fetch(1)) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    told = story(Cache(), Source(1.0), tell)
    assert told[0] == told[2] == 1


def test_a_leader_out_of_its_own_time_does_not_fail_those_who_have_more() -> None:
    async def short(fetch: Any) -> Any:
        async with deadline(0.5):
            return await fetch(1)

    async def tell(fetch: Any) -> Any:
        return await asyncio.gather(short(fetch), fetch(1), return_exceptions=True)

    told = story(Cache(), Source(1.0), tell)
    assert isinstance(told[0], DeadlineError)
    assert told[1] == 2


def test_an_error_of_time_by_the_leaders_own_deadline_is_not_shared() -> None:
    calls: list[int] = []

    async def call() -> int:
        calls.append(1)
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            raise TimeoutError from None
        return 7

    async def main() -> Any:
        fetch = Cache().wrap_async(call, "p")

        async def short() -> Any:
            async with deadline(0.5):
                return await fetch()

        return await asyncio.gather(short(), fetch(), return_exceptions=True)

    told = sim.run(main)
    assert isinstance(told[0], TimeoutError)
    assert told[1] == 7
    assert len(calls) == 2


def test_an_error_of_time_that_is_the_callees_own_is_shared() -> None:
    async def tell(fetch: Any) -> Any:
        return await asyncio.gather(fetch(1), fetch(1), return_exceptions=True)

    source = Source(1.0)
    source.error = TimeoutError()
    story(Cache(), source, tell)
    assert source.calls == 1


def test_an_answer_that_was_forgotten_under_way_is_given_and_not_kept() -> None:
    cache = Cache()

    async def tell(fetch: Any) -> Any:
        first = asyncio.ensure_future(fetch(1))
        await asyncio.sleep(0.5)
        second = asyncio.ensure_future(fetch(1))
        await asyncio.sleep(0.1)
        cache.invalidate((1,))
        third = asyncio.ensure_future(fetch(1))
        told = [await first, await second]
        assert cache.snapshot()["entries"] == 0
        return [*told, await third, await fetch(1)]

    assert story(cache, Source(1.0), tell) == [1, 1, 2, 2]


def test_a_coroutine_is_fetched_ahead_in_the_background_once() -> None:
    source = Source(1.0)

    async def tell(fetch: Any) -> Any:
        await fetch()
        await asyncio.sleep(8.5)
        async with deadline(0.1):
            ahead = [await fetch(), await fetch()]
        await asyncio.sleep(1.1)
        return [*ahead, await fetch(), source.calls]

    assert story(Cache(10.0, refresh_ahead=2.0), source, tell) == [1, 1, 2, 2]


def test_a_background_fetch_that_fails_is_told_and_tried_again_by_the_next() -> None:
    source, told = Source(0.1), list[Any]()

    async def tell(fetch: Any) -> Any:
        bus = current_world().events
        assert isinstance(bus, EventBus)
        bus.subscribe(told.append)
        await fetch()
        await asyncio.sleep(8.5)
        source.error = OSError()
        for _ in range(2):
            assert await fetch() == 1
            await asyncio.sleep(0.2)
        return [type(event).__name__ for event in told]

    assert story(Cache(10.0, refresh_ahead=2.0), source, tell) == ["RefreshFailed"] * 2


def test_a_stale_answer_stands_in_for_each_who_waited() -> None:
    source = Source(0.1)

    async def tell(fetch: Any) -> Any:
        await fetch()
        await asyncio.sleep(20)
        source.error = OSError()
        return await asyncio.gather(fetch(), fetch())

    assert story(Cache(10.0), source, tell) == [1, 1]


def test_what_another_flight_has_fetched_meanwhile_is_taken() -> None:
    with stage() as here:
        cache = Cache(10.0)
        source = Source()
        read = cache.wrap_blocking(source.read, "p")
        join = cache._flights.join
        read()
        here.pause(11)

        def late(mine: Any) -> Any:
            cache._shelf.put(mine.key, "newer", here.world.clock.monotonic_ns())
            return join(mine)

        class Late:
            def __getattr__(self, name: str) -> Any:
                return late if name == "join" else getattr(flights, name)

        flights, cache._flights = cache._flights, Late()  # type: ignore[assignment]
        assert read() == "newer"
        assert source.calls == 1


# --- real threads: the subject -------------------------------------------------------------------


def test_threads_wait_for_one_call_and_a_deadline_bounds_each() -> None:
    go, calls, answers = threading.Event(), list[int](), list[int]()

    def slow() -> int:
        calls.append(1)
        go.wait(60)
        return 7

    cache = Cache()
    read = cache.wrap_blocking(slow, "p")
    threads = [threading.Thread(target=lambda: answers.append(read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(cache._flights) == 0:
        pass
    with pytest.raises(DeadlineError), deadline(0.02):
        read()
    go.set()
    for thread in threads:
        thread.join()
    assert answers == [7] * 4
    assert calls == [1]


def test_one_call_serves_two_event_loops() -> None:
    calls, started = list[int](), threading.Event()

    async def slow() -> int:
        calls.append(1)
        started.set()
        await asyncio.sleep(0.1)
        return 7

    fetch = Cache().wrap_async(slow, "p")
    answers: list[int] = []
    other = threading.Thread(target=lambda: answers.append(asyncio.run(fetch())))
    other.start()
    started.wait(15)
    answers.append(asyncio.run(fetch()))
    other.join()
    assert answers == [7, 7]
    assert calls == [1]


# --- the shelf and settings ----------------------------------------------------------------------


def test_what_was_used_stays_and_what_was_not_goes_first() -> None:
    shelf = Shelf(ttl_ns=10, stale_ns=0, ahead_ns=0, max_entries=3)
    for key in "abc":
        shelf.put(key, key, 0)
    shelf.find("a")
    shelf.put("d", "d", 1)
    assert shelf.keys() == ["c", "a", "d"]
    shelf.put("c", "C", 1)
    assert shelf.keys() == ["c", "a", "d"]
    shelf.make_room(1)
    assert (shelf.keys(), shelf.evicted) == (["d"], 3)


def test_the_ages_of_an_entry() -> None:
    shelf = Shelf(ttl_ns=10, stale_ns=5, ahead_ns=2, max_entries=3)
    shelf.put("a", 1, 100)
    entry = shelf.find("a")
    assert entry is not None
    told = [shelf.state(entry, now) for now in (100, 107, 108, 109, 110, 114, 115)]
    assert told == ["fresh", "fresh", "ahead", "ahead", "stale", "stale", "gone"]


def test_settings_change_live_and_judge_what_is_kept() -> None:
    with stage() as here:
        cache = Cache(10.0)
        read = cache.wrap_blocking(Source().read, "p")
        assert [read(n) for n in range(5)] == [1, 2, 3, 4, 5]
        here.pause(5.0)
        cache.configure(max_entries=2)
        assert cache.snapshot()["entries"] == 2
        cache.configure(ttl=4.0)
        assert read(4) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": 0}, {"ttl": "1"}, {"stale": -1}, {"max_entries": 0}, {"key": 3}, {"on": "x"},
        {"refresh_ahead": 60.0}, {"on": ()},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Cache: {next(iter(wrong))} is"):
        Cache(**wrong)


# --- what those who wait have of it --------------------------------------------------------------


def depth(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


def test_an_error_that_many_waited_for_has_the_trace_of_one() -> None:
    async def main() -> None:
        source, depths = Source(1.0), set[int]()
        source.error = OSError("down")
        fetch = Cache().wrap_async(source.fetch, "p")

        async def ask() -> None:
            try:
                await fetch(1)
            except OSError as error:
                depths.add(depth(error))

        await asyncio.gather(*(ask() for _ in range(300)))
        assert source.calls == 1
        assert max(depths) < 12

    sim.run(main)


def test_each_thread_that_waited_sees_where_the_error_is_from() -> None:
    go, cache, seen = threading.Event(), Cache(), list[BaseException]()

    def fail(_: int) -> None:
        go.wait(60)
        raise OSError("down")

    read = cache.wrap_blocking(fail, "p")

    def ask() -> None:
        try:
            read(1)
        except OSError as error:
            seen.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    last = seen[-1]
    assert "fail" in {frame.name for frame in traceback.extract_tb(last.__traceback__)}
    assert depth(last) < 12


@pytest.mark.parametrize("bounded", [False, True])
def test_a_timeout_begins_inside_of_the_cache_and_a_deadline_around_it(bounded: bool) -> None:
    ended: list[float] = []

    async def main() -> None:
        source, loop = Source(3.0), asyncio.get_running_loop()
        fetch = Policy("p", timeout=4.0, cache=Cache())(source.fetch)
        leader = asyncio.ensure_future(fetch(1))
        await asyncio.sleep(2.0)
        source.seconds = 3.5
        begun = loop.time()

        async def wait() -> None:
            with deadline(4.0) if bounded else nullcontext():
                await fetch(1)

        waits = asyncio.ensure_future(wait())
        await asyncio.sleep(0.5)
        leader.cancel()
        await asyncio.wait([leader, waits])
        assert isinstance(waits.exception(), DeadlineError) == bounded
        ended.append(round(loop.time() - begun, 3))

    sim.run(main)
    # 0.5 s of waiting, and a fetch of 3.5 s that began then, with a time of its own.
    assert ended == [4.0]
