"""All mutants, in the order of the documentation."""

from tools.mutants.caller import CLIENT
from tools.mutants.consensus import ELECTION, READS, REPLICATION
from tools.mutants.detect_detectors import DETECTORS, OURSELVES, PATIENCE, WATCHED
from tools.mutants.detect_health import HEALTH, SERVED
from tools.mutants.detect_members import CARRIED, NEWS, PROBES, SUSPICION
from tools.mutants.detect_pool import CHOOSING, EJECTION, FAILOVER, RETURN
from tools.mutants.detect_watch import RESTARTS, TREES, WATCHDOGS
from tools.mutants.disk import DRIVER, WAL
from tools.mutants.guards import BREAKER, RETRY
from tools.mutants.machine import REPLICA, SESSIONS
from tools.mutants.members import MEMBERSHIP, SNAPSHOTS
from tools.mutants.shares import ALLOWANCES, ANSWERS, FLEET, LIMITS
from tools.mutants.table import Mutant
from tools.mutants.waits import WAITS

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
    "Detection: detectors and goals": DETECTORS,
    "Detection: who is watched": WATCHED,
    "Detection: the observer's own health": OURSELVES,
    "Detection: a leader's silence": PATIENCE,
    "Membership: news": NEWS,
    "Membership: probes": PROBES,
    "Membership: suspicion, gossip, bytes": SUSPICION,
    "Membership: keys, streams, feeds": CARRIED,
    "Health": HEALTH,
    "Health: pages, files, draining": SERVED,
    "Watchdogs": WATCHDOGS,
    "Supervision: restarts": RESTARTS,
    "Supervision: trees": TREES,
    "Pools: choosing": CHOOSING,
    "Pools: ejection": EJECTION,
    "Pools: coming back": RETURN,
    "Pools: blame and failover": FAILOVER,
    "Waits": WAITS,
}
"""Title of each part of the product, with its mutants."""

ROWS: tuple[Mutant, ...] = tuple(row for rows in GROUPS.values() for row in rows)
