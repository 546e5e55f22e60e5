"""The driver's timer and its order of work, with a core that only writes down what it is told."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from outlast import sim
from outlast.detect import Member, MemberJoined, MemberState
from outlast.detect.core.swim import api
from outlast.detect.members_driver import Driver
from outlast.detect.members_feed import Audience
from outlast.detect.members_seal import make_seal
from outlast.kernel import World

MS = 1_000_000
MEMBER = Member("n2", "127.0.0.1:9", 0, MemberState.ALIVE, {}, (), 0, None)


class Hands:
    """Clock and timers that are moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.armed: list[tuple[int, Callable[[], None]]] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> "Hands":
        self.armed.append((when_ns, callback))
        return self

    def cancel(self) -> None:
        self.armed.clear()

    def fire(self, now_ns: int) -> None:
        """Let the timer come at `now_ns`, which may be late."""
        self.now_ns = now_ns
        _, callback = self.armed.pop()
        callback()


class Core:
    """Answers each step with what was prepared for it."""

    def __init__(self) -> None:
        self.deadline_ns = 100 * MS
        self.told: list[Any] = []
        self.effects: dict[type, api.Effects] = {}

    def step(self, event: Any, now_ns: int) -> api.Effects:
        self.told.append(event)
        return self.effects.get(type(event), api.NOTHING)


class Unfit:
    """A process whose fitness is said by hand."""

    score = 0.0
    allowed = True

    def may_accuse(self, now_ns: int) -> bool:
        return self.allowed


def driven(story: Callable[[Driver, Core, Hands], Coroutine[Any, Any, None]], **more: Any) -> None:
    async def main() -> None:
        hands, core = Hands(), Core()
        world: World = replace(sim.current_world(), clock=hands, timers=hands)  # type: ignore[arg-type]
        driver = Driver(
            "n1", world, make_seal([]), Audience("n1", 8), **{"hook": None, "local": None, **more}
        )
        driver.node = core
        await story(driver, core, hands)
        await driver.close()

    sim.run(main)


def test_a_late_timer_waits_until_what_lies_in_the_socket_was_read() -> None:
    async def story(driver: Driver, core: Core, hands: Hands) -> None:
        driver.feed(api.Started())
        assert hands.armed[0][0] == 100 * MS
        hands.fire(151 * MS)
        assert core.told == [api.Started()]
        assert [at for at, _ in hands.armed] == [181 * MS]
        driver.packet(b"an answer", "127.0.0.1:9")
        assert [at for at, _ in hands.armed] == [181 * MS]
        hands.fire(250 * MS)  # late again: not put off a second time
        assert core.told[1:] == [api.PacketReceived(b"an answer", "127.0.0.1:9"), api.TimerFired()]
        assert [at for at, _ in hands.armed] == [100 * MS]

    driven(story, local=Unfit())


def test_a_timer_in_time_is_told_at_once() -> None:
    async def story(driver: Driver, core: Core, hands: Hands) -> None:
        driver.feed(api.Started())
        hands.fire(150 * MS)
        assert core.told == [api.Started(), api.TimerFired()]

    driven(story)


def test_fitness_is_told_before_the_time_and_only_when_it_changes() -> None:
    local = Unfit()

    async def story(driver: Driver, core: Core, hands: Hands) -> None:
        driver.feed(api.Started())
        local.allowed, local.score = False, 0.5
        hands.fire(100 * MS)
        hands.fire(100 * MS)
        local.allowed, local.score = True, 7.0
        hands.fire(100 * MS)
        local.score = 6.99
        hands.fire(100 * MS)
        fired = api.TimerFired()
        assert core.told[1:] == [
            api.AccusationsAllowed(False), api.LocalScore(0.5), fired, fired,
            api.AccusationsAllowed(True), api.LocalScore(1.0), fired, fired,
        ]  # fmt: skip

    driven(story, local=local)


def test_a_step_from_within_a_callback_follows_what_was_under_way() -> None:
    async def story(driver: Driver, core: Core, hands: Hands) -> None:
        joined = [MemberJoined(member=replace(MEMBER, name=name)) for name in ("a", "b", "c")]
        core.effects[api.Started] = api.Effects(events=(joined[0], joined[1]))
        core.effects[api.SetMetadata] = api.Effects(events=(joined[2],))
        heard: list[str] = []

        def hear(member: Member) -> None:
            heard.append(member.name)
            if member.name == "a":
                driver.feed(api.SetMetadata({}))

        driver._audience.watch(hear)
        driver.feed(api.Started())
        assert heard == ["a", "b", "c"]

    driven(story)


def test_without_a_hook_who_is_asked_about_is_dead_and_with_one_it_is_asked_once() -> None:
    asked: list[str] = []

    async def keep(member: Member) -> bool:
        asked.append(member.name)
        await asyncio.sleep(1)
        return False

    async def slow(member: Member) -> bool:
        await asyncio.sleep(3600)
        return True

    async def without(driver: Driver, core: Core, hands: Hands) -> None:
        core.effects[api.Started] = api.Effects(asks=(api.Unreachable(MEMBER),))
        driver.feed(api.Started())
        assert core.told[1:] == [api.Confirmed("n2", dead=True)]

    async def kept(driver: Driver, core: Core, hands: Hands) -> None:
        core.effects[api.Started] = api.Effects(asks=(api.Unreachable(MEMBER),) * 2)
        driver.feed(api.Started())
        await asyncio.sleep(2)
        assert asked == ["n2"]
        assert core.told[1:] == [api.Confirmed("n2", dead=False)]

    async def late(driver: Driver, core: Core, hands: Hands) -> None:
        core.effects[api.Started] = api.Effects(asks=(api.Unreachable(MEMBER),))
        driver.feed(api.Started())
        await asyncio.sleep(11)
        assert core.told[1:] == [api.Confirmed("n2", dead=False)]

    driven(without)
    driven(kept, hook=keep)
    driven(late, hook=slow)


def test_nothing_is_told_after_the_end() -> None:
    async def story(driver: Driver, core: Core, hands: Hands) -> None:
        driver.feed(api.Started())
        await driver.close()
        assert not hands.armed
        driver.packet(b"x", "127.0.0.1:9")
        driver.feed(api.Leave())
        assert core.told == [api.Started()]
        await driver.close()

    driven(story)
