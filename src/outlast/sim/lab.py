"""The lab: starts hosts, breaks them, heals them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any

from outlast.kernel import (
    ConfigError,
    DeadlineError,
    World,
    use_world,
)
from outlast.sim.core.plan import Plan, read_faults
from outlast.sim.hands import Hands
from outlast.sim.hosts import Host, Life, Main
from outlast.sim.levers import Levers
from outlast.sim.nemesis import Budget, Injected, Nemesis
from outlast.sim.recorder import Recorder
from outlast.sim.simulation import TEST, Simulation
from outlast.sim.world import make_world

_NS = 1_000_000_000
_RESTART_NS = _NS
_BACK_SECONDS = 60.0
_UNKNOWN_SECONDS = 5.0
_STOP_SECONDS = 30.0
_GOODBYE_SECONDS = 5.0
_EPHEMERAL = 32_768
_HAND = 0


class _Healing:
    """What :meth:`Lab.heal` returns: to be awaited, or not."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()


class Lab(Hands):
    """Simulated hosts around the test, and what can happen to them.

    The test's own code runs on a host called ``test``, which no fault stops. Methods that break
    something take effect at once and stay so until it is undone or :meth:`heal` is called.
    Durations are virtual seconds. Not thread-safe; one lab belongs to one run.

    Attributes:
        sim: The simulation below.
        events: What was injected, by name or by hand, with evidence.
        exits: Hosts whose program has ended by itself, and why.
        roles: Set it to a function that returns which host is ``leader`` and which ``follower``
            at the moment, for faults with these targets.
        started_ns: When the first host was started; -1 before.
        healed_ns: When the lab was healed; -1 before.
        cause: The exception with which a program has failed the run, if one has.
    """

    def __init__(
        self,
        sim: Simulation,
        *,
        plan: Plan | None = None,
        budget: Budget = "minority",
        only: frozenset[int] | None = None,
    ) -> None:
        super().__init__(sim, Levers(sim))
        self.roles: Callable[[], Mapping[str, str]] | None = None
        self.exits: list[tuple[str, str]] = []
        self.started_ns = -1
        self.healed_ns = -1
        self.cause: BaseException | None = None
        self._nemesis = Nemesis(
            self._levers, plan, roles=self._known_roles, budget=budget, only=only
        )
        self._worlds: dict[int, World] = {}
        self._may_exit: dict[str, bool] = {}
        self._supervised: dict[str, bool] = {}
        self._stopping: dict[str, bool] = {}
        self._disk_errors: dict[str, int] = {}
        self._gone: dict[str, str] = {}
        sim.on_life = self._born
        sim.on_exit = self._exited
        self._born(sim.test_life)

    # --- what there is -------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the run began. No host's clock shows this."""
        return self.sim.moment_ns / _NS

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return self.sim.seed

    @property
    def events(self) -> list[Injected]:
        """What was injected so far."""
        return self._nemesis.records

    def world(self, host: str | Host = TEST) -> World:
        """Return the capabilities of a host, as its program has them.

        Raises:
            ConfigError: Definite. There is no such host, or it is down.
        """
        found = self._host(host)
        if found.life is None:
            message = f"host {found.name!r} is down and has no world; lab.restart it first"
            raise ConfigError(message)
        return self._worlds[found.life.number]

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of virtual time."""
        future: asyncio.Future[None] = self.sim.loop.create_future()
        when_ns = self.sim.moment_ns + max(round(seconds * _NS), 0)
        timer = self.sim.at_host(when_ns, self.sim.life, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def sometimes(self, name: str, condition: object = True) -> bool:
        """Count that something interesting has happened, if ``condition`` holds.

        A campaign in which it never holds is void: its tests do not test what they say.

        Returns:
            Whether it held.
        """
        held = bool(condition)
        self.sim.notes.setdefault(name, 0)
        if held:
            self.sim.count(name)
        return held

    def history(self, model: str, **header: Any) -> Recorder:
        """Return a recorder of what clients are told, with virtual times.

        Args:
            model: By which it is to be judged: ``kv``, ``set``, ``register`` …
            header: What the model wants to know besides, such as ``accounts``.
        """
        return Recorder(model, header, lambda: self.sim.moment_ns)

    # --- hosts ---------------------------------------------------------------------------------

    def host(
        self, name: str, main: Main, *, may_exit: bool = False, restart: bool = False
    ) -> Host:
        """Add a host and start its program.

        A program that ends with an exception fails the run, unless one of the options says
        otherwise, or its disk had just failed: to stop then is right, and it is started again.

        Args:
            name: By which others find it.
            main: A coroutine function without arguments; ``functools.partial`` gives it some.
            may_exit: Whether its program may end by itself, in whichever way.
            restart: Whether a supervisor starts it again, one second after it has ended.

        Raises:
            ConfigError: Definite. The name is taken, or ``main`` is not callable.
        """
        given: object = main
        if not callable(given):
            message = f"host {name!r}: main is {main!r}; give a coroutine function, not called yet"
            raise ConfigError(message)
        host = self.sim.add_host(name)
        self._may_exit[name] = may_exit
        self._supervised[name] = restart
        if self.started_ns < 0:
            self.started_ns = self.sim.moment_ns
        self.sim.start(host, main)
        self._nemesis.start()
        return host

    def spawn(
        self, host: str | Host, coroutine: Coroutine[Any, Any, Any], *, name: str = ""
    ) -> "asyncio.Task[Any]":
        """Run a coroutine as a task beside the program of a host; it ends with it.

        Raises:
            ConfigError: Definite. There is no such host, or it is down.
        """
        life = self._host(host).life
        if life is None:
            coroutine.close()
            message = f"host {self._host(host).name!r} is down; lab.restart it first"
            raise ConfigError(message)
        context = life.context.copy()  # a copy can be had while the host's own code runs
        return self.sim.loop.create_task(coroutine, name=name or None, context=context)

    def expect_exit(self, host: str | Host) -> None:
        """Let the program of a host end by itself from now on."""
        self._may_exit[self._program(host)] = True

    def crash(self, *hosts: str | Host) -> None:
        """End the programs of hosts at once, as SIGKILL does, until :meth:`restart`.

        What they wrote stays, fsynced or not. Connections are closed by the host's kernel.
        """
        for name in self._programs(hosts):
            self._by_hand("crash", name)
            self._levers.take_down(name, _HAND)

    def power_cut(self, *hosts: str | Host) -> None:
        """Take the power from hosts until :meth:`restart`: what was not fsynced may be lost."""
        for name in self._programs(hosts):
            self._by_hand("power-cut", name)
            self._levers.take_down(name, _HAND, power=True)

    def restart(self, *hosts: str | Host) -> None:
        """Start hosts that are down; those that are up are ended first, as by SIGKILL."""
        for name in self._programs(hosts):
            self._levers.take_down(name, _HAND)
            self._levers.bring_up(name)

    def pause(self, *hosts: str | Host) -> None:
        """Let programs stand still, as SIGSTOP does, until :meth:`resume`."""
        for name in self._programs(hosts):
            self._by_hand("pause", name)
            self._levers.pause(name, _HAND)

    def resume(self, *hosts: str | Host) -> None:
        """Let programs go on."""
        for name in self._programs(hosts):
            self._levers.resume(name)

    def signal(self, host: str | Host, number: int = signal.SIGTERM) -> None:
        """Send a signal to a program.

        A handler that it has set is called on its host. Without one, SIGTERM, SIGINT and
        SIGKILL end it; SIGSTOP and SIGCONT stop it and let it go on; others do nothing.
        """
        name = self._program(host)
        life = self.sim.hosts[name].life
        if life is None:
            return
        handler = life.signals.get(int(number), signal.SIG_DFL)
        self.sim.note("signal", name, int(number))
        if number == signal.SIGSTOP:
            self._levers.pause(name, _HAND)
        elif number == signal.SIGCONT:
            self._levers.resume(name)
        elif number in _ENDING:
            self._stopping[name] = True
            if number == signal.SIGKILL or not callable(handler):
                if handler != signal.SIG_IGN or number == signal.SIGKILL:
                    self._levers.take_down(name, _HAND)
            else:
                self.sim.at_host(self.sim.moment_ns, life, handler, int(number), None)
        elif callable(handler):
            self.sim.at_host(self.sim.moment_ns, life, handler, int(number), None)

    async def stop(self, host: str | Host, *, timeout: float = _STOP_SECONDS) -> None:
        """Ask a program to end, as SIGTERM does, and wait until it has.

        Args:
            host: Whose.
            timeout: After so many seconds it is killed.
        """
        name = self._program(host)
        life = self.sim.hosts[name].life
        self._levers.remember_ports(self.sim.hosts[name])
        self.signal(name, signal.SIGTERM)
        end_ns = self.sim.moment_ns + round(timeout * _NS)
        while life is not None and life.alive and self.sim.moment_ns < end_ns:
            await self.sleep(0.001)
        self._levers.take_down(name, _HAND)

    # --- faults by name -------------------------------------------------------------------------

    def inject(self, fault: str, *, lasts: float = 1.0) -> Injected | None:
        """Inject a fault by name now, such as ``partition:halves@api``.

        Args:
            fault: ``KIND[:VARIANT][@TARGET]``.
            lasts: After so many seconds it ends by itself.

        Returns:
            What was injected; ``None`` if there was nobody to hit, or the budget forbade it.

        Raises:
            ConfigError: Definite. There is no such fault, or it is more than one.
        """
        given = read_faults([fault])
        if len(given) != 1:
            message = f"lab.inject: fault is {fault!r}; give one, such as partition:halves@api"
            raise ConfigError(message)
        (read,) = given
        return self._nemesis.inject(read, self.prng.bits64(), round(lasts * _NS))

    # --- healing -------------------------------------------------------------------------------

    def heal(self) -> Awaitable[None]:
        """Undo all faults at once, inject no more, and start what is down.

        Await it to wait until every host listens again where it did before, and until clients
        have been told that connections to ended programs are closed.

        Raises:
            DeadlineError: While it is awaited: a host did not come back within 60 seconds.
            AssertionError: While it is awaited: a program has ended with an exception.
        """
        if self.healed_ns < 0:
            self.healed_ns = self.sim.moment_ns
        self.sim.note("heal")
        self._nemesis.stop()
        self._levers.clear()
        self.sim.network.clear()
        for host in self.sim.hosts.values():
            host.disk.faults.clear()
            host.clock.drift(0, self.sim.moment_ns)
        return _Healing(self._back)

    async def _back(self) -> None:
        start_ns = self.sim.moment_ns
        wait = 0.001
        if self.cause is not None:
            raise AssertionError("; ".join(self.sim.problems)) from self.cause
        while late := self._late((self.sim.moment_ns - start_ns) / _NS):
            if self.sim.moment_ns - start_ns > _BACK_SECONDS * _NS:
                message = (
                    f"{late} did not come back within {_BACK_SECONDS:.0f} virtual seconds"
                    f" after healing{self._why(late)}"
                )
                raise DeadlineError(message)
            await self.sleep(wait)
            wait = min(wait * 1.5, 0.25)
        end_ns = self.sim.moment_ns + round(_GOODBYE_SECONDS * _NS)
        while self.sim.network.parting() and self.sim.moment_ns < end_ns:
            await self.sleep(0.002)

    def _late(self, waited: float) -> str:
        """Return a host that is not back yet, or nothing."""
        for name, host in self.hosts.items():
            if host.life is None:
                if name in self._gone:
                    continue
                return name
            listening = self._levers.listening(host)
            known = self._levers.ports.get(name)
            if known is None:
                if host.starts > 1 and not listening and waited < _UNKNOWN_SECONDS:
                    return name
            elif len(listening) < len(known) or any(
                port not in listening for port in known if port < _EPHEMERAL
            ):
                return name
        return ""

    def _why(self, name: str) -> str:
        ports = self._levers.ports.get(name, ())
        wanted = ", ".join(map(str, ports))
        return f": it listened on {wanted} and does not now" if wanted else ""

    def finish(self) -> None:
        """End the faults that go on, so that their evidence is complete."""
        self._nemesis.stop()
        for fault in self._nemesis.missing_targets():
            self.sim.problem(
                f"fault '{fault}' could hit nobody: there is no such host"
                f" (hosts: {', '.join(self.hosts) or 'none'}), or lab.roles does not name one"
            )

    # --- what hosts do -------------------------------------------------------------------------

    def _born(self, life: Life) -> None:
        world = make_world(self.sim, life.host)
        self._worlds[life.number] = world
        life.context.run(use_world, world)
        self._disk_errors[life.host.name] = _errors(life.host)
        self._gone.pop(life.host.name, None)
        self._stopping.pop(life.host.name, None)

    def _exited(self, host: Host, why: str, error: BaseException | None) -> None:
        """A program has ended by itself."""
        name = host.name
        self.exits.append((name, why))
        self._gone[name] = why
        if self._stopping.pop(name, False) or self._may_exit.get(name):
            return
        broken = isinstance(error, OSError) and _errors(host) > self._disk_errors[name]
        if self._supervised.get(name) or broken:
            del self._gone[name]
            self._levers.remember_ports(host)
            self.sim.at(self.sim.moment_ns + _RESTART_NS, self._start_again, host)
            return
        if error is not None:
            self.cause = self.cause or error
            self.sim.problem(
                f"{name} ended with {why}"
                " (lab.host(…, restart=True) if a supervisor would start it again)"
            )

    def _known_roles(self) -> dict[str, str] | None:
        return None if self.roles is None else dict(self.roles())

    def _start_again(self, host: Host) -> None:
        if host.life is None and not self._levers.is_down(host.name):
            self.sim.start(host)


_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGKILL})


def _errors(host: Host) -> int:
    tally = host.disk.tally
    return tally.eio + tally.enospc + tally.erofs


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
