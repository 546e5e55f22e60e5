"""Making a log directory ready: recover, cut, seal the predecessor, begin a new segment."""

from dataclasses import dataclass

from outlast.kernel import DataError, File, Prng, World
from outlast.log.wal.core.current import Current
from outlast.log.wal.core.scan import Status
from outlast.log.wal.core.view import Places, View
from outlast.log.wal.events import TornTailCut
from outlast.log.wal.recovery import (
    QUARANTINE,
    SPARE_SUFFIX,
    Recovered,
    ScanReport,
    SegmentInfo,
    raise_damage,
    read_log,
    take_lock,
)
from outlast.log.wal.settings import WalIdentity, WalSettings
from outlast.log.wal.writer import SegmentWriter, make_spare


@dataclass(frozen=True, slots=True)
class Opened:
    """A log that is ready for appends. ``segments`` includes the new one, last."""

    created: bool
    lock: File
    writer: SegmentWriter
    view: View
    places: Places
    segments: list[SegmentInfo]
    cut: list[TornTailCut]

    def abandon(self) -> None:
        """Close everything again: whoever asked for it has gone."""
        self.writer.close()
        self.lock.close()


def open_log(
    world: World, directory: str, identity: WalIdentity, settings: WalSettings, prng: Prng
) -> Opened:
    """Recover ``directory``, or create it, and begin a new segment in it. Blocks.

    Never appends entries to a predecessor's segment: that is cut, sealed and left alone.
    """
    storage = world.storage
    storage.makedirs(directory)
    lock = take_lock(storage, directory)
    writer: SegmentWriter | None = None
    try:
        storage.fsync_dir(directory)
        log = read_log(storage, directory, identity, settle=True)
        raise_damage(directory, log.damage)
        created = log.current is None or log.current.newest == 0
        current = log.current or Current(0, identity.cluster, identity.log, identity.replica,
                                         0, log.next_seq, 0, 0)  # fmt: skip
        writer = SegmentWriter(
            world, directory, _next_incarnation(current), next_seq=log.next_seq,
            chain=log.chain, number=len(log.segments), fsync=settings.fsync,
            reserve_bytes=settings.hard_state_reserve_bytes, prng=prng,
        )  # fmt: skip
        writer.record()
        cut = _finish_tail(world, directory, log, writer)
        for name in (*log.stale, *log.spares):
            storage.unlink(f"{directory}/{name}")
            storage.fsync_dir(directory)
        first = make_spare(world, f"{directory}/0{SPARE_SUFFIX}", settings.first_bytes)
        writer.switch(first, log.view, identity)
    except BaseException:
        if writer is not None:
            writer.close()
        lock.close()
        raise
    segments = [*log.segments, *([writer.info] if writer.info else [])]
    return Opened(created, lock, writer, log.view, log.places, segments, cut)


def _next_incarnation(current: Current) -> Current:
    return Current(
        current.serial, current.cluster, current.log, current.replica,
        current.incarnation + 1, current.oldest, current.newest, current.durable,
    )  # fmt: skip


def _finish_tail(
    world: World, directory: str, log: Recovered, writer: SegmentWriter
) -> list[TornTailCut]:
    """Move a torn tail into quarantine, cut the newest segment to its good part and seal it."""
    if log.tail is None:
        return []
    info, (_, scan) = log.segments[-1], log.tail
    cut: list[TornTailCut] = []
    file = world.storage.open(info.path)
    size = file.size()
    if scan.status is Status.TORN:
        cut.append(_quarantine(world, directory, info, file, scan.end))
    if size > scan.end:
        file.truncate(scan.end)
        file.fsync()
    if scan.sealed:
        file.close()
    else:
        writer.adopt(file, info, offset=scan.end, size=size, index=scan.index)
        writer.seal()
    return cut


def _quarantine(
    world: World, directory: str, info: SegmentInfo, file: File, offset: int
) -> TornTailCut:
    """Copy what follows ``offset`` to ``quarantine/``, durably; zeros at the end are left out."""
    folder = f"{directory}/{QUARANTINE}"
    world.storage.makedirs(folder)
    name = info.path.rpartition("/")[2]
    path = f"{folder}/{name}-{offset}"
    copy = world.storage.open(path, create=True)
    try:
        copy.truncate(0)
        copy.pwrite(file.pread(file.size() - offset, offset).rstrip(b"\0") or b"\0", 0)
        copy.fsync()
    finally:
        copy.close()
    world.storage.fsync_dir(folder)
    return TornTailCut(directory=directory, segment=name, offset=offset, quarantine=path)


def check_log(world: World, directory: str) -> ScanReport:
    """Read everything and list all damage; changes nothing and takes no lock. Blocks.

    Raises:
        DataError: Definite. There is no log in ``directory``, or it is of a newer format.
    """
    storage = world.storage
    if not storage.exists(directory):
        raise DataError(f"{directory}: there is no such directory")
    log = read_log(storage, directory, None, settle=False, thorough=True)
    if log.current is None and not log.damage:
        raise DataError(f"{directory}: there is no log in this directory (no CURRENT)")
    status = Status.CLEAN
    if log.damage:
        torn = all(one.kind == "torn" for one in log.damage)
        status = Status.TORN if torn else Status.CORRUPT
    return ScanReport(status, (log.view.last, log.view.last_term), log.damage)
