"""Events of nodes and of the supervisor of local ones."""

from dataclasses import dataclass

from outlast.kernel import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReady(Event):
    """The node serves members and clients."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopped(Event):
    """The node has stopped in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailed(Event):
    """The node can no longer keep its promises and stops."""

    level: Level = "error"
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading(Event):
    """This node leads from now on."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForAdmission(Event):
    """The node's directory has no identity, so it may have voted before: it takes no part."""

    level: Level = "warning"
    directory: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDiverged(Event):
    """A replica's digest differs from that of a majority: it is taken out and rebuilt."""

    level: Level = "error"
    replica: str
    index: int
    what: str
