"""The World: every capability that touches the machine, as protocols.

Nothing ambient: code from ``log`` up is given a ``World`` and uses no other clock, random
source, network, disk, task or thread. ``host`` implements it with the real machine, ``sim``
with a deterministic twin. Times are integers in nanoseconds.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from outlast.kernel.events import Events
from outlast.kernel.prng import Prng

T = TypeVar("T")


class Gate(Protocol):
    """What a thread can wait for: the part of ``threading.Lock`` that is needed."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; ``False`` if it was not to be had in time."""
        ...


class Clock(Protocol):
    """Reads time. ``monotonic_ns`` never goes back; ``wall_ns`` may jump."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds since an arbitrary start; never goes back."""
        ...

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC; may jump either way."""
        ...

    def boot_id(self) -> str:
        """Return what identifies this start of the machine; empty where nothing tells.

        Another one means that the power went or the machine was restarted: what had been
        written without a sync may be of any age.
        """
        ...

    def pause(self, seconds: float) -> None:
        """Block the calling thread for ``seconds``."""
        ...

    def wait(self, gate: Gate, seconds: float | None) -> bool:
        """Block the calling thread until ``gate`` is acquired or ``seconds`` have passed.

        ``None`` is for ever. Returns whether it was acquired.
        """
        ...


class TimerHandle(Protocol):
    """A callback that has been scheduled."""

    def cancel(self) -> None:
        """Take the callback back; no effect once it has run."""
        ...


class Timers(Protocol):
    """Schedules callbacks and waits on the running event loop."""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` on the loop at monotonic instant ``when_ns``, or soon after."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``; 0 lets other tasks run."""
        ...


class Transport(Protocol):
    """The sending side of one connection: the part of ``asyncio.Transport`` that we use."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data`` for sending."""
        ...

    def writelines(self, data: Sequence[bytes]) -> None:
        """Queue all of ``data`` for sending."""
        ...

    def close(self) -> None:
        """Close after what is queued has been sent."""
        ...

    def abort(self) -> None:
        """Close now and drop what is queued."""
        ...

    def is_closing(self) -> bool:
        """Whether the connection is closed or closing."""
        ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return transport facts such as ``peername``, ``sockname``, ``ssl_object``."""
        ...

    def pause_reading(self) -> None:
        """Stop delivering received bytes."""
        ...

    def resume_reading(self) -> None:
        """Deliver received bytes again."""
        ...

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes queued and not yet sent."""
        ...


class ConnectionHandler(Protocol):
    """What receives from one connection: the callbacks of ``asyncio.Protocol``."""

    def connection_made(self, transport: Any) -> None:
        """Begin; ``transport`` is a :class:`Transport`."""
        ...

    def data_received(self, data: bytes) -> None:
        """Take received bytes."""
        ...

    def eof_received(self) -> bool | None:
        """The other side will send no more."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called once."""
        ...

    def pause_writing(self) -> None:
        """The send buffer is above its high-water mark."""
        ...

    def resume_writing(self) -> None:
        """The send buffer is below its low-water mark."""
        ...


class Listener(Protocol):
    """A listening socket."""

    @property
    def port(self) -> int:
        """The port in use, chosen by the system if 0 was asked for."""
        ...

    async def close(self) -> None:
        """Stop listening; connections already made stay."""
        ...


class Network(Protocol):
    """TCP connections. ``tls`` is an ``ssl.SSLContext`` or ``None``."""

    async def connect(
        self,
        handler: Callable[[], ConnectionHandler],
        host: str,
        port: int,
        *,
        tls: Any = None,
        server_hostname: str | None = None,
        timeout: float,
    ) -> ConnectionHandler:
        """Open a connection (``TCP_NODELAY``) and return its handler.

        Raises:
            ConnectionError: Definite (``OSError`` kinds of the platform): nothing was sent.
            TimeoutError: Definite: not connected within ``timeout`` seconds.
        """
        ...

    async def listen(
        self, handler: Callable[[], ConnectionHandler], host: str, port: int, *, tls: Any = None
    ) -> Listener:
        """Accept connections on ``host:port``; port 0 lets the system choose.

        Raises:
            OSError: The address is in use or not ours.
        """
        ...


