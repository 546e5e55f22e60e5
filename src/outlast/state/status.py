"""What a replica tells about itself."""

from dataclasses import asdict, dataclass
from typing import Any

from outlast.log import SnapshotRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What a replica knows of itself. Indices are of the log; times in nanoseconds."""

    me: str
    applied: int
    digest: bytes
    digests: tuple[tuple[int, bytes], ...]
    comparable_from: int | None
    log_time_ns: int
    age_ns: int
    system_epoch: int
    system_holder: str
    holds_system: bool
    machine_version: int
    session_count: int
    key_count: int
    lease_count: int
    replicas: tuple[str, ...]
    waiting_count: int
    pending_bytes: int
    entry_count: int
    command_count: int
    snapshot: SnapshotRef | None
    snapshot_busy: bool
    log_first: int
    poisoned: int
    failure: str

    def facts(self) -> dict[str, Any]:
        """Return the same as plain data for JSON; digests in hexadecimal."""
        facts = asdict(self)
        facts["digest"] = self.digest.hex()
        facts["digests"] = [[index, digest.hex()] for index, digest in self.digests]
        facts["replicas"] = list(self.replicas)
        if self.snapshot is not None:
            facts["snapshot"]["digest"] = self.snapshot.digest.hex()
        return facts
