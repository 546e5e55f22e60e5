"""Who a data directory belongs to: written once, before the node can promise anything.

``outlast init`` writes it. A node whose directory has no identity was never admitted, or has
lost its disk: it may have voted before, so it never votes or acknowledges until the cluster
has admitted it under its next incarnation (TigerBeetle's *recover is not format*).
"""

import json
from dataclasses import dataclass

from outlast.kernel import (
    ClusterId,
    ConfigError,
    DataError,
    File,
    NodeId,
    ReplicaId,
    Storage,
    replica_id,
)
from outlast.log import Member, Membership
from outlast.log.files import read_whole, write_atomically
from outlast.wire import parse_address

FORMAT = 1
FILE = "identity.json"
LOCK = "LOCK"
_NODE_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Identity of one data directory.

    Args:
        cluster: The cluster that it belongs to.
        node: The node, for life.
        incarnation: Grows each time the node is admitted anew; the first is 1.
        hash_seed: PYTHONHASHSEED of the whole cluster, checked in the handshake.
        members: The members at the time of admission; the log knows better later.
        admitted: True for a founding member; false for one that was admitted later, which
            learns the members from the log and votes only once they name it.
        started: True once a log was created here: from then on a missing log is a lost disk.
        condemned: Why what lies here must not be used again; empty while it may.
    """

    cluster: ClusterId
    node: NodeId
    incarnation: int
    hash_seed: int
    members: tuple[Member, ...]
    admitted: bool = True
    started: bool = False
    condemned: str = ""

    @property
    def replica(self) -> ReplicaId:
        """The replica that this directory holds."""
        return replica_id(self.node, self.incarnation)

    @property
    def bootstrap(self) -> Membership:
        """The first membership of the log."""
        return Membership(version=0, members=self.members)


def check_node_id(node: str) -> NodeId:
    """Return ``node`` as an id.

    Raises:
        ConfigError: It is empty, longer than 64 characters, or has other characters than
            letters, digits, ``.``, ``_`` and ``-``.
    """
    plain = node.replace(".", "").replace("_", "").replace("-", "")
    if not node or len(node) > _NODE_ID_MAX or not (plain.isascii() and plain.isalnum()):
        message = (
            f"node id {node!r}: use 1 to {_NODE_ID_MAX} letters, digits, '.', '_' or '-',"
            " such as n1"
        )
        raise ConfigError(message)
    return NodeId(node)


def lock_directory(storage: Storage, directory: str) -> File:
    """Keep ``directory`` for this process and return the lock's file; closing it unlocks.

    Raises:
        DataError: Definite. Another process runs a node in it.
    """
    storage.makedirs(directory)
    file = storage.open(f"{directory}/{LOCK}", create=True)
    if not file.lock():
        file.close()
        message = (
            f"{directory}: already open elsewhere, a node runs in it: stop that one, or name"
            " another --data"
        )
        raise DataError(message)
    return file


def load_identity(storage: Storage, directory: str) -> NodeIdentity | None:
    """Return the identity of ``directory``, ``None`` if it has none.

    Raises:
        DataError: The file is unreadable or of a newer format.
    """
    path = f"{directory}/{FILE}"
    raw = read_whole(storage, path)
    if raw is None:
        return None
    try:
        data = json.loads(raw)
        newest = data["format"]
        if newest > FORMAT:
            message = (
                f"{path}: format {newest} is newer than this version of outlast reads"
                f" ({FORMAT}): upgrade outlast on this machine"
            )
            raise DataError(message)
        return NodeIdentity(
            cluster=ClusterId(data["cluster"]),
            node=NodeId(data["node"]),
            incarnation=int(data["incarnation"]),
            hash_seed=int(data["hash_seed"]),
            members=tuple(
                Member(ReplicaId(row["replica"]), row["address"], row["voter"], row["zone"])
                for row in data["members"]
            ),
            admitted=bool(data["admitted"]),
            started=bool(data["started"]),
            condemned=str(data["condemned"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path}: not an identity file ({error}): restore it from a backup of {FILE}"
        raise DataError(message) from error


def save_identity(storage: Storage, directory: str, identity: NodeIdentity) -> None:
    """Write ``identity`` atomically and durably."""
    storage.makedirs(directory)
    data = {
        "format": FORMAT,
        "cluster": identity.cluster,
        "node": identity.node,
        "incarnation": identity.incarnation,
        "hash_seed": identity.hash_seed,
        "admitted": identity.admitted,
        "started": identity.started,
        "condemned": identity.condemned,
        "members": [
            {"replica": m.replica, "address": m.address, "voter": m.voter, "zone": m.zone}
            for m in identity.members
        ],
    }
    raw = json.dumps(data, indent=2).encode() + b"\n"
    write_atomically(storage, f"{directory}/{FILE}", raw)


def parse_peers(text: str) -> dict[NodeId, str]:
    """Read ``n1=host:port,n2=host:port``.

    Raises:
        ConfigError: A part is not ``NODE=HOST:PORT``, or an id or address comes twice.
    """
    peers: dict[NodeId, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, given = part.partition("=")
        if not equals or ":" not in given:
            message = f"peer {part!r}: write NODE=HOST:PORT, such as n1=10.0.0.1:7400"
            raise ConfigError(message)
        node = check_node_id(name)
        address = str(parse_address(given))
        if address.endswith(":0"):
            message = f"peer {part!r}: port 0 is none that can be dialled: write the node's own"
            raise ConfigError(message)
        if node in peers:
            message = f"node id {node!r} stands twice in the peers: each node needs its own"
            raise ConfigError(message)
        if address in peers.values():
            message = f"address {address!r} stands twice in the peers: each node needs its own"
            raise ConfigError(message)
        peers[node] = address
    if not peers:
        message = "no peers given: write NODE=HOST:PORT,…, such as n1=10.0.0.1:7400"
        raise ConfigError(message)
    return peers


def first_members(peers: dict[NodeId, str]) -> tuple[Member, ...]:
    """Return the voters of a new cluster: every node in its first incarnation."""
    return tuple(Member(replica_id(node, 1), address) for node, address in peers.items())
