"""A small process that ends a fault when its time is over, or when we are no longer there.

It waits for its input to end, at most the time of the lease, and then does the one thing that
ends the fault. As it is started before the fault, a drill that is killed at any moment leaves
nothing that stands still or is full.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any, Final, Self

from outlast.inject.core.undo import ProcessId

_READY_SECONDS: Final = 10.0

# Runs without site and without us: the library may be what is broken. SIGHUP and SIGINT from a
# terminal that closes must not end it before the fault.
_PROGRAM: Final = """
import json, os, select, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
task = json.loads(sys.argv[1])
os.write(1, b"r")
word = b""
if select.select([0], [], [], task["seconds"])[0]:
    word = os.read(0, 1)
def fields(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    found = text[text.rindex(b")") + 2:].split()
    return int(found[19]), int(found[1])
def family(roots):
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                when, parent = fields(name)
            except OSError:
                continue
            children.setdefault(parent, []).append([int(name), when])
    for pid, when in roots:
        roots.extend(child for child in children.get(pid, ()) if child not in roots)
        yield pid, when
def resume(pid, when):
    descriptor = os.pidfd_open(pid)
    if fields(pid)[0] == when:
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
if word != b"k":
    alive = []
    for pid, when in task["resume"]:
        try:
            if fields(pid)[0] == when:
                alive.append([pid, when])
        except OSError:
            pass
    for pid, when in family(alive):
        try:
            resume(pid, when)
        except OSError:
            pass
    for path in task["unlink"]:
        try:
            os.unlink(path)
        except OSError:
            pass
"""


class Guardian:
    """A started guardian. :meth:`act_now` or :meth:`dismiss` ends it."""

    __slots__ = ("_process", "pid")

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid: int = process.pid

    @classmethod
    async def start(
        cls,
        seconds: float,
        *,
        resume: list[ProcessId] | None = None,
        unlink: list[str] | None = None,
    ) -> Self:
        """Start one and wait until it stands guard.

        Args:
            seconds: The lease.
            resume: Processes to continue, their descendants included.
            unlink: Files to remove.

        Raises:
            OSError: It could not be started; the fault must not be injected then.
        """
        task: dict[str, Any] = {
            "seconds": seconds,
            "resume": [[process.pid, process.started] for process in resume or []],
            "unlink": unlink or [],
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _PROGRAM,
            json.dumps(task),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        guardian = cls(process)
        ready = b""
        if process.stdout is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READY_SECONDS):
                    ready = await process.stdout.read(1)
        if ready != b"r":
            await guardian.dismiss()
            raise OSError("the guardian of a fault did not start; nothing was injected")
        return guardian

    async def act_now(self) -> None:
        """End the fault now, if its time is not over yet, and wait until that is done."""
        await self._tell(b"")

    async def dismiss(self) -> None:
        """Let it go without acting: the fault has been ended."""
        await self._tell(b"k")

    async def _tell(self, word: bytes) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with suppress(OSError):
                pipe.write(word)
                pipe.close()
        await self._process.wait()
