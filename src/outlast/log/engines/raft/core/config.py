"""Configurations (who votes, who learns) and the records that carry them.

A configuration is written as an entry of kind CONFIG and holds from the moment it is in the
log, committed or not (Raft paper 6). While ``outgoing`` is not empty it is *joint*: decisions
need a majority of ``voters`` and one of ``old_voters``.
"""

from dataclasses import dataclass, field

import msgspec

from outlast.kernel import ProtocolError, ReplicaId
from outlast.log.api import Member, Membership


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration. ``members`` are the new ones, ``outgoing`` the old voters if joint."""

    version: int
    members: tuple[Member, ...]
    outgoing: tuple[Member, ...] = ()
    voters: tuple[ReplicaId, ...] = field(init=False)
    old_voters: tuple[ReplicaId, ...] = field(init=False)
    everyone: dict[ReplicaId, Member] = field(init=False)

    def __post_init__(self) -> None:
        voters = tuple(member.replica for member in self.members if member.voter)
        old_voters = tuple(member.replica for member in self.outgoing)
        everyone = {member.replica: member for member in (*self.outgoing, *self.members)}
        object.__setattr__(self, "voters", voters)
        object.__setattr__(self, "old_voters", old_voters)
        object.__setattr__(self, "everyone", everyone)

    @property
    def joint(self) -> bool:
        """Whether this is the middle step of a change."""
        return bool(self.outgoing)

    def votes(self, replica: ReplicaId) -> bool:
        """Return whether ``replica`` is a voter of the new or of the old members."""
        return replica in self.voters or replica in self.old_voters

    @property
    def membership(self) -> Membership:
        """The same as users of the Log see it."""
        return Membership(version=self.version, members=self.members, joint=self.joint)


def config_of(membership: Membership) -> Config:
    """Return the configuration for a membership that is not in the middle of a change."""
    return Config(membership.version, membership.members)


class MemberRecord(msgspec.Struct, array_like=True, frozen=True):
    """A member on the wire and on disk."""

    replica: str
    address: str
    voter: bool
    zone: str


class ConfigRecord(msgspec.Struct, array_like=True, frozen=True):
    """A configuration on the wire and on disk: payload of a CONFIG entry."""

    version: int
    members: list[MemberRecord]
    outgoing: list[MemberRecord]


class Incoming(msgspec.Struct, array_like=True, frozen=True):
    """A snapshot that is about to be installed, kept so that a crash in between loses nothing."""

    index: int
    term: int
    config: ConfigRecord
    seal_index: int
    seal_next: bytes


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """What a node must know that a trimmed log no longer tells: ``Persist.mark``.

    ``configs`` are (index, record), oldest first, from the one in force at the oldest snapshot
    to the newest committed one.
    """

    admitted: bool
    seal_index: int
    seal_next: bytes
    configs: list[tuple[int, ConfigRecord]]
    incoming: Incoming | None = None


_encoder = msgspec.msgpack.Encoder()
_config_decoder = msgspec.msgpack.Decoder(ConfigRecord)
_mark_decoder = msgspec.msgpack.Decoder(Mark)


def _record_of_member(member: Member) -> MemberRecord:
    return MemberRecord(member.replica, member.address, member.voter, member.zone)


def _member_of(record: MemberRecord) -> Member:
    return Member(ReplicaId(record.replica), record.address, record.voter, record.zone)


def record_of(config: Config) -> ConfigRecord:
    """Return the record of ``config``."""
    return ConfigRecord(
        config.version,
        [_record_of_member(member) for member in config.members],
        [_record_of_member(member) for member in config.outgoing],
    )


def config_from(record: ConfigRecord) -> Config:
    """Return the configuration that ``record`` describes."""
    return Config(
        record.version,
        tuple(_member_of(member) for member in record.members),
        tuple(_member_of(member) for member in record.outgoing),
    )


def encode_config(config: Config) -> bytes:
    """Return the payload of the CONFIG entry for ``config``."""
    return _encoder.encode(record_of(config))


def decode_config(payload: bytes) -> Config:
    """Return the configuration in a CONFIG entry's payload or a snapshot offer.

    Raises:
        ProtocolError: Definite. The bytes are not a configuration.
    """
    try:
        return config_from(_config_decoder.decode(payload))
    except msgspec.MsgspecError as error:
        raise ProtocolError(
            f"raft: configuration of {len(payload)} bytes unreadable: {error}"
        ) from error


def encode_mark(mark: Mark) -> bytes:
    """Return the bytes of ``mark`` for ``Persist.mark``."""
    return _encoder.encode(mark)


def decode_mark(body: bytes) -> Mark:
    """Return the mark in ``body``.

    Raises:
        ProtocolError: Definite. The bytes are not a mark.
    """
    try:
        return _mark_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"raft: mark of {len(body)} bytes unreadable: {error}") from error
