"""A process that runs seeds: jobs come as JSON lines on its input, results go to its output.

Started as ``python -m outlast.testing.campaign.worker``. It ends with whoever started it. What
the program under test prints goes nowhere: the output belongs to the results.
"""

import faulthandler
import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from outlast.kernel import ConfigError
from outlast.sim.running import many_runs
from outlast.testing.campaign.explain import explain
from outlast.testing.campaign.loading import Origin
from outlast.testing.campaign.model import Runnable
from outlast.testing.campaign.single import run_seed, write_trace
from outlast.testing.campaign.telling import one_line, place_of

_GRACE_SECONDS = 10.0
"""How much later than its own limit a run is ended from outside of Python."""
_END_WITH_PARENT = 1
_SIGKILL = 9

Say = Callable[..., None]


class Worker:
    """Does one job after the other.

    Args:
        origin: Where the runnables come from.
        name: Of the one that is run.
        hang_seconds: Real seconds that one run may take.
        say: Sends a message: its fields.
    """

    def __init__(self, origin: Origin, name: str, hang_seconds: float, say: Say) -> None:
        self._runnable: Runnable = origin.one(name)
        self._hang = hang_seconds
        self._say = say

    def do(self, job: dict[str, Any]) -> None:
        """Do one job and say that it is done."""
        only = None if job.get("only") is None else frozenset(job["only"])
        match job["do"]:
            case "seeds":
                for seed in job["seeds"]:
                    self._seed(seed, None if job.get("once") else seed in job["twice"], only)
            case "explain":
                self._explain(job["seed"], only)
            case "trace":
                with _watched(self._hang):
                    digest = write_trace(
                        self._runnable,
                        job["seed"],
                        job["path"],
                        only=only,
                        hang_seconds=self._hang,
                    )
                self._say(traced=digest)
            case "readers":
                self._say(readers=readers())
        self._say(done=True)

    def _seed(self, seed: int, twice: bool | None, only: frozenset[int] | None) -> None:
        self._say(begin=seed)
        with _watched(self._hang * (2 if twice else 1)):
            result = run_seed(
                self._runnable, seed, only=only, twice=twice, hang_seconds=self._hang
            )
        self._say(result=result.as_json())

    def _explain(self, seed: int, only: frozenset[int] | None) -> None:
        self._say(begin=seed)

        def progress(runs: int, left: int) -> None:
            _watch(self._hang)
            self._say(shrinking=[runs, left])

        with _watched(self._hang):
            told = explain(
                self._runnable, seed, only=only, hang_seconds=self._hang, progress=progress
            )
        self._say(explained=told.as_json())


def readers() -> list[str]:
    """Return the places of loaded modules that keep the real clock, as far as can be seen."""
    from outlast.sim.ambient import find_clock_readers

    gc.unfreeze()  # what is frozen cannot be found
    return [str(found) for found in find_clock_readers()]


def _watch(hang_seconds: float) -> None:
    """Have this process ended, with its stack, if it is still busy much later than allowed."""
    faulthandler.dump_traceback_later(hang_seconds + _GRACE_SECONDS, exit=True)


class _watched:
    def __init__(self, hang_seconds: float) -> None:
        self._seconds = hang_seconds

    def __enter__(self) -> None:
        _watch(self._seconds)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()


def end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends; Linux only."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_END_WITH_PARENT, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _own_output() -> TextIO:
    """Return the output for results; what anybody prints from now on goes to stderr."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def main() -> int:
    """Read what is to be run, then jobs, until the input ends."""
    setting = json.loads(sys.stdin.readline())
    end_with(setting["parent"])
    output = _own_output()

    def say(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    sys.path[:] = setting["path"]
    faulthandler.enable()
    try:
        worker = Worker(
            Origin(setting["factory"], setting["options"]), setting["name"], setting["hang"], say
        )
    except ConfigError as error:
        say(refused=str(error))
        return 2
    say(ready=True)
    with many_runs():
        for line in sys.stdin:
            try:
                worker.do(json.loads(line))
            except ConfigError as error:
                say(refused=str(error))
            except Exception as error:
                faulthandler.cancel_dump_traceback_later()
                say(broken=f"{one_line(error)}, in {place_of(error)}")
                return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
