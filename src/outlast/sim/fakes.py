"""What stands in for the machine's clocks, random sources and signals while a simulation runs.

The originals are kept here, and each stand-in asks first whether the thread that calls it is the
one that runs the simulation: everywhere else, and whenever none runs, it calls the original. So a
program that took a stand-in for itself loses nothing when the simulation is over.

The stand-ins are bound methods of one object. Like builtin functions, and unlike plain Python
ones, they do not bind again when a class holds them as an attribute.
"""

# Names and signatures here are those of the functions that are replaced.
# ruff: noqa: D102, ANN

import _posixsubprocess
import _thread
import datetime as _datetime
import os
import random
import signal
import socket
import sys
import time
import uuid
from _thread import get_ident
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from outlast.sim import escape

try:
    import ssl
except ImportError:  # pragma: no cover  (a Python without OpenSSL)
    ssl = None  # type: ignore[assignment]

_NS: Final = 1_000_000_000
_US_NS: Final = 1_000
_SEED_BYTES: Final = 32
_NODE_BYTES: Final = 6
_MULTICAST: Final = 1 << 40  # the mark of a node that is no network card (RFC 9562 section 6.10)
_EXIT_BY_SIGNAL: Final = 128


class Source(Protocol):
    """What a running simulation offers to the programs in it.

    Three more methods are used where a source has them: ``signals() -> dict[int, handler]`` (the
    handlers of the host that runs now), ``pid() -> int`` and ``hostname() -> str``.
    """

    def monotonic_ns(self) -> int:
        """Return the monotonic clock of the host that runs now, in nanoseconds."""

    def wall_ns(self) -> int:
        """Return the wall clock of the host that runs now, in nanoseconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Spend ``seconds`` of virtual time, as ``time.sleep`` does."""

    def random_bytes(self, count: int) -> bytes:
        """Return ``count`` bytes in place of ``os.urandom``."""

    def seed(self) -> int:
        """Return the seed for ``random``. Asked each time that a simulation is entered."""


_Struct = time.struct_time  # in the class below, `time` is a method
_nobody: Any = None
_source: Source = _nobody
_thread_ident = 0  # of the simulation that runs; no thread has this number
_handlers: dict[int, Any] = {}
_node = 0

_time, _time_ns = time.time, time.time_ns
_monotonic, _monotonic_ns = time.monotonic, time.monotonic_ns
_perf_counter, _perf_counter_ns = time.perf_counter, time.perf_counter_ns
_process_time, _process_time_ns = time.process_time, time.process_time_ns
_thread_time, _thread_time_ns = time.thread_time, time.thread_time_ns
_sleep, _localtime, _gmtime = time.sleep, time.localtime, time.gmtime
_ctime, _asctime, _strftime = time.ctime, time.asctime, time.strftime
_clock_gettime, _clock_gettime_ns = time.clock_gettime, time.clock_gettime_ns
_urandom = os.urandom
_getrandom = getattr(os, "getrandom", None)
_getpid, _kill, _exit, _abort = os.getpid, os.kill, os._exit, os.abort
_signal, _getsignal, _siginterrupt = signal.signal, signal.getsignal, signal.siginterrupt
_set_wakeup_fd, _raise_signal = signal.set_wakeup_fd, signal.raise_signal
_alarm, _setitimer = signal.alarm, signal.setitimer
_gethostname, _getfqdn = socket.gethostname, socket.getfqdn
_getnode = uuid.getnode
_start_thread = _thread.start_new_thread
_start_joinable = getattr(_thread, "start_joinable_thread", None)
_fork_exec = _posixsubprocess.fork_exec
_random_seed = random.Random.seed
_rand_bytes = getattr(ssl, "RAND_bytes", None)

_COARSE = (5,) if sys.platform == "linux" else ()  # CLOCK_REALTIME_COARSE, unknown to Python
_WALL_CLOCKS: Final = frozenset(
    (time.CLOCK_REALTIME, getattr(time, "CLOCK_TAI", time.CLOCK_REALTIME), *_COARSE)
)


def real_monotonic_ns() -> int:
    """Return the machine's own monotonic clock in nanoseconds, inside a simulation too."""
    return _monotonic_ns()


def active() -> bool:
    """Whether a simulation runs in this process."""
    return _thread_ident != 0


