"""Opening a log directory: see the disk, scan, classify, cut only what was never acknowledged.

All of it blocks and runs on an offload lane. The steps follow what the failures of other
logs taught (a failed fsync leaves clean pages behind: fsync, then drop the cache, then read).
"""

import errno
from dataclasses import dataclass, field

from outlast.kernel import CorruptionError, DataError, File, Storage
from outlast.log.wal.core.current import CURRENT_BYTES, Current, decode_current
from outlast.log.wal.core.scan import Damage, SegmentScan, Status, all_damage, scan_segment
from outlast.log.wal.core.segment import (
    FORMAT,
    SEGMENT_HEADER_BYTES,
    NewerFormatError,
    SegmentHeader,
    decode_segment_header,
    parse_segment_name,
)
from outlast.log.wal.core.view import Places, View
from outlast.log.wal.settings import WalIdentity

CURRENT = "CURRENT"
LOCK = "LOCK"
QUARANTINE = "quarantine"
SPARE_SUFFIX = ".spare"


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment in memory. ``number`` is how places name it; grows with each segment."""

    number: int
    path: str
    first_seq: int
    seed: int


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What ``check`` found: the worst status, the last (index, term) readable, all damage."""

    status: Status
    last: tuple[int, int]
    damage: list[Damage] = field(default_factory=list)


@dataclass(slots=True)
class Recovered:
    """A log read back. ``tail`` is the newest segment's header and scan, ``None`` if none."""

    current: Current | None
    view: View
    places: Places
    segments: list[SegmentInfo]
    damage: list[Damage]
    next_seq: int = 1
    chain: bytes = b""
    tail: tuple[SegmentHeader, SegmentScan] | None = None
    stale: list[str] = field(default_factory=list)
    spares: list[str] = field(default_factory=list)


def take_lock(storage: Storage, directory: str) -> File:
    """Lock the directory against other processes and return the lock's file.

    Raises:
        DataError: Definite. Another process has it open.
    """
    file = storage.open(f"{directory}/{LOCK}", create=True)
    if not file.lock():
        file.close()
        raise DataError(
            f"{directory}: already open elsewhere (another process, or this one);"
            " close it first, or give another directory"
        )
    return file


def has_log(storage: Storage, directory: str) -> bool:
    """Return whether anything of a log lies in ``directory``, whole or not."""
    return storage.exists(directory) and any(
        name == CURRENT or parse_segment_name(name) is not None
        for name in storage.listdir(directory)
    )


def read_log(
    storage: Storage,
    directory: str,
    identity: WalIdentity | None,
    *,
    settle: bool,
    thorough: bool = False,
) -> Recovered:
    """Read and classify everything in ``directory``.

    Args:
        storage: Where it lies.
        directory: The log's directory.
        identity: Whose log it must be; ``None`` accepts any.
        settle: Whether to fsync and drop caches first, as an open must.
        thorough: Whether to go on after damage, to list all of it.

    Raises:
        DataError: Another cluster's, log's or replica's, or of a newer format.
    """
    names = storage.listdir(directory)
    current = _read_current(storage, directory, CURRENT in names, settle)
    found = sorted(
        (parsed, name) for name in names if (parsed := parse_segment_name(name)) is not None
    )
    log = Recovered(current, View(), Places(), [], [])
    log.spares = [name for name in names if name.endswith(SPARE_SUFFIX)]
    if current is None:
        if found:
            log.damage.append(Damage(CURRENT, 0, 0, 0, 0, "CURRENT"))
        return log
    _check_identity(directory, CURRENT, current, identity)
    log.stale = [name for (seq, _), name in found if seq < current.oldest]
    kept = [(seq, name) for (seq, _), name in found if seq >= current.oldest]
    log.next_seq = current.oldest
    for at, (first_seq, name) in enumerate(kept):
        if log.damage and not thorough:
            break
        _read_segment(
            storage, directory, identity, log, name=name, first_seq=first_seq,
            newest=at == len(kept) - 1, settle=settle, thorough=thorough,
        )  # fmt: skip
    present = kept[-1][0] if kept else 0
    if not log.damage and present < current.newest:
        log.damage.append(
            Damage(f"{current.newest:020d}-*", 0, log.view.last + 1, 0, 0, "missing segment",
                   current.newest)
        )  # fmt: skip
    return log


