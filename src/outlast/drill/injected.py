"""One fault that was injected: what was planned, what it hit, and what shows that it happened."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.core.schedule import Planned
from outlast.drill.core.victims import Aim


@dataclass(slots=True)
class Injected:
    """One fault that was injected. Times are nanoseconds since the load began.

    ``evidence`` shows that it happened; where it is empty, ``missing`` may say why.
    """

    planned: Planned
    aim: Aim
    start_ns: int
    leader: str = ""
    end_ns: int = 0
    healed: bool = False
    evidence: str = ""
    missing: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    recovered_ns: int | None = None
    asked: dict[str, int] = field(default_factory=dict)
    heals: AsyncExitStack = field(default_factory=AsyncExitStack)

    def lack(self, why: str) -> None:
        """Take its evidence back: ``why`` it shows nothing."""
        self.evidence, self.missing = "", why

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        return not self.healed

    @property
    def cuts_off(self) -> bool:
        """Whether it cuts its victims off from the other nodes."""
        fault = self.planned.fault
        return fault.kind == "partition" and fault.variant != "bridge"
