"""One machine of the full cluster: its state, its clock, and a disk that may be damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from outlast.kernel import CorruptionError
from outlast.log.engines.raft.core.types import Entry
from outlast.state.core.log_time import HolderClock
from tests.support.raft_checker import Checker
from tests.support.raft_disk import BrokenError, Host, View
from tests.support.raft_replica import Replica, Saved


@dataclass
class Machine(Host):
    """A host with a state, a clock and a disk that may be damaged."""

    state: Replica | None = None
    saved: Saved | None = None
    parts: list[bytes] = field(default_factory=list)
    parts_of: bytes = b""
    broken_off: bool = False
    resumed: bool = False
    trimming: tuple[int, int] | None = None  # (ticket, before)
    rotten: list[Entry] = field(default_factory=list)
    slow_ns: int = 0
    applying: bool = False
    waiting: dict[int, tuple[int, object]] = field(default_factory=dict)
    reading: list[tuple[int, int]] = field(default_factory=list)
    holder: HolderClock = field(default_factory=HolderClock)
    wall_ns: int = 0

    @property
    def damaged(self) -> bool:
        """Whether this disk may cost the replica its life."""
        return bool(self.rotten) or (self.saved is not None and not self.saved.whole)

    @property
    def running(self) -> Replica:
        """The state of this life."""
        if self.state is None:
            raise BrokenError(f"{self.replica} has no state")
        return self.state


class RottenView(View):
    """A view of the log of which some entries do not read."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.written)
        self.machine = machine

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        found = super().entries(first, last, bytes_max)
        if self.machine.rotten and meet(found, self.machine.rotten):
            raise CorruptionError(f"{self.machine.replica}: an entry does not match its checksum")
        return found


class Blind(Checker):
    """Looks at nothing inside: the run is judged by what clients and disks show at the end."""

    def __init__(self) -> None:
        super().__init__(spy=False)

    def after_step(self, host: Host, node: object, hosts: object) -> None:
        """Only note what restarts must not see."""
        host.commit_seen = host.alive.state.commit

    def on_write(self, *_: object, **__: object) -> None:
        """Nothing."""

    def on_send(self, *_: object) -> None:
        """Nothing."""

    def on_restart(self, host: Host) -> None:
        """Nothing."""


def meet(entries: Sequence[Entry], rotten: Sequence[Entry]) -> bool:
    """Return whether one of ``entries`` is one of those that do not read."""
    return any(entry is bad for bad in rotten for entry in entries)
