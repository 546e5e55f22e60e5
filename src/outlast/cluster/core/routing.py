"""Which node a client should talk to, decided from what the nodes say.

A client knows addresses before it knows nodes. Each node that it reaches pushes *views*
(term, leader, members). The newest term wins; within a term a named leader beats an unknown
one. A leader that is lost or silent is *doubted*: the client goes on waiting for it, but asks
the other members too, and follows the first view of a newer term that names a leader.

States: no view -> looking; a view without leader -> looking; leader known and trusted ->
steady; leader known and doubted -> looking as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SeatView:
    """One member as a view names it."""

    node: str
    address: str


@dataclass(slots=True)
class Routing:
    """What one client knows of the cluster.

    Args:
        seeds: Addresses given by the user, in order.
        routes: Addresses that override whatever is learnt, by node.
    """

    seeds: tuple[str, ...]
    routes: Mapping[str, str] = field(default_factory=dict)
    term: int = 0
    leader: str = ""
    doubted: bool = False
    seats: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Node reached at an address, as its handshake said."""

    def reached(self, address: str, node: str) -> None:
        """A connection to ``address`` was made and the node there named itself."""
        self.names[address] = node

    def learn(self, term: int, leader: str, seats: list[SeatView]) -> bool:
        """Take a view and return whether the leader to talk to has changed."""
        if term < self.term:
            return False
        before = (self.term, self.leader)
        if term > self.term or (leader and not self.leader):
            if term > self.term or leader != self.leader:
                self.doubted = False
            self.term = term
            self.leader = leader
        if seats and (leader == self.leader or not self.seats):
            self.seats = {seat.node: seat.address for seat in seats}
        return bool(self.leader) and (self.term, self.leader) != before

    def redirected(self, node: str, hint: str) -> None:
        """``node`` refused as it does not lead; ``hint`` names who it thinks does, or is empty."""
        if self.leader == node:
            self.leader = ""
        if hint and hint != node and not self.leader:
            self.leader = hint
            self.doubted = False

    def doubt(self, node: str) -> bool:
        """The connection to ``node`` broke or it is silent; returns whether it was the leader."""
        if node != self.leader or not node:
            return False
        self.doubted = True
        return True

    def trust(self, node: str) -> None:
        """``node`` answered: it is not silent after all."""
        if node == self.leader:
            self.doubted = False

    @property
    def looking(self) -> bool:
        """Whether the client should ask around for a leader."""
        return self.doubted or not self.leader

    def address_of(self, node: str) -> str | None:
        """Return where to dial ``node``: the override, the view's, or a seed that was it."""
        if node in self.routes:
            return self.routes[node]
        if node in self.seats:
            return self.seats[node]
        for address, name in self.names.items():
            if name == node:
                return address
        return None

    def ask(self) -> list[str]:
        """Return the addresses worth asking for a leader, each once, the likely first."""
        found: list[str] = []
        for node in sorted(self.seats, key=lambda node: node == self.leader and self.doubted):
            address = self.address_of(node)
            if address is not None:
                found.append(address)
        overridden = {self.seats.get(node) for node in self.routes}
        found.extend(
            self.routes.get(self.names.get(seed, ""), seed)
            for seed in self.seeds
            if seed not in overridden
        )
        return list(dict.fromkeys(found))
