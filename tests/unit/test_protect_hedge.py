"""``Hedge``: attempts side by side, for coroutines and for plain functions."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import (
    CommandError,
    ConfigError,
    ConnectionLostError,
    DeadlineError,
    RejectedError,
    current_world,
)
from outlast.protect.beside import Crew, abandoned
from outlast.protect.call import CallInfo, current_call, current_call_var
from outlast.protect.core.hedge import Sides
from outlast.protect.deadline import deadline
from outlast.protect.hedge import Hedge
from tests.support.beside import NS, Stage, stage

assert outlast.host


class Allowance:
    def __init__(self, left: int) -> None:
        self.left = left
        self.calls = 0

    def deposit(self) -> None:
        self.calls += 1

    def try_spend(self, now_ns: int) -> bool:
        self.left -= 1
        return self.left >= 0


def number() -> int:
    call = current_call()
    return 0 if call is None else call.hedge


class Service:
    """Each attempt takes its own time and ends in its own way; by number."""

    def __init__(self, *story: tuple[float, Any]) -> None:
        self.story = story
        self.begun: list[tuple[int, float]] = []
        self.cancelled: list[int] = []
        self.started_ns = current_world().clock.monotonic_ns()

    def elapsed(self) -> float:
        return (current_world().clock.monotonic_ns() - self.started_ns) / NS

    async def call(self) -> Any:
        mine = number()
        self.begun.append((mine, self.elapsed()))
        seconds, end = self.story[mine]
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(mine)
            raise
        if isinstance(end, BaseException):
            raise end
        return end

    def block(self) -> Any:
        mine = number()
        clock = current_world().clock
        self.begun.append((mine, self.elapsed()))
        seconds, end = self.story[mine]
        clock.pause(seconds)
        if isinstance(end, BaseException):
            raise end
        return end


class Told:
    """What came of one call."""

    def __init__(self, result: Any, seconds: float, service: Service) -> None:
        self.result = result
        self.seconds = round(seconds, 3)
        self.begun = [(number, round(at, 3)) for number, at in service.begun]
        self.service = service


Story = tuple[tuple[float, Any], ...]


def all_in_loop(hedge: Hedge, *stories: Story) -> list[Told]:
    async def one(story: Story) -> Told:
        loop = asyncio.get_running_loop()
        service = Service(*story)
        begun = loop.time()
        try:
            result = await hedge.wrap_async(service.call, "p")()
        except Exception as error:
            result = error
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert asyncio.all_tasks() == {task}
        return Told(result, loop.time() - begun, service)

    async def main() -> list[Told]:
        return [await one(story) for story in stories]

    return sim.run(main)


def all_blocking(hedge: Hedge, *stories: Story) -> list[Told]:
    told = []
    with stage() as here:
        for story in stories:
            service, begun = Service(*story), here.now
            try:
                result = hedge.wrap_blocking(service.block, "p")()
            except Exception as error:
                result = error
            told.append(Told(result, here.now - begun, service))
    return told


def in_loop(hedge: Hedge, *story: tuple[float, Any]) -> Told:
    return all_in_loop(hedge, story)[0]


def blocking(hedge: Hedge, *story: tuple[float, Any]) -> Told:
    return all_blocking(hedge, story)[0]


both = pytest.mark.parametrize("run", [in_loop, blocking])
Run = Callable[..., Told]
one_world = pytest.mark.parametrize("run_all", [all_in_loop, all_blocking])
RunAll = Callable[..., list[Told]]


@both
def test_a_call_that_is_quick_is_made_once(run: Run) -> None:
    told = run(Hedge(1.0), (0.5, "a"), (0.1, "b"))
    assert (told.result, told.seconds, told.begun) == ("a", 0.5, [(0, 0.0)])


@both
def test_a_second_attempt_starts_after_the_delay_and_may_win(run: Run) -> None:
    hedge = Hedge(1.0)
    told = run(hedge, (10.0, "a"), (0.5, "b"))
    assert (told.result, told.seconds, told.begun) == ("b", 1.5, [(0, 0.0), (1, 1.0)])
    assert (hedge.started, hedge.won) == (1, 1)


@both
def test_the_first_attempt_may_still_win_after_the_second_began(run: Run) -> None:
    hedge = Hedge(1.0)
    told = run(hedge, (1.2, "a"), (0.5, "b"))
    assert (told.result, told.seconds) == ("a", 1.2)
    assert (hedge.started, hedge.won) == (1, 0)


@both
def test_no_more_attempts_start_than_are_allowed_and_one_after_each_delay(run: Run) -> None:
    told = run(Hedge(1.0, attempts=3), *[(10.0, n) for n in range(5)])
    assert told.result == 0
    assert told.seconds == 10.0
    assert told.begun == [(0, 0.0), (1, 1.0), (2, 2.0)]


@both
def test_an_error_of_on_starts_the_next_attempt_at_once(run: Run) -> None:
    told = run(Hedge(1.0, on=KeyError), (0.2, KeyError("x")), (0.3, "b"))
    assert (told.result, told.seconds, told.begun) == ("b", 0.5, [(0, 0.0), (1, 0.2)])


@both
def test_without_on_an_error_comes_out_and_nothing_is_started(run: Run) -> None:
    error = KeyError("x")
    told = run(Hedge(1.0), (0.2, error), (0.3, "b"))
    assert told.result is error
    assert told.seconds == 0.2


@both
def test_an_error_does_not_end_the_call_while_another_attempt_runs(run: Run) -> None:
    told = run(Hedge(1.0), (1.1, KeyError("x")), (0.5, "b"))
    assert (told.result, told.seconds) == ("b", 1.5)


@both
def test_if_all_fail_the_error_of_the_first_comes_out_with_notes(run: Run) -> None:
    first = KeyError("x")
    told = run(Hedge(1.0), (2.0, first), (0.5, OSError()))
    assert told.result is first
    assert first.__notes__ == ["hedge: attempt 2 failed too: OSError"]
    assert told.seconds == 2.0


@both
def test_an_error_that_is_not_of_on_is_an_answer_and_ends_the_call(run: Run) -> None:
    answer = ValueError("no")
    told = run(Hedge(1.0, on=KeyError), (9.0, "a"), (0.5, answer))
    assert told.result is answer
    assert told.seconds == 1.5


@both
def test_a_command_error_is_an_answer(run: Run) -> None:
    answer = CommandError("no")
    told = run(Hedge(1.0), (1.2, answer), (5.0, "b"))
    assert told.result is answer
    assert told.seconds == 1.2


@both
def test_a_definite_error_is_doubtful_if_another_attempt_may_have_had_an_effect(run: Run) -> None:
    first = RejectedError()
    run(Hedge(1.0), (1.2, first), (0.5, ConnectionLostError()))
    assert first.happened == "maybe"


@both
def test_a_budget_that_denies_means_one_attempt(run: Run) -> None:
    budget = Allowance(0)
    told = run(Hedge(1.0, budget=budget), (5.0, "a"), (0.1, "b"))
    assert (told.result, told.begun, budget.calls) == ("a", [(0, 0.0)], 1)


@both
def test_a_budget_that_denies_after_an_error_lets_the_error_out(run: Run) -> None:
    told = run(Hedge(1.0, on=KeyError, budget=Allowance(0)), (0.5, KeyError()), (0.1, "b"))
    assert isinstance(told.result, KeyError)


@both
def test_without_a_known_delay_nothing_is_hedged(run: Run) -> None:
    hedge = Hedge()
    assert run(hedge, (50.0, "a"), (0.1, "b")).begun == [(0, 0.0)]
    assert hedge.delay is None
    assert hedge.snapshot()["samples"] == 1


@one_world
def test_the_delay_is_learned_from_the_first_attempts_that_succeeded(run_all: RunAll) -> None:
    hedge = Hedge(percentile=0.5, min_samples=5)
    quick, slow = ((0.4, "a"), (0.1, "b")), ((9.0, "a"), (0.1, "b"))
    *before, last = run_all(hedge, *[quick] * 5, slow)
    assert [told.begun for told in before] == [[(0, 0.0)]] * 5
    assert last.begun[1][1] == pytest.approx(0.4, rel=1 / 32)
    assert last.result == "b"


@both
def test_failures_teach_nothing(run: Run) -> None:
    hedge = Hedge(1.0, percentile=0.9, min_samples=1)
    run(hedge, (0.1, KeyError()), (0.1, "b"))
    assert hedge.snapshot()["samples"] == 0
    assert hedge.delay == 1.0


@one_world
def test_the_learned_delay_leads_to_as_many_hedges_as_the_percentile_says(run_all: RunAll) -> None:
    hedge = Hedge(percentile=0.9, min_samples=10)
    slow = [0.1 + 0.01 * (turn * 7 % 20) for turn in range(300)]
    told = run_all(hedge, *(((seconds, "a"), (0.001, "b")) for seconds in slow))
    hedged = sum(len(each.begun) - 1 for each in told[200:])
    assert 5 <= hedged <= 15  # of 100
    assert hedge.delay == pytest.approx(0.27, abs=0.02)


def test_the_loser_is_cancelled_before_the_answer_is_returned() -> None:
    assert in_loop(Hedge(1.0), (10.0, "a"), (0.5, "b")).service.cancelled == [0]
    assert in_loop(Hedge(1.0), (1.2, "a"), (0.5, "b")).service.cancelled == [1]


def test_a_cancelled_caller_cancels_all_attempts() -> None:
    async def main() -> None:
        service = Service((10.0, "a"), (10.0, "b"))
        task = asyncio.ensure_future(Hedge(1.0).wrap_async(service.call, "p")())
        await asyncio.sleep(2.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(service.cancelled) == [0, 1]

    sim.run(main)


def test_a_caller_that_is_cancelled_while_it_waits_for_the_second_attempt() -> None:
    async def main() -> None:
        service = Service((1.5, KeyError()), (10.0, "b"))
        task = asyncio.ensure_future(Hedge(1.0).wrap_async(service.call, "p")())
        await asyncio.sleep(2.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.cancelled == [1]

    sim.run(main)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_cancellation_from_outside_at_the_same_moment_is_not_swallowed(turns: int) -> None:
    ended: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            elif not task.done():
                task.cancel()
                ended.append("cancelled")

        async def call() -> str:
            if not number():
                await asyncio.sleep(10)
            later(turns)
            return "b"

        task = asyncio.ensure_future(Hedge(1.0).wrap_async(call, "p")())
        try:
            await task
        except asyncio.CancelledError:
            ended.append("ended so")

    sim.run(main)
    assert ended in (["cancelled", "ended so"], [])


def test_a_deadline_around_the_call_bounds_all_attempts() -> None:
    async def main() -> None:
        service = Service((10.0, "a"), (10.0, "b"))
        with pytest.raises(DeadlineError):
            async with deadline(2.0):
                await Hedge(1.0).wrap_async(service.call, "p")()
        assert sorted(service.cancelled) == [0, 1]

    sim.run(main)


def test_a_first_attempt_that_swallows_its_cancellation_does_not_change_the_winner() -> None:
    async def stubborn() -> str:
        if number():
            return "b"
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(3)
        return "a"

    async def main() -> str:
        result: str = await Hedge(1.0).wrap_async(stubborn, "p")()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return result

    assert sim.run(main) == "b"


def test_all_attempts_share_the_key_and_the_attempt_number() -> None:
    seen: list[CallInfo | None] = []

    async def call() -> None:
        seen.append(current_call())
        await asyncio.sleep(5.0)

    async def main() -> None:
        current_call_var.set(CallInfo("k", 3, 0, "outer"))
        await Hedge(1.0).wrap_async(call, "p")()

    sim.run(main)
    told = [(c.key, c.attempt, c.hedge, c.policy) for c in seen if c]
    assert told == [("k", 3, 0, "outer"), ("k", 3, 1, "outer")]


def test_a_blocking_caller_waits_no_longer_than_its_deadline() -> None:
    with stage() as here:
        service = Service((10.0, "a"), (10.0, "b"))
        with pytest.raises(DeadlineError), deadline(3.0):
            Hedge(1.0).wrap_blocking(service.block, "p")()
        assert here.now == pytest.approx(3.0)


def test_events_tell_what_was_started_and_what_won() -> None:
    with stage() as here:
        service = Service((10.0, "a"), (0.5, "b"))
        Hedge(1.0).wrap_blocking(service.block, "p")()
        assert here.told() == ["HedgeStarted", "HedgeWon"]


def test_the_calls_are_not_deposited_where_another_part_does_it() -> None:
    budget = Allowance(0)
    with stage():
        Hedge(1.0, budget=budget).wrap_blocking(lambda: 1, "p", deposit=False)()
    assert budget.calls == 0


# --- real threads: the subject -------------------------------------------------------------------


def test_a_thread_that_lost_is_told_and_holds_its_thread_until_it_returns() -> None:
    told, go = threading.Event(), threading.Event()

    def call() -> str:
        if number():
            return "b"
        go.wait(60)
        if abandoned():
            told.set()
        return "a"

    hedge = Hedge(0.01)
    assert hedge.wrap_blocking(call, "p")() == "b"
    assert not abandoned()
    go.set()
    assert told.wait(15)


def test_a_call_that_finds_no_thread_runs_unhedged_in_the_callers_own() -> None:
    go = threading.Event()
    hedge = Hedge(0.01, max_threads=1)
    guarded = hedge.wrap_blocking(lambda wait: go.wait(60) if wait else threading.get_ident(), "p")
    holder = threading.Thread(target=guarded, args=(True,))
    holder.start()
    while not hedge.crew.busy:
        pass
    assert guarded(False) == threading.get_ident()
    go.set()
    holder.join()


def test_a_crew_uses_its_threads_again_and_starts_anew_after_a_fork() -> None:
    crew, done = Crew(2), threading.Event()
    assert crew.try_start(done.set)
    assert done.wait(15)
    while crew.busy:
        pass
    done.clear()
    assert crew.try_start(done.set)
    assert done.wait(15)
    assert crew.threads == 1
    crew.forked()
    assert crew.threads == 0


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": -1.0}, {"after": True}, {"percentile": 1.0}, {"percentile": "p95"},
        {"attempts": 1}, {"min_samples": 0}, {"on": "x"}, {"on": KeyboardInterrupt},
        {"budget": 3}, {"max_threads": 0},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Hedge: {next(iter(wrong))} is"):
        Hedge(**wrong)


def test_settings_change_live_and_what_was_learned_stays() -> None:
    hedge = Hedge(percentile=0.5, min_samples=2)
    for _ in range(2):
        in_loop(hedge, (0.4, "a"), (0.1, "b"))
    before = hedge.delay
    hedge.configure(attempts=3, max_threads=7)
    assert (hedge.delay, hedge.attempts, hedge.max_threads) == (before, 3, 7)
    hedge.configure(after=2.0, percentile=None)
    assert hedge.delay == 2.0
    with pytest.raises(ConfigError):
        hedge.configure(attempts=0)


def test_an_attempt_without_anything_to_say_of_it_cannot_be_doubted() -> None:
    sides = Sides(2)
    error = RejectedError()
    assert sides.failed(0, error, again=False, answer=False) == "end"
    assert sides.verdict() is error
    assert error.happened == "no"


def test_the_stage_turns_back_for_a_call_beside() -> None:
    with stage() as here:
        clock: Any = here.world.clock
        assert clock.beside(lambda: here.pause(2.0)) == (None, None, here.begun_ns + 2 * NS)
        assert here.now == 0
        assert isinstance(here, Stage)
