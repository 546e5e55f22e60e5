"""Heartbeats to compare detectors on: drawn from a seed, or recorded between two processes.

    python -m benchmarks.detectors --record

A recording has a sender and an observer, each an asyncio process of its own, UDP over loopback, a
beat every 100 ms. Four parts: idle; 16 processes that burn the processor; the sender frozen 12
times for 0.3 to 1.2 s by SIGSTOP; the observer frozen as often. The observer also records its own
ticks and what the machine said at each, so that its gate can be replayed.
"""

import asyncio
import gzip
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.common import ROOT, stop
from outlast.detect import Heartbeat
from outlast.host.pressure import Pressure

NS = 1_000_000_000
MS = 1_000_000
INTERVAL = 0.1
STEP = 100 * MS
KEPT = Path(__file__).parent / "traces" / "heartbeats.json.gz"
BURNERS = 16
FREEZES = 12
SECONDS = {"idle": 60.0, "loaded": 90.0, "frozen sender": 60.0, "frozen observer": 60.0}

Tick = tuple[int, int | None, int | None, int | None, int | None]


@dataclass
class Trace:
    """Beats as they arrived, and, where it was recorded, how the observer fared itself."""

    name: str
    beats: list[tuple[int | None, int]]
    ticks: list[Tick] = field(default_factory=list)

    def gaps_ms(self) -> list[float]:
        """Sorted times between arrivals."""
        times = [at for _, at in self.beats]
        return sorted((b - a) / MS for a, b in pairwise(times))


# --- drawn from a seed -----------------------------------------------------------------------


def _arrivals(
    name: str, beats: int, delay: Callable[[random.Random, int], float | None], seed: int
) -> Trace:
    """Beats on a grid, each with a delay in milliseconds; ``None``: it was lost."""
    prng = random.Random(f"{name} {seed}")
    arrived = []
    for n in range(beats):
        after = delay(prng, n)
        if after is not None:
            arrived.append((n * STEP + round(after * MS), n))
    arrived.sort()
    return Trace(name, [(n, at) for at, n in arrived])


def drawn(beats: int, seed: int) -> list[Trace]:
    """Return one trace for each kind of network and sender."""
    burst = {"until": -1}
    pause = {"until": -1.0}

    def bursty(prng: random.Random, n: int) -> float:
        if prng.random() < 0.004:
            burst["until"] = n + prng.randrange(5, 30)
        return abs(prng.gauss(0, 60)) if n < burst["until"] else abs(prng.gauss(1, 0.5))

    def pausing(prng: random.Random, n: int) -> float | None:
        # What was due while it stood still is not sent later: our sender leaves it out.
        if n * 100.0 < pause["until"]:
            return None
        if prng.random() < 1 / 300:
            length = prng.uniform(300, 1200)
            pause["until"] = n * 100.0 + length
            return length
        return abs(prng.gauss(1, 0.5))

    return [
        _arrivals("steady", beats, lambda p, _: abs(p.gauss(1, 0.5)), seed),
        _arrivals("jittery", beats, lambda p, _: p.expovariate(1 / 20), seed),
        _arrivals("bursty", beats, bursty, seed),
        _arrivals("pauses", beats, pausing, seed),
        _arrivals("5 % lost", beats,
                  lambda p, _: None if p.random() < 0.05 else abs(p.gauss(1, 0.5)), seed),
    ]  # fmt: skip


# --- recorded --------------------------------------------------------------------------------


async def _send(port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
    )

    def send(seq: int) -> None:
        transport.sendto(seq.to_bytes(8, "big"))

    async with Heartbeat(send, INTERVAL):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class _Observer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.beats: list[tuple[int, int]] = []

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.beats.append((int.from_bytes(data[:8], "big"), time.monotonic_ns()))


async def _observe(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    _, observer = await loop.create_datagram_endpoint(_Observer, local_addr=("127.0.0.1", 0))
    print(_.get_extra_info("sockname")[1], flush=True)
    pressure = Pressure()
    ticks: list[Tick] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(INTERVAL)
        ticks.append((time.monotonic_ns(), *pressure.read()))
    print(json.dumps({"beats": observer.beats, "ticks": ticks}))


def child(words: list[str]) -> int:
    """Be one of the processes of a recording."""
    if words[0] == "burn":
        while os.getppid() == int(words[1]):
            sum(range(20_000))
    elif words[0] == "send":
        asyncio.run(_send(int(words[1])))
    else:
        asyncio.run(_observe(float(words[1])))
    return 0


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.detectors", "--child", *words],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def record_part(name: str, seconds: float, seed: int) -> Trace:
    """Record one part; every process of it has ended on return."""
    prng = random.Random(seed)
    started: list[subprocess.Popen[str]] = []
    try:
        observer = _start("observe", str(seconds))
        started.append(observer)
        assert observer.stdout is not None
        port = int(observer.stdout.readline())
        sender = _start("send", str(port))
        started.append(sender)
        if name == "loaded":
            started += [_start("burn", str(os.getpid())) for _ in range(BURNERS)]
        if name.startswith("frozen"):
            frozen = sender if name.endswith("sender") else observer
            for _ in range(FREEZES):
                time.sleep(seconds / (FREEZES + 2) - 0.75)
                frozen.send_signal(signal.SIGSTOP)
                time.sleep(prng.uniform(0.3, 1.2))
                frozen.send_signal(signal.SIGCONT)
                time.sleep(0.5)
        text = observer.stdout.read()
        found = json.loads(text)
        return Trace(name, [tuple(one) for one in found["beats"]],
                     [tuple(one) for one in found["ticks"]])  # fmt: skip
    finally:
        for one in started:
            stop(one)


def record(seconds: dict[str, float], seed: int, path: Path = KEPT) -> list[Trace]:
    """Record all parts and keep them in ``path``: times in microseconds, as differences."""
    traces = [record_part(name, length, seed) for name, length in seconds.items()]
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    place = f"{cores} cores, Python {platform.python_version()}, load {load:.1f} at the end"
    kept = {"machine": place, "burners": BURNERS, "parts": [_pack(one) for one in traces]}
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(json.dumps(kept, separators=(",", ":")).encode())
    return traces


def _pack(trace: Trace) -> dict[str, object]:
    start = min(trace.beats[0][1], trace.ticks[0][0])
    first = trace.beats[0][0] or 0
    before = start
    beats = []
    for seq, at in trace.beats:
        beats.append(((seq or 0) - first, (at - before) // 1000))
        before = at
    ticks = []
    zero: list[int | None] = [start, *trace.ticks[0][1:]]
    for tick in trace.ticks:
        ticks.append([None if a is None or b is None else (a - b) // 1000
                      for a, b in zip(tick, zero, strict=True)])  # fmt: skip
    return {"name": trace.name, "beats": beats, "ticks": ticks}


def load(path: Path = KEPT) -> tuple[str, list[Trace]]:
    """Return the machine on which the kept recording was made, and its parts."""
    with gzip.open(path, "rt") as file:
        kept = json.load(file)
    traces = []
    for part in kept["parts"]:
        at, beats = 0, list[tuple[int | None, int]]()
        for seq, gap in part["beats"]:
            at += gap * 1000
            beats.append((seq, at))
        ticks = [tuple(None if one is None else one * 1000 for one in tick)
                 for tick in part["ticks"]]  # fmt: skip
        traces.append(Trace(part["name"], beats, ticks))  # type: ignore[arg-type]
    return kept["machine"], traces
