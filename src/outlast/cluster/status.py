"""The status of one node.

One flat mapping, which the gateway, ``outlast status``, the metrics and the demo's table read.
"""

from typing import Any

from outlast.cluster.identity import NodeIdentity
from outlast.cluster.peers import Peers
from outlast.cluster.settings import NodeSettings
from outlast.kernel import node_of
from outlast.log.engines.raft import RaftLog
from outlast.state import MachineSpec, Replica
from outlast.wire import WireListener

_NS = 1_000_000_000


def node_status(
    *,
    settings: NodeSettings,
    identity: NodeIdentity | None,
    phase: str,
    log: RaftLog | None,
    replica: Replica | None,
    peers: Peers | None,
    listener: WireListener | None,
    machine: MachineSpec,
    uptime_ns: int,
    term_changes: int,
) -> dict[str, Any]:
    """Return the status of a node with plain values (JSON and msgpack)."""
    facts: dict[str, Any] = {
        "schema": 1,
        "node": settings.node,
        "address": settings.address,
        "phase": phase,
        "machine": machine.name,
        "machine_version": machine.version,
        "uptime_seconds": round(uptime_ns / _NS, 3),
        "role": "",
        "ready": False,
    }
    if identity is not None:
        facts |= {
            "cluster": identity.cluster,
            "incarnation": identity.incarnation,
            "replica": identity.replica,
        }
    if listener is not None:
        facts["connections"] = len(listener.connections)
    if log is not None:
        facts |= _log_facts(log, peers)
        facts["term_changes"] = term_changes
    if replica is not None:
        facts |= _replica_facts(replica)
    facts["ready"] = phase == "serving" and bool(facts.get("leader"))
    return facts


def _log_facts(log: RaftLog, peers: Peers | None) -> dict[str, Any]:
    authority = log.authority
    membership = log.membership
    stats = log.stats()
    commit = stats.commit_index
    matches = {row.replica: row for row in log.progress()}
    members = []
    for member in membership.members:
        row = matches.get(member.replica)
        members.append(
            {
                "node": node_of(member.replica),
                "replica": member.replica,
                "address": member.address,
                "voter": member.voter,
                "zone": member.zone,
                "lag": max(0, commit - row.match) if row is not None else None,
                "reachable": row.reachable if row is not None else None,
                "snapshot_percent": row.snapshot_percent if row is not None else None,
                "problem": peers.problems.get(member.replica, "") if peers else "",
            }
        )
    return {
        "role": stats.role,
        "leading": int(authority.mine),
        "term": authority.term,
        "voted_term": stats.voted_term,
        "voted_for": stats.voted_for,
        "leader": node_of(authority.holder) if authority.holder is not None else "",
        "commit_index": commit,
        "first_index": log.first,
        "bytes_written": stats.bytes_written,
        "fsyncs": stats.sync_count,
        "oldest_write_seconds": round(stats.oldest_write_ns / _NS, 6),
        "membership_version": membership.version,
        "members": members,
        "warnings": _warnings(members),
    }


def _replica_facts(replica: Replica) -> dict[str, Any]:
    status = replica.status()
    snapshot = status.snapshot
    return {
        "applied_index": status.applied,
        "digest": status.digest.hex(),
        "sessions": status.session_count,
        "session_ttl": status.session_ttl_ns / _NS,
        "keys": status.key_count,
        "leases": status.lease_count,
        "pending_commands": status.waiting_count,
        "entries": status.entry_count,
        "commands": status.command_count,
        "machine_version_active": status.machine_version,
        "snapshot_index": snapshot.index if snapshot is not None else 0,
        "snapshot_bytes": snapshot.size_bytes if snapshot is not None else 0,
        "failure": status.failure,
    }


def even_count(voters: int) -> str:
    """Say why an even number of voters is no better than one less."""
    lost = (voters - 1) // 2
    return f"{voters} voters: survives the loss of {lost}, as {voters - 1} would"


def _warnings(members: list[dict[str, Any]]) -> list[str]:
    """Say what would take a majority down at once."""
    voters = [row for row in members if row["voter"]]
    found = []
    if len(voters) in {1, 2}:
        found.append(f"{len(voters)} voters: losing one stops the cluster")
    elif voters and len(voters) % 2 == 0:
        found.append(even_count(len(voters)))
    zones: dict[str, int] = {}
    for row in voters:
        if row["zone"]:
            zones[row["zone"]] = zones.get(row["zone"], 0) + 1
    for zone, count in sorted(zones.items()):
        if count * 2 > len(voters):
            found.append(f"zone {zone} holds {count} of {len(voters)} voters, a majority")
    return found
