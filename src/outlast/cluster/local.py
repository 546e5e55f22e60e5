"""A cluster of local node processes, supervised: ``outlast serve``, the demo and drills."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.cluster.cluster_health import ClusterHealth
from outlast.cluster.layout import LocalPlan, draw_cluster_id, hash_seed_of, load_plan, make_plan
from outlast.cluster.settings import EXIT_CANNOT_RUN
from outlast.detect import Child, RestartPolicy, Supervisor
from outlast.kernel import (
    ConfigError,
    DataError,
    File,
    NodeId,
    TaskHandle,
    UnavailableError,
    World,
)
from outlast.log.files import read_tail
from outlast.wire import parse_address

_NS = 1_000_000_000
_RESTARTS = RestartPolicy(
    intensity=30, period=60.0, base=0.1, cap=2.0, slow=True, final=(EXIT_CANNOT_RUN,)
)
_LOG_TAIL_BYTES = 1 << 16
_COMPLAINT = "outlast: "
_LOCK = "LOCK"


def node_command(
    plan: LocalPlan,
    data: str,
    node: str,
    *,
    storage: str = "disk",
    extra: Sequence[str] = (),
    program: str = "outlast",
) -> list[str]:
    """Return the command line that runs ``node`` of ``plan`` by the module ``program``."""
    name = NodeId(node)
    peers = ",".join(f"{n}={a}" for n, a in plan.addresses.items())
    command = [
        sys.executable,
        "-m",
        program,
        "node",
        plan.target,
        "--id",
        node,
        "--listen",
        plan.addresses[name],
        "--peers",
        peers,
        "--data",
        plan.directory(data, node),
        "--cluster",
        plan.cluster,
    ]
    if name in plan.http:
        command += ["--http", plan.http[name]]
    if storage != "disk":
        command += ["--storage", storage]
    return [*command, *extra]


def node_environment(plan: LocalPlan) -> dict[str, str]:
    """Return what the nodes of ``plan`` need in their environment."""
    return {"PYTHONHASHSEED": str(hash_seed_of(plan.cluster))}


@dataclass(frozen=True, slots=True)
class ChildView:
    """What the supervisor knows of one node's process."""

    pid: int
    state: str
    restarts: int


