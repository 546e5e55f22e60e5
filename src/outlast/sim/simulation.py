"""Virtual time and all that shares it: hosts, network, trace.

A :class:`Simulation` belongs to one :class:`outlast.sim.loop.SimLoop`. Everything in it is
drawn from one seed, in an order that depends on nothing else.
"""

import asyncio
import zlib
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from outlast.kernel import ConfigError, Prng, current_deadline
from outlast.sim.disk import SimDisk
from outlast.sim.hosts import LIFE, Host, Life, Main

if TYPE_CHECKING:
    from outlast.sim.escape import Escape
    from outlast.sim.loop import SimLoop

TEST = "test"
"""Name of the host on which the test's own code runs."""
_MASK = (1 << 64) - 1
LIVES_BITS = 12
"""So far a step's moment is shifted in the trail, to make room for the life that took it."""
TRAIL_MAX = 8192
_CODES_MAX = 4096
_ADDRESSES_MAX = 250
_CLOSES_MAX = 20
_PROBLEMS_MAX = 20
_ESCAPES_MAX = 200


class Simulation:
    """The state of one run.

    Args:
        seed: From which everything is drawn.
        trace: Called with each event as ``(moment_ns, host, text)``, if anything.

    Attributes:
        now_ns: Virtual time, 0 at the beginning.
        ahead_ns: How much time the callback that runs now has spent so far.
        trail: What happened since the last :meth:`fold`, as numbers: moments, lives, events.
        problems: What fails the run whatever the test says.
        errors: What was handed to the loop's exception handler, the first ones.
        escapes: What programs did outside the simulation, the first ones.
        on_life: Called with each life before its program starts.
        on_exit: Called when a program ends by itself, with its host, why, and the exception, if
            there was one. Without it an exception is a problem.
    """

    def __init__(self, seed: int, trace: Callable[[int, str, str], None] | None = None) -> None:
        from outlast.sim.network import Network

        self.seed = seed
        self.prng = Prng(seed)
        self.now_ns = 0
        self.ahead_ns = 0
        self.steps = 0
        self.collected = 0
        self.trail: list[int] = []
        self._folded = 0
        self._codes: dict[tuple[int | str, ...], int] = {}
        self.trace = trace
        self.hosts: dict[str, Host] = {}
        self.problems: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self.escapes: list[Escape] = []
        self.notes: dict[str, int] = {}
        self.on_life: Callable[[Life], None] | None = None
        self.on_exit: Callable[[Host, str, BaseException | None], None] | None = None
        self.loop: SimLoop
        self.network: Network = Network(self, self.prng.fork())
        self._draws = self.prng.fork()
        self._by_address: dict[str, Host] = {}
        self._lives = 0
        # Programs begin with what stood around the run, whoever starts them: a deadline of the
        # test is none of theirs, and one of the real clock would mean nothing here.
        self._origin = copy_context()
        self._origin.run(current_deadline.set, None)
        self._graveyard: list[asyncio.Task[Any]] = []

    # --- time ----------------------------------------------------------------------------------

    @property
    def moment_ns(self) -> int:
        """The instant at which the running callback is."""
        return self.now_ns + self.ahead_ns

    def _moment(self) -> int:
        return self.now_ns + self.ahead_ns

    def spend(self, ns: int) -> None:
        """Let the running callback take ``ns`` of virtual time."""
        self.ahead_ns += ns

    def at(self, when_ns: int, callback: Callable[..., Any], *args: Any) -> asyncio.Handle:
        """Run ``callback`` at ``when_ns``, whatever becomes of the hosts."""
        return self.loop.schedule(when_ns, None, callback, args, _NOWHERE)

    def at_host(
        self,
        when_ns: int,
        life: Life,
        callback: Callable[..., Any],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Run ``callback`` in ``life`` at ``when_ns``: not if it is over by then.

        While its host is paused or busy, it waits.
        """
        return self.loop.schedule(when_ns, life, callback, args, context or life.context)

    # --- trace ---------------------------------------------------------------------------------

    @property
    def digest(self) -> int:
        """What everything that happened so far comes to: 64 bits, equal in two runs of a seed."""
        return self._come_to() & _MASK

    def fold(self) -> None:
        """Take the trail into the digest. When that happens is part of what the digest tells."""
        self._folded = self._come_to()
        self.trail.clear()

    def _come_to(self) -> int:
        # Of integers and tuples of them, hash() is the same in every process.
        return hash((self._folded, *self.trail))

    def note(self, kind: str, *facts: int | str) -> None:
        """Write an event into the trace: into its digest, and as text if anybody reads it."""
        event = (kind, *facts)
        code = self._codes.get(event)
        if code is None:  # most events occur again and again
            if len(self._codes) > _CODES_MAX:
                self._codes.clear()
            code = self._codes[event] = zlib.crc32(repr(event).encode())
        moment_ns = self.now_ns + self.ahead_ns
        self.trail += (moment_ns, code)
        if self.trace is not None:
            self.trace(moment_ns, self.here.name, " ".join(map(str, event)))

    def count(self, name: str) -> None:
        """Count something that should sometimes happen."""
        self.notes[name] = self.notes.get(name, 0) + 1

    def problem(self, text: str) -> None:
        """Let the run fail with ``text``, whatever the test says."""
        self.note("problem", text)
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(text)

    def escaped(self, escape: "Escape") -> None:
        """Remember what a program did outside the simulation."""
        if len(self.escapes) < _ESCAPES_MAX:
            self.escapes.append(escape)

    def refused(self, escape: "Escape") -> None:
        """Fail the run: a program may swallow the error that it gets instead."""
        self.problem(str(escape))

    # --- hosts ---------------------------------------------------------------------------------

    @property
    def life(self) -> Life:
        """The life that runs now: the test's own outside of any other."""
        return LIFE.get(None) or self.test_life

    @property
    def test_life(self) -> Life:
        """The life of the test's own host."""
        life = self.hosts[TEST].life
        if life is None:
            message = "the test's own host is gone"
            raise LookupError(message)
        return life

    @property
    def here(self) -> Host:
        """The host that runs now: the test's own outside of any other, even when all is over."""
        life = LIFE.get(None)
        return self.hosts[TEST] if life is None else life.host

    def add_host(self, name: str) -> Host:
        """Add a host that is not started yet.

        Raises:
            ConfigError: Definite. The name is taken, or no name of a host.
        """
        if name in self.hosts:
            message = f"host {name!r} exists already; give each host a name of its own"
            raise ConfigError(message)
        if not name or name != name.strip().lower() or not name.replace("-", "").replace(
            ".", "").isalnum():  # fmt: skip
            message = f"host {name!r}: use small letters, digits, '-' and '.'"
            raise ConfigError(message)
        if len(self.hosts) >= _ADDRESSES_MAX:
            message = f"host {name!r}: there are {_ADDRESSES_MAX} hosts already"
            raise ConfigError(message)
        disk = SimDisk(self.prng.fork(), self._moment, self.spend, floor_ns=lambda: self.now_ns)
        host = Host(name, f"10.0.0.{len(self.hosts) + 1}", disk, self.prng.fork())
        clock = host.clock
        disk.wall_ns = lambda: clock.wall_ns(self.now_ns + self.ahead_ns)
        self.hosts[name] = host
        self._by_address[host.address] = host
        self.network.host_added(host)
        return host

    def host_of(self, name_or_address: str) -> Host | None:
        """Return the host of that name or address."""
        return self.hosts.get(name_or_address) or self._by_address.get(name_or_address)

    def new_life(self, host: Host) -> Life:
        """Begin a life of ``host``, without starting its program."""
        self._lives += 1
        host.life = Life(host, self._lives, self._origin.copy())
        host.starts += 1
        host.paused = host.blocked = False
        host.free_ns = self.moment_ns
        host.backlog.clear()
        host.lanes.clear()
        self.network.host_started(host)
        if self.on_life is not None:
            self.on_life(host.life)
        return host.life

    def start(self, host: Host, main: Main | None = None) -> Life:
        """Start the program of ``host``, which must be down."""
        host.main = main or host.main
        if host.main is None:
            message = f"host {host.name!r} has no program; start it with lab.host(name, main)"
            raise ConfigError(message)
        life = self.new_life(host)
        self.note("start", host.name, host.starts)
        self.at_host(self.moment_ns, life, self._begin, life, host.main)
        return life

    def _begin(self, life: Life, main: Main) -> None:
        try:
            coroutine = main()
        except Exception as error:
            self.exited(life, f"{type(error).__name__}: {error}", error)
            return
        made: object = coroutine
        if not asyncio.iscoroutine(made):
            why = f"its program {main!r} is no coroutine function"
            self.exited(life, why, ConfigError(f"{life.host.name}: {why}"))
            return
        life.main = self.loop.create_task(coroutine, name=f"{life.host.name} main")
        life.main.add_done_callback(lambda task: self._ended(life, task))

    def _ended(self, life: Life, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.exited(life, "it was cancelled", None)
        elif (error := task.exception()) is not None:
            self.exited(life, f"{type(error).__name__}: {error}", error)
        else:
            self.exited(life, "it returned", None)

    def exited(self, life: Life, why: str, error: BaseException | None) -> None:
        """A program ended by itself: its process is gone, and with it all its tasks."""
        if not life.alive:
            return
        self.note("exit", life.host.name, why)
        if self.on_exit is not None:
            self.on_exit(life.host, why, error)
        elif error is not None:
            self.problem(f"{life.host.name} ended with {why}")
        self.end_life(life.host)

    def end_life(self, host: Host, *, power: bool = False) -> None:
        """End the life of ``host`` at once: SIGKILL, or with ``power`` the loss of its power."""
        life = host.life
        if life is None:
            return
        life.alive = False
        life.ended_ns = self.moment_ns
        host.life = None
        host.backlog.clear()
        for task in tuple(life.tasks):
            asyncio._unregister_task(task)
            self._graveyard.append(task)
        if power:
            host.disk.power_cut()
        else:
            host.disk.process_killed()
        self.network.host_crashed(host, power=power)

    # --- pauses --------------------------------------------------------------------------------

    def busy_until(self, host: Host, when_ns: int) -> None:
        """Let nothing else of ``host`` run before ``when_ns``."""
        host.free_ns = when_ns
        if not host.blocked:
            host.blocked = True
            self.at(when_ns, self._free, host, host.life)

    def _free(self, host: Host, life: Life | None) -> None:
        if host.life is not life or host.paused:
            return
        if host.free_ns > self.now_ns:
            self.at(host.free_ns, self._free, host, life)
            return
        self.release(host)

    def pause(self, host: Host) -> None:
        """Stop ``host``, as SIGSTOP does: its kernel still answers, its program does not."""
        host.paused = host.blocked = True

    def resume(self, host: Host) -> None:
        """Let ``host`` go on."""
        if host.paused:
            host.paused = False
            self.release(host)

    def release(self, host: Host) -> None:
        """Run what has waited, before anything newer."""
        host.blocked = False
        waiting, host.backlog = host.backlog, []
        self.loop.first(waiting)

    # --- end -----------------------------------------------------------------------------------

    def bury(self) -> None:
        """Close what crashed hosts have left behind, without letting it do anything."""
        for task in self._graveyard:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it never ends
            coroutine = task.get_coro()
            for _ in range(_CLOSES_MAX):  # a finally that awaits has to be closed again
                try:
                    if coroutine is not None:
                        coroutine.close()
                    break
                except BaseException:  # noqa: S112 - nobody is left to hear it
                    continue
        self._graveyard.clear()


_NOWHERE = Context()


def current() -> Simulation:
    """Return the simulation of the running loop.

    Raises:
        LookupError: The running loop is no simulated one, or none runs.
    """
    from outlast.sim.loop import SimLoop

    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimLoop):
        message = "no simulation runs here: use outlast.sim.run or @sim.test"
        raise LookupError(message)  # noqa: TRY004 - not a wrong type: a missing simulation
    return loop.sim
