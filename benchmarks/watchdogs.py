"""Who sees a stall while it lasts, and what watching costs.

    python -m benchmarks.watchdogs [--quick] [--json] [--stall SECONDS] [--rounds N]

Five kinds of stall of three seconds under a limit of half a second, in a process of its own each.
Seen is the time from the beginning of the stall until it was told: by a task on the same loop that
looks at the clock every 50 ms (as many services have), by our watchdogs inside the process, by
``faulthandler`` (when its text was there), and by our outside guard (its line in the log). It may
be less than the limit, which counts from the last sign of life. Costs are those of a process whose
loop waits: processor time of it and of the guard, wake-ups of the guard, and how late timers of
the loop come, with and without watchdogs.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import ROOT, machine, percentile
from outlast.detect import (
    Guard,
    LoopWatchdog,
    ProcessWatchdog,
    ThreadWatchdog,
    Watchdogs,
    WatchedLock,
)
from outlast.kernel import Event, current_world

LIMIT = 0.5
STALLS = ("sleep", "busy", "regex", "lock", "stopped")
NAMES = {
    "sleep": "time.sleep on the loop",
    "busy": "pure-Python busy loop",
    "regex": "one C call holding the GIL (regex)",
    "lock": "deadlock on threading.Lock",
    "stopped": "SIGSTOP",
}
SEEN = ("same loop", "inside", "faulthandler", "outside")


def say(what: str, **fields: Any) -> None:
    """One line for the process that measures; written at once."""
    os.write(1, json.dumps({"what": what, "at": time.monotonic(), **fields}).encode() + b"\n")


# --- what stalls -------------------------------------------------------------------------------


def letters_for(seconds: float) -> int:
    """How many letters the expression below needs for about that time; doubles with each."""
    count = 16
    while True:
        begun = time.perf_counter()
        re.match(r"(a|a)*$", "a" * count + "b")
        took = time.perf_counter() - begun
        if took > 0.05:
            while took < seconds:
                took *= 2
                count += 1
            return count
        count += 1


def stall(kind: str, seconds: float, letters: int) -> None:
    if kind == "sleep":
        time.sleep(seconds)
    elif kind == "busy":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    elif kind == "regex":
        re.match(r"(a|a)*$", "a" * letters + "b")
    elif kind == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire(timeout=seconds)


async def ticker() -> None:
    """The peer: a task on the loop it watches."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.05)
        now = time.monotonic()
        if now - last > LIMIT:
            say("same loop")
        last = now


def hear(event: Event) -> None:
    name = type(event).__name__
    if name in {"LoopStalled", "ProcessStalled"}:
        say("inside", event=name, cause=getattr(event, "cause", ""))


def watch_pads() -> None:
    """Let the moment be known at which faulthandler has written, by a process that looks."""
    from outlast.detect.watchdog_stack import DumpPad

    made = DumpPad.__init__

    def tracked(self: DumpPad) -> None:
        made(self)
        say("pad", descriptor=self.descriptor)

    DumpPad.__init__ = tracked  # type: ignore[method-assign]


async def victim(kind: str, seconds: float) -> None:
    letters = letters_for(seconds) if kind == "regex" else 0
    current_world().events.subscribe(hear)  # type: ignore[attr-defined]
    watch_pads()
    task = asyncio.create_task(ticker())
    inside = LoopWatchdog(LIMIT), ProcessWatchdog(LIMIT, dump=True), ThreadWatchdog()
    async with Watchdogs(*inside, guard=Guard(LIMIT)):
        await asyncio.sleep(1.0)
        say("begun")
        if kind == "stopped":
            await asyncio.sleep(0.5)
        else:
            stall(kind, seconds, letters)
        say("over")
        await asyncio.sleep(0.5)
    task.cancel()


def seen(kind: str, seconds: float) -> dict[str, float | None]:
    """Run one victim; return when each way saw the stall, in seconds after it began."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.watchdogs", "--victim", kind, "--stall", str(seconds)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found: dict[str, float] = {}
    pads: list[int] = []
    begun = over = resumed = 0.0
    finished = threading.Event()

    def log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r" is (stalled|frozen|stopped),", line) and begun:
                found.setdefault("outside", time.monotonic())

    def sizes() -> None:
        while not finished.wait(0.005):
            for descriptor in pads:
                try:
                    size = os.stat(f"/proc/{process.pid}/fd/{descriptor}").st_size
                except OSError:
                    continue
                if size and begun:
                    found.setdefault("faulthandler", time.monotonic())

    threads = [threading.Thread(target=log), threading.Thread(target=sizes)]
    for thread in threads:
        thread.start()
    for line in process.stdout:
        told = json.loads(line)
        if told["what"] == "pad":
            pads.append(told["descriptor"])
        elif told["what"] == "begun":
            begun = told["at"]
            if kind == "stopped":
                begun = time.monotonic()
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(process.pid, signal.SIGCONT)
                resumed = time.monotonic()
        elif told["what"] == "over":
            over = told["at"]
        elif begun and told["what"] in SEEN:
            found.setdefault(told["what"], told["at"])
    process.wait()
    finished.set()
    for thread in threads:
        thread.join()
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()
    # Afterwards it is no sight: what came when the stall was over is said to be so.
    lasted = (resumed or over) - begun
    return {way: found[way] - begun if way in found else None for way in SEEN} | {"lasted": lasted}


# --- what it costs -----------------------------------------------------------------------------


async def idle(watched: bool, seconds: float) -> None:
    guard = Guard(LIMIT) if watched else None
    watchdogs = Watchdogs(guard=guard)
    if watched:
        watchdogs.start()
    await asyncio.sleep(0.5)
    pid = guard.pid if guard is not None else None
    say("idle", guard=pid)
    late = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(0.01)
        late.append(time.monotonic() - begun - 0.01)
    late.sort()
    say("late", p50=percentile(late, 0.5), p99=percentile(late, 0.99))
    quiet = time.process_time()
    turns = (guard_turns(pid), time.monotonic())
    guard_cpu = guard_seconds(pid)
    await asyncio.sleep(seconds)
    passed = time.monotonic() - turns[1]
    say(
        "cost",
        cpu=(time.process_time() - quiet) / passed,
        guard_cpu=(guard_seconds(pid) - guard_cpu) / passed,
        guard_wakes=(guard_turns(pid) - turns[0]) / passed,
        guard_mib=resident(pid),
    )
    watchdogs.stop()


def guard_seconds(pid: int | None) -> float:
    """Processor time in nanoseconds' resolution: that of /proc/PID/stat is a hundredth."""
    text = Path(f"/proc/{pid}/schedstat").read_text() if pid else "0"
    return int(text.split()[0]) / 1e9


