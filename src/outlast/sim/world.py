"""The ``World`` of a simulated host: what our own code is given in place of the machine."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar, cast

from outlast.kernel import (
    ConnectionHandler,
    DeadlockError,
    EventBus,
    Events,
    Gate,
    NoFaults,
    TimerHandle,
    World,
)
from outlast.sim.hosts import Host, Life
from outlast.sim.simulation import Simulation

T = TypeVar("T")

_NS = 1_000_000_000
_HAND_OVER_NS = (3_000, 30_000)


class SimClock:
    """The clocks of one host."""

    __slots__ = ("_clock", "_host", "_sim")

    def __init__(self, sim: Simulation, host: Host) -> None:
        self._sim = sim
        self._host = host
        self._clock = host.clock

    def monotonic_ns(self) -> int:
        """Return the host's monotonic time, which drifts."""
        sim, clock = self._sim, self._clock
        moment_ns = sim.now_ns + sim.ahead_ns
        return clock.monotonic_ns(moment_ns) if clock.drift_ppm else moment_ns + clock.ahead_ns

    def wall_ns(self) -> int:
        """Return the host's wall time, which drifts and jumps."""
        return self._clock.wall_ns(self._sim.moment_ns)

    def boot_id(self) -> str:
        """Return an id that changes when the host loses its power."""
        return f"{self._host.name}-{self._host.disk.tally.power_cuts}"

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass in the running callback."""
        self._sim.spend(max(round(seconds * _NS), 0))

    def wait(self, gate: Gate, seconds: float | None) -> bool:
        """Acquire ``gate``, which nobody else can release while the running callback waits.

        There is one thread: a gate that is not free now is not free later.
        """
        if gate.acquire(False):
            return True
        if seconds is None:
            raise DeadlockError("blocking code waits for ever for what no other thread can give")
        self.pause(seconds)
        return gate.acquire(False)

    def beside(self, call: Callable[[], T]) -> tuple[T | None, BaseException | None, int]:
        """Make ``call`` as if on a thread beside the running callback.

        It is computed now, and takes its time for itself: afterwards it is as late for the caller
        as before. What it changes is seen at once, though, as there is one thread.

        Returns:
            Its answer, its exception, and the monotonic instant at which it ends.
        """
        sim = self._sim
        ahead_ns = sim.ahead_ns
        answer: T | None = None
        error: BaseException | None = None
        try:
            answer = call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            error = raised
        end_ns = self.monotonic_ns()
        sim.ahead_ns = ahead_ns
        return answer, error, end_ns


class SimTimers:
    """Timers of the simulated loop."""

    __slots__ = ("_host", "_sim")

    def __init__(self, sim: Simulation, host: Host) -> None:
        self._sim = sim
        self._host = host

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` when the host's monotonic clock shows ``when_ns``."""
        sim = self._sim
        return sim.at_host(
            self._host.clock.moment_ns(when_ns), sim.life, callback, context=copy_context()
        )

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of the host's clock."""
        await asyncio.sleep(seconds)


class SimListener:
    """A listening socket of the simulated network."""

    __slots__ = ("_server",)

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening; connections already made stay."""
        self._server.close()


class SimNetwork:
    """TCP through the simulated loop."""

    __slots__ = ("_sim",)

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

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
        """Open a connection and return its handler; see :class:`outlast.kernel.Network`."""
        async with asyncio.timeout(timeout):
            _, made = await self._sim.loop.create_connection(
                cast("Callable[[], asyncio.Protocol]", handler),
                host,
                port,
                ssl=tls,
                server_hostname=server_hostname if tls is not None else None,
            )
        return cast("ConnectionHandler", made)

    async def listen(
        self, handler: Callable[[], ConnectionHandler], host: str, port: int, *, tls: Any = None
    ) -> SimListener:
        """Accept connections; see :class:`outlast.kernel.Network`."""
        server = await self._sim.loop.create_server(
            cast("Callable[[], asyncio.Protocol]", handler), host, port, ssl=tls
        )
        return SimListener(server)


class SimSpawn:
    """Starts tasks and keeps them referenced until they end."""

    __slots__ = ("_sim", "_tasks")

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def task(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``coroutine`` as a task of the life that runs now."""
        task = self._sim.loop.create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._sim.loop.call_exception_handler(
                {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
            )


class SimOffload:
    """Lanes of the host: each does one blocking call after the other.

    A call is computed at its beginning, and what it spends on the disk has taken place at later
    instants: a crash in between keeps only what came before it.
    """

    __slots__ = ("_host", "_sim")

    def __init__(self, sim: Simulation, host: Host) -> None:
        self._sim = sim
        self._host = host

    def run(self, lane: str, call: Callable[[], T]) -> Awaitable[T]:
        """Start ``call`` on ``lane`` and return an awaitable for its result."""
        sim, host = self._sim, self._host
        future: asyncio.Future[T] = sim.loop.create_future()
        queue = host.lanes.get(lane)
        if queue is None:
            queue = host.lanes[lane] = _Lane()
        queue.waiting.append((call, future))
        if not queue.running:
            queue.running = True
            life = sim.life
            delay = host.disk.pace(*_HAND_OVER_NS)
            sim.at_host(sim.now_ns + sim.ahead_ns + delay, life, self._work, queue, life)
        return future

    def _work(self, queue: "_Lane", life: Life) -> None:
        sim = self._sim
        call, future = queue.waiting.pop(0)
        answer: Any = None
        error: BaseException | None = None
        if not future.cancelled():
            try:
                answer = call()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as raised:
                error = raised
        end_ns, sim.ahead_ns = sim.now_ns + sim.ahead_ns, 0
        sim.at_host(end_ns, life, self._done, queue, life, future, answer, error)

    def _done(
        self, queue: "_Lane", life: Life, future: "asyncio.Future[Any]", answer: Any, error: Any
    ) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)
        if queue.waiting:
            delay = self._host.disk.pace(*_HAND_OVER_NS)
            self._sim.at_host(self._sim.now_ns + delay, life, self._work, queue, life)
        else:
            queue.running = False


class _Lane:
    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = False
        self.waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []


def make_world(sim: Simulation, host: Host, *, events: Events | None = None) -> World:
    """Return the world of ``host`` for one life of its program."""
    return World(
        clock=SimClock(sim, host),
        timers=SimTimers(sim, host),
        prng=host.prng.fork(),
        network=SimNetwork(sim),
        storage=host.disk,
        spawn=SimSpawn(sim),
        offload=SimOffload(sim, host),
        events=events or EventBus(),
        faults=NoFaults(),
    )
