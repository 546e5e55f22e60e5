"""The file log beside a raw file, SQLite and LMDB; and how fast a large log opens.

    python -m benchmarks.log [--json] [--gb 1 | --mb 256] [--seconds 2] [--rounds 5]

Append: every entry is durable before its producer goes on. Two raw figures, both written into a
file of zeros with one fdatasync per batch, without frames, checksums or recovery:

* *device*: one thread writes the same N entries again and again; nobody waits for an answer.
* *raw*: N coroutines in a closed loop, as the file log has them; what queued during the last
  fdatasync is joined and written by a thread. The bar is a share of this one.

SQLite (WAL, synchronous=FULL) and LMDB (sync) get N rows per transaction, without callers too.
Systems take turns within each round; ratios are of the medians.

Open: a log written by 64 callers of 64 B, against reading the same segments and taking crc32c.
"""

import argparse
import asyncio
import gc
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import crc32c

from benchmarks.common import ROOT, VALUE_BYTES, machine, percentile, run_loop
from outlast.host import make_world
from outlast.kernel import Deadline
from outlast.log.engines.file import FileLog, FileLogSettings
from outlast.log.wal import WalSettings

PRODUCERS = (1, 16, 256)
BARS = {"append at 256 producers, of raw": 0.60, "open, times raw": 3.0}
FOREVER = Deadline.never()
GROWN = FileLogSettings(wal=WalSettings(first_segment_bytes=WalSettings().segment_bytes))
"""A log that has grown: segments begin at their full size, as the raw file does."""
MIB = 1 << 20
ALIGN = 512

Run = tuple[float, float, float]
"""Entries a second, p50 and p99 of one durable append in seconds."""


def entries(count: int, salt: int) -> list[bytes]:
    """Distinct entries of 64 B."""
    return [b"%020d" % (salt + n) + bytes(VALUE_BYTES - 20) for n in range(count)]


def batches(producers: int, seconds: float, write: Callable[[list[bytes]], None]) -> Run:
    """Hand one batch after another to `write` until the time is over."""
    spent: list[float] = []
    count = 0
    prepared = entries(producers, 7)
    begin = now = time.perf_counter()
    while now - begin < seconds:
        write(prepared)
        count += producers
        before, now = now, time.perf_counter()
        spent.append(now - before)
    spent.sort()
    return count / (now - begin), percentile(spent, 0.5), percentile(spent, 0.99)


class RawFile:
    """A file of zeros into which batches are written."""

    SIZE = 256 * MIB

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "raw", os.O_RDWR | os.O_CREAT, 0o600)
        self._place = 0
        if os.fstat(self._fd).st_size < self.SIZE:
            for offset in range(0, self.SIZE, MIB):
                os.pwrite(self._fd, bytes(MIB), offset)
            os.fsync(self._fd)

    def write(self, batch: list[bytes]) -> None:
        data = b"".join(batch)
        os.pwrite(self._fd, data, self._place)
        os.fdatasync(self._fd)
        end = (self._place + len(data) + ALIGN - 1) // ALIGN * ALIGN
        self._place = end % (self.SIZE - MIB)

    def close(self) -> None:
        os.close(self._fd)