def _read_current(storage: Storage, directory: str, exists: bool, settle: bool) -> Current | None:
    if not exists:
        return None
    file = storage.open(f"{directory}/{CURRENT}", write=settle)
    try:
        if settle:
            file.fsync()
            file.drop_cache()
        data = file.pread(CURRENT_BYTES, 0)
    finally:
        file.close()
    try:
        return decode_current(data)
    except NewerFormatError as error:
        raise _newer(directory, CURRENT, error) from None


def _newer(directory: str, name: str, error: NewerFormatError) -> DataError:
    return DataError(
        f"{directory}/{name}: written in format {error.args[0]}, this version reads up to"
        f" format {FORMAT}; use the newer version of outlast"
    )


def _check_identity(
    directory: str, name: str, found: Current | SegmentHeader, wanted: WalIdentity | None
) -> None:
    if wanted is None:
        return
    for what in ("cluster", "log", "replica"):
        have, want = getattr(found, what), getattr(wanted, what)
        if have != want:
            raise DataError(
                f"{directory}/{name}: belongs to {what} {have!r}, but this is {what} {want!r}"
            )


def _read_segment(
    storage: Storage,
    directory: str,
    identity: WalIdentity | None,
    log: Recovered,
    *,
    name: str,
    first_seq: int,
    newest: bool,
    settle: bool,
    thorough: bool,
) -> None:
    path = f"{directory}/{name}"
    file = storage.open(path, write=settle and newest)
    try:
        if settle and newest:
            file.fsync()
            file.drop_cache()
        data = file.pread(file.size(), 0)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        log.damage.append(Damage(name, 0, log.view.last + 1, 0, 0, "unreadable", log.next_seq))
        return
    finally:
        file.close()
    try:
        header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    except NewerFormatError as error:
        raise _newer(directory, name, error) from None
    if header is None:
        log.damage.append(Damage(name, 0, log.view.last + 1, 0, 0, "segment header", log.next_seq))
        return
    _check_identity(directory, name, header, identity)
    if not log.segments:
        log.view = View((header.last_index, header.last_term), (header.term, header.vote or None))
        log.chain = header.chain
    broken = log.tail is not None and log.tail[1].status is Status.CORRUPT
    problem = _continues(log, header, first_seq)
    if broken:  # where that segment ended is not known, so nothing can be compared with it
        log.view = View((header.last_index, header.last_term), (header.term, header.vote or None))
    elif problem:
        log.damage.append(
            Damage(name, 0, log.view.last + 1, header.last_index, 0, problem, log.next_seq)
        )
        if not thorough:
            return
        log.view = View((header.last_index, header.last_term), (header.term, header.vote or None))
    number = len(log.segments)
    durable = log.current.durable if log.current is not None else 0
    scan = scan_segment(
        name, number, data, seed=header.seed, first_seq=header.first_seq, chain=header.chain,
        durable=durable if newest else 0, must_be_sealed=not newest,
        view=log.view, places=log.places,
    )  # fmt: skip
    if scan.status is Status.CORRUPT and thorough:
        log.damage += all_damage(name, data, header.seed, scan)
    else:
        log.damage += scan.damage
    log.segments.append(SegmentInfo(number, path, header.first_seq, header.seed))
    # Not sealed yet: its seal, written by this open, is chained to what came before it.
    log.chain = scan.digest if scan.sealed else header.chain
    log.next_seq, log.tail = scan.next_seq, (header, scan)


def _continues(log: Recovered, header: SegmentHeader, first_seq: int) -> str:
    """Return what is wrong if this segment does not follow the one before."""
    if header.first_seq != first_seq:
        return "segment header"
    if first_seq != log.next_seq:
        return "missing segment"
    if not log.segments:
        return ""
    before = (log.chain, log.view.last, log.view.hard)
    if (header.chain, header.last_index, (header.term, header.vote or None)) != before:
        return "chain"
    return ""


def raise_damage(directory: str, damage: list[Damage]) -> None:
    """Raise for the first damage that is more than a torn tail.

    Raises:
        CorruptionError: It names file, offset, sequence and the entries touched.
    """
    for one in damage:
        if one.kind == "torn":
            continue
        raise CorruptionError(
            f"{directory}/{one}: acknowledged data is damaged; restore this replica from its"
            " peers or a backup, or inspect it with `outlast data check`",
            file=f"{directory}/{one.segment}",
            offset=one.offset,
            first=one.first,
            last=one.last,
        )
