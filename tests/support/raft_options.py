"""What a seed of the full cluster draws before its life begins: faults, sizes and times."""

from dataclasses import dataclass

from outlast.kernel import Prng
from outlast.state.core.limits import Limits
from tests.support.raft_machines import MS, SECOND
from tests.support.raft_storm import ACTIONS

LEASE_SCENES = ("lease_pause", "lease_edge", "lease_restart")
SCENES = ("starve", "break_off", "failover", "change_in_cut", "ahead", *LEASE_SCENES)
DAMAGE = ("wipe", "rot", "rot_snapshot", "drift", "jump", "slow_disk", "role", "tick")
LEASE_DRIFT_PPM = 50_000
"""Two clocks that are each off by this much differ by less than ``lease_drift``, a tenth."""


@dataclass
class Options:
    """What a seed drew."""

    count: int
    delay_ms: tuple[int, int]
    drop: int
    repeat: int
    disk_ms: tuple[int, int]
    weights: dict[str, int]
    small: bool
    lease_reads: bool
    seals: bool
    apply_ms: int
    drift_ppm: int
    clients: int
    reply_loss: int
    keyed: bool
    per_entry: int
    limits: Limits
    chunks: int
    chunk_ns: int

    @classmethod
    def draw(cls, prng: Prng) -> "Options":
        """Draw options; some kinds of fault are switched off entirely (swarm testing)."""
        names = (*ACTIONS, *DAMAGE)
        weights = {name: prng.below(4) if prng.chance(2, 3) else 0 for name in names}
        weights |= {name: prng.between(1, 3) if prng.chance(2, 3) else 0 for name in SCENES}
        weights["starve"] = prng.between(2, 4) if prng.chance(5, 6) else 0
        weights["propose"] = 16
        weights["read"] = 4
        weights["restart"] = 2 * weights["crash"] + 1
        weights["heal"] = 2 * (weights["isolate"] + weights["one_way"]) + 1
        weights["resume"] = 2 * weights["stall"] + 1
        weights["connect"] = weights["lost"] + 1
        weights["seal"] = 0  # see run()
        lease_reads = prng.chance(2, 5)
        if lease_reads:
            # Standing early, or a clock that jumps, would break what a lease rests on.
            weights["stand"] = weights["feud"] = weights["jump"] = 0
            weights["lease_pause"] += 1
        else:
            weights |= dict.fromkeys(LEASE_SCENES, 0)
        small = prng.chance(1, 3)
        wild = prng.choice((0, LEASE_DRIFT_PPM, LEASE_DRIFT_PPM, 400_000))
        return cls(
            count=prng.choice((3, 3, 3, 4, 5)),
            delay_ms=(0, prng.choice((1, 3, 10, 30))),
            drop=prng.choice((0, 0, 20, 100)),
            repeat=prng.choice((0, 0, 30, 150)),
            disk_ms=(0, prng.choice((0, 1, 5, 20))),
            weights=weights,
            small=small,
            lease_reads=lease_reads,
            seals=prng.chance(1, 4),
            apply_ms=prng.choice((0, 0, 2, 20)),
            drift_ppm=min(wild, LEASE_DRIFT_PPM) if lease_reads else wild,
            clients=prng.between(1, 4),
            reply_loss=prng.choice((0, 50, 200, 400)),
            keyed=prng.chance(1, 3),
            per_entry=1 if small else prng.choice((1, 1, 2, 4)),
            limits=_draw_limits(prng),
            chunks=prng.choice((2, 5, 12, 20)),
            chunk_ns=prng.choice((1, 5, 20)) * MS,
        )


def _draw_limits(prng: Prng) -> Limits:
    return Limits(
        sessions_max=prng.choice((2, 4, 1000, 1000)),
        window=8,
        session_ttl_ns=prng.choice((2, 600, 600)) * SECOND,
        session_reply_bytes_max=prng.choice((4, 1 << 20, 1 << 20)),
        checkpoint_entries=prng.choice((20, 100_000)),
    )