class RawQueue:
    """The least that N coroutines need to share an fdatasync: a list, futures and a thread."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._entries: list[bytes] = []
        self._futures: list[asyncio.Future[None]] = []
        self._busy = False
        self._work: SimpleQueue[tuple[list[bytes], list[asyncio.Future[None]]]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def append(self, entry: bytes, *, deadline: Deadline) -> None:
        future = self._loop.create_future()
        if not self._entries:
            self._loop.call_soon(self._flush)
        self._entries.append(entry)
        self._futures.append(future)
        await future

    def _flush(self) -> None:
        if self._busy or not self._entries:
            return
        self._busy = True
        self._work.put((self._entries, self._futures))
        self._entries, self._futures = [], []

    def _run(self) -> None:
        while True:
            entries, futures = self._work.get()
            if not entries:
                return
            self._file.write(entries)
            self._loop.call_soon_threadsafe(self._done, futures)

    def _done(self, futures: list[asyncio.Future[None]]) -> None:
        self._busy = False
        self._flush()
        for future in futures:
            future.set_result(None)

    def close(self) -> None:
        self._work.put(([], []))


def device(directory: Path, producers: int, seconds: float) -> Run:
    file = RawFile(directory)
    try:
        return batches(producers, seconds, file.write)
    finally:
        file.close()


def raw(start: Callable[[Any], Any]) -> Callable[[Path, int, float], Run]:
    def run(directory: Path, producers: int, seconds: float) -> Run:
        async def main() -> Run:
            file = RawFile(directory)
            queue = RawQueue(file)
            await producers_of(queue, producers, 0.3)
            result = await producers_of(queue, producers, seconds)
            queue.close()
            file.close()
            return result

        result: Run = start(main())
        return result

    return run


def sqlite(directory: Path, producers: int, seconds: float) -> Run:
    base = sqlite3.connect(directory / "sqlite", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, entry BLOB)")

    def write(batch: list[bytes]) -> None:
        base.execute("BEGIN IMMEDIATE")
        base.executemany("INSERT INTO log (entry) VALUES (?)", [(one,) for one in batch])
        base.execute("COMMIT")

    try:
        return batches(producers, seconds, write)
    finally:
        base.close()


def lmdb(directory: Path, producers: int, seconds: float) -> Run:
    import lmdb as library

    base = library.open(str(directory / "lmdb"), map_size=8 << 30)
    begun = base.stat()["entries"]

    def write(batch: list[bytes]) -> None:
        nonlocal begun
        with base.begin(write=True) as transaction:
            for one in batch:
                begun += 1
                transaction.put(begun.to_bytes(8, "big"), one, append=True)

    try:
        return batches(producers, seconds, write)
    finally:
        base.close()


async def producers_of(log: FileLog | RawQueue, producers: int, seconds: float) -> Run:
    """N coroutines append in a closed loop; the first one keeps its latencies."""
    spent: list[float] = []
    counts = [0] * producers
    clock = time.perf_counter
    end = clock() + seconds

    async def watched() -> None:
        now = clock()
        while now < end:
            await log.append(mine[0], deadline=FOREVER)
            before, now = now, clock()
            spent.append(now - before)
            counts[0] += 1

    async def producer(number: int) -> None:
        entry = mine[number]
        count = 0
        while not over:
            await log.append(entry, deadline=FOREVER)
            count += 1
        counts[number] = count

    over = False
    mine = entries(producers, 7)
    begin = clock()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(watched())
        for number in range(1, producers):
            group.create_task(producer(number))
        await first
        over = True
    spent.sort()
    return sum(counts) / (clock() - begin), percentile(spent, 0.5), percentile(spent, 0.99)


def file_log(start: Callable[[Any], Any]) -> Callable[[Path, int, float], Run]:
    def run(directory: Path, producers: int, seconds: float) -> Run:
        async def main() -> Run:
            log = await FileLog.open(make_world(), str(directory / "log"), settings=GROWN)
            await producers_of(log, producers, 0.3)
            result = await producers_of(log, producers, seconds)
            await log.close()
            return result

        result: Run = start(main())
        shutil.rmtree(directory / "log")
        return result

    return run


def append(directory: Path, rounds: int, seconds: float, start: Callable[[Any], Any]) -> Any:
    """Rates of all systems at all numbers of producers."""
    systems: dict[str, Callable[[Path, int, float], Run]] = {
        "device": device, "raw": raw(start), "file log": file_log(start), "sqlite": sqlite,
        "lmdb": lmdb,
    }  # fmt: skip
    table: dict[str, dict[int, Any]] = {name: {} for name in systems}
    for producers in PRODUCERS:
        runs: dict[str, list[Run]] = {name: [] for name in systems}
        for _ in range(rounds):
            for name, system in systems.items():
                runs[name].append(system(directory, producers, seconds))
        raw_rate = statistics.median(run[0] for run in runs["raw"])
        for name, measured in runs.items():
            rates = [run[0] for run in measured]
            table[name][producers] = {
                "rate": statistics.median(rates), "lowest": min(rates), "highest": max(rates),
                "p50_ms": 1e3 * statistics.median(run[1] for run in measured),
                "p99_ms": 1e3 * statistics.median(run[2] for run in measured),
                "of_raw": statistics.median(rates) / raw_rate,
                "of_raw_paired": statistics.median(
                    run[0] / other[0] for run, other in zip(measured, runs["raw"], strict=True)
                ),
            }  # fmt: skip
    return table


async def write_log(directory: Path, size: int) -> None:
    """Let 64 callers append 64 B each until `size` bytes of frames are on disk."""
    log = await FileLog.open(make_world(), str(directory))
    entry = entries(1, 7)[0]

    async def caller() -> None:
        while log.wal.bytes_written < size:
            await log.append(entry, deadline=FOREVER)

    await asyncio.gather(*(caller() for _ in range(64)))
    await log.close()


def read_raw(directory: Path) -> tuple[float, int]:
    """Read every segment and take its crc32c, a piece at a time; seconds and bytes."""
    begin = time.perf_counter()
    total = 0
    for path in sorted(directory.glob("*.seg")):
        crc = 0
        with path.open("rb", buffering=0) as file:
            while piece := file.read(64 * MIB):
                crc = crc32c.crc32c(piece, crc)
                total += len(piece)
    return time.perf_counter() - begin, total


async def open_log(directory: Path, *, replay: bool) -> tuple[float, int]:
    """Open, and with `replay` also read every entry; seconds and entries."""
    begin = time.perf_counter()
    log = await FileLog.open(make_world(), str(directory))
    count = log.through - log.first + 1
    if replay:
        count = 0
        reader = log.read(log.first)
        while reader.position <= log.through:
            count += len((await anext(reader)).entries)
    spent = time.perf_counter() - begin
    await log.close()
    return spent, count


def opening(directory: Path, size: int, rounds: int, start: Callable[[Any], Any]) -> Any:
    """Times to open a log of `size` bytes, and of raw reading."""
    place = directory / "large"
    start(write_log(place, size))
    raws, opens, replays = [], [], []
    total = count = 0
    for _ in range(rounds):
        gc.collect()
        seconds, total = read_raw(place)
        raws.append(seconds)
        seconds, count = start(open_log(place, replay=False))
        opens.append(seconds)
    for _ in range(max(1, rounds // 3)):
        seconds, found = start(open_log(place, replay=True))
        assert found == count, f"{found} of {count} entries were read back"
        replays.append(seconds)
    raw_seconds = statistics.median(raws)
    return {
        "bytes": total, "entries": count, "raw_s": raw_seconds, "open_s": statistics.median(opens),
        "replay_s": statistics.median(replays),
        "open_of_raw": statistics.median(opens) / raw_seconds,
        "replay_of_raw": statistics.median(replays) / raw_seconds,
    }  # fmt: skip


def show(report: dict[str, Any]) -> None:
    print(report["machine"])
    print(f"\ndurable appends of {VALUE_BYTES} B a second (event loop: {report['loop']})")
    for name, by_producers in report["append"].items():
        for producers, row in by_producers.items():
            print(
                f"  {name:9} {producers:4d} producers {row['rate']:9,.0f}/s "
                f"({row['lowest']:,.0f} to {row['highest']:,.0f})  p50 {row['p50_ms']:.2f} ms  "
                f"p99 {row['p99_ms']:.2f} ms  {row['of_raw']:.2f} of raw "
                f"(median of pairs {row['of_raw_paired']:.2f})"
            )
    if report["open"]:
        row = report["open"]
        print(
            f"\nopen {row['bytes'] / MIB:,.0f} MiB, {row['entries']:,} entries: "
            f"{row['open_s']:.2f} s, raw read and crc32c {row['raw_s']:.2f} s "
            f"({row['open_of_raw']:.2f} x); with every entry read {row['replay_s']:.2f} s"
        )
    print()
    for name, bar in report["bars"].items():
        print(f"  {name}: {bar['measured']:.2f}, bar {bar['bar']}: {bar['verdict']}")


def judge(report: dict[str, Any]) -> dict[str, Any]:
    least, most = BARS.values()
    share = report["append"].get("file log", {}).get(256, {}).get("of_raw", 0.0)
    judged = {
        "append at 256 producers, of raw": {
            "measured": share, "bar": f"at least {least}",
            "verdict": "met" if share >= least else "missed",
        }
    }  # fmt: skip
    if report["open"]:
        times = report["open"]["open_of_raw"]
        judged["open, times raw"] = {
            "measured": times, "bar": f"at most {most}",
            "verdict": "met" if times <= most else "missed",
        }  # fmt: skip
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--gb", type=float, default=0.0, help="size of the log to open")
    parser.add_argument("--mb", type=int, default=256, help="the same in MiB; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=("best", "asyncio"), default="best")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    size = int(chosen.gb * 1024) * MIB or chosen.mb * MIB
    start = asyncio.run if chosen.loop == "asyncio" else run_loop
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="log-", dir=chosen.workdir))
    try:
        report: dict[str, Any] = {
            "machine": machine(),
            "loop": "uvloop" if start is run_loop and _has_uvloop() else "asyncio",
            "append": append(directory, chosen.rounds, chosen.seconds, start),
            "open": opening(directory, size, chosen.rounds, start) if size else None,
        }
    finally:
        shutil.rmtree(directory)
    report["bars"] = judge(report)
    if chosen.json:
        print(json.dumps(report))
    else:
        show(report)
    sys.stdout.flush()


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
