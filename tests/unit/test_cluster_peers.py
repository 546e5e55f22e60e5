"""Incoming connections of members: the newest counts."""

from types import SimpleNamespace
from typing import Any

from outlast.cluster.peers import Peers, _Outgoing
from outlast.host import make_world
from outlast.kernel import ReplicaId
from outlast.wire import Identity, Security, WireListener


class Handler:
    def __init__(self) -> None:
        self.lost_replicas: list[str] = []
        self.frames: list[bytes] = []

    def received(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        self.frames.append(body)

    def connected(self, replica: ReplicaId, channel: str) -> None: ...

    def lost(self, replica: ReplicaId, channel: str) -> None:
        self.lost_replicas.append(replica)


def made() -> tuple[Peers, Handler]:
    world = make_world()
    identity = Identity(cluster="c", node="n1", incarnation=1)
    listener = WireListener(world, identity, Security())
    peers = Peers(world, listener, identity=identity, security=Security())
    handler = Handler()
    peers.set_handler(handler)
    return peers, handler


def dialled(peers: Peers) -> Any:
    incoming = peers._accept("raft")(None)  # type: ignore[arg-type]
    incoming.opened(SimpleNamespace(peer=Identity(cluster="c", node="n2", incarnation=3)))
    return incoming


def test_a_closed_connection_means_that_the_member_is_lost():
    peers, handler = made()
    dialled(peers).closed(None)
    assert handler.lost_replicas == ["n2#3"]


def test_an_old_connection_that_closes_late_says_nothing():
    peers, handler = made()
    old, new = dialled(peers), dialled(peers)
    old.closed(None)
    assert handler.lost_replicas == []
    new.closed(None)
    assert handler.lost_replicas == ["n2#3"]


def test_a_member_that_the_log_does_not_name_yet_is_answered_on_its_own_connection():
    """A leader that was admitted while we were away could not be heard by us otherwise."""
    peers, _ = made()
    sent: list[tuple[int, bytes]] = []
    incoming = peers._accept("raft")(None)  # type: ignore[arg-type]
    connection = SimpleNamespace(
        peer=Identity(cluster="c", node="n2", incarnation=3),
        send=lambda kind, stream, body: sent.append((kind, body)),
    )
    incoming.opened(connection)
    assert peers.send(ReplicaId("n2#3"), "raft", 17, b"taken")
    assert sent == [(17, b"taken")]
    incoming.closed(None)
    assert not peers.send(ReplicaId("n2#3"), "raft", 17, b"lost")
    assert not peers.send(ReplicaId("n9#1"), "raft", 17, b"unknown")


def test_an_answer_on_a_connection_that_we_dialled_is_heard():
    peers, handler = made()
    peers.enable()
    link = _Outgoing(peers, ReplicaId("n2#3"), "raft")
    link.frame(18, 0, b"answer")
    assert handler.frames == [b"answer"]


def test_nothing_is_delivered_before_the_node_is_ready():
    peers, handler = made()
    incoming = dialled(peers)
    incoming.frame(16, 0, b"early")
    peers.enable()
    incoming.frame(16, 0, b"in time")
    assert handler.frames == [b"in time"]
