"""Tasks whose place in a set is the same in every run.

Sets of tasks are everywhere: in ``asyncio.TaskGroup``, in what ``asyncio.wait`` returns. A
task hashes by its address, so whoever goes through such a set (to cancel, for one) would do it in
another order in the next run.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class SimTask(asyncio.Task[Any]):
    """A task that hashes by a number of its own, and is named by it unless it has a name.

    asyncio's own numbers go on from run to run, so that a seed would meet other names again.

    Args:
        coro: What it runs.
        serial: The number, which grows with each task of a simulation.
        options: As ``asyncio.Task`` takes them.
    """

    __slots__ = ("serial",)

    def __init__(self, coro: Coroutine[Any, Any, Any], *, serial: int, **options: Any) -> None:
        self.serial = serial  # before the base remembers it in a set
        if options.get("name") is None:
            options["name"] = f"Task-{serial}"
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        """Return the number."""
        return self.serial
