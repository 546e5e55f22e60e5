"""The ``mark`` file: what a replica must know that its trimmed log no longer tells.

It holds the members the replica began with and the core's own record (members at the base,
seal, admission), which the driver does not read. It is replaced as a whole: written beside,
synced, renamed, directory synced.
"""

from functools import partial

import crc32c
import msgspec

from outlast.kernel import CorruptionError, DataError, ReplicaId, World
from outlast.log.api import Member, Membership
from outlast.log.files import read_whole, write_atomically

NAME = "mark"
_FORMAT = 1
_LANE = "raft-mark"


class _Content(msgspec.Struct, array_like=True, frozen=True):
    format: int
    version: int
    members: list[tuple[str, str, bool, str]]
    mark: bytes | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Content)


class MarkFile:
    """Reads and replaces the file.

    Args:
        world: Storage and threads.
        directory: Where the replica's log lies; must exist.
    """

    def __init__(self, world: World, directory: str) -> None:
        self._world = world
        self._directory = directory
        self.path = f"{directory}/{NAME}"
        self.bootstrap: Membership | None = None
        self.mark: bytes | None = None

    async def load(self) -> bool:
        """Read the file; return whether there is one.

        Raises:
            CorruptionError: Its checksum or form is wrong.
            DataError: Definite. A newer version of outlast wrote it.
        """
        storage, path = self._world.storage, self.path
        data = await self._world.offload.run(_LANE, lambda: read_whole(storage, path))
        if data is None:
            return False
        if len(data) < 5:
            raise CorruptionError(f"{self.path}: cut to {len(data)} bytes", file=self.path)
        stored = int.from_bytes(data[:4], "little")
        found = crc32c.crc32c(data[4:])
        if stored != found:
            raise CorruptionError(
                f"{self.path}: CRC32C is {found:08x}, {stored:08x} was written", file=self.path
            )
        try:
            content = _decoder.decode(data[4:])
        except msgspec.MsgspecError as error:
            raise CorruptionError(f"{self.path}: {error}", file=self.path) from error
        if content.format > _FORMAT:
            raise DataError(
                f"{self.path}: format {content.format}; this version reads up to {_FORMAT}"
            )
        self.mark = content.mark
        members = (
            Member(ReplicaId(replica), address, voter, zone)
            for replica, address, voter, zone in content.members
        )
        self.bootstrap = Membership(content.version, tuple(members))
        return True

    async def begin(self, membership: Membership) -> None:
        """Make the members that the log begins with durable."""
        self.bootstrap = membership
        await self.save(None)

    async def save(self, mark: bytes | None) -> None:
        """Replace the mark; durable on return.

        Raises:
            OSError: The old content stands.
        """
        bootstrap = self.bootstrap or Membership(0, ())
        members: list[tuple[str, str, bool, str]] = [
            (one.replica, one.address, one.voter, one.zone) for one in bootstrap.members
        ]
        body = _encoder.encode(_Content(_FORMAT, bootstrap.version, members, mark))
        data = crc32c.crc32c(body).to_bytes(4, "little") + body
        storage, path = self._world.storage, self.path
        before = partial(self._world.fault_point, "raft.before_mark_rename")
        await self._world.offload.run(_LANE, lambda: write_atomically(storage, path, data, before))
        self.mark = mark
