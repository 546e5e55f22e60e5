"""One instance of a command or of a Python function in an interpreter of its own."""

import asyncio
import mmap
import os
import pickle
import signal
import sys
from typing import Any, Final

from outlast.detect import child_main
from outlast.detect.child import Child, Grace
from outlast.detect.child_output import Output
from outlast.detect.child_run import Runner
from outlast.detect.core.supervision import Exit
from outlast.detect.core.supervisor import exit_reason
from outlast.detect.stop import PROGRESS_VARIABLE, STAMP_BYTES
from outlast.host.spawn import Spawned, drop_marked, memory_file, spawn, sweep
from outlast.host.sweeper import VARIABLE
from outlast.kernel import ConfigError, World

_SIGNALS: Final = {int(number): number.name for number in signal.Signals}


class ProcessRunner(Runner):
    """A process, the first of a session of its own.

    Args:
        child: What to run.
        world: Timers.
        mark: What its environment, and that of all its descendants, bears.
    """

    def __init__(self, child: Child, world: World, mark: str) -> None:
        self._child = child
        self._world = world
        self._mark = mark
        self._process: Spawned | None = None
        self._output: Output | None = None
        self.orphans = 0
        self.stamp = [0]

    @property
    def over(self) -> bool:
        """Whether the process has ended; what it has left behind may still be looked for."""
        return self._process is not None and self._process.ended.done()

    def launch(self) -> None:
        """Start the process.

        Raises:
            OSError: The log cannot be opened, there is no room for a process, no such directory.
            ConfigError: The arguments of a function do not pickle.
        """
        child = self._child
        environment = dict(os.environ if child.environment is None else child.environment)
        outer = environment.get(VARIABLE, "")
        environment[VARIABLE] = f"{outer}/{self._mark}" if outer else self._mark
        environment.pop(PROGRESS_VARIABLE, None)
        opened: list[int] = []
        try:
            stdin = self._order(opened) if child.kind == "process" else None
            keep = self._share(environment, opened)
            self._output = Output(child.output)
            line = child.line
            if child.kind == "process":
                line = (sys.executable, "-P", child_main.__file__)
            self._process = spawn(
                line, environment=environment, directory=child.directory, stdin=stdin,
                output=self._output.descriptor, keep=keep,
            )  # fmt: skip
            self.pid = self._process.pid
        finally:
            for descriptor in opened:
                os.close(descriptor)
            if self._output is not None:
                self._output.begun(runs=self._process is not None)

    def _share(self, environment: dict[str, str], opened: list[int]) -> tuple[int, ...]:
        """Share memory for stamps, if progress is watched or waited for."""
        child = self._child
        waits = getattr(child.ready, "how", "") == "stamp"
        if child.progress is None and not waits:
            return ()
        descriptor = memory_file(STAMP_BYTES)
        opened.append(descriptor)
        self.stamp = memoryview(mmap.mmap(descriptor, STAMP_BYTES)).cast("q")
        environment[PROGRESS_VARIABLE] = str(descriptor)
        environment.setdefault("PYTHONFAULTHANDLER", "1")  # so that SIGABRT shows the stacks
        return (descriptor,)

    def _order(self, opened: list[int]) -> int:
        """Write down what the interpreter shall call, and return the descriptor to read from."""
        child = self._child
        function: Any = child.function
        main = sys.modules.get("__main__")
        module, path = function.__module__, ""
        if module == "__main__":
            spec = getattr(main, "__spec__", None)
            if spec is not None and spec.name:
                module = spec.name
            else:
                path = os.path.abspath(getattr(main, "__file__", None) or "")
        try:
            order = pickle.dumps(
                {
                    "path": [entry or os.getcwd() for entry in sys.path],
                    "module": module,
                    "function": function.__qualname__,
                    "main": path,
                    "file": getattr(sys.modules.get(module), "__file__", None) or "",
                    "name": child.name,
                    "args": pickle.dumps(child.args),
                }
            )
        except Exception as error:
            raise ConfigError(f"child {child.name!r}: args cannot be pickled: {error}") from error
        descriptor = memory_file(0)
        opened.append(descriptor)
        left = memoryview(order)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    async def wait(self) -> Exit:
        """Wait for its end, and end what it has left behind."""
        if self._process is None:
            return Exit(False, 1, "not started")
        code = await asyncio.shield(self._process.ended)
        if self._output is not None:
            self._output.finish()
        self.orphans = await sweep(self._mark)
        return Exit(code == 0, code, exit_reason(code, _SIGNALS))

    def ask(self, grace: Grace) -> None:
        """Send the signal; a process that stands still is continued to receive it."""
        if self._process is not None:
            self._process.signal(grace.signal)
            self._process.signal(signal.SIGCONT)

    def kill(self) -> bool:
        """End the whole group."""
        if self._process is not None:
            self._process.kill_group()
        return True

    def drop(self) -> None:
        """End it, with all that it has started, and wait the moment that this takes."""
        if self._process is not None and not self._process.ended.done():
            self._process.drop()
            drop_marked(self._mark)
        if self._output is not None:
            self._output.finish()

    def abort(self) -> bool:
        """Send SIGABRT, at which a Python process with progress writes its stacks and ends."""
        if self._process is not None:
            self._process.signal(signal.SIGABRT)
            self._process.signal(signal.SIGCONT)
        return True

    def lines(self) -> tuple[str, ...]:
        """Return the last lines of its output, if it is read."""
        return () if self._output is None else self._output.lines()

    async def line(self, text: str) -> None:
        """Wait for a line of its output."""
        if self._output is not None:
            await self._output.line(text, self._world)
