"""Child processes that cannot outlive us."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

# Runs in the child before the command: asks the kernel to kill it when we die, then becomes the
# command under the same pid. A second program and not ``preexec_fn``, which runs Python between
# fork and exec and can deadlock in a process with threads. The parent may have died before the
# question was asked: then there is nobody left to serve.
_GUARD: Final = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.stderr.write(f"{sys.argv[2]}: {error.strerror}\\n")
    os._exit(127)
"""


class ChildProcess:
    """A running command, the first of a session and process group of its own."""

    __slots__ = ("_process", "pid")

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid: int = process.pid

    async def wait(self) -> int:
        """Wait for its end and return its exit code; a signal's number negated."""
        return await self._process.wait()

    @property
    def running(self) -> bool:
        """Whether its end has not been noticed yet."""
        return self._process.returncode is None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); no effect if it has ended."""
        self._signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """End it and all that it started in its group (SIGKILL), at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def start_process(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
    log: str | None = None,
) -> ChildProcess:
    """Start ``command`` beside the loop.

    On Linux the kernel kills the child when the thread that started it ends, which for a loop
    in the main thread means: when this process ends, however it does. Elsewhere it may be left.

    Args:
        command: Program and arguments; found through ``PATH``. One that cannot be started
            exits with 127 and says why in its output.
        environment: The whole environment; ours by default.
        directory: Where it runs; ours by default.
        log: File that its output is appended to; by default it shares our output.

    Raises:
        OSError: Definite. The log cannot be opened, or there is no room for a process.
    """
    guarded = sys.platform == "linux"
    line = (
        [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]
        if guarded
        else list(command)
    )
    output = None if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if environment is None else dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)
    return ChildProcess(process)
