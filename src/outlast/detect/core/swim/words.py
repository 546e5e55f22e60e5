"""Between what a node keeps and what is sent or told to the user."""

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import Evidence, EvidenceKind, MemberState
from outlast.detect.core.swim.peer import Peer

_STATES = {
    MemberState.ALIVE: 0,
    MemberState.SUSPECT: 1,
    MemberState.UNREACHABLE: 1,
    MemberState.DEAD: 2,
    MemberState.LEFT: 3,
}


def evidence_of(accusation: wire.Accusation) -> Evidence:
    """Return what an accuser saw, for the user."""
    kind = EvidenceKind.REFUSED if accusation.refused else EvidenceKind.SILENCE
    return Evidence(
        kind, accusation.silence_ms / 1e3, accusation.asked, accusation.nacks,
        accusation.observers, accusation.score,
    )  # fmt: skip


def accusations_against(peer: Peer) -> list[wire.Accusation]:
    """Return the accusations that are passed on."""
    return [] if peer.suspicion is None else peer.suspicion.sent()


def alive_news(source: Peer | wire.Entry) -> wire.AliveNews:
    """Return what a member said of itself, as far as it is known."""
    return wire.AliveNews(
        source.name, source.address, source.incarnation, source.session, dict(source.metadata)
    )


def entry_of(peer: Peer) -> wire.Entry:
    """Return a member's line in a full exchange."""
    return wire.Entry(
        peer.name, peer.address, peer.incarnation, peer.session, _STATES[peer.state],
        dict(peer.metadata), accusations_against(peer),
    )  # fmt: skip
