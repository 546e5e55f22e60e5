"""What a replica tells about itself."""

from dataclasses import asdict, dataclass
from typing import Any

from outlast.kernel import ReplicaId
from outlast.log import SnapshotRef
from outlast.state.applier import Applier
from outlast.state.batcher import Batcher
from outlast.state.core.authority import SYSTEM
from outlast.state.core.system import SystemMachine


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
    session_ttl_ns: int
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


def picture(
    me: ReplicaId,
    system: SystemMachine,
    applier: Applier,
    batcher: Batcher,
    *,
    now_ns: int,
    holds_system: bool,
    snapshot: SnapshotRef | None,
    snapshot_busy: bool,
    log_first: int,
    failure: BaseException | None,
) -> ReplicaStatus:
    """Gather the status of a replica from its parts."""
    row = system.authority.epochs.get(SYSTEM)
    return ReplicaStatus(
        me=me,
        applied=applier.passed,
        digest=system.digest,
        digests=tuple(applier.digests),
        comparable_from=system.comparable_from,
        log_time_ns=system.time.ns,
        age_ns=now_ns - applier.fresh_ns,
        system_epoch=row.epoch if row else 0,
        system_holder=row.holder if row else "",
        holds_system=holds_system,
        machine_version=system.members.machine_version,
        session_count=len(system.sessions),
        session_ttl_ns=system.limits.session_ttl_ns,
        key_count=len(system.keys),
        lease_count=len(system.authority.leases),
        replicas=tuple(system.members.rows),
        waiting_count=batcher.waiting_count,
        pending_bytes=batcher.pending_bytes,
        entry_count=batcher.entry_count,
        command_count=batcher.command_count,
        snapshot=snapshot,
        snapshot_busy=snapshot_busy,
        log_first=log_first,
        poisoned=applier.poisoned,
        failure=str(failure) if failure is not None else "",
    )
