"""One node of a cluster: log engine, replica of the machine, listener, gateway, health.

Life: the identity is read, or asked for (an empty directory is never trusted to have promised
nothing); the log is opened; the replica restores its newest snapshot and replays the log; only
then do peers and clients get answers.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from outlast.cluster.comparison import DIGESTS, Comparison
from outlast.cluster.events import Leading, NodeFailed, NodeReady, NodeStopped, WaitingForAdmission
from outlast.cluster.gateway import Gateway, GatewayServer
from outlast.cluster.identity import FILE as IDENTITY_FILE
from outlast.cluster.identity import (
    NodeIdentity,
    load_identity,
    lock_directory,
    save_identity,
)
from outlast.cluster.join import ask_admission
from outlast.cluster.messages import Seat
from outlast.cluster.node_health import NodeHealth
from outlast.cluster.peers import Peers
from outlast.cluster.service import Service, answer_query
from outlast.cluster.settings import NodeSettings
from outlast.cluster.tending import Tending
from outlast.detect import health_routes
from outlast.kernel import (
    ConfigError,
    DataError,
    DivergedError,
    File,
    ReplicaId,
    TaskHandle,
    UnavailableError,
    World,
    node_of,
)
from outlast.log import Membership
from outlast.log.engines.raft import BULK_CHANNEL, RaftLog, RaftLogSettings, holds_replica
from outlast.state import (
    DiskSnapshotStore,
    Replica,
    Reply,
    Runner,
    StateMachine,
    machine_spec,
    own_row,
)
from outlast.wire import Identity, WireListener, parse_address

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie in a data directory."""

    log: str
    snapshots: str


def paths(directory: str) -> Paths:
    """Return the parts of a data directory."""
    return Paths(f"{directory}/log", f"{directory}/snapshots")


