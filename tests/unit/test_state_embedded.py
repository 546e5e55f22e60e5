"""``outlast.open``: a durable object of this process, with the client's surface."""

import asyncio
from pathlib import Path

import pytest

from outlast.kernel import (
    CommandError,
    CommandTypeError,
    ConfigError,
    DataError,
    Deadline,
    DeadlineError,
    KeyReusedError,
    TooLateError,
    UnavailableError,
    current_deadline,
)
from outlast.state import Limits, ReplicaSettings, idempotency_key
from outlast.state import open as open_machine
from outlast.state.embedded import Embedded
from tests.support.marker import mark_death
from tests.support.state_bank import Counter, Refused, turns

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("durable", [True, False])
async def test_commands_and_queries_by_method_and_by_name(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "data" if durable else None
    async with open_machine(Counter, path) as counter:
        assert await counter.call(Counter.add, "a") == 1
        assert await counter.call(Counter.add, "a", by=4) == 5
        assert await counter.call_json("add", {"name": "b"}) == 1
        assert await counter.call(Counter.get, "a") == 5
        assert await counter.call_json("get", {"name": "a"}, query=True) == 5
    async with open_machine(Counter, path) as counter:
        assert await counter.call(Counter.get, "a") == (5 if durable else 0)


async def test_what_a_command_raises_is_raised_in_its_class() -> None:
    async with open_machine(Counter) as counter:
        with pytest.raises(Refused, match="a") as caught:
            await counter.call(Counter.refuse, "a")
        assert caught.value.happened == "yes"
        with pytest.raises(CommandError):
            await counter.call_json("refuse", {"name": "a"})


async def test_wrong_arguments_and_names_are_definite() -> None:
    async with open_machine(Counter) as counter:
        with pytest.raises(CommandTypeError, match="by"):
            await counter.call(Counter.add, "a", by="x")  # type: ignore[arg-type]
        with pytest.raises(CommandTypeError, match="nothing"):
            await counter.call_json("nothing", {})
        with pytest.raises(CommandTypeError, match="is a query"):
            await counter.call_json("get", {"name": "a"})
        assert await counter.call(Counter.get, "a") == 0


async def test_a_repeat_under_a_key_is_recognised_by_the_next_process(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_machine(Counter, tmp_path) as counter:
            with idempotency_key("order-17"):
                assert await counter.call(Counter.add, "a") == 1
            with idempotency_key("order-17"), pytest.raises(KeyReusedError):
                await counter.call(Counter.add, "b")
            await counter.checkpoint()


async def test_more_commands_than_the_window_holds_wait_their_turn() -> None:
    async with open_machine(Counter) as counter:
        results = await asyncio.gather(*(counter.call(Counter.add, "a") for _ in range(700)))
        assert sorted(results) == list(range(1, 701))


async def test_deadlines_are_kept_and_tell_whether_it_may_have_happened() -> None:
    async with open_machine(Counter) as counter:
        token = current_deadline.set(Deadline(1))
        with pytest.raises(TooLateError):
            await counter.call(Counter.add, "a")
        current_deadline.reset(token)
        await counter.call(Counter.add, "a")
        await _stall(counter, 0.02)
        assert await counter.call(Counter.get, "a") == 2


async def _stall(counter: Embedded[Counter], seconds: float) -> None:
    """Let a command's append take longer than its deadline."""
    replica = counter._live()
    real, gate = replica._log.append, asyncio.Event()

    async def slow(entry: bytes, *, deadline: Deadline) -> object:
        await gate.wait()
        return await real(entry, deadline=deadline)

    replica._log.append = slow  # type: ignore[method-assign, assignment]
    now_ns = counter._world.clock.monotonic_ns()
    token = current_deadline.set(Deadline.after(seconds, now_ns))
    with pytest.raises(DeadlineError) as caught:
        await counter.call(Counter.add, "a")
    assert caught.value.happened == "maybe"
    current_deadline.reset(token)
    gate.set()
    replica._log.append = real  # type: ignore[method-assign]
    while replica.status().waiting_count:
        await turns(1)


async def test_cancelling_a_call_leaves_the_session_usable() -> None:
    async with open_machine(Counter) as counter:
        await counter.call(Counter.add, "a")
        for _ in range(300):
            task = asyncio.create_task(counter.call(Counter.add, "a"))
            await turns(1)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await counter.call(Counter.add, "b") == 1


async def test_an_expired_session_is_replaced_because_nothing_ran_under_it() -> None:
    settings = ReplicaSettings(
        limits=Limits(session_ttl_ns=1_000_000, session_ttl_max_ns=1_000_000), tick_seconds=0.002
    )
    async with open_machine(Counter, settings=settings) as counter:
        while counter._live().system.limits != settings.limits:
            await turns()
        assert await counter.call(Counter.add, "a") == 1
        while counter.status().session_count:
            await turns()
        assert await counter.call(Counter.add, "a") == 2


async def test_use_outside_its_block_and_nonsense_are_refused(tmp_path: Path) -> None:
    counter = open_machine(Counter, tmp_path)
    with pytest.raises(UnavailableError, match="async with"):
        await counter.call(Counter.add, "a")
    with pytest.raises(ConfigError, match="timeout is 0"):
        open_machine(Counter, timeout=0)
    with pytest.raises(ConfigError, match="no StateMachine class"):
        open_machine(int)  # type: ignore[type-var]
    async with counter:
        assert "at " in repr(counter)
    assert "closed" in repr(counter)


async def test_a_log_in_memory_is_trimmed_behind_what_is_applied() -> None:
    settings = ReplicaSettings(limits=Limits(checkpoint_entries=10))
    async with open_machine(Counter, settings=settings) as counter:
        for _ in range(40):
            await counter.call(Counter.add, "a")
        assert counter.status().log_first > 30


async def test_an_entry_that_kills_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    async with open_machine(Counter, tmp_path) as counter:
        await counter.call(Counter.add, "a")
        poison = counter.status().applied + 1
        await counter.call(Counter.add, "a", by=100)
        await counter.call(Counter.add, "a", by=10)
    mark_death(tmp_path / "snapshots", poison, 2)
    with pytest.raises(DataError, match=rf"entry {poison} killed .*skip={poison}\)"):
        await open_machine(Counter, tmp_path).__aenter__()
    async with open_machine(Counter, tmp_path, skip=poison) as counter:
        assert await counter.call(Counter.get, "a") == 11
    async with open_machine(Counter, tmp_path) as counter:
        assert await counter.call(Counter.get, "a") == 11
