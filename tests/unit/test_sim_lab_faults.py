"""What the lab breaks by hand, and how it heals."""

import asyncio
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError, DeadlineError, current_world
from tests.support.sim_lab import ask, echo, failing, forever, run

# --- network, disks, names, clocks ---------------------------------------------------------------


def test_cuts_hold_until_they_are_undone() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        with lab.cut("a"):
            said = [await ask("a")]
        return [*said, await ask("a", 5)]

    assert run(main) == ["TimeoutError", "hello"]


def test_two_cuts_of_one_way_end_with_the_last() -> None:
    async def main(lab: sim.Lab) -> list[bool]:
        lab.host("a", forever)
        way = lab.sim.network.way("a", "test")
        one, other = lab.cut("a", "test"), lab.cut(["test"], ["a"])
        seen = [way.cut]
        one.undo()
        one.undo()
        seen.append(way.cut)
        other.undo()
        return [*seen, way.cut]

    assert run(main) == [True, True, False]


def test_a_one_way_cut_leaves_the_other_way() -> None:
    async def main(lab: sim.Lab) -> tuple[bool, bool]:
        lab.host("a", forever)
        lab.cut("a", "test", one_way=True)
        network = lab.sim.network
        return network.way("a", "test").cut, network.way("test", "a").cut

    assert run(main) == (True, False)


def test_a_slow_link_is_slow_by_as_much() -> None:
    async def main(lab: sim.Lab) -> float:
        lab.host("a", echo)
        await lab.sleep(0.1)
        lab.slow("a", delay=0.25)
        begin = lab.now
        assert await ask("a", 5) == "hello"
        return lab.now - begin

    assert 1.0 <= run(main) < 1.2  # a round trip to connect, and one to ask


def test_names_fail_and_come_back() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        first = lab.dns("nxdomain")
        second = lab.dns("timeout", host="test")
        said = [await ask("a", 30)]
        second.undo()
        said.append(await ask("a"))
        first.undo()
        return [*said, await ask("a")]

    assert run(main) == ["gaierror", "gaierror", "hello"]


def test_clocks_are_off_until_it_is_undone_and_jumps_stay() -> None:
    async def main(lab: sim.Lab) -> list[int]:
        clock = lab.host("a", forever).clock
        with lab.clock("a", skew=60, drift_ppm=500):
            seen = [clock.skew_ns, clock.drift_ppm]
        lab.clock("a", jump=-5).undo()
        return [*seen, clock.skew_ns, clock.drift_ppm]

    assert run(main) == [60_000_000_000, 500, -5_000_000_000, 0]


def test_a_full_disk_refuses_and_a_program_that_stops_for_it_is_started_again() -> None:
    async def writes() -> None:
        world = current_world()
        world.storage.makedirs("/data")
        while True:
            file = world.storage.open("/data/log", create=True)
            file.pwrite(b"x", file.size())
            file.close()
            await asyncio.sleep(0.1)

    async def main(lab: sim.Lab) -> int:
        host = lab.host("a", writes)
        await lab.sleep(1)
        with lab.disk("a", "full"):
            await lab.sleep(0.5)
            assert not host.up
        await lab.sleep(2)
        assert host.up
        return host.starts

    assert run(main) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lab: lab.crash("b"),
        lambda lab: lab.crash("test"),
        lambda lab: lab.crash(),
        lambda lab: lab.cut("a", "b"),
        lambda lab: lab.disk("a", "melted"),
        lambda lab: lab.dns("silent"),
        lambda lab: lab.inject("crsh"),
        lambda lab: lab.host("a", forever),
        lambda lab: lab.host("Not a name", forever),
    ],
)
def test_what_is_not_there_is_refused(wrong: Any) -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", forever)
        with pytest.raises(ConfigError):
            wrong(lab)

    run(main)


# --- healing -------------------------------------------------------------------------------------


def test_heal_undoes_everything_at_once_and_awaited_waits_for_the_listeners() -> None:
    async def slow_start() -> None:
        await asyncio.sleep(3)
        await echo()

    async def main(lab: sim.Lab) -> str:
        for name in ("a", "b", "c"):
            lab.host(name, slow_start)
        await lab.sleep(4)
        lab.crash("a")
        lab.power_cut("b")
        lab.pause("c")
        lab.cut("a")
        lab.dns("nxdomain")
        lab.clock("c", drift_ppm=100)
        healing = lab.heal()
        assert all(host.up and not host.paused for host in lab.hosts.values())
        assert not lab.sim.network.way("a", "test").cut
        assert lab.hosts["c"].clock.drift_ppm == 0
        await healing
        return await ask("a")

    assert run(main) == "hello"


def test_heal_need_not_be_awaited() -> None:
    async def main(lab: sim.Lab) -> bool:
        host = lab.host("a", forever)
        lab.crash("a")
        lab.heal()
        return host.up

    assert run(main) is True


def test_a_host_that_does_not_come_back_is_named() -> None:
    async def once() -> None:
        if current_world().storage.exists("/been-here"):
            await forever()
        current_world().storage.makedirs("/been-here")
        await echo()

    async def main(lab: sim.Lab) -> None:
        lab.host("a", once)
        await lab.sleep(1)
        lab.crash("a")
        await lab.heal()

    with pytest.raises(DeadlineError, match="a did not come back within 60 virtual seconds"):
        run(main)


def test_heal_raises_at_once_if_a_program_has_failed() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", failing)
        await lab.sleep(1)
        await lab.heal()

    with pytest.raises(AssertionError, match="a ended with ZeroDivisionError"):
        run(main)
