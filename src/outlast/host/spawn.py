"""Starts a process in a session of its own, and notices its end at once.

On Linux the kernel kills the process when the thread that started it ends (``PR_SET_PDEATHSIG``).
``setpriv`` of util-linux asks for that and becomes the command, which costs a millisecond; where
it is missing a second interpreter does it, which costs ten. If we die between the fork and that
question, a :mod:`~outlast.host.sweeper` sees to it. The end is told by a process descriptor
(Linux 5.3), elsewhere by a thread that waits.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

from outlast.host import sweeper
from outlast.host.crew import Crew
from outlast.host.process import _GUARD

LINUX: Final = sys.platform == "linux"
_crew = Crew()


class Spawned:
    """A running process, the first of a session and group of its own. Use it on one loop.

    Attributes:
        pid: Its process id.
        ended: Future of its exit code; a signal's number negated. Its group has been ended then.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.pid: int = process.pid
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = _open_descriptor(process.pid)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._look)
        else:
            _crew.run(f"wait {process.pid}", process.wait).add_done_callback(self._told)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens if it has ended, or is not ours."""
        if not self.ended.done():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """End it and all of its group (SIGKILL), at once; nothing happens after its end."""
        if not self.ended.done():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def drop(self) -> None:
        """End it and its group and wait for it, a second at most: the loop is being closed."""
        self.kill_group()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        self.ended.cancel()

    def _look(self) -> None:
        """The process has ended: end its group while its id is still its own, then ask how."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.poll()
        if code is None:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(code)

    def _told(self, waited: "asyncio.Future[int]") -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.ended.done():
            self.ended.set_result(waited.result())


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    stdin: int | None = None,
    output: int | None = None,
    keep: Sequence[int] = (),
) -> Spawned:
    """Start a process; returns when it runs. Takes about a millisecond of the loop.

    Args:
        command: Program and arguments, found through ``PATH``. One that cannot be started exits
            with 127 and says why in its output.
        environment: Its whole environment.
        directory: Where it runs; ours by default.
        stdin: Descriptor of its input; empty by default.
        output: Descriptor of its output and errors; ours by default.
        keep: Descriptors that it inherits under the same numbers.

    Raises:
        OSError: Definite. There is no room for a process, or no such directory.
    """
    process = subprocess.Popen(  # noqa: S603 - what the caller asked for
        _guarded(command, environment.get("PATH")),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=output,
        stderr=output,
        env=dict(environment),
        cwd=directory,
        start_new_session=True,
        pass_fds=tuple(keep),
    )
    try:
        return Spawned(process)
    except BaseException:  # nobody would learn of its end
        process.kill()
        process.wait()
        raise


def run_aside(name: str, call: Callable[[], Any]) -> "asyncio.Future[Any]":
    """Run a blocking call on a thread and return a future of the running loop."""
    return _crew.run(name, call)


def drop_marked(mark: str) -> None:
    """End all processes that bear ``mark``, in the calling thread."""
    if LINUX:
        sweeper.end_all(mark)


async def sweep(mark: str) -> int:
    """End all processes that bear ``mark``; how many there were. Nothing is done off Linux."""
    if not LINUX:
        return 0
    try:
        sweeping = _crew.run("outlast-sweep", lambda: sweeper.end_all(mark))
    except RuntimeError:  # there is no room for a thread
        return sweeper.end_all(mark)
    return await sweeping


class SweeperProcess:
    """The process that ends whoever bears a mark once we are gone (Linux)."""

    def __init__(self, mark: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if LINUX:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", sweeper.__file__, mark],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Its process id, if there is one."""
        return None if self._process is None else self._process.pid

    def dismiss(self) -> None:
        """End it: nobody is left that it would have to end. Waits the moment that this takes."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.kill()
        process.wait()
        process.stdin.close()


def memory_file(size: int) -> int:
    """Return a descriptor of a nameless file of ``size`` zero bytes, in memory where possible."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("outlast", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _guarded(command: Sequence[str], path: str | None) -> list[str]:
    if not LINUX:
        return list(command)
    setpriv = _setpriv()
    if setpriv and shutil.which(command[0], path=path):
        return [setpriv, "--pdeathsig", "KILL", "--", *command]
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]


@cache
def _setpriv() -> str:
    """Return where a ``setpriv`` is that knows of death signals; empty if there is none."""
    found = shutil.which("setpriv")
    if found is None:
        return ""
    try:
        shown = subprocess.run(  # noqa: S603 - a fixed command
            [found, "--help"], capture_output=True, check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):  # a busy machine: it is not worth a wait
        return ""
    return found if b"--pdeathsig" in shown.stdout else ""


def _open_descriptor(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
