"""What counts as a wait without an end: small programs, some with a planted bug."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError, Deadline, current_world
from outlast.protect import deadline

HERE = __name__
PORT = 7000


def run(
    main: Callable[[sim.Lab], Awaitable[Any]], *, limit: float = 400.0, **settings: Any
) -> sim.Outcome:
    waits = sim.Waits(HERE, **settings)
    return sim.run_case(main, 1, sim.Options(waits=waits, limit=limit))  # type: ignore[arg-type]


def places(outcome: sim.Outcome) -> list[tuple[str, str]]:
    return [(one.place.partition(": ")[2], one.why.partition(" ")[0]) for one in outcome.waits]


# --- what bounds a wait --------------------------------------------------------------------------


async def under_a_timeout(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def by_wait_for(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 5)


async def by_a_deadline(event: asyncio.Event) -> None:
    with deadline(5):
        await event.wait()


async def by_wait(event: asyncio.Event) -> None:
    await asyncio.wait([asyncio.ensure_future(under_a_timeout(event))], timeout=5)


async def in_a_group(event: asyncio.Event) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(event.wait())


async def gathered(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(event.wait(), asyncio.sleep(1))


async def by_a_timer(event: asyncio.Event) -> None:
    asyncio.get_running_loop().call_later(5, event.set)
    await event.wait()


async def by_a_timer_of_the_world(_: asyncio.Event) -> None:
    world = current_world()
    future = asyncio.get_running_loop().create_future()
    world.timers.call_at(world.clock.monotonic_ns() + 5_000_000_000, lambda: future.cancel())
    await future


async def through_a_generator(event: asyncio.Event) -> None:
    async def values() -> Any:
        async with asyncio.timeout(5):
            await event.wait()
        yield 1

    async for _ in values():
        pass


@pytest.mark.parametrize(
    "wait",
    [
        under_a_timeout, by_wait_for, by_a_deadline, by_wait, in_a_group, gathered, by_a_timer,
        by_a_timer_of_the_world, through_a_generator,
    ],
)  # fmt: skip
def test_a_wait_with_an_end_is_fine(wait: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def main(_: sim.Lab) -> None:
        with suppress(TimeoutError, asyncio.CancelledError):
            await wait(asyncio.Event())

    outcome = run(main)
    assert outcome.error is None, outcome.error


def test_a_wait_without_an_end_fails_although_the_answer_came() -> None:
    async def main(_: sim.Lab) -> str:
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def answer() -> None:
            await asyncio.sleep(0.001)
            queue.put_nowait("yes")

        other = asyncio.create_task(answer())
        found = await queue.get()
        await other
        return found

    outcome = run(main)
    assert places(outcome) == [("await queue.get()", "nothing")]
    assert outcome.value == "yes"
    text = str(outcome.error)
    assert (
        f"{HERE}:test_a_wait_without_an_end_fails_although_the_answer_came.<locals>.main" in text
    )
    assert "asyncio.timeout" in text


def test_a_wait_in_a_generator_has_the_place_of_the_generator() -> None:
    async def main(lab: sim.Lab) -> None:
        event = asyncio.Event()

        async def values() -> Any:
            await event.wait()
            yield 1

        lab.spawn("test", setting(event))
        async for _ in values():
            pass

    assert places(run(main)) == [("await event.wait()", "nothing")]


async def setting(event: asyncio.Event, seconds: float = 1.0) -> None:
    await asyncio.sleep(seconds)
    event.set()


def test_a_deadline_that_is_handed_down_is_a_claim_that_is_checked() -> None:
    async def ask(_until: Deadline, event: asyncio.Event) -> None:
        await event.wait()

    async def main(lab: sim.Lab, *, seconds: float) -> None:
        event = asyncio.Event()
        lab.spawn("test", setting(event, seconds))
        await ask(Deadline.after(5.0, current_world().clock.monotonic_ns()), event)

    ends, late = (run(partial(main, seconds=seconds), limit=50.0) for seconds in (4.0, 40.0))
    assert places(ends) == []
    assert places(late) == [("await event.wait()", "it")]


class Ticker:
    """Has a future, and a timer that goes off again and again and does nothing for it."""

    def __init__(self) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self.tick()

    def tick(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(0.3, self.tick)

    async def wait(self) -> None:
        await self.over


def test_a_timer_that_goes_off_and_ends_nothing_is_no_limit() -> None:
    async def main(lab: sim.Lab) -> None:
        ticker = Ticker()
        lab.spawn("test", ending(ticker))
        await ticker.wait()
        ticker.timer.cancel()

    async def ending(ticker: Ticker) -> None:
        await asyncio.sleep(5)
        ticker.over.set_result(None)

    assert places(run(main)) == [("await self.over", "nothing")]


def test_a_limit_that_is_moved_is_a_limit() -> None:
    async def main(lab: sim.Lab) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(2) as limit:
                lab.spawn("test", move(limit))
                await asyncio.Event().wait()
        assert lab.now == pytest.approx(5)

    async def move(limit: asyncio.Timeout) -> None:
        await asyncio.sleep(1)
        limit.reschedule(asyncio.get_running_loop().time() + 4)

    assert places(run(main)) == []


def test_tasks_are_waited_for_with_patience() -> None:
    async def tick() -> None:
        for _ in range(200):
            await asyncio.sleep(1)

    async def main(_: sim.Lab) -> None:
        await asyncio.create_task(tick())

    assert places(run(main, patience=300.0)) == []
    assert places(run(main, patience=60.0)) == [("await asyncio.create_task(tick())", "it")]


def test_a_task_that_is_paused_with_its_host_is_not_late() -> None:
    async def program() -> None:
        for _ in range(10):
            await asyncio.sleep(0.5)
        await asyncio.sleep(100)

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1.2)
        lab.pause("a")
        await lab.sleep(30)
        lab.resume("a")
        await lab.sleep(10)

    assert {one.host for one in run(main).waits} == {"test"}  # the test itself has no timeouts


# --- planted bugs --------------------------------------------------------------------------------


async def mute() -> None:
    """Accepts, and says nothing."""

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)
        writer.close()

    async with asyncio.timeout(1000):
        await asyncio.start_server(hear, "0.0.0.0", PORT)
    await asyncio.sleep(1000)


async def call(
    *, dial: float | None = 1.0, read: float | None = 1.0, end: float | None = 1.0
) -> None:
    """A client with all its timeouts, unless it is told otherwise."""
    async with asyncio.timeout(dial):
        reader, writer = await asyncio.open_connection("mute", PORT)
    try:
        async with asyncio.timeout(read):
            await reader.readline()
    finally:
        writer.write(bytes(4 << 20))  # more than a peer that does not read takes
        writer.close()
        async with asyncio.timeout(end):
            await writer.wait_closed()


async def scene(lab: sim.Lab, **without: Any) -> None:
    lab.host("mute", mute)
    await lab.sleep(1)
    lab.host("client", partial(call, **without), may_exit=True)
    await lab.sleep(5)


def test_a_client_with_all_its_timeouts_passes() -> None:
    assert [one.host for one in run(scene).waits if one.host != "test"] == []


@pytest.mark.parametrize(
    ("without", "place"),
    [
        ("dial", 'await asyncio.open_connection("mute", PORT)'),
        ("read", "await reader.readline()"),
        ("end", "await writer.wait_closed()"),
    ],
)
def test_a_timeout_that_is_taken_away_is_missed(without: str, place: str) -> None:
    outcome = run(partial(scene, **{without: None}))
    found = [one for one in outcome.waits if one.host != "test"]
    assert [one.place for one in found] == [f"{HERE}:call: {place}"]


# --- the list, and the run -----------------------------------------------------------------------


async def waits_once(lab: sim.Lab) -> None:
    event = asyncio.Event()
    lab.spawn("test", setting(event))
    await event.wait()


PLACE = f"{HERE}:waits_once: await event.wait()"


def test_an_allowed_wait_passes_and_one_that_is_not_met_is_stale() -> None:
    gone = f"{HERE}:gone: await gone()"
    waits = sim.Waits(HERE, allowed={PLACE: "a test", gone: "nobody knows"})
    outcome = sim.run_case(waits_once, 1, sim.Options(waits=waits))
    assert outcome.error is None
    assert waits.stale() == [gone]
    assert waits.met[PLACE] == 1


def test_a_helper_waits_in_the_place_of_its_caller() -> None:
    async def helper(event: asyncio.Event) -> None:
        await event.wait()

    async def main(lab: sim.Lab) -> None:
        event = asyncio.Event()
        lab.spawn("test", setting(event))
        await helper(event)

    name = f"{HERE}:test_a_helper_waits_in_the_place_of_its_caller.<locals>.helper"
    assert places(run(main, through=[name])) == [("await helper(event)", "nothing")]


@pytest.mark.parametrize(
    ("allowed", "says"),
    [({"await x": "why"}, "module:function: expression"), ({PLACE: " "}, "has no reason")],
)
def test_an_entry_that_says_nothing_is_refused(allowed: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sim.Waits(HERE, allowed=allowed)
    with pytest.raises(ConfigError, match="packages is empty"):
        sim.Waits([])


def test_looking_changes_nothing_of_a_run() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("mute", mute)
        lab.host("client", partial(call, read=None), may_exit=True)
        await lab.sleep(5)

    plain = sim.run_case(main, 3, sim.Options())
    looked = sim.run_case(main, 3, sim.Options(waits=sim.Waits(HERE)))
    assert looked.digest == plain.digest
    assert looked.waits


def test_a_simulation_test_takes_it_as_an_argument() -> None:
    @sim.test(seeds=2, waits=sim.Waits(HERE))
    async def test_it(lab: sim.Lab) -> None:
        await waits_once(lab)

    with pytest.raises(AssertionError, match="unbounded wait in"):
        test_it()
