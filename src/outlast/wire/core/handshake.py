"""The handshake: three messages and one pure decision, before anything else is accepted.

The dialler says *hello*: who it is, which cluster it belongs to, which channel it wants and
what entitles it to that. The listener answers *welcome*, or *refuse* with one line that names
both sides' values, and closes. Credentials are judged first: a stranger learns nothing else.

A hello without a cluster comes from a client that has not learnt the cluster's name yet; it is
accepted for every scope but peer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from outlast.kernel import ProtocolError

MAGIC: Final = "outlast/wire"
VERSIONS: Final = (1, 1)
"""Lowest and highest version of the wire format that this code speaks."""

_SHOWN = 80


class Scope(StrEnum):
    """What a connection may be used for."""

    CLIENT = "client"
    PEER = "peer"
    ADMIN = "admin"


_ALLOWS: Final[Mapping[Scope, frozenset[Scope]]] = {
    Scope.CLIENT: frozenset({Scope.CLIENT}),
    Scope.PEER: frozenset({Scope.PEER, Scope.CLIENT}),
    Scope.ADMIN: frozenset({Scope.ADMIN, Scope.CLIENT}),
}


def allows(granted: Scope, needed: Scope) -> bool:
    """Whether a caller that was granted one scope may do what needs the other.

    >>> allows(Scope.PEER, Scope.CLIENT), allows(Scope.ADMIN, Scope.PEER)
    (True, False)
    """
    return needed in _ALLOWS[granted]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who one side of a connection says it is.

    Args:
        cluster: Name of the cluster; empty for a client that does not know it yet.
        node: Id of the node; any name, or empty, for a client.
        incarnation: Which incarnation of the node; 0 for a client.
        hash_seed: ``PYTHONHASHSEED`` of a process that executes commands, else ``None``.
        versions: Lowest and highest version spoken of what runs above the wire.
        purpose: Free text shown in status, such as ``"node"`` or ``"client"``.
    """

    cluster: str = ""
    node: str = ""
    incarnation: int = 0
    hash_seed: int | None = None
    versions: tuple[int, int] = (1, 1)
    purpose: str = ""


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """First message of the dialler."""

    magic: str
    wire: tuple[int, int]
    versions: tuple[int, int]
    cluster: str
    node: str
    incarnation: int
    channel: str
    token: str | None = None
    hash_seed: int | None = None
    purpose: str = ""
    expect_node: str | None = None

    def __repr__(self) -> str:
        """Return the hello without its token."""
        return f"Hello(node={self.node!r}, cluster={self.cluster!r}, channel={self.channel!r})"


class Welcome(msgspec.Struct, frozen=True):
    """Answer of a listener that accepts."""

    wire: int
    version: int
    versions: tuple[int, int]
    cluster: str
    node: str
    incarnation: int
    hash_seed: int | None = None
    purpose: str = ""


class Refuse(msgspec.Struct, frozen=True):
    """Answer of a listener that does not. ``code`` is for programs, ``reason`` one line."""

    code: str
    reason: str


MISFIT: Final = "misfit"
"""Refusal code: the two do not belong together; repeating is useless."""

OVERLOADED: Final = "overloaded"
"""Refusal code: no room now; another time or another node."""

M = TypeVar("M", Hello, Welcome, Refuse)

_encode = msgspec.msgpack.Encoder().encode


def encode_message(message: Hello | Welcome | Refuse) -> bytes:
    """Return the body of a handshake frame."""
    return _encode(message)


