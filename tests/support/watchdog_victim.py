"""A program that gets into one kind of trouble under watchdogs and tells its events as lines.

    python -m tests.support.watchdog_victim TROUBLE [--guard LOG] [--restart]

It prints ``{"said": "begun", "at": …}`` when the trouble begins; all times are monotonic.
"""

import asyncio
import json
import os
import re
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from outlast.detect import (
    FdLimit,
    Guard,
    Ladder,
    LoopWatchdog,
    MemoryLimit,
    ProcessWatchdog,
    ResourceWatchdog,
    ThreadWatchdog,
    Watchdogs,
    WatchedLock,
)
from outlast.kernel import Event, current_world

SECONDS = 1.2


def say(what: str, /, **fields: Any) -> None:
    line = json.dumps({"said": what, "at": time.monotonic(), **fields})
    os.write(1, line.encode() + b"\n")


def told(event: Event) -> None:
    say(type(event).__name__, **asdict(event))


async def sleep() -> None:
    time.sleep(SECONDS)  # noqa: ASYNC251 - the trouble


async def busy() -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pass


async def regex() -> None:
    # One call of C that keeps the interpreter lock; each further letter doubles its time.
    for count in range(18, 40):
        begun = time.monotonic()
        if begun - regex_begun > 4 * SECONDS or re.match(r"(a|a)*$", "a" * count + "b"):
            return
        if time.monotonic() - begun > 0.8:
            return


async def held_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=SECONDS)


async def stopped() -> None:
    await asyncio.sleep(SECONDS)  # whoever started us stops us meanwhile


async def threads() -> None:
    locks = threading.Lock(), threading.Lock()

    def cross(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            time.sleep(0.1)
            second.acquire(timeout=2 * SECONDS)

    for name, pair in (("cross-1", locks), ("cross-2", locks[::-1])):
        threading.Thread(target=cross, args=pair, name=name, daemon=True).start()
    await asyncio.sleep(2 * SECONDS)


async def watched_threads() -> None:
    locks = WatchedLock("orders"), WatchedLock("stock")

    def cross(first: WatchedLock, second: WatchedLock) -> None:
        with first:
            time.sleep(0.1)
            second.acquire(timeout=SECONDS)

    for name, pair in (("cross-1", locks), ("cross-2", locks[::-1])):
        threading.Thread(target=cross, args=pair, name=name, daemon=True).start()
    await asyncio.sleep(SECONDS)


async def leak() -> None:
    kept = []
    for _ in range(45):
        kept.append(b"x" * (1 << 20))  # written, so resident
        await asyncio.sleep(0.1)


async def saw_tooth() -> None:
    kept: list[bytes] = [b"x" * (200 << 20)]
    for number in range(45):
        kept.append(b"x" * (4 << 20))
        if number % 5 == 4:
            del kept[1:]
        await asyncio.sleep(0.1)


async def descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    kept = []
    try:
        while True:
            kept.append(open(os.devnull, "rb"))  # noqa: ASYNC230, SIM115 - the trouble
    except OSError:
        await asyncio.sleep(1.5)
    for file in kept:
        file.close()


async def forever() -> None:
    time.sleep(60)  # noqa: ASYNC251 - until something ends us


regex_begun = 0.0


async def main(trouble: str, arguments: list[str]) -> None:
    global regex_begun  # noqa: PLW0603
    current_world().events.subscribe(told)  # type: ignore[attr-defined]
    guard = None
    if "--guard" in arguments:
        guard = Guard(0.5, log=arguments[arguments.index("--guard") + 1])
    ladder = Ladder(("event", "restart"), after=(0, 0.3)) if "--restart" in arguments else None
    watchdogs = Watchdogs(
        LoopWatchdog(0.5, act=ladder),
        ProcessWatchdog(0.5, dump=True),
        ThreadWatchdog(),
        ResourceWatchdog(memory=MemoryLimit(), fds=FdLimit(), disks=()),
        guard=guard,
    )
    async with watchdogs:
        await asyncio.sleep(0.4)
        say("begun", guard=None if guard is None else guard.pid)
        regex_begun = time.monotonic()
        await globals()[trouble]()
        say("over")
        await asyncio.sleep(0.4)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
