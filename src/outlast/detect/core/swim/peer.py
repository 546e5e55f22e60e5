"""What a node keeps of another member."""

from collections.abc import Mapping
from types import MappingProxyType

from outlast.detect.core.swim.api import Member, MemberState
from outlast.detect.core.swim.suspicion import Suspicion


class Peer:
    """One other member. ``session`` is drawn anew by each process that bears the name."""

    __slots__ = (
        "address", "heard_ns", "in_ring", "incarnation", "metadata", "name", "probed_ns",
        "rttvar_ns", "session", "since_ns", "srtt_ns", "state", "suspicion",
    )  # fmt: skip

    def __init__(self, name: str, address: str, incarnation: int, session: int) -> None:
        self.name = name
        self.address = address
        self.incarnation = incarnation
        self.session = session
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self.state = MemberState.ALIVE
        self.since_ns = 0
        self.heard_ns = 0
        self.probed_ns = 0
        self.suspicion: Suspicion | None = None
        self.srtt_ns: int | None = None
        self.rttvar_ns = 0
        self.in_ring = False

    @property
    def gone(self) -> bool:
        """Whether it is dead or has left."""
        return self.state is MemberState.DEAD or self.state is MemberState.LEFT

    def measured(self, rtt_ns: int) -> None:
        """Take a round trip into the estimate (RFC 6298, section 2)."""
        if self.srtt_ns is None:
            self.srtt_ns, self.rttvar_ns = rtt_ns, rtt_ns // 2
            return
        self.rttvar_ns += (abs(self.srtt_ns - rtt_ns) - self.rttvar_ns) // 4
        self.srtt_ns += (rtt_ns - self.srtt_ns) // 8

    def usual_ns(self) -> int:
        """Return within what a round trip usually ends; 0 before the first."""
        return 0 if self.srtt_ns is None else self.srtt_ns + 4 * self.rttvar_ns

    def member(self) -> Member:
        """Return it as others see it."""
        accusers = tuple(self.suspicion.accusations) if self.suspicion is not None else ()
        return Member(
            self.name, self.address, self.incarnation, self.state, self.metadata, accusers,
            self.since_ns, self.srtt_ns,
        )  # fmt: skip