def here() -> bool:
    """Whether this thread runs a simulation."""
    return get_ident() == _thread_ident


def begin(source: Source) -> None:
    """Let the stand-ins answer from ``source`` in this thread."""
    global _source, _thread_ident, _handlers, _node  # noqa: PLW0603  (one simulation per process)
    _source = source
    _handlers = {}
    _node = 0
    _thread_ident = get_ident()


def end() -> None:
    """Let the stand-ins call their originals again, and let go of the simulation."""
    global _source, _thread_ident  # noqa: PLW0603
    _thread_ident = 0
    _source = _nobody


class Fakes:
    """The stand-ins, one method each, named like what they replace."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "FAKES"

    # --- time ---

    def time(self) -> float:
        return _source.wall_ns() / _NS if get_ident() == _thread_ident else _time()

    def time_ns(self) -> int:
        return _source.wall_ns() if get_ident() == _thread_ident else _time_ns()

    def monotonic(self) -> float:
        return _source.monotonic_ns() / _NS if get_ident() == _thread_ident else _monotonic()

    def monotonic_ns(self) -> int:
        return _source.monotonic_ns() if get_ident() == _thread_ident else _monotonic_ns()

    def perf_counter(self) -> float:
        return _source.monotonic_ns() / _NS if get_ident() == _thread_ident else _perf_counter()

    def perf_counter_ns(self) -> int:
        return _source.monotonic_ns() if get_ident() == _thread_ident else _perf_counter_ns()

    def process_time(self) -> float:
        return _source.monotonic_ns() / _NS if get_ident() == _thread_ident else _process_time()

    def process_time_ns(self) -> int:
        return _source.monotonic_ns() if get_ident() == _thread_ident else _process_time_ns()

    def thread_time(self) -> float:
        return _source.monotonic_ns() / _NS if get_ident() == _thread_ident else _thread_time()

    def thread_time_ns(self) -> int:
        return _source.monotonic_ns() if get_ident() == _thread_ident else _thread_time_ns()

    def clock_gettime(self, clk_id: int, /) -> float:
        return self.clock_gettime_ns(clk_id) / _NS if here() else _clock_gettime(clk_id)

    def clock_gettime_ns(self, clk_id: int, /) -> int:
        if not here():
            return _clock_gettime_ns(clk_id)
        return _source.wall_ns() if clk_id in _WALL_CLOCKS else _source.monotonic_ns()

    def sleep(self, seconds: Any, /) -> None:
        if not here() or not seconds >= 0:
            _sleep(seconds)  # which says what is wrong with a negative or odd number
            return
        _source.sleep(seconds)

    def localtime(self, seconds: float | None = None, /) -> _Struct:
        return _localtime(self.time() if seconds is None and here() else seconds)

    def gmtime(self, seconds: float | None = None, /) -> _Struct:
        return _gmtime(self.time() if seconds is None and here() else seconds)

    def ctime(self, seconds: float | None = None, /) -> str:
        return _ctime(self.time() if seconds is None and here() else seconds)

    def asctime(self, *moment: Any) -> str:
        return _asctime(*(moment or (self.localtime(),)))

    def strftime(self, format: str, *moment: Any) -> str:
        return _strftime(format, *(moment or (self.localtime(),)))

    # --- randomness ---

    def urandom(self, size: int, /) -> bytes:
        if not here() or size < 0:
            return _urandom(size)
        return _source.random_bytes(size)

    def getrandom(self, size: int, flags: int = 0) -> bytes:
        if not here() or size < 0:
            return _getrandom(size, flags)  # type: ignore[misc, no-any-return]
        return _source.random_bytes(size)

    def RAND_bytes(self, n: int, /) -> bytes:
        if not here() or n < 0:
            return _rand_bytes(n)  # type: ignore[misc, no-any-return]
        return _source.random_bytes(n)

    def getnode(self) -> int:
        global _node  # noqa: PLW0603  (drawn once, as a machine reads its card once)
        if not here():
            return _getnode()
        if not _node:
            drawn = int.from_bytes(_source.random_bytes(_NODE_BYTES), "big")
            _node = drawn | _MULTICAST
        return _node

    # --- the process and the machine ---

    def getpid(self) -> int:
        pid = getattr(_source, "pid", None) if here() else None
        return _getpid() if pid is None else int(pid())

    def gethostname(self) -> str:
        name = getattr(_source, "hostname", None) if here() else None
        return _gethostname() if name is None else str(name())

    def getfqdn(self, name: str = "") -> str:
        if not here():
            return _getfqdn(name)
        return self.gethostname() if name in {"", "0.0.0.0", "::"} else name  # noqa: S104

    def start_new_thread(self, *args: Any, **kwargs: Any) -> int:
        escape.refuse(*escape.THREAD)
        return _start_thread(*args, **kwargs)

    def start_joinable_thread(self, *args: Any, **kwargs: Any) -> Any:
        escape.refuse(*escape.THREAD)
        return _start_joinable(*args, **kwargs)  # type: ignore[misc]

    def fork_exec(self, *args: Any) -> int:
        escape.refuse("a real process", escape.PROCESS_ADVICE)
        return _fork_exec(*args)

    def _exit(self, status: int) -> None:
        escape.refuse("os._exit", "use sys.exit, or lab.crash from the test")
        _exit(status)

    def abort(self) -> None:
        escape.refuse("os.abort", "use sys.exit, or lab.crash from the test")
        _abort()

    # --- signals ---

    def signal(self, signalnum: int, handler: Any) -> Any:
        if not here():
            return _signal(signalnum, handler)
        number = _signal_number(signalnum)
        if number in {signal.SIGKILL, signal.SIGSTOP}:
            raise OSError(22, "Invalid argument")
        if not callable(handler) and handler not in {signal.SIG_IGN, signal.SIG_DFL}:
            message = "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object"
            raise TypeError(message)
        before = self.getsignal(number)
        _registry()[number] = handler
        return before

    def getsignal(self, signalnum: int) -> Any:
        if not here():
            return _getsignal(signalnum)
        number = _signal_number(signalnum)
        return _registry().get(number, _DEFAULT_HANDLERS.get(number, signal.SIG_DFL))

    def siginterrupt(self, signalnum: int, flag: bool, /) -> None:
        if not here():
            _siginterrupt(signalnum, flag)

    def set_wakeup_fd(self, fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
        if here():
            return -1
        return _set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)

    def raise_signal(self, signalnum: int, /) -> None:
        if not here():
            _raise_signal(signalnum)
            return
        handler = self.getsignal(signalnum)
        if callable(handler):
            handler(int(signalnum), sys._getframe(1))
        elif handler == signal.SIG_DFL and signalnum not in _HARMLESS:
            raise SystemExit(_EXIT_BY_SIGNAL + int(signalnum))

    def kill(self, pid: int, sig: int, /) -> None:
        if here() and sig and pid in {_getpid(), self.getpid()}:
            self.raise_signal(sig)
            return
        _kill(pid, sig)

    def alarm(self, seconds: int, /) -> int:
        if seconds:
            escape.refuse("a timer signal", "use asyncio.timeout or loop.call_later")
        return _alarm(seconds)

    def setitimer(self, which: int, seconds: float, interval: float = 0.0, /) -> Any:
        if seconds:
            escape.refuse("a timer signal", "use asyncio.timeout or loop.call_later")
        return _setitimer(which, seconds, interval)

    # --- random.seed, of the hidden generator that the module's functions share ---

    def seed(self, a: Any = None, version: int = 2) -> None:
        random_seed(random._inst, a, version)


_DEFAULT_HANDLERS: Final[Mapping[int, Any]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    **({signal.SIGXFSZ: signal.SIG_IGN} if hasattr(signal, "SIGXFSZ") else {}),
}
_HARMLESS: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})


def _signal_number(signalnum: int) -> int:
    number = int(signalnum)
    if not 1 <= number < signal.NSIG:
        message = "signal number out of range"
        raise ValueError(message)
    return number


def _registry() -> dict[int, Any]:
    signals = getattr(_source, "signals", None)
    return _handlers if signals is None else signals()


GENERATORS: Final[WeakValueDictionary[int, random.Random]] = WeakValueDictionary()
"""What draws random numbers, by identity: found by a search, or seeded inside a simulation."""


# --- methods of classes -------------------------------------------------------------------------


def random_seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    """Stand in for ``Random.seed``: without an argument, the seed is drawn from the source."""
    if here():
        GENERATORS[id(self)] = self
        if a is None:
            a = int.from_bytes(_source.random_bytes(_SEED_BYTES), "little")
    _random_seed(self, a, version)


_real_now = _datetime.datetime.__dict__["now"]
_real_utcnow = _datetime.datetime.__dict__["utcnow"]
_real_today = _datetime.date.__dict__["today"]
_from_seconds = _datetime.datetime.__dict__["fromtimestamp"]
_combine = _datetime.datetime.__dict__["combine"]
_date_from_seconds = _datetime.date.__dict__["fromtimestamp"]


def datetime_now(cls: Any, tz: _datetime.tzinfo | None = None) -> Any:
    """Stand in for ``datetime.now``."""
    if not here():
        return _real_now.__get__(None, cls)(tz)
    seconds, rest = divmod(_source.wall_ns(), _NS)
    return _from_seconds.__get__(None, cls)(seconds, tz).replace(microsecond=rest // _US_NS)


def datetime_utcnow(cls: Any) -> Any:
    """Stand in for ``datetime.utcnow``."""
    if not here():
        return _real_utcnow.__get__(None, cls)()
    seconds, rest = divmod(_source.wall_ns(), _NS)
    naive = _EPOCH + _datetime.timedelta(seconds=seconds, microseconds=rest // _US_NS)
    return _combine.__get__(None, cls)(naive.date(), naive.time())


def date_today(cls: Any) -> Any:
    """Stand in for ``date.today`` and for what inherits it, ``datetime.today``."""
    if not here():
        return _real_today.__get__(None, cls)()
    if issubclass(cls, _datetime.datetime):
        return datetime_now(cls)
    seconds = _source.wall_ns() // _NS
    return _date_from_seconds.__get__(None, cls)(seconds)


_EPOCH: Final = _datetime.datetime(1970, 1, 1)  # noqa: DTZ001  (utcnow is naive by definition)

DATETIME_METHODS: Final[tuple[tuple[type, str, Callable[..., Any]], ...]] = (
    (_datetime.datetime, "now", datetime_now),
    (_datetime.datetime, "utcnow", datetime_utcnow),
    (_datetime.date, "today", date_today),
)

# --- the table -----------------------------------------------------------------------------------

FAKES: Final = Fakes()

_REAL_CLOCK, _REAL_RANDOMNESS, _REAL_MACHINE = (
    "reads the real clock",
    "reads real randomness",
    "uses the real machine",
)
READS: Final = (_REAL_CLOCK, _REAL_RANDOMNESS)
"""What a program must not do unnoticed; the rest is refused elsewhere or does no harm."""


class Original:
    """An original function, what stands in for it, and how to speak of it."""

    __slots__ = ("fake", "name", "real", "what")

    def __init__(self, name: str, what: str, real: Any, fake: Any) -> None:
        self.name = name
        self.what = what
        self.real = real
        self.fake = fake


def _table() -> dict[int, Original]:
    groups: tuple[tuple[Any, str, str], ...] = (
        (
            time,
            _REAL_CLOCK,
            "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time "
            "process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns sleep "
            "localtime gmtime ctime asctime strftime",
        ),
        (os, _REAL_RANDOMNESS, "urandom getrandom"),
        (random, _REAL_RANDOMNESS, "seed"),
        (ssl, _REAL_RANDOMNESS, "RAND_bytes"),
        (uuid, _REAL_RANDOMNESS, "getnode"),
        (os, _REAL_MACHINE, "getpid kill _exit abort"),
        (socket, _REAL_MACHINE, "gethostname getfqdn"),
        (_thread, _REAL_MACHINE, "start_new_thread start_joinable_thread"),
        (_posixsubprocess, _REAL_MACHINE, "fork_exec"),
        (
            signal,
            _REAL_MACHINE,
            "signal getsignal siginterrupt set_wakeup_fd raise_signal alarm setitimer",
        ),
    )
    table = {}
    for module, what, names in groups:
        for name in names.split():
            real = getattr(module, name, None)
            if real is not None:
                full = f"{module.__name__}.{name}"
                table[id(real)] = Original(full, what, real, getattr(FAKES, name))
    return table


ORIGINALS: Final = _table()
"""By the identity of the original function. The originals live as long as this module."""
