"""The numbers of a Raft node, checked together at creation."""

from dataclasses import dataclass

from outlast.kernel import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """Timing and bounds of one Raft node. All members should use equal values.

    Args:
        election_timeout: Seconds of leader silence before a follower looks for another; each
            follower draws its own from 1 to 1.8 times this. A leader that hears no quorum for
            this long steps down.
        accrual: Learn from the arrival of heartbeats how long a leader's silence is borne: between
            three fifths of ``election_timeout`` and four times it. Off, it is ``election_timeout``
            always, as in the Raft paper; so it is with ``lease_reads``.
        heartbeat: Seconds between heartbeats. At most a third of ``election_timeout``.
        entry_bytes_max: Largest payload of one entry.
        append_bytes_max: Entries in one AppendRequest, in bytes; one larger entry goes alone.
        inflight_messages_max: AppendRequests with entries under way to one member.
        inflight_bytes_max: Bytes of entries under way to one member. At least
            ``append_bytes_max``.
        uncommitted_bytes_max: Bytes that a leader accepts before the first is committed; past
            it proposals end as ``OverloadedError``. At least ``entry_bytes_max``.
        stall: Seconds after which the driver reports a write that does not end
            (``PersistStalled``). Above ``heartbeat``.
        lease_reads: Answer reads under a clock lease instead of a round. Off by default: it
            trusts clocks. Must be equal on all members, because followers then keep their
            promise not to vote even when the leader's connection breaks.
        lease_drift: Largest share by which two members' clocks may differ in rate; the lease
            is shortened by it. Above 0, at most 0.5.
        chunk_window: Snapshot chunks under way to one member.
        commit_notice: Seconds after which an idle leader tells followers of a new commit index.
            Below ``heartbeat``.
        late_wake: A timer that fires later than this, in seconds, means that the process was
            paused; it is also the extra wait granted then. Below ``election_timeout``.
        cache_bytes_max: Entries kept in memory for sending, in bytes.
        reads_max: Reads that wait for a round at once; past it ``OverloadedError``.
        catch_up_silence: Seconds without a word from a joining member after which the
            membership change is given up. Above ``election_timeout``.

    Raises:
        ConfigError: A value is out of range, or two do not fit each other.
    """

    election_timeout: float = 0.5
    accrual: bool = True
    heartbeat: float = 0.06
    entry_bytes_max: int = MIB
    append_bytes_max: int = MIB
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 16 * MIB
    uncommitted_bytes_max: int = 64 * MIB
    stall: float = 1.0
    lease_reads: bool = False
    lease_drift: float = 0.1
    chunk_window: int = 8
    commit_notice: float = 0.005
    late_wake: float = 0.1
    cache_bytes_max: int = 32 * MIB
    reads_max: int = 65_536
    catch_up_silence: float = 5.0

    def __post_init__(self) -> None:
        for name in (
            "election_timeout", "heartbeat", "entry_bytes_max", "append_bytes_max",
            "inflight_messages_max", "inflight_bytes_max", "uncommitted_bytes_max", "stall",
            "lease_drift", "chunk_window", "commit_notice", "late_wake", "cache_bytes_max",
            "reads_max", "catch_up_silence",
        ):  # fmt: skip
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"RaftSettings: {name} is {value}; it must be above 0")
        if self.lease_drift > 0.5:
            raise ConfigError(
                f"RaftSettings: lease_drift is {self.lease_drift}; it must be at most 0.5"
            )
        if self.heartbeat * 3 > self.election_timeout:
            raise ConfigError(
                f"RaftSettings: heartbeat {self.heartbeat} s is more than a third of "
                f"election_timeout {self.election_timeout} s; two lost heartbeats would start "
                "an election"
            )
        self._below("append_bytes_max", "inflight_bytes_max")
        self._below("entry_bytes_max", "uncommitted_bytes_max")
        self._below("commit_notice", "heartbeat")
        self._below("heartbeat", "stall")
        self._below("late_wake", "election_timeout")
        self._below("election_timeout", "catch_up_silence")

    def _below(self, small: str, large: str) -> None:
        low, high = getattr(self, small), getattr(self, large)
        if low > high:
            raise ConfigError(f"RaftSettings: {small} is {low}, above {large} {high}")


def nanoseconds(seconds: float) -> int:
    """Return a public duration as the integer that cores count in."""
    return round(seconds * 1_000_000_000)
