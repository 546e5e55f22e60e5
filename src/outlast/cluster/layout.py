"""Making clusters: node directories on disk, and the plan of a local one.

``init_node`` writes one identity, once. A local cluster also has ``cluster.json``, which fixes
its id, nodes and ports for good: a second start continues, and a node whose directory has gone
since then is admitted anew instead of being made again.
"""

import itertools
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from outlast.cluster.identity import FILE as IDENTITY
from outlast.cluster.identity import (
    LOCK,
    NodeIdentity,
    first_members,
    load_identity,
    save_identity,
)
from outlast.kernel import ClusterId, ConfigError, DataError, NodeId, Prng, Storage, node_of
from outlast.log.files import read_whole, write_atomically

FORMAT = 1
FILE = "cluster.json"
_HASH_SEED_MAX = 1_000_000
_PORTS = range(12_000, 32_000)
_BLOCK = 50
_tried = itertools.count()
_claimed: set[tuple[int, int]] = set()
"""Blocks of ports that this process has claimed: its pid, since a fork must claim its own."""


def draw_cluster_id(prng: Prng) -> ClusterId:
    """Return a new cluster id, such as ``c-9f86d081884c7d65``."""
    return ClusterId(f"c-{prng.bits64():016x}")


def hash_seed_of(cluster: str) -> int:
    """Return the PYTHONHASHSEED that all nodes of ``cluster`` run under.

    Derived from the id, so that machines that were set up one by one agree.
    """
    return sum(cluster.encode()) * 31 % _HASH_SEED_MAX + 1


def init_node(
    storage: Storage,
    directory: str,
    node: NodeId,
    peers: Mapping[NodeId, str],
    *,
    cluster: ClusterId,
) -> NodeIdentity:
    """Make ``node`` a founding member of ``cluster`` in ``directory``.

    Every machine of a new cluster does this once, with the same peers and cluster id.

    Raises:
        ConfigError: Definite. The node is not among the peers.
        DataError: Definite. The directory has an identity already, or is not empty.
    """
    if node not in peers:
        message = f"node {node} is not among the peers {', '.join(peers)}"
        raise ConfigError(message)
    existing = load_identity(storage, directory)
    if existing is not None:
        message = (
            f"{directory}: is node {existing.node} of cluster {existing.cluster} already:"
            " start it with `outlast node`"
        )
        raise DataError(message)
    # An identity that a crash kept from its name is none yet.
    own = (LOCK, f"{IDENTITY}.new")
    if storage.exists(directory) and any(n not in own for n in storage.listdir(directory)):
        message = f"{directory}: not empty and without identity: name an empty directory"
        raise DataError(message)
    identity = NodeIdentity(
        cluster=cluster,
        node=node,
        incarnation=1,
        hash_seed=hash_seed_of(cluster),
        members=first_members(dict(peers)),
    )
    save_identity(storage, directory, identity)
    return identity


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """A cluster whose nodes are processes of one machine.

    Args:
        cluster: Its id.
        target: ``FILE.py:Class`` or ``module:Class`` of its machine.
        addresses: Of the nodes, for members and clients.
        http: Of the nodes' gateways; empty for none.
    """

    cluster: ClusterId
    target: str
    addresses: Mapping[NodeId, str]
    http: Mapping[NodeId, str]

    def directory(self, data: str, node: str) -> str:
        """Return the data directory of ``node``."""
        return f"{data}/{node}"


