"""Commands that run nodes: serve, node, init."""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from outlast.cli import EXIT_INTERRUPTED, EXIT_OK, show
from outlast.cli.access import Flag, Routes, parse_routes

if TYPE_CHECKING:
    from outlast.cluster.local import LocalCluster
    from outlast.kernel import Event
    from outlast.state import ReplicaSettings

Storage = Literal["disk", "lossy"]


def serve(
    target: str,
    /,
    *,
    nodes: int = 3,
    data: str = "data",
    port: int = 7400,
    http_port: int = 7480,
    health: str | None = None,
    storage: Storage = "disk",
    snapshot_entries: int | None = None,
    json: Flag = False,
) -> int:
    """Run a cluster of local nodes, and restart those that die.

    Args:
        target: FILE.py:Class, module:Class, or a ready machine such as kv.
        nodes: How many nodes a new cluster has, 1 to 9.
        data: Directory of the cluster; made at the first start, continued later.
        port: First port for clients and nodes; 0 takes free ones.
        http_port: First port of the HTTP gateways; 0 takes free ones.
        health: HOST:PORT where probes of the whole cluster are answered; none by default. Each
            gateway answers those of its node.
        storage: disk, or lossy: a kill loses all that was not fsynced, like a power cut.
        snapshot_entries: Take a snapshot after so many log entries; 100,000 by default.
        json: Print where it serves as one line of JSON.
    """
    from outlast.cluster import LocalCluster
    from outlast.cluster.status import even_count
    from outlast.host import make_world
    from outlast.kernel import EventBus
    from outlast.state import load_machine

    load_machine(target)
    bus = EventBus()
    cluster = LocalCluster(
        make_world(events=bus),
        target,
        data,
        nodes=nodes,
        port=port,
        http_port=http_port,
        storage=storage,
        node_options=_snapshot_options(snapshot_entries),
        health=health,
    )
    bus.subscribe(_teller(cluster))
    if len(cluster.nodes) % 2 == 0:
        _note("warning", even_count(len(cluster.nodes)))
    return asyncio.run(_serve(cluster, as_json=json))


def _teller(cluster: "LocalCluster") -> "Callable[[Event], None]":
    """Return what says that a node stays down or fails again and again, and why."""
    from outlast.cluster.settings import EXIT_CANNOT_RUN
    from outlast.detect.events import ChildExited, CrashLoop

    told: list[str] = []

    def tell(event: "Event") -> None:
        if isinstance(event, ChildExited) and event.code == EXIT_CANNOT_RUN:
            _note(event.child, f"stays down: {cluster.complaint(event.child) or event.reason}")
        elif isinstance(event, CrashLoop) and event.child not in told:
            told.append(event.child)
            _note(event.child, f"ends again and again ({event.reason}); its log says why")

    return tell


