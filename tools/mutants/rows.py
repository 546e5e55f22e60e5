"""All mutants, in the order of the documentation."""

from tools.mutants.caller import CLIENT
from tools.mutants.consensus import ELECTION, READS, REPLICATION
from tools.mutants.disk import DRIVER, WAL
from tools.mutants.guards import BREAKER, RETRY
from tools.mutants.machine import REPLICA, SESSIONS
from tools.mutants.members import MEMBERSHIP, SNAPSHOTS
from tools.mutants.shares import ALLOWANCES, ANSWERS, FLEET, LIMITS
from tools.mutants.table import Mutant

GROUPS: dict[str, tuple[Mutant, ...]] = {
    "Elections": ELECTION,
    "Replication and commitment": REPLICATION,
    "Reads and leases": READS,
    "Members": MEMBERSHIP,
    "Snapshots in the protocol": SNAPSHOTS,
    "Write-ahead log": WAL,
    "From the protocol to the disk": DRIVER,
    "Sessions": SESSIONS,
    "Replica and checkpoints": REPLICA,
    "Client": CLIENT,
    "Protected calls: breaker": BREAKER,
    "Protected calls: retry, limits of time, hedge": RETRY,
    "Protected calls: budget and rate": ALLOWANCES,
    "Protected calls: permits and learned limits": LIMITS,
    "Protected calls: answers, keys and votes": ANSWERS,
    "Protected calls: the fleet": FLEET,
}
"""Title of each part of the product, with its mutants."""

ROWS: tuple[Mutant, ...] = tuple(row for rows in GROUPS.values() for row in rows)