class Node:
    """Runs one node on the running event loop.

    Args:
        world: Every capability that it uses.
        machine: The state machine's class.
        settings: How it runs.
        admitted: Called with the identity that the cluster has just given it, before anything
            is opened under it; what it raises ends the start.

    Not thread-safe. :meth:`failed` tells when it can no longer keep its promises: stop it.
    """

    def __init__(
        self,
        world: World,
        machine: type[StateMachine],
        settings: NodeSettings,
        *,
        admitted: Callable[[NodeIdentity], None] = lambda _: None,
    ) -> None:
        self._world = world
        self._admitted = admitted
        self._spec = machine_spec(machine)
        self._settings = settings
        self._paths = paths(settings.data)
        self._identity: NodeIdentity | None = None
        self._lock: File | None = None
        self._log: RaftLog | None = None
        self._replica: Replica | None = None
        self._peers: Peers | None = None
        self._listener: WireListener | None = None
        self._service: Service | None = None
        self._gateway: GatewayServer | None = None
        self._client: Any = None
        self._tasks: list[TaskHandle] = []
        self._started_ns = world.clock.monotonic_ns()
        self._term_changes = 0
        self._phase = "starting"
        self._failure: asyncio.Future[BaseException] | None = None
        self._own_health = NodeHealth(
            world,
            settings,
            phase=lambda: self._phase,
            log=lambda: self._log,
            is_member=self._is_member,
        )
        self.health = self._own_health.health

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start serving.

        Raises:
            ConfigError: Definite. A setting or address is wrong, or in use.
            DataError: Definite. The data directory belongs to another cluster, node or version.
            CorruptionError: The log or the snapshots are damaged; file and offset are named.
        """
        self._failure = asyncio.get_running_loop().create_future()
        self._serve_gateway()
        self._lock = lock_directory(self._world.storage, self._settings.data)
        identity = load_identity(self._world.storage, self._settings.data)
        if identity is not None:
            self._check(identity)
        if identity is None or self._lost_its_log(identity):
            identity = await self._be_admitted(identity)
        self._check(identity)
        self._identity = identity
        listener = WireListener(
            self._world,
            Identity(
                cluster=identity.cluster,
                node=identity.node,
                incarnation=identity.incarnation,
                hash_seed=identity.hash_seed,
                purpose="node",
            ),
            self._settings.security,
        )
        self._listener = listener
        await self._open(identity, listener)
        await self._bind(listener)
        self._phase = "serving"
        self._world.events.emit(NodeReady(node=identity.node, address=self._settings.address))

    async def _open(self, identity: NodeIdentity, listener: WireListener) -> None:
        world = self._world
        store = DiskSnapshotStore(world, self._paths.snapshots)
        await store.open()  # reads the newest snapshot beside the loop, before the log asks for it
        peers = Peers(
            world,
            listener,
            identity=listener.identity,
            security=self._settings.security,
            routes=self._settings.routes,
        )
        self._peers = peers
        if not identity.admitted:
            peers.introduce(identity.members)
        log = await RaftLog.open(
            world,
            self._paths.log,
            me=identity.replica,
            membership=identity.bootstrap if identity.admitted else Membership(0, ()),
            peers=peers,
            snapshots=store,
            settings=RaftLogSettings(
                cluster=identity.cluster, raft=self._settings.raft, wal=self._settings.wal
            ),
            may_vote=identity.admitted,
        )
        self._log = log
        if not identity.started:
            identity = replace(identity, started=True)
            save_identity(world.storage, self._settings.data, identity)
            self._identity = identity
        self._replica = Replica(
            world,
            log,
            Runner(self._spec),
            store,
            me=identity.replica,
            settings=replace(self._settings.replica, cluster=identity.cluster),
        )
        self._watch(log.failed, self._replica.failed)
        await self._replica.start()
        self._service = Service(
            world,
            listener,
            log,
            self._replica,
            self,
            machine=self._spec.name,
            machine_version=self._spec.version,
        )
        comparison = Comparison(
            world,
            identity.replica,
            own_row(identity.replica, self._replica.settings, self._spec.version),
            send=lambda replica, body: peers.send(replica, BULK_CHANNEL, DIGESTS, body),
            condemn=self._condemn,
        )
        peers.on_digests = comparison.heard
        peers.enable()
        self._tasks.append(world.spawn.task(self._follow_authority(), name="authority"))
        tending = Tending(world, log, self._replica, self._service, comparison)
        self._tasks.append(world.spawn.task(tending.run(), name="tend"))

    async def _bind(self, listener: WireListener) -> None:
        where = parse_address(self._settings.listen)
        try:
            await listener.start(where.host, where.port)
        except OSError as error:
            message = (
                f"--listen {self._settings.listen}: {error.strerror or error}:"
                " another process uses it, or it is not an address of this machine"
            )
            raise ConfigError(message) from error

    async def stop(self) -> None:
        """Hand leadership over, answer what is in flight, and close."""
        if self._phase == "stopped":
            return
        self._phase = "stopped"
        for task in self._tasks:
            task.cancel()
        if self._client is not None:
            await self._client.close()
        if self._replica is not None:
            await self._replica.stop()
        if self._log is not None:
            await self._log.close()
        if self._listener is not None:
            await self._listener.close()
        if self._peers is not None:
            self._peers.close()
        if self._gateway is not None:
            self._gateway.stop()
        self._own_health.stop()
        if self._lock is not None:
            self._lock.close()
        self._world.events.emit(NodeStopped(node=self._settings.node))

    async def failed(self) -> BaseException:
        """Wait until the node can no longer keep its promises and return why."""
        if self._failure is None:
            message = "start the node first"
            raise ConfigError(message)
        return await asyncio.shield(self._failure)

    def _watch(self, *futures: "asyncio.Future[BaseException]") -> None:
        for future in futures:
            future.add_done_callback(self._on_failure)

    def _on_failure(self, future: "asyncio.Future[Any]") -> None:
        if future.cancelled() or self._failure is None or self._failure.done():
            return
        if self._phase == "stopped":
            return
        error = future.exception() or future.result()
        self._phase = "failed"
        self._world.events.emit(NodeFailed(node=self._settings.node, error=str(error)))
        self._failure.set_result(error)

    def _condemn(self, error: DivergedError) -> None:
        """Never use this directory's state again, and stop."""
        if self._identity is None or self._failure is None or self._failure.done():
            return
        failure = asyncio.get_running_loop().create_future()
        failure.set_result(error)
        self._on_failure(failure)
        condemned = replace(self._identity, condemned=str(error))
        # On a full disk the next start finds the difference again.
        with contextlib.suppress(OSError):
            save_identity(self._world.storage, self._settings.data, condemned)

    # --- identity ------------------------------------------------------------------------------

    def _lost_its_log(self, identity: NodeIdentity) -> bool:
        storage = self._world.storage
        if identity.condemned:
            return True
        return identity.started and not holds_replica(storage, self._paths.log)

    async def _be_admitted(self, previous: NodeIdentity | None) -> NodeIdentity:
        """Ask to be admitted under the next incarnation, for as long as it takes."""
        settings = self._settings
        if previous is None:
            self._check_empty()
        addresses = {n: a for n, a in settings.peers.items() if n != settings.node}
        if previous is not None:
            for member in previous.members:
                addresses.setdefault(node_of(member.replica), member.address)
            addresses.pop(settings.node, None)
        if not addresses:
            message = (
                f"{settings.data}: no identity here and no --peers to ask for admission:"
                " run `outlast init` for a new cluster, or name the other members"
            )
            raise ConfigError(message)
        self._phase = "waiting for admission"

        def waiting(why: str) -> None:
            self._world.events.emit(
                WaitingForAdmission(node=settings.node, directory=settings.data, why=why)
            )

        identity = await ask_admission(
            self._world,
            settings.node,
            settings.address,
            [settings.routes.get(n, a) for n, a in addresses.items()],
            settings.security,
            cluster=settings.cluster or (previous.cluster if previous else ""),
            waiting=waiting,
        )
        # Only now: until a leader answers, what lies here may be the last copy of something.
        self._world.storage.rmtree(self._paths.snapshots)
        self._world.storage.rmtree(self._paths.log)
        save_identity(self._world.storage, settings.data, identity)
        self._admitted(identity)
        return identity

    def _check_empty(self) -> None:
        """Refuse a directory that holds something and no identity: nothing there is ours."""
        storage, data = self._world.storage, self._settings.data
        for path in (self._paths.log, self._paths.snapshots):
            if storage.exists(path) and storage.listdir(path):
                message = (
                    f"{path}: is there, but {data}/{IDENTITY_FILE} is not: put that file back,"
                    " or name an empty directory to be admitted anew"
                )
                raise DataError(message)

    def _check(self, identity: NodeIdentity) -> None:
        settings = self._settings
        if identity.node != settings.node:
            message = (
                f"{settings.data} belongs to node {identity.node}, not to {settings.node}:"
                " each node has its own data directory"
            )
            raise DataError(message)
        if settings.cluster and identity.cluster != settings.cluster:
            message = (
                f"{settings.data} belongs to cluster {identity.cluster}, not to"
                f" {settings.cluster}: use that cluster's directory, or an empty one to join"
            )
            raise DataError(message)

    @property
    def cluster(self) -> str:
        """Id of the cluster, empty while it is not known."""
        return self._identity.cluster if self._identity is not None else ""

    def admission_facts(self, replica: ReplicaId) -> dict[str, object]:
        """Return what a node needs to start as ``replica``."""
        identity = self._identity
        if identity is None or self._log is None:
            message = "this node is still starting"
            raise DataError(message)
        return {
            "cluster": identity.cluster,
            "replica": replica,
            "hash_seed": identity.hash_seed,
            "members": [[m.replica, m.address, m.voter] for m in self._log.membership.members],
        }

    # --- authority -----------------------------------------------------------------------------

    async def _follow_authority(self) -> None:
        log, service, replica = self._log, self._service, self._replica
        if log is None or service is None or replica is None:
            return
        async for change in log.authority_changes():
            self._term_changes += 1
            service.renew_view()
            if change.mine:
                self._world.events.emit(Leading(node=self._settings.node, term=change.term))

    # --- gateway and health ----------------------------------------------------------------------

    def _is_member(self) -> bool:
        me = self._identity.replica if self._identity is not None else ""
        members = self._log.membership.members if self._log is not None else ()
        return any(member.replica == me for member in members)

    def _serve_gateway(self) -> None:
        if self._settings.http is None and self._settings.health is None:
            return
        self._own_health.start()
        self._tasks.append(self._world.spawn.task(self._own_health.run(), name="health"))
        if self._settings.http is None:
            return
        where = parse_address(self._settings.http)
        self._settings.security.check_bind(where.host)
        gateway = Gateway(
            self._spec,
            self._own_client,
            self.status,
            health_routes(self.health),
            local=self._stale_query,
            token=self._settings.security.client_token_check(),
        )
        self._gateway = GatewayServer(
            gateway.app, where.host, where.port, tls=self._settings.security.server_tls
        )
        self._tasks.append(self._world.spawn.task(self._gateway.serve(), name="gateway"))

    def _own_client(self) -> Any:
        if self._client is None:
            from outlast.cluster.client import Client

            self._client = Client(
                None,
                [seat.address for seat in self._seats()]
                or [self._settings.address, *self._settings.peers.values()],
                world=self._world,
                routes=self._settings.routes,
                security=self._settings.security,
                name=f"gateway of {self._settings.node}",
            )
        return self._client

    async def _stale_query(self, name: str, args: bytes) -> Reply:
        """Run a query on what this node has applied, with or without a majority."""
        if self._replica is None or self._phase != "serving":
            message = f"this node is {self._phase}: it has no state to read yet"
            raise UnavailableError(message, retry_after=1.0)
        return await answer_query(self._replica, name, args, stale=True)

    def _seats(self) -> list[Seat]:
        if self._log is None:
            return []
        return [Seat(node_of(m.replica), m.address, m.voter) for m in self._log.membership.members]

    # --- status ----------------------------------------------------------------------------------

    @property
    def http_port(self) -> int | None:
        """Port of the gateway, ``None`` without one."""
        return self._gateway.port if self._gateway is not None else None

    def status(self) -> dict[str, Any]:
        """Return what this node knows of itself and of the others, with plain values."""
        from outlast.cluster.status import node_status

        return node_status(
            settings=self._settings,
            identity=self._identity,
            phase=self._phase,
            log=self._log,
            replica=self._replica,
            peers=self._peers,
            listener=self._listener,
            machine=self._spec,
            uptime_ns=self._world.clock.monotonic_ns() - self._started_ns,
            term_changes=self._term_changes,
        )
