"""One timer for many limits of time."""

import asyncio
import gc
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from outlast.kernel import Deadline, DeadlineError, current_deadline
from outlast.protect import Policy
from outlast.protect.watch import Watch, Watches
from tests.support.protected import NS, Stage, play


def timers_armed(monkeypatch: pytest.MonkeyPatch, here: Stage) -> list[int]:
    """Return a list that grows with each timer that is set."""
    armed: list[int] = []
    timers: Any = type(here.world.timers)
    before = timers.call_at

    def call_at(self: Any, when_ns: int, callback: Callable[[], None]) -> Any:
        armed.append(when_ns)
        return before(self, when_ns, callback)

    monkeypatch.setattr(timers, "call_at", call_at)
    return armed


def test_many_calls_at_once_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(here: Stage) -> None:
        policy = Policy(attempt_timeout=5.0)
        ask = policy(asyncio.sleep)
        armed = timers_armed(monkeypatch, here)
        await asyncio.gather(*(ask(1 + number / 100) for number in range(200)))
        assert len(armed) == 1
        (plan,) = policy._layers._layers
        watch = plan.attempt_watches._last  # type: ignore[union-attr]
        assert watch is not None
        assert len(watch) == 0

    play(story)


def test_calls_one_after_another_set_a_timer_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(here: Stage) -> None:
        ask = Policy(attempt_timeout=5.0)(asyncio.sleep)
        armed = timers_armed(monkeypatch, here)
        for _ in range(200):
            await ask(0.1)
        assert len(armed) <= 20 / 5 + 1

    play(story)


def test_every_call_is_ended_at_its_own_time() -> None:
    async def story(here: Stage) -> None:
        ask = Policy(attempt_timeout=5.0)(asyncio.sleep)
        ended: list[tuple[int, float, str]] = []

        async def call(number: int, seconds: float) -> None:
            await asyncio.sleep(number)
            try:
                await ask(seconds)
            except DeadlineError:
                ended.append((number, here.now, "cut off"))
            else:
                ended.append((number, here.now, "done"))

        await asyncio.gather(call(0, 60), call(1, 2), call(2, 60), call(3, 4.9), call(4, 60))
        assert ended == [
            (1, 3.0, "done"), (0, 5.0, "cut off"), (2, 7.0, "cut off"), (3, 7.9, "done"),
            (4, 9.0, "cut off"),
        ]  # fmt: skip

    play(story)


def test_many_calls_at_the_same_instant_are_all_ended() -> None:
    async def story(here: Stage) -> None:
        for settings in ({"attempt_timeout": 5.0}, {"timeout": 5.0}):
            policy = Policy(**settings)  # type: ignore[arg-type]
            calls = [policy.call(asyncio.sleep, 60) for _ in range(50)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {DeadlineError}
        assert here.now == 10.0

    play(story)


def test_a_shorter_limit_is_put_in_its_place() -> None:
    async def story(here: Stage) -> None:
        watches = Watches()
        long = watches.begin(9 * NS)
        short = watches.begin(2 * NS)
        middle = watches.begin(5 * NS)
        longest = watches.begin(20 * NS)
        assert len(long.watch) == 4
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert here.now == 2.0
        assert [each.fired for each in (short, middle, long)] == [True, False, False]
        for each in (longest, middle, short, long):
            assert each.leave() is False
        await asyncio.sleep(30)  # nobody is cancelled after leaving

    play(story)


def test_the_end_of_time_is_recognised_by_who_was_cancelled_for_it_only() -> None:
    async def story(here: Stage) -> None:
        watches, task = Watches(), asyncio.current_task()
        assert task is not None
        outer, inner = watches.enter(watches.begin(9 * NS).at_ns), watches.begin(2 * NS)
        error: BaseException | None = None
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as raised:
            error = raised
        assert task.cancelling() == 1
        assert inner.leave(error)
        assert not inner.leave(error)  # once
        assert task.cancelling() == 0
        assert not outer.leave(error)

    play(story)


def test_an_error_that_is_no_cancellation_is_not_the_end_of_time() -> None:
    async def story(here: Stage) -> None:
        watched = Watches().begin(1 * NS)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert not watched.leave(ValueError())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    play(story)


def test_a_watch_is_itself_the_deadline_unless_there_is_less_time() -> None:
    async def story(here: Stage) -> None:
        watches = Watches()
        first = watches.begin(5 * NS)
        assert current_deadline.get() is first
        assert isinstance(first, Deadline)
        longer = watches.begin(6 * NS)
        assert current_deadline.get() is first
        longer.leave()
        assert current_deadline.get() is first
        first.leave()
        assert current_deadline.get() is None

    play(story)


def test_leaving_in_another_context_puts_nothing_back_and_does_not_fail() -> None:
    async def story(here: Stage) -> None:
        watched = Watches().begin(5 * NS)
        copy_context().run(watched.leave)
        await asyncio.sleep(9)

    play(story)


def test_who_leaves_in_the_very_turn_is_not_cancelled() -> None:
    async def story(here: Stage) -> None:
        watches = Watches(late=True)
        loop = asyncio.get_running_loop()
        watched = watches.begin(1 * NS)
        loop.call_at(loop.time() + 1, lambda: loop.call_soon(watched.leave))
        await asyncio.sleep(3)
        assert not watched.fired

    play(story)


def test_every_loop_has_a_watch_of_its_own_and_loops_that_are_over_are_forgotten() -> None:
    policy = Policy(attempt_timeout=5.0, timeout=9.0)
    ask = policy(asyncio.sleep)

    async def calls() -> None:
        await asyncio.gather(ask(0), ask(0.001))

    threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(5):
        asyncio.run(calls())
    (plan,) = policy._layers._layers
    for watches in (plan.attempt_watches, plan.whole_watches):  # type: ignore[union-attr]
        assert len(watches._all) == 1
    policy._layers.begin_anew()
    gc.collect()
    assert plan.attempt_watches._all == {}  # type: ignore[union-attr]


def test_two_loops_that_take_turns_keep_their_own_limits() -> None:
    policy = Policy(attempt_timeout=0.02)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        for _ in range(2):
            for loop in loops:
                with pytest.raises(DeadlineError):
                    loop.run_until_complete(policy.acall(asyncio.sleep, 5))  # type: ignore[arg-type]
        (plan,) = policy._layers._layers
        assert len(plan.attempt_watches._all) == 2  # type: ignore[union-attr]
    finally:
        for loop in loops:
            loop.close()


def test_what_has_left_is_forgotten_behind_a_call_that_stays() -> None:
    async def story(here: Stage) -> None:
        policy = Policy(attempt_timeout=50.0)
        stays = asyncio.create_task(policy.call(asyncio.sleep, 40))
        await asyncio.sleep(0)
        for _ in range(3000):
            await policy.call(asyncio.sleep, 0)
        kept = [len(each) for each in gc.get_objects() if isinstance(each, Watch)]
        assert 1 <= max(kept) <= 600
        await stays

    play(story)


def test_steps_of_streams_that_began_earlier_stand_before_later_calls() -> None:
    async def story(here: Stage) -> None:
        watches = Watches()
        later = watches.begin(30 * NS)
        at_ns = here.world.clock.monotonic_ns() + 9 * NS
        for _ in range(3000):
            watches.enter(at_ns).leave()
        assert len(later.watch) <= 600
        last = watches.enter(at_ns)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert (here.now, last.fired, later.fired) == (9.0, True, False)
        last.leave()
        later.leave()

    play(story)