def load_plan(storage: Storage, data: str) -> LocalPlan | None:
    """Return the plan in ``data``, ``None`` if there is none.

    Raises:
        DataError: Definite. Unreadable, or of a newer format.
    """
    path = f"{data}/{FILE}"
    raw = read_whole(storage, path)
    if raw is None:
        return None
    try:
        row = json.loads(raw)
        newest = row["format"]
        if newest > FORMAT:
            message = (
                f"{path}: format {newest} is newer than this version of outlast reads"
                f" ({FORMAT}): upgrade outlast"
            )
            raise DataError(message)
        return LocalPlan(
            ClusterId(row["cluster"]),
            row["target"],
            {NodeId(k): v for k, v in row["addresses"].items()},
            {NodeId(k): v for k, v in row["http"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: not a cluster file ({error}): restore it, or name another directory"
        raise DataError(message) from error


def make_plan(
    storage: Storage,
    data: str,
    target: str,
    *,
    nodes: int,
    cluster: ClusterId,
    port: int,
    http_port: int | None,
) -> LocalPlan:
    """Make a new local cluster: its plan and every node's directory.

    Nodes that an earlier call made before it was cut short, and that never started, are kept:
    the plan then takes their cluster's id and nodes, with the addresses that they know.

    Args:
        storage: Where.
        data: The directory of the whole cluster.
        target: Of the machine.
        nodes: How many, from 1.
        cluster: Its id, unless there are such nodes.
        port: First port; 0 takes free ones.
        http_port: First port of the gateways; 0 takes free ones, ``None`` makes none.

    Raises:
        ConfigError: Definite. Not 1 to 9 nodes.
        DataError: Definite. A node's directory is not empty, or belongs to another cluster.
    """
    if not 1 <= nodes <= 9:
        message = f"--nodes {nodes}: give 1 to 9; an odd number survives the loss of the rest"
        raise ConfigError(message)
    names = [NodeId(f"n{n}") for n in range(1, nodes + 1)]
    begun = _begun(storage, data, names)
    if begun is not None:
        cluster = begun.cluster
        addresses = {node_of(m.replica): m.address for m in begun.members}
    else:
        addresses = _addresses(names, port, [])
    http: dict[NodeId, str] = {}
    if http_port is not None:
        http = _addresses(names, http_port, list(addresses.values()))
    plan = LocalPlan(cluster, target, addresses, http)
    storage.makedirs(data)
    for name in names:
        directory = plan.directory(data, name)
        identity = load_identity(storage, directory)
        if identity is None or identity.cluster != cluster:
            init_node(storage, directory, name, addresses, cluster=cluster)
    _save_plan(storage, data, plan)
    return plan


def _addresses(names: list[NodeId], port: int, taken: list[str]) -> dict[NodeId, str]:
    """Return an address for each node, from ``port`` on; for 0 free ones that are not taken."""
    ports = range(port, port + len(names)) if port else free_ports(len(names) + len(taken))
    found = [f"127.0.0.1:{number}" for number in ports]
    if not port:
        found = [address for address in found if address not in taken]
    return dict(zip(names, found, strict=False))


def _begun(storage: Storage, data: str, names: list[NodeId]) -> NodeIdentity | None:
    """Return a node that a start made before it was cut short, ``None`` if there is none.

    Only if none has ever started, and all agree on the cluster and on just these nodes:
    nobody can have voted, so that the rest may be made as if at the same time.
    """
    loaded = [load_identity(storage, f"{data}/{name}") for name in names]
    found = [identity for identity in loaded if identity is not None]
    if not found:
        return None
    first = found[0]
    same = all(
        (one.cluster, one.members, one.incarnation) == (first.cluster, first.members, 1)
        and not (one.started or one.condemned)
        for one in found
    )
    return first if same and [node_of(m.replica) for m in first.members] == names else None


def _save_plan(storage: Storage, data: str, plan: LocalPlan) -> None:
    row = {
        "format": FORMAT,
        "cluster": plan.cluster,
        "target": plan.target,
        "addresses": dict(plan.addresses),
        "http": dict(plan.http),
    }
    write_atomically(storage, f"{data}/{FILE}", json.dumps(row, indent=2).encode() + b"\n")


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nothing is bound to, and nobody else is given.

    They lie below those that systems give to outgoing connections: one of these may be taken,
    or even be connected to itself by whoever dials it, while its node is down for a moment.
    They come from blocks that this process claims until it ends: another one that looks at the
    same time would find free what the nodes of this one have not bound yet, or for a moment not.

    Raises:
        ConfigError: Definite. There are not as many.
    """
    found: list[int] = []
    for tried in itertools.islice(_tried, len(_PORTS)):
        port = _PORTS[(os.getpid() * 61 + tried) % len(_PORTS)]
        block = port - port % _BLOCK
        if port == block or not _claim(block):
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    message = f"{count} free ports from {_PORTS.start} to {_PORTS.stop - 1}: there are not as many"
    raise ConfigError(message)


def _claim(block: int) -> bool:
    """Whether the ports above ``block`` are this process's: it holds the first of them bound."""
    mine = (os.getpid(), block)
    if mine in _claimed:
        return True
    claim = socket.socket()
    try:
        claim.bind(("127.0.0.1", block))
    except OSError:
        claim.close()
        return False
    claim.detach()  # the system closes it when this process ends
    _claimed.add(mine)
    return True
