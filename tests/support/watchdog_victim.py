"""A program that gets into one kind of trouble under watchdogs and tells its events as lines.

    python -m tests.support.watchdog_victim TROUBLE [--guard LOG] [--restart]

It prints ``{"said": "begun", "at": …}`` when the trouble begins; all times are monotonic. Most
troubles last until they were told: a busy machine takes its time.
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
LIMIT = 60.0
TOLD_AFTER = dict.fromkeys(("sleep", "busy", "held_lock"), ("LoopRecovered",))

begun = 0.0
heard: set[str] = set()


def say(what: str, /, **fields: Any) -> None:
    line = json.dumps({"said": what, "at": time.monotonic(), **fields})
    os.write(1, line.encode() + b"\n")


def told(event: Event) -> None:
    say(type(event).__name__, **asdict(event))
    heard.add(type(event).__name__)


def lasts(*kinds: str, least: float = 0.0) -> bool:
    """Whether ``least`` seconds are not over, or an event of one of ``kinds`` was not told."""
    past = time.monotonic() - begun
    return past < least or (past < LIMIT and not heard.issuperset(kinds))


async def until_told(*kinds: str) -> None:
    for _ in iter(lambda: lasts(*kinds), False):
        await asyncio.sleep(0.05)


async def sleep() -> None:
    while lasts("LoopStalled", least=SECONDS):
        time.sleep(0.1)  # noqa: ASYNC251 - the trouble


async def busy() -> None:
    while lasts("LoopStalled", least=SECONDS):
        pass


async def regex() -> None:
    # One call of C that keeps the interpreter lock; each further letter doubles its time.
    for count in range(18, 40):
        since = time.monotonic()
        if since - begun > 4 * SECONDS or re.match(r"(a|a)*$", "a" * count + "b"):
            return
        if time.monotonic() - since > 0.8:
            return


async def held_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    while lasts("LoopStalled", least=SECONDS):
        lock.acquire(timeout=0.1)


async def stopped() -> None:
    await asyncio.to_thread(sys.stdin.read)  # whoever started us stops us, and ends this


async def threads() -> None:
    locks, both = (threading.Lock(), threading.Lock()), threading.Barrier(2)

    def cross(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            both.wait()
            second.acquire(timeout=2 * LIMIT)

    for name, pair in (("cross-1", locks), ("cross-2", locks[::-1])):
        threading.Thread(target=cross, args=pair, name=name, daemon=True).start()
    await until_told("ThreadsStuck")


async def watched_threads() -> None:
    locks, both = (WatchedLock("orders"), WatchedLock("stock")), threading.Barrier(2)

    def cross(first: WatchedLock, second: WatchedLock) -> None:
        with first:
            both.wait()
            second.acquire(timeout=2 * LIMIT)

    for name, pair in (("cross-1", locks), ("cross-2", locks[::-1])):
        threading.Thread(target=cross, args=pair, name=name, daemon=True).start()
    await until_told("DeadlockFound")


async def leak() -> None:
    kept: list[bytes] = []
    while lasts("ResourceGrew"):
        while len(kept) < min((time.monotonic() - begun) * 10, 400):  # 10 MB a second
            kept.append(b"x" * 1_000_000)  # written, so resident
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
        await until_told("ResourceNearLimit")
    for file in kept:
        file.close()


async def forever() -> None:
    time.sleep(60)  # noqa: ASYNC251 - until something ends us


async def main(trouble: str, arguments: list[str]) -> None:
    global begun  # noqa: PLW0603
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
        heard.clear()
        say("begun", guard=None if guard is None else guard.pid)
        begun = time.monotonic()
        await globals()[trouble]()
        say("over")
        await asyncio.sleep(0.4)
        await until_told(*TOLD_AFTER.get(trouble, ()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
