"""``drill.run``: one blocking call, with a loop and a thread of its own."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from outlast.drill.api import Drill
from outlast.drill.report import Report
from outlast.drill.runner import DrillRun
from outlast.host import make_world, new_event_loop
from outlast.kernel import ConfigError, HistoryEvent

Record = Callable[[str, Mapping[str, Any], HistoryEvent], None]

_START_SECONDS = 10.0
"""How long a thread that was just started may take to run."""

loading: list[bool] = []
"""Not empty while a drill's file is loaded by the command line; see :class:`LoadedSoFar`."""


class LoadedSoFar(BaseException):
    """Raised by :func:`run` in a file that the command line only loads.

    A drill's file may run its drill at its end, for ``python drill_shop.py`` and notebooks. The
    command line wants the class and runs it with its own options, so loading stops there.
    """


def run(
    drill: type[Drill],
    *,
    seconds: float = 60.0,
    seed: int = 1,
    faults: Sequence[str] = (),
    report: str | Path | None = None,
) -> Report:
    """Run a drill and return its report; ``str(report)`` is the command line's table.

    Blocks the caller, in a thread with an event loop of its own: it works in scripts, pytest
    and notebooks. Interrupted, it ends its processes before it returns.

    Args:
        drill: The class.
        seconds: How long the load runs.
        seed: Of schedule, victims and operations.
        faults: Names of faults; the drill's own by default.
        report: File for the HTML report.

    Raises:
        ConfigError: Definite. Something about the drill is wrong, or its target did not start.
    """
    if loading:
        raise LoadedSoFar
    place, home = _place(drill)
    prepared = prepare(
        drill,
        seconds=seconds,
        seed=seed,
        faults=faults,
        home=home,
        command=f"outlast drill {place} --seconds {seconds:g} --seed {seed}",
    )
    found = run_in_thread(prepared)
    if report is not None:
        from outlast.drill.page import page

        Path(report).write_text(page(found), encoding="utf-8")
    return found


def _place(drill: type[Drill]) -> tuple[str, str]:
    """Return how the command line names ``drill``, and the directory of its file."""
    try:
        file = inspect.getsourcefile(drill)
    except (TypeError, OSError):
        file = None
    if file is None or not Path(file).is_file():
        return drill.__name__, str(Path.cwd())
    return f"{Path(file).name}:{drill.__name__}", str(Path(file).resolve().parent)


def prepare(
    drill: type[Drill],
    *,
    seconds: float,
    seed: int,
    faults: Sequence[str] = (),
    home: str = ".",
    command: str = "",
    record: Record | None = None,
) -> DrillRun:
    """Return a drill that is ready to run: all that can be checked before it starts is.

    Raises:
        ConfigError: Definite. Something about the drill or its options is wrong.
    """
    given: object = drill
    if not (isinstance(given, type) and issubclass(given, Drill)):
        message = f"drill.run: {drill!r} is not a Drill class; write class Shop(drill.Drill)"
        raise ConfigError(message)
    return DrillRun(make_world(), drill(), seconds, seed, faults, home, command, record=record)


def run_in_thread(prepared: DrillRun) -> Report:
    """Run a drill in a thread of its own and wait for it; an interrupt ends it in order."""
    outcome: list[Report | BaseException] = []
    started, ended = threading.Event(), threading.Event()
    handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Report]]] = []

    async def main() -> Report:
        task = asyncio.current_task()
        if task is not None:
            handle.append((asyncio.get_running_loop(), task))
        started.set()
        return await prepared.run()

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                outcome.append(runner.run(main()))
        except BaseException as error:
            outcome.append(error)
        finally:
            started.set()
            ended.set()

    thread = threading.Thread(target=body, name="outlast-drill", daemon=True)
    try:
        thread.start()
        while not ended.wait(0.2):  # short, so that a signal is noticed
            pass
    except BaseException:
        # Not ``join``: one that a signal has interrupted takes the thread for ended (3.11, 3.12).
        started.wait(_START_SECONDS)
        if handle and not ended.is_set():
            loop, task = handle[0]
            with suppress(RuntimeError):  # it has just ended, and its loop is closed
                loop.call_soon_threadsafe(task.cancel)
            ended.wait()
        raise
    thread.join()
    found = outcome[0]
    if isinstance(found, BaseException):
        raise found
    return found
