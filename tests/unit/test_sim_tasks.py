"""Sets of tasks and of anyio's scopes are gone through in the same order in every run."""

import asyncio

import anyio

from outlast import sim

RUNS = 12


def _different(main: object) -> set[tuple[int, ...]]:
    kept: list[object] = []  # so that addresses are not the same again
    found = set()
    for _ in range(RUNS):
        found.add(sim.run(main, seed=1))  # type: ignore[arg-type]
        kept.append([object() for _ in range(97)])
    return found


def test_a_set_of_tasks_has_the_same_order_in_every_run() -> None:
    async def main() -> tuple[int, ...]:
        numbers = {asyncio.create_task(asyncio.sleep(1)): n for n in range(40)}
        done, _ = await asyncio.wait(set(numbers))
        return tuple(numbers[task] for task in done)

    assert len(_different(main)) == 1


def test_a_task_group_cancels_in_the_same_order_in_every_run() -> None:
    async def main() -> tuple[int, ...]:
        ended: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(number)

        try:
            async with asyncio.timeout(1), asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(wait(number))
        except TimeoutError:
            pass
        return tuple(ended)

    assert len(_different(main)) == 1


def test_scopes_of_anyio_are_cancelled_in_the_same_order_in_every_run() -> None:
    async def main() -> tuple[int, ...]:
        ended: list[int] = []

        async def wait(number: int) -> None:
            with anyio.CancelScope():
                try:
                    await anyio.sleep(100)
                finally:
                    ended.append(number)

        with anyio.move_on_after(1):
            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(wait, number)
        return tuple(ended)

    assert len(_different(main)) == 1


def test_a_task_without_a_name_has_the_same_name_in_every_run() -> None:
    async def main() -> str:
        return asyncio.create_task(asyncio.sleep(1)).get_name()

    assert sim.run(main) == sim.run(main) == "Task-2"