async def _serve(cluster: "LocalCluster", *, as_json: bool) -> int:
    asked: list[int] = []
    until = asyncio.Event()

    def stop(number: int) -> None:
        asked.append(number)
        until.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    ended = asyncio.ensure_future(cluster.ended())
    stopped = asyncio.ensure_future(until.wait())
    ready = asyncio.ensure_future(cluster.ready())
    try:
        await cluster.start()
        await asyncio.wait({ended, stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not asked and not ended.done():
            ready.result()
            text = show.serving(
                cluster.plan, fresh=cluster.fresh, health=cluster.health_url, as_json=as_json
            )
            print(text, flush=True)
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            from outlast.cli import say

            return say("no node can run")
        return EXIT_INTERRUPTED if signal.SIGINT in asked else EXIT_OK
    finally:
        for task in (ended, stopped, ready):
            task.cancel()
        await asyncio.gather(ended, stopped, ready, return_exceptions=True)
        await cluster.stop()


def node(
    target: str,
    /,
    *,
    id: str,
    listen: str,
    data: str,
    advertise: str | None = None,
    peers: str | None = None,
    route: Routes = (),
    http: str | None = None,
    health: str | None = None,
    cluster: str | None = None,
    storage: Storage = "disk",
    snapshot_entries: int | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_ca: str | None = None,
    tokens: str | None = None,
    token: str | None = None,
) -> int:
    """Run one node of a cluster.

    Args:
        target: FILE.py:Class, module:Class, or a ready machine such as kv.
        id: Id of the node, for life.
        listen: HOST:PORT to listen on for nodes and clients.
        data: Its data directory, made by `outlast init`; empty to be admitted anew.
        advertise: HOST:PORT that others dial; --listen by default.
        peers: The other members, NODE=HOST:PORT,…, to ask for admission.
        route: NODE=HOST:PORT: dial this instead of what is learnt. Repeatable.
        http: HOST:PORT of the HTTP gateway; none by default.
        health: HOST:PORT where probes are answered even while the node is too busy to; none by
            default. The gateway answers them, too.
        cluster: Cluster id that the directory must belong to.
        storage: disk, or lossy: a kill loses all that was not fsynced, like a power cut.
        snapshot_entries: Take a snapshot after so many log entries, agreed by the leader's
            setting and kept until another one gives a number; 100,000 by default.
        tls_cert: Own certificate, a PEM file; its name is the node's id.
        tls_key: Its private key, a PEM file.
        tls_ca: Authorities to trust, a PEM file; turns TLS on.
        tokens: File of accepted tokens, lines of `name scope token`.
        token: Token to show to other nodes; the first peer token by default.
    """
    from outlast.cluster import NodeSettings, run_node
    from outlast.cluster.identity import check_node_id, parse_peers
    from outlast.wire import Security

    settings = NodeSettings(
        node=check_node_id(id),
        data=data,
        listen=listen,
        advertise=advertise or "",
        peers=parse_peers(peers) if peers else {},
        routes=parse_routes(route),
        http=http,
        health=health,
        cluster=cluster or "",
        replica=_replica_settings(snapshot_entries),
        security=Security.from_files(
            certificate=tls_cert, key=tls_key, ca=tls_ca, tokens=tokens, token=token
        ),
    )
    _log_to_stderr()
    return run_node(target, settings, storage=storage, notify=lambda text: _note(id, text))


def _snapshot_options(entries: int | None) -> list[str]:
    """Return what `outlast serve` tells its nodes; refuses here what they would refuse."""
    _replica_settings(entries)
    return [] if entries is None else ["--snapshot-entries", str(entries)]


def _replica_settings(snapshot_entries: int | None) -> "ReplicaSettings":
    from outlast.kernel import ConfigError
    from outlast.state import Limits, ReplicaSettings

    if snapshot_entries is None:
        return ReplicaSettings()
    if snapshot_entries < 1:
        message = f"--snapshot-entries {snapshot_entries}: give at least 1"
        raise ConfigError(message)
    return ReplicaSettings(limits=Limits(checkpoint_entries=snapshot_entries))


def _note(node: str, text: str) -> None:
    print(f"{node}: {text}", file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )


def init(
    *,
    id: str,
    peers: str,
    data: str,
    cluster: str | None = None,
    json: Flag = False,
) -> int:
    """Make a founding member of a new cluster, once per machine.

    Args:
        id: Id of this node, one of the peers.
        peers: All founding members, NODE=HOST:PORT,…, the same on each machine.
        data: Its data directory, empty or missing.
        cluster: Cluster id; drawn on the first machine, to be given on the others.
        json: Print JSON.
    """
    from outlast.cluster import draw_cluster_id, init_node
    from outlast.cluster.identity import check_node_id, parse_peers
    from outlast.host import default_world
    from outlast.kernel import ClusterId

    world = default_world()
    identity = init_node(
        world.storage,
        data,
        check_node_id(id),
        parse_peers(peers),
        cluster=ClusterId(cluster) if cluster else draw_cluster_id(world.prng),
    )
    print(show.initialised(identity, data, peers, drawn=not cluster, as_json=json))
    return EXIT_OK
