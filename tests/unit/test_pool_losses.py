"""What a pool must not lose: calls in flight, its work in the background, its threads."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import Event, current_world
from outlast.pool import DiscoveryFailed, Endpoint, Membership, Pool
from outlast.pool.background import Background
from outlast.pool.core.instance import Instance
from outlast.pool.core.member import NS, Member


def listen() -> list[Event]:
    """Return a list that gets the events of the simulation under way."""
    told: list[Event] = []
    current_world().events.subscribe(told.append)  # type: ignore[attr-defined]
    return told


async def refused(endpoint: Endpoint) -> str:
    raise ConnectionRefusedError


def test_a_thread_that_read_the_clock_before_another_one_gets_its_call() -> None:
    """The clock is read before the lock is taken, so that the core may see an earlier time."""

    class Clock:
        now_ns = 100 * NS

        def monotonic_ns(self) -> int:
            return self.now_ns

    async def main() -> None:
        clock: Any = Clock()
        world = replace(current_world(), clock=clock)
        pool = Pool("shop", ["a", "b"], attempts=1, world=world)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await pool.call(refused)
        clock.now_ns -= 1
        with pool.endpoint() as endpoint:
            assert endpoint.address in {"a", "b"}

    sim.run(main)


def test_an_average_does_not_overflow_for_a_thread_that_is_late() -> None:
    member = Member(Instance("a"), 10 * NS, 0)
    member.observe(100, 10 * NS, 1e6, only_up=False)
    member.observe(50, 0, 1e6, only_up=False)
    assert member.cost(0, 1e6) > 0
    assert 50 <= member.ewma_ns <= 100


def test_a_call_ends_though_the_function_that_is_asked_for_blame_raises() -> None:
    def blamed(error: BaseException) -> bool:
        raise LookupError("not known")

    async def main() -> None:
        pool = Pool("shop", ["a"], attempts=1, blame=blamed)
        with pytest.raises(LookupError, match="not known"):
            await pool.call(refused)
        assert pool.snapshot()["in_flight"] == 0

    sim.run(main)


def test_a_pool_whose_entering_was_cancelled_can_be_entered_again() -> None:
    async def main() -> None:
        found = asyncio.Event()

        async def look() -> list[str]:
            await found.wait()
            return ["a"]

        pool = Pool("shop", look)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pool.__aenter__()
        found.set()
        async with pool:
            assert pool.addresses == ("a",)

    sim.run(main)


def test_a_pool_whose_entering_failed_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(self: Background) -> None:
        raise OSError("out of luck")

    pool = Pool("luckless", ["a"], check=lambda instance: True)
    with monkeypatch.context() as patched:
        patched.setattr(Background, "start", failing)
        with pytest.raises(OSError, match="out of luck"):
            pool.__enter__()
    assert "outlast-pool-luckless" not in {thread.name for thread in threading.enumerate()}
    with pool:
        assert pool.addresses == ("a",)


def test_a_look_up_that_ends_as_cancelled_by_itself_is_told_of_and_asked_again() -> None:
    async def main() -> None:
        told, asked = listen(), []

        async def look() -> list[str]:
            asked.append(1)
            if len(asked) == 2:
                other = asyncio.get_running_loop().create_future()
                other.cancel()
                await other
            return [f"a{len(asked)}"]

        async with Pool("shop", look) as pool:
            await asyncio.sleep(30)
            assert pool.addresses > ("a2",)
        errors = [event.error for event in told if isinstance(event, DiscoveryFailed)]
        assert errors == ["RuntimeError: CancelledError: "]

    sim.run(main)


def test_a_stream_goes_on_after_a_list_that_is_none() -> None:
    async def main() -> None:
        told = listen()

        async def stream() -> AsyncIterator[Any]:
            for one in (["a"], 5, ["b"]):
                yield one
                await asyncio.sleep(1)

        async with Pool("shop", stream()) as pool:
            await asyncio.sleep(5)
            assert pool.addresses == ("b",)
        assert len([event for event in told if isinstance(event, DiscoveryFailed)]) == 1

    sim.run(main)


@pytest.mark.parametrize(
    "said", ["http://[", "http://a:b", "http://a:99999", "http://", "99999", "a:99999"]
)
def test_a_member_that_offers_no_url_is_skipped(said: str) -> None:
    there = [
        SimpleNamespace(address=f"10.0.0.{number}:7946", state="alive", metadata={"http": port})
        for number, port in enumerate([said, "80"])
    ]
    members = SimpleNamespace(members=lambda: there, watch=lambda _callback: lambda: None)
    found = Membership(members).found()
    assert [one.address for one in found.instances] == ["http://10.0.0.1:80"]


def test_a_member_whose_weight_is_no_text_is_skipped() -> None:
    there = [
        SimpleNamespace(address="a:1", state="alive", metadata={"http": "80", "weight": weight})
        for weight in (None, 10**400, "1")
    ]
    members = SimpleNamespace(members=lambda: there, watch=lambda _callback: lambda: None)
    assert len(Membership(members).found().instances) == 1
