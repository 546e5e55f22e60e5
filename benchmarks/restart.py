"""Restart after much work: from the start of a process to its first acknowledged write.

    python -m benchmarks.restart [--gb 1] [--json]

A process on the file log takes commands of 64 bytes from 256 callers, at the default checkpoint
policy, until their bytes add up; then it is killed with SIGKILL. A second process opens the
directory and writes one command. Beside it: reading and checksumming as many bytes as are left.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import crc32c

from benchmarks.common import ROOT, VALUE_BYTES, machine, run_loop

MODULE = "benchmarks.restart"
KEYS = 100_000


async def fill(path: str, total: int) -> None:
    """Write until ``total`` bytes of commands are acknowledged, then die."""
    from outlast.state import open as open_machine
    from outlast.state.ready.kv import Kv

    done = 0
    async with open_machine(Kv, path) as store:

        async def caller(number: int) -> None:
            nonlocal done
            turn = number
            while done < total:
                turn = (turn * 1_103_515_245 + 12_345) % KEYS
                await store.call(Kv.put, f"key-{turn}", f"{turn:0{VALUE_BYTES}d}")
                done += VALUE_BYTES

        await asyncio.gather(*(caller(n) for n in range(256)))
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)


async def first_write(path: str) -> None:
    """Open the directory and write once; print the seconds that each took."""
    from outlast.state import open as open_machine
    from outlast.state.ready.kv import Kv

    begin = time.perf_counter()
    async with open_machine(Kv, path, timeout=300) as store:
        await store.call(Kv.put, "after", "restart")
        wrote = time.perf_counter() - begin
        status = store.status()
    print(json.dumps({"seconds": wrote, "applied": status.applied}))


def raw_read(folder: Path) -> tuple[int, float]:
    """Read and checksum every file; returns bytes and seconds."""
    begin, count = time.perf_counter(), 0
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    crc32c.crc32c(chunk)
                    count += len(chunk)
    return count, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0, help="GB of command values")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fill", default="")
    parser.add_argument("--open", default="")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    if chosen.fill:
        run_loop(fill(chosen.fill, int(chosen.gb * 1e9)))
        return
    if chosen.open:
        run_loop(first_write(chosen.open))
        return
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=chosen.workdir, prefix="restart-"))
    try:
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", MODULE, "--fill", str(folder), "--gb", str(chosen.gb)],
            cwd=ROOT, check=False,
        )  # fmt: skip
        filled = time.perf_counter() - begin
        count, raw = raw_read(folder)
        started = time.perf_counter()
        answer = subprocess.run(
            [sys.executable, "-m", MODULE, "--open", str(folder)],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        process = time.perf_counter() - started
        report = {
            "schema": 1,
            "machine": machine(),
            "command_gb": chosen.gb,
            "fill_seconds": round(filled, 1),
            "left_on_disk_mb": round(count / 1e6, 1),
            "raw_read_seconds": round(raw, 3),
            "open_to_first_write_seconds": round(json.loads(answer.stdout)["seconds"], 3),
            "process_start_to_end_seconds": round(process, 3),
        }
    finally:
        shutil.rmtree(folder)
    if chosen.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
