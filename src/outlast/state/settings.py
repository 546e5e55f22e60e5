"""Settings of one replica: what it may use of this machine.

Nothing here changes what an entry does; limits that do are agreed (:class:`.Limits`).
"""

from dataclasses import dataclass

from outlast.kernel import ConfigError
from outlast.state.core.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """How a replica batches, applies and saves.

    Args:
        cluster: Cluster id, written into snapshots; a snapshot of another is refused.
        address: Told to the others in the replicas table.
        zone: Rack, host or site, told likewise.
        limits: Agreed limits that this replica asks for when it holds role ``system``;
            ``None`` leaves what is in force.
        entry_bytes_max: Most bytes of commands in one entry; the log's own bound also holds.
        entry_commands_max: Most commands in one entry.
        inflight_entries_max: Most entries handed to the log and not yet committed; beyond it
            commands wait and gather into larger entries, each of which costs every replica
            less than several small ones.
        queue_bytes_max: Most bytes of commands that wait; beyond it they are refused.
        append_seconds: How long an entry may take to commit before its commands are
            answered as indefinite.
        slice_seconds: How long applying may keep the event loop before letting others run.
        command_seconds_max: A command that ran longer stops the node: it is a failure.
        digest_every: Record the running digest at multiples of this index.
        tick_seconds: How often the holder of role ``system`` looks whether time must move.
        tick_seconds_max: Longest time that log time may lag while something waits for it.
        poison_crashes: So often may the process die while applying one entry before the
            replica waits for an agreed skip.
    """

    cluster: str = ""
    address: str = ""
    zone: str = ""
    limits: Limits | None = None
    entry_bytes_max: int = 1 << 20
    entry_commands_max: int = 512
    inflight_entries_max: int = 4
    queue_bytes_max: int = 16 << 20
    append_seconds: float = 30.0
    slice_seconds: float = 0.005
    command_seconds_max: float = 10.0
    digest_every: int = 1024
    tick_seconds: float = 1.0
    tick_seconds_max: float = 10.0
    poison_crashes: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigError: A bound that is not positive, or relations that do not hold.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"replica settings: {name} is {value}; it must be above 0")
        if self.entry_commands_max > 65_535:
            raise ConfigError(
                f"replica settings: entry_commands_max is {self.entry_commands_max}; at most 65535"
            )
        if self.slice_seconds >= self.command_seconds_max:
            raise ConfigError(
                f"replica settings: slice_seconds {self.slice_seconds} is not below "
                f"command_seconds_max {self.command_seconds_max}"
            )
        if self.tick_seconds > self.tick_seconds_max:
            raise ConfigError(
                f"replica settings: tick_seconds {self.tick_seconds} is above "
                f"tick_seconds_max {self.tick_seconds_max}"
            )
