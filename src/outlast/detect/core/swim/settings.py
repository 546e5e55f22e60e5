"""How quickly a membership suspects, convicts and tells: one object, four profiles."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000

SCORE_MAX: Final = 8
"""The highest local health multiplier (Lifeguard's S)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimSettings:
    """Settings of one membership; all members should have the same. Durations are seconds.

    The defaults are those of `lan`: a killed process is removed everywhere within 2.5 s (16
    members), a member that is silent for less than 3 s is not removed, one whose machine is
    silent (power, network) is removed after 4 to 6 s.

    Args:
        probe_interval: A node probes one member per interval, all in turn.
        probe_timeout: Least time given to an answer; slower round trips get more.
        indirect: How many others are asked to try when a member does not answer.
        gossip_interval: How often news are sent while there are any.
        gossip_fanout: To how many members at a time.
        retransmit: Each piece of news is sent ``retransmit * (1 + log10(members + 1))`` times.
        silence: Least time that a silent suspect has to object; the time that gossip takes to
            reach everybody is added to it.
        silence_factor: A suspect that nobody else accuses has so many times as long.
        confirmations: Further accusers after which it has the least time; fewer where fewer live.
        refused: Time to object for a suspect whose port refuses two observers.
        sync_interval: A full exchange with a random member; longer with more than 32 members.
        join_retry: First wait before a join is tried again; doubles up to ten times as much.
        reconnect: How often a removed member, or a seed if nobody is left, is tried again.
        isolated: How long a node that hears nobody at all believes in itself less than in the
            others: it suspects them, but removes nobody.
        leave_timeout: Longest wait for others to acknowledge a good-bye.
        dead_gossip: A removed member is told so for that long, so that it can object.
        dead_keep: A removed member is remembered for that long, against old news of it.
        confirm: Ask the hook before a member is dead; until then it is unreachable.
        confirm_again: The hook is asked again after that long.
        members_max: Members known at once, removed ones included.
        packet_bytes_max: Longest datagram before sealing.
        local_health: Lifeguard: a node that gets no answers from anybody slows down.
        dynamic: Lifeguard: the time to object depends on the number of accusers.
        buddy: Lifeguard: a suspect is told so in the very probe.
        nacks: Lifeguard: those asked say so when they get no answer either.
        refusals: Tell a refused port from silence.
        guard: A node that hears nobody, or was itself stopped, removes nobody; and one accuser
            alone removes nobody elsewhere.

    Raises:
        ConfigError: A value or a relation is out of range.
    """

    probe_interval: float = 0.3
    probe_timeout: float = 0.2
    indirect: int = 3
    gossip_interval: float = 0.1
    gossip_fanout: int = 3
    retransmit: int = 4
    silence: float = 3.3
    silence_factor: float = 6.0
    confirmations: int = 3
    refused: float = 0.4
    sync_interval: float = 20.0
    join_retry: float = 0.5
    reconnect: float = 5.0
    isolated: float = 60.0
    leave_timeout: float = 1.0
    dead_gossip: float = 30.0
    dead_keep: float = 600.0
    confirm: bool = False
    confirm_again: float = 5.0
    members_max: int = 1000
    packet_bytes_max: int = 1150
    local_health: bool = True
    dynamic: bool = True
    buddy: bool = True
    nacks: bool = True
    refusals: bool = True
    guard: bool = True

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not 0 < value < 1e6:
                raise ConfigError(
                    f"SwimSettings: {field.name} is {value}; a number of seconds above 0"
                    if field.name != "silence_factor"
                    else f"SwimSettings: silence_factor is {value}; 1 or more"
                )
        whole = {"indirect": (0, 16), "gossip_fanout": (1, 16), "retransmit": (1, 16)}
        whole |= {"confirmations": (0, 7), "members_max": (2, 10_000)}
        whole |= {"packet_bytes_max": (1100, 1200)}
        for name, (low, high) in whole.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"SwimSettings: {name} is {getattr(self, name)}; {low} to {high}"
                )
        if self.silence_factor < 1:
            raise ConfigError(f"SwimSettings: silence_factor is {self.silence_factor}; 1 or more")
        if self.silence < self.probe_interval:
            raise ConfigError(
                f"SwimSettings: silence ({self.silence} s) is below "
                f"probe_interval ({self.probe_interval} s)"
            )
        if self.dead_keep < self.dead_gossip:
            raise ConfigError(
                f"SwimSettings: dead_keep ({self.dead_keep} s) is below "
                f"dead_gossip ({self.dead_gossip} s)"
            )

    @classmethod
    def lan(cls, **changes: Any) -> "SwimSettings":
        """Return the defaults, for machines in one place, with ``changes``."""
        return cls(**changes)

    @classmethod
    def fast(cls, **changes: Any) -> "SwimSettings":
        """Return settings that remove a killed process within 1.5 s, a silent one in 2 to 4 s."""
        base = cls(
            probe_interval=0.22, probe_timeout=0.12, gossip_interval=0.06, silence=1.6,
            refused=0.2, sync_interval=15.0, reconnect=3.0, isolated=30.0,
        )  # fmt: skip
        return replace(base, **changes)

    @classmethod
    def wan(cls, **changes: Any) -> "SwimSettings":
        """Return settings for links with tenths of seconds of delay, and losses."""
        base = cls(
            probe_interval=1.0, probe_timeout=0.6, gossip_interval=0.4, gossip_fanout=4,
            silence=8.0, refused=1.5, sync_interval=30.0, join_retry=1.0, reconnect=15.0,
            isolated=120.0, leave_timeout=3.0, dead_gossip=60.0,
        )  # fmt: skip
        return replace(base, **changes)

    @classmethod
    def plain(cls, **changes: Any) -> "SwimSettings":
        """Return SWIM without Lifeguard and without what we add, to compare; not for use."""
        base = cls(
            local_health=False, dynamic=False, buddy=False, nacks=False, refusals=False,
            guard=False,
        )  # fmt: skip
        return replace(base, **changes)


def ns(seconds: float) -> int:
    """Return seconds as whole nanoseconds."""
    return round(seconds * _NS)
