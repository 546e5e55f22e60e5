"""A full disk for any program, without root: a small tmpfs that only the node's processes see.

A holder process makes a mount namespace of its own (and, without root, a user namespace), mounts
a tmpfs of fixed size over the node's data directory, and waits. Programs are started within that
namespace, so nothing of it is visible or left elsewhere: it is gone when the holder and the last
program are. The content survives crashes of the node, as the holder stays.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Final, Self

from outlast.inject.core.undo import ProcessId
from outlast.inject.guardian import Guardian
from outlast.inject.identity import MARKER, identify, is_alive, require_linux
from outlast.inject.journal import Journal
from outlast.kernel import ConfigError, Evidence, World

BALLAST: Final = ".outlast-ballast"
_MIN_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 20
_PAGE: Final = 4096
_NS: Final = 1_000_000_000
_READY_SECONDS: Final = 10.0
_HOLD: Final = """
mount -t tmpfs -o "size=$1,mode=0700" outlast "$2" && echo ready && exec cat
"""
# Runs in the namespace before the node's command: entering a user namespace makes the kernel
# forget that the process is to die with its parent, so that is asked for again.
_ENTER: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.chdir(sys.argv[2])
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.stderr.write(f"{error.filename or sys.argv[3]}: {error.strerror}\\n")
    os._exit(127)
"""


def _is_root() -> bool:
    return os.geteuid() == 0


def _apart() -> list[str]:
    """Return the command that runs another in namespaces of its own."""
    if _is_root():
        return ["unshare", "--mount", "--propagation", "private", "--"]
    user = ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *user, "--mount", "--propagation", "private", "--"]


def volume_permitted() -> str:
    """Say why this machine does not permit volumes; empty: it does.

    Looks once per process, and again if it could not find out: the machine may be too busy.
    """
    try:
        return _volume_permitted()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a mount namespace cannot be made: {error}"


@lru_cache(maxsize=1)
def _volume_permitted() -> str:
    try:
        require_linux("disk:full")
    except ConfigError as error:
        return str(error)
    for tool in ("unshare", "nsenter", "mount"):
        if shutil.which(tool) is None:
            return f"{tool} is missing (package util-linux or mount)"
    trial = [*_apart(), "mount", "-t", "tmpfs", "-o", "size=64k", "outlast", "/tmp"]  # noqa: S108
    ended = subprocess.run(  # noqa: S603 - a fixed command
        trial, capture_output=True, timeout=_READY_SECONDS, check=False
    )
    if ended.returncode:
        why = ended.stderr.decode(errors="replace").strip().splitlines()
        return f"a mount namespace cannot be made: {why[-1] if why else 'unshare failed'}"
    return ""