def decode_message(kind: type[M], body: bytes) -> M:
    """Read the body of a handshake frame.

    Raises:
        ProtocolError: Definite. It is not such a message.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"{kind.__name__.lower()} message cannot be read: {show(str(error))}"
        ) from None


def show(value: object) -> str:
    """Return ``value`` for a message: one line of printable characters, of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def hello_of(
    identity: Identity, *, channel: str, token: str | None, cluster: str, expect_node: str | None
) -> Hello:
    """Return the hello that ``identity`` sends to ask for ``channel``."""
    return Hello(
        magic=MAGIC,
        wire=VERSIONS,
        versions=identity.versions,
        cluster=cluster,
        node=identity.node,
        incarnation=identity.incarnation,
        channel=channel,
        token=token,
        hash_seed=identity.hash_seed,
        purpose=identity.purpose,
        expect_node=expect_node,
    )


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the listener found out by itself about who is calling.

    Args:
        required: Whether the listener has tokens or TLS at all; without, everything is
            granted, because only loopback gets this far.
        token: Scope of the token shown, ``None`` when none was shown.
        token_valid: Whether the token shown is one of ours.
        names: Names in the verified certificate shown; ``None`` without one.
        tls: Whether the connection is encrypted.
    """

    required: bool
    token: Scope | None = None
    token_valid: bool = True
    names: Sequence[str] | None = None
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """The hello is accepted: the versions to speak, and the scope that it was granted."""

    wire: int
    version: int
    scope: Scope


def overlap(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """Return the highest version in both ranges, ``None`` if there is none.

    >>> overlap((1, 3), (2, 9))
    3
    """
    high = min(ours[1], theirs[1])
    return high if high >= max(ours[0], theirs[0]) else None


def judge_credentials(hello: Hello, needed: Scope, credentials: Credentials) -> Scope | Refuse:
    """Decide what the caller may do; ``needed`` is the scope of the channel it wants.

    A token that is shown must be valid, and its scope decides. A peer over TLS must show a
    certificate that names its node id as well. Without a token a verified certificate counts
    as a peer of that name, or as a client.
    """
    if not credentials.required:
        return needed
    if not credentials.token_valid:
        return Refuse(MISFIT, "the token shown is not one of ours; give one of the token file")
    named = credentials.names is not None and hello.node in credentials.names
    if needed is Scope.PEER and credentials.tls and not named:
        names = ", ".join(map(show, credentials.names or ())) or "no certificate"
        return Refuse(
            MISFIT,
            f"a peer's certificate must name its node id {show(hello.node)!r}; shown: {names}",
        )
    if credentials.token is not None:
        granted = credentials.token
    elif credentials.names is not None:
        granted = Scope.PEER if named else Scope.CLIENT
    else:
        return Refuse(
            MISFIT, f"channel {show(hello.channel)!r} needs a token or a certificate; none shown"
        )
    if not allows(granted, needed):
        return Refuse(
            MISFIT,
            f"channel {show(hello.channel)!r} needs scope {needed}; the scope shown is {granted}",
        )
    return granted


def judge_hello(
    hello: Hello,
    *,
    identity: Identity,
    channels: Mapping[str, Scope],
    credentials: Credentials,
) -> Admitted | Refuse:
    """Decide about a hello: admit it, or refuse with one line that names both values.

    Args:
        hello: What the dialler said.
        identity: Who the listener is.
        channels: The channels it serves, with the scope that each needs.
        credentials: What the listener found out about the caller's token and certificate.
    """
    if hello.magic != MAGIC:
        return Refuse(MISFIT, f"magic is {show(hello.magic)!r}; expected {MAGIC!r}")
    wire = overlap(VERSIONS, hello.wire)
    if wire is None:
        return Refuse(MISFIT, f"wire versions: yours {hello.wire}, ours {VERSIONS}")
    # A wrong channel must not tell strangers which channels exist: judged as a client's.
    needed = channels.get(hello.channel)
    granted = judge_credentials(hello, needed or Scope.CLIENT, credentials)
    if isinstance(granted, Refuse):
        return granted
    if needed is None:
        known = ", ".join(sorted(channels)) or "none"
        return Refuse(
            MISFIT, f"channel {show(hello.channel)!r} is not served here; served: {known}"
        )
    misfit = _judge_fit(hello, identity, needed)
    if misfit is not None:
        return Refuse(MISFIT, misfit)
    version = overlap(identity.versions, hello.versions)
    if version is None:
        return Refuse(MISFIT, f"versions: yours {hello.versions}, ours {identity.versions}")
    return Admitted(wire, version, granted)


def _judge_fit(hello: Hello, identity: Identity, needed: Scope) -> str | None:
    peer = needed is Scope.PEER
    if (hello.cluster or peer) and hello.cluster != identity.cluster:
        return f"cluster: yours {show(hello.cluster)!r}, ours {show(identity.cluster)!r}"
    if hello.expect_node is not None and hello.expect_node != identity.node:
        return f"node: you expected {show(hello.expect_node)!r}, this is {show(identity.node)!r}"
    if peer and not hello.node:
        return "node: a peer must say its node id, yours is empty"
    if peer and hello.node == identity.node:
        return f"node: you say you are {show(hello.node)!r}, which is this node"
    if (
        hello.hash_seed is not None
        and identity.hash_seed is not None
        and hello.hash_seed != identity.hash_seed
    ):
        return (
            f"PYTHONHASHSEED: yours {show(hello.hash_seed)}, ours {show(identity.hash_seed)}; "
            "one cluster has one"
        )
    return None


def judge_welcome(
    welcome: Welcome,
    *,
    identity: Identity,
    expect_cluster: str | None,
    expect_node: str | None,
    names: Sequence[str] | None,
) -> str | None:
    """Decide about a welcome: ``None`` if it fits, else one line that names both values.

    Args:
        welcome: What the listener said.
        identity: Who the dialler is.
        expect_cluster: Cluster that the dialler wants; ``None`` or empty for any.
        expect_node: Node that the dialler wants, ``None`` for any.
        names: Names in the listener's certificate, ``None`` without TLS.
    """
    if not VERSIONS[0] <= welcome.wire <= VERSIONS[1]:
        return f"wire version: theirs {show(welcome.wire)}, ours {VERSIONS}"
    if not identity.versions[0] <= welcome.version <= identity.versions[1]:
        return f"version: theirs {show(welcome.version)}, ours {identity.versions}"
    if expect_cluster and welcome.cluster != expect_cluster:
        return f"cluster: theirs {show(welcome.cluster)!r}, expected {show(expect_cluster)!r}"
    if expect_node is not None and welcome.node != expect_node:
        return f"node: theirs {show(welcome.node)!r}, expected {show(expect_node)!r}"
    if names is not None and welcome.node not in names:
        shown = ", ".join(map(show, names)) or "nothing"
        return f"certificate: it names {shown}, the node says {show(welcome.node)!r}"
    if (
        welcome.hash_seed is not None
        and identity.hash_seed is not None
        and welcome.hash_seed != identity.hash_seed
    ):
        return f"PYTHONHASHSEED: theirs {show(welcome.hash_seed)}, ours {identity.hash_seed}"
    return None


def peer_of(message: Hello | Welcome) -> Identity:
    """Return who the other side says it is."""
    return Identity(
        cluster=message.cluster,
        node=message.node,
        incarnation=message.incarnation,
        hash_seed=message.hash_seed,
        versions=message.versions,
        purpose=message.purpose,
    )