class LocalCluster:
    """Runs the nodes of a plan as processes and restarts them with backoff.

    Args:
        world: The real world.
        target: ``FILE.py:Class`` or ``module:Class`` of the machine.
        data: Directory of the whole cluster; made on the first start, continued later.
        nodes: How many nodes a new cluster has.
        port: First port of a new cluster; 0 takes free ones.
        http_port: First gateway port of a new one; 0 takes free ones, ``None`` makes none.
        storage: ``disk``, or ``lossy``: what is not fsynced lives in process memory, so that
            a kill is a power cut.
        environment: More environment for the nodes.
        node_options: More options of ``outlast node``, the same for all.
        program: Module that the nodes run; a test names a broken one here.
        health: ``HOST:PORT`` where probes of the cluster's health are answered; ``None`` for
            nowhere.

    Raises:
        ConfigError: Definite. The directory holds another machine, or ``health`` is no address.
    """

    def __init__(
        self,
        world: World,
        target: str,
        data: str,
        *,
        nodes: int = 3,
        port: int = 7400,
        http_port: int | None = 7480,
        storage: str = "disk",
        environment: Mapping[str, str] | None = None,
        node_options: Sequence[str] = (),
        program: str = "outlast",
        health: str | None = None,
    ) -> None:
        self._world = world
        self._data = os.path.abspath(data)
        self._storage = storage
        self._environment = dict(environment or {})
        self._options = tuple(node_options)
        self._program = program
        self._guard: File | None = None
        if health is not None:
            parse_address(health)  # before anything is made
        plan = load_plan(world.storage, self._data)
        self.fresh = plan is None
        if plan is None:
            plan = make_plan(
                world.storage,
                self._data,
                target,
                nodes=nodes,
                cluster=draw_cluster_id(world.prng),
                port=port,
                http_port=http_port,
            )
        elif plan.target.rpartition(":")[2] != target.rpartition(":")[2]:
            message = (
                f"{data}: holds a cluster of {plan.target}, not of {target}:"
                " name another --data, or that machine"
            )
            raise ConfigError(message)
        else:
            plan = LocalPlan(plan.cluster, target, plan.addresses, plan.http)
        self.plan = plan
        self.nodes: tuple[str, ...] = tuple(plan.addresses)
        self._health = (
            None
            if health is None
            else ClusterHealth(world, tuple(plan.addresses.values()), health)
        )
        self._checking: TaskHandle | None = None
        self._supervisor = Supervisor(
            *(self._child(node) for node in self.nodes),
            health=self._health.health if self._health else None,
            world=world,
        )

    def _child(self, node: str) -> Child:
        return Child.command(
            node,
            tuple(
                node_command(
                    self.plan,
                    self._data,
                    node,
                    storage=self._storage,
                    extra=self._options,
                    program=self._program,
                )
            ),
            environment={**os.environ, **self._environment, **node_environment(self.plan)},
            output=f"{self._data}/{node}.log",
            policy=_RESTARTS,
        )

    @property
    def addresses(self) -> str:
        """Where clients connect: all nodes, as ``outlast.connect`` takes them."""
        return ",".join(self.plan.addresses.values())

    @property
    def health_url(self) -> str:
        """Where probes are answered, once started; empty if nowhere."""
        return "" if self._health is None else self._health.url

    def address(self, node: str) -> str:
        """Return where ``node`` listens."""
        return self.plan.addresses[NodeId(node)]

    async def start(self) -> None:
        """Start every node; returns when the processes run, not when they serve.

        Raises:
            DataError: Definite. Another process runs the cluster in this directory.
            ConfigError: Definite. The address for probes is in use or not ours.
        """
        self._lock()
        try:
            self._start_health()
            await self._supervisor.start()
        except BaseException:
            self._stop_health()
            self._unlock()
            raise

    async def stop(self) -> None:
        """Stop every node in order: SIGTERM, a grace, SIGKILL. Readiness fails before."""
        if self._health is not None:
            self._health.stopping()
        try:
            await self._supervisor.stop()
        finally:
            self._stop_health()
            self._unlock()

    def _start_health(self) -> None:
        if self._health is not None and self._checking is None:
            self._health.start()
            self._checking = self._world.spawn.task(self._health.run(), name="health")

    def _stop_health(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        if self._health is not None:
            self._health.stop()

    def _lock(self) -> None:
        """Keep others from running the same nodes; the lock ends with this process."""
        if self._guard is not None:
            return
        guard = self._world.storage.open(f"{self._data}/{_LOCK}", create=True)
        if not guard.lock():
            guard.close()
            message = (
                f"{self._data}: another process runs the cluster in this directory: stop that,"
                " or name another --data"
            )
            raise DataError(message)
        self._guard = guard

    def _unlock(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    async def ended(self) -> None:
        """Wait until every node stays down; one that fails again and again is not given up."""
        await self._supervisor.ended()

    def complaint(self, node: str) -> str:
        """Return the last line in which ``node`` said why it cannot run; empty if it did not."""
        text = read_tail(self._world.storage, f"{self._data}/{node}.log", _LOG_TAIL_BYTES)
        said = [line for line in text.splitlines() if line.startswith(_COMPLAINT)]
        return said[-1].removeprefix(_COMPLAINT) if said else ""

    def child(self, node: str) -> ChildView:
        """Return what the supervisor knows of ``node``'s process."""
        child = self._supervisor.child(node)
        return ChildView(child.pid or 0, child.state, child.restarts)

    def kill(self, node: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to ``node``'s process and return its pid, 0 if it was not running."""
        pid = self.child(node).pid
        if pid:
            os.kill(pid, number)
        return pid

    async def gone(self, pid: int, *, within: float = 2.0) -> bool:
        """Wait until process ``pid`` of ours has ended; whether it did."""
        end = self._world.clock.monotonic_ns() + int(within * _NS)
        while self._world.clock.monotonic_ns() < end:
            if all(self.child(node).pid != pid for node in self.nodes):
                return True
            await self._world.timers.sleep(0.01)
        return False

    async def ready(self, *, within: float = 30.0) -> None:
        """Wait until the cluster has a leader that answers.

        Raises:
            UnavailableError: Definite. None answered in time; the message names the logs.
        """
        from outlast.cluster.client import Client
        from outlast.kernel import OutlastError

        client: Client[Any] = Client(
            None, self.addresses.split(","), world=self._world, timeout=within
        )
        async with client:
            try:
                await client.register()
            except OutlastError as error:
                message = f"the cluster did not start: {error}; see {self._data}/n*.log"
                raise UnavailableError(message) from error