class Volume:
    """A small disk of one node. Made by :meth:`create`; not thread-safe.

    Attributes:
        path: The directory over which it is mounted, for programs started with :attr:`prefix`.
        size_bytes: Its size.
    """

    def __init__(
        self, world: World, path: str, size_bytes: int, holder: asyncio.subprocess.Process
    ) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._world = world
        self._holder = holder
        self._identity: ProcessId = identify(holder.pid)
        self._guardian: Guardian | None = None

    @classmethod
    async def create(
        cls,
        world: World,
        path: str,
        *,
        size_bytes: int = 64 << 20,
        journal: Journal | None = None,
    ) -> Self:
        """Mount an empty volume over ``path`` in a namespace of its own.

        The holder ends when we do, however we end, and the volume with it and the node.

        Args:
            world: Clock.
            path: An existing directory; stays as it is for everybody else.
            size_bytes: At least 1 MiB. It is memory, as far as it is used. Default 64 MiB.
            journal: Its marker is given to the holder, so that heal finds it.

        Raises:
            ConfigError: The machine does not permit it, the size is too small, or ``path`` is
                not a directory.
        """
        why = await world.offload.run("inject-disk", volume_permitted)
        if why:
            raise ConfigError(f"disk:full is not possible here: {why}")
        if size_bytes < _MIN_BYTES:
            raise ConfigError(f"volume: size_bytes is {size_bytes}; use {_MIN_BYTES} or more")
        path = _directory(path)
        environment = dict(os.environ)
        environment.pop(MARKER, None)
        if journal is not None:
            environment.update(journal.environment)
        holder = await asyncio.create_subprocess_exec(
            *(*_apart(), "sh", "-c", _HOLD, "outlast-volume", str(size_bytes), path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        word = b""
        if holder.stdout is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READY_SECONDS):
                    word = await holder.stdout.readline()
        if word != b"ready\n":
            with suppress(ProcessLookupError):
                holder.kill()
            _, said = await holder.communicate()
            why = " ".join(said.decode(errors="replace").split())
            raise ConfigError(f"volume: {path} could not be mounted: {why or 'no answer'}")
        return cls(world, path, size_bytes, holder)

    def __repr__(self) -> str:
        """Show where it is and how much is free."""
        state = f"{self.free_bytes()} bytes free" if is_alive(self._identity) else "closed"
        return f"<Volume {self.path} {state}>"

    @property
    def prefix(self) -> list[str]:
        """What a command is started with to see the volume: ``[*volume.prefix, *command]``.

        The command keeps its pid, its user and its environment, and ends when this process does.
        It must be started by this process itself, and runs in the root directory.
        """
        return self.prefix_in("/")

    def prefix_in(self, directory: str) -> list[str]:
        """Return a :attr:`prefix` for a command that runs in ``directory``."""
        user = [] if _is_root() else ["--user", "--preserve-credentials"]
        return [
            "nsenter",
            f"--target={self._holder.pid}",
            *user,
            "--mount",
            "--",
            *(sys.executable, "-I", "-S", "-c", _ENTER, str(os.getpid()), directory),
        ]

    def inside(self, name: str = "") -> str:
        """Return the path under which this process reaches a file of the volume."""
        root = f"/proc/{self._holder.pid}/root{self.path}"
        return os.path.join(root, name) if name else root

    def free_bytes(self) -> int:
        """Return how many bytes are free."""
        facts = os.statvfs(self.inside())
        return facts.f_bavail * facts.f_frsize

    def used(self) -> bool:
        """Whether anything lies in it: if nothing does, nobody minds that it is full."""
        with os.scandir(self.inside()) as entries:
            return any(entry.name != BALLAST for entry in entries)

    async def fill(self, *, seconds: float) -> Evidence:
        """Fill it to the last page, for at most ``seconds``.

        A guardian removes the ballast when the time is over or when we die. Again while it is
        full: what was freed meanwhile is filled too, and the lease begins anew. If the time is
        over before it is full, it is freed at once, and the evidence shows it.

        Args:
            seconds: The lease; above 0.

        Returns:
            Evidence ``disk full``; ``free_bytes`` is 0 if it really is.

        Raises:
            ConfigError: ``seconds`` is not positive.
            OSError: The volume is gone.
        """
        if seconds <= 0:
            raise ConfigError(f"volume: seconds is {seconds}; a lease is longer than 0")
        ballast = self.inside(BALLAST)
        until_ns = self._world.clock.monotonic_ns() + int(seconds * _NS)
        before, self._guardian = self._guardian, await Guardian.start(seconds, unlink=[ballast])
        if before is not None:
            await before.dismiss()
        written = await self._world.offload.run(
            "inject-disk", lambda: self._take(ballast, until_ns)
        )
        facts = {
            "path": self.path,
            "bytes": written,
            "free_bytes": self.free_bytes(),
            "size_bytes": self.size_bytes,
            "lease_s": seconds,
        }
        return Evidence("disk full", self._world.clock.monotonic_ns(), facts)

    def _take(self, ballast: str, until_ns: int) -> int:
        """Fill it, unless the lease ends before that is done."""
        written = _fill(ballast)
        if self._world.clock.monotonic_ns() >= until_ns:
            # The guardian may have acted before there was anything to remove.
            with suppress(FileNotFoundError):
                os.unlink(ballast)
        return written

    async def top_up(self) -> int:
        """Take what was freed since :meth:`fill`, under the lease that is in force.

        Returns:
            How many bytes the ballast has now; 0 if the lease is over.

        Raises:
            OSError: The volume is gone.
        """
        if self._guardian is None:
            return 0
        ballast = self.inside(BALLAST)
        with suppress(FileNotFoundError):
            return await self._world.offload.run("inject-disk", lambda: _fill(ballast, again=True))
        return 0

    async def free(self) -> Evidence:
        """Remove the ballast and return evidence ``disk freed``; no effect if there is none.

        ``by_lease`` is true if the lease had removed it before.
        """
        there = False
        with suppress(FileNotFoundError):
            os.unlink(self.inside(BALLAST))
            there = True
        by_lease = self._guardian is not None and not there
        if self._guardian is not None:
            await self._guardian.dismiss()
            self._guardian = None
        facts = {"path": self.path, "free_bytes": self.free_bytes(), "by_lease": by_lease}
        return Evidence("disk freed", self._world.clock.monotonic_ns(), facts)

    async def close(self) -> None:
        """End the holder. The volume is gone once no program uses it. Again: no effect."""
        if self._guardian is not None:
            await self._guardian.act_now()
            self._guardian = None
        if self._holder.returncode is None:
            with suppress(ProcessLookupError):
                self._holder.kill()
        await self._holder.communicate()


def _directory(path: str) -> str:
    real = os.path.realpath(path)
    if not os.path.isdir(real):
        raise ConfigError(f"volume: {path} is not a directory; make it first")
    return real


def _fill(path: str, *, again: bool = False) -> int:
    """Take all free space for one file and return its size in bytes."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if again else os.O_CREAT)
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        for step in (_CHUNK, _PAGE):
            with suppress(OSError):  # no space left, which is the aim
                while True:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
        return size
    finally:
        os.close(descriptor)