def guard_turns(pid: int | None) -> int:
    if pid is None:
        return 0
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[0])


def resident(pid: int | None) -> float:
    if pid is None:
        return 0.0
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", text, re.M)[0]) / 1024


def cost(watched: bool, seconds: float) -> dict[str, float]:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.watchdogs", "--idle", str(int(watched)),
            "--stall", str(seconds),
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found: dict[str, float] = {}
    for line in lines:
        if line["what"] in {"late", "cost"}:
            found.update({key: one for key, one in line.items() if key not in {"what", "at"}})
    return found


def locks(rounds: int) -> dict[str, float]:
    """Nanoseconds of taking and giving back a free lock."""

    def per(lock: Any) -> float:
        begun = time.perf_counter()
        for _ in range(rounds):
            with lock:
                pass
        return (time.perf_counter() - begun) / rounds * 1e9

    pairs = [(per(threading.Lock()), per(WatchedLock("bench"))) for _ in range(5)]
    return {
        "lock_ns": median(one for one, _ in pairs),
        "watched_ns": median(other for _, other in pairs),
        "ratio": median(other / one for one, other in pairs),
    }


# --- telling -----------------------------------------------------------------------------------


def middle(runs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """The median of each way; ``None`` if it saw nothing in most runs."""
    found: dict[str, float | None] = {}
    for way in (*SEEN, "lasted"):
        times = [time for run in runs if (time := run[way]) is not None]
        found[way] = median(times) if 2 * len(times) > len(runs) else None
    return found


def cell(value: float | None, lasted: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" + (", after" if lasted and value >= lasted - 0.02 else "")


def show(found: dict[str, Any]) -> list[str]:
    seconds = found["stall"]
    lines = [
        f"limit {LIMIT} s, stall {seconds:.0f} s",
        f"{'':36}" + "".join(f"{way:>16}" for way in SEEN),
    ]
    for kind, ways in found["seen"].items():
        lines.append(
            f"{NAMES[kind]:36}" + "".join(f"{cell(ways[way], ways['lasted']):>16}" for way in SEEN)
        )
    bare, watched = found["idle"]["bare"], found["idle"]["watched"]
    lines += [
        f"idle process: {bare['cpu']:.3%} of a processor bare, {watched['cpu']:.3%} watched, "
        f"{watched['guard_cpu']:.3%} its guard ({watched['guard_wakes']:.1f} wake-ups a second, "
        f"{watched['guard_mib']:.0f} MiB)",
        f"timers of the loop are late by p50 {bare['p50'] * 1e6:.0f} us, p99 "
        f"{bare['p99'] * 1e6:.0f} us bare; {watched['p50'] * 1e6:.0f} us, "
        f"{watched['p99'] * 1e6:.0f} us watched",
        f"a free lock: {found['locks']['ratio']:.1f} x, {found['locks']['lock_ns']:.0f} ns and "
        f"{found['locks']['watched_ns']:.0f} ns watched",
    ]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, shorter stalls")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--stall", type=float, default=3.0, help="seconds of a stall")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--victim", choices=STALLS, help=argparse.SUPPRESS)
    parser.add_argument("--idle", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.victim:
        asyncio.run(victim(chosen.victim, chosen.stall))
        return 0
    if chosen.idle is not None:
        asyncio.run(idle(bool(chosen.idle), chosen.stall))
        return 0
    rounds, seconds = (1, 1.5) if chosen.quick else (chosen.rounds, chosen.stall)
    quiet = 2.0 if chosen.quick else 10.0
    figures: dict[str, Any] = {
        "machine": machine(),
        "stall": seconds,
        "seen": {kind: middle([seen(kind, seconds) for _ in range(rounds)]) for kind in STALLS},
        "idle": {"bare": cost(False, quiet), "watched": cost(True, quiet)},
        "locks": locks(20_000 if chosen.quick else 200_000),
    }
    if chosen.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        print(figures["machine"], *show(figures), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
