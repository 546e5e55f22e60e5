"""What this machine permits, fault by fault, and why not."""

from dataclasses import dataclass
from typing import Any

from outlast.inject.core.catalogue import CATALOGUE, FaultRow
from outlast.inject.disk import volume_permitted
from outlast.inject.identity import require_linux
from outlast.kernel import ConfigError


@dataclass(frozen=True, slots=True)
class FaultPermit:
    """A fault of the catalogue, and whether it can be injected here.

    Args:
        row: The fault.
        permitted: Whether it can be injected by this process.
        why_not: What is missing; empty if it can.
    """

    row: FaultRow
    permitted: bool
    why_not: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it in plain types."""
        row = self.row
        return {
            "fault": row.name,
            "category": row.category,
            "what": row.what,
            "how": row.how,
            "needs": list(row.needs),
            "target": row.target,
            "targets": list(row.targets),
            "built": row.built,
            "simulated": row.simulated,
            "permitted": self.permitted,
            "why_not": self.why_not,
        }


def permits() -> tuple[FaultPermit, ...]:
    """Return every fault of the catalogue with what this machine says to it; blocking, once."""
    missing = {"linux": _linux(), "proxy": "", "namespaces": volume_permitted()}
    return tuple(_permit(row, missing) for row in CATALOGUE)


def _permit(row: FaultRow, missing: dict[str, str]) -> FaultPermit:
    if not row.built:
        why = "only in the simulator" if row.simulated else "not built yet"
        return FaultPermit(row, False, why)
    why = next((missing[need] for need in row.needs if missing[need]), "")
    return FaultPermit(row, not why, why)


def _linux() -> str:
    try:
        require_linux("signals to processes")
    except ConfigError as error:
        return str(error)
    return ""