class File(Protocol):
    """An open file. All calls block; run them through :class:`Offload` when they may wait.

    Nothing written is durable before ``fsync`` or ``fdatasync`` has returned. A call that
    raises ``OSError`` from either of them has lost data for good: never retried.
    """

    path: str

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``; short writes are continued."""
        ...

    def fdatasync(self) -> None:
        """Make content and size durable."""
        ...

    def fsync(self) -> None:
        """Make content and all metadata durable."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend (with zeros) to ``size`` bytes."""
        ...

    def size(self) -> int:
        """Return the size in bytes."""
        ...

    def drop_cache(self) -> None:
        """Ask the system to forget cached pages, so that the next read sees the disk."""
        ...

    def lock(self) -> bool:
        """Take an exclusive advisory lock; ``False`` if another process holds it."""
        ...

    def close(self) -> None:
        """Close; never flushes anything to disk."""
        ...


class Storage(Protocol):
    """A tree of files. All calls block.

    Creates, renames and removals are durable only after :meth:`fsync_dir` on the directory
    that holds the name.
    """

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open ``path``; ``create`` makes it if missing (``FileNotFoundError`` otherwise)."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name exists."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        ...

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents durably; no error if it exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing ``target``."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file."""
        ...

    def rmtree(self, path: str) -> None:
        """Remove a directory with all it holds; no error if missing."""
        ...

    def fsync_dir(self, path: str) -> None:
        """Make creates, renames and removals in ``path`` durable."""
        ...

    def free_bytes(self, path: str) -> int:
        """Return the bytes still free for us on the file system of ``path``."""
        ...


class Offload(Protocol):
    """Runs blocking calls beside the loop: a thread per lane in ``host``, a timer in ``sim``."""

    def run(self, lane: str, call: Callable[[], T]) -> Awaitable[T]:
        """Start ``call`` on ``lane``; calls of one lane run one after another, in order.

        Cancelling the awaitable does not stop a call that has started.
        """
        ...


class TaskHandle(Protocol):
    """A task started by :class:`Spawn`."""

    def cancel(self) -> Any:
        """Ask the task to stop."""
        ...

    def done(self) -> bool:
        """Whether it has ended."""
        ...


class Spawn(Protocol):
    """Starts tasks."""

    def task(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> TaskHandle:
        """Run ``coroutine`` as a task that is kept alive until it ends.

        An exception that ends the task is handed to the running loop's exception handler.
        """
        ...


class Faults(Protocol):
    """In-code fault points: a place with a name where a test may act."""

    def fault_point(self, name: str) -> None:
        """Do nothing, or what a test has planted for ``name``: raise, record, exit."""
        ...


class NoFaults:
    """Fault points that do nothing."""

    __slots__ = ()

    def fault_point(self, name: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """All capabilities of one process or one simulated host."""

    clock: Clock
    timers: Timers
    prng: Prng
    network: Network
    storage: Storage
    spawn: Spawn
    offload: Offload
    events: Events
    faults: Faults

    def fault_point(self, name: str) -> None:
        """Pass the fault point ``name``; free when nothing is planted."""
        self.faults.fault_point(name)


_world: ContextVar[World | None] = ContextVar("outlast_world", default=None)
_default: list[Callable[[], World]] = []
_kept: list[World] = []


def set_default_world(make: Callable[[], World]) -> None:
    """Say what :func:`current_world` returns when no world was set; ``host`` calls this."""
    _default[:] = [make]
    _kept.clear()


def offer_default_world(make: Callable[[], World]) -> None:
    """Say what :func:`current_world` returns, unless that was said before."""
    if not _default:
        _default.append(make)


def forget_default_world() -> None:
    """Make the default world anew when it is next asked for; ``host`` calls this after a fork."""
    _kept.clear()


def current_world() -> World:
    """Return the world of this context: the one set, or the real one.

    Only ``protect`` and ``detect`` objects read it; from ``log`` up a world is passed.
    """
    world = _world.get()
    if world is not None:
        return world
    if not _kept:
        if not _default:
            message = "no world is set: import outlast.host, or set one with use_world()"
            raise LookupError(message)
        _kept.append(_default[0]())
    return _kept[0]


def use_world(world: World) -> Token[World | None]:
    """Make ``world`` the current one in this context; undo with :func:`reset_world`."""
    return _world.set(world)


def reset_world(token: Token[World | None]) -> None:
    """Undo :func:`use_world`."""
    _world.reset(token)
