"""Reading health while every dependency hangs: ``python -m benchmarks.health [--quick] [--json]``.

In one process, beside probes over HTTP in ``benchmarks.health_http``: what reading a group of 20
checks costs, what it costs while the loop that runs them is blocked, how many threads come with
it, and what a stamp of progress costs beside reading the clock. What is asked: reading <= 50 us
and no thread for it, a stamp <= 200 ns, threads at most ``max_threads`` however long checks hang.
"""

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.common import machine, percentile
from outlast.detect import Health, Status

CHECKS = 20
TIMEOUT = 0.1


@dataclass
class Row:
    """One figure; ``asked`` is the most that it may be, ``None`` if nothing is asked."""

    what: str
    median: float
    p99: float
    unit: str
    asked: float | None = None

    def line(self) -> str:
        """The figure for people."""
        asked = "" if self.asked is None else f"  asked: <= {self.asked:g}"
        spread = "" if self.p99 == self.median else f"  p99 {self.p99:9.1f}"
        return f"{self.what:52} {self.median:9.1f} {self.unit:8}{spread}{asked}"


def each(call: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of so many calls, sorted."""
    clock = time.perf_counter_ns
    found = []
    for _ in range(times):
        begun = clock()
        call()
        found.append((clock() - begun) / 1e9)
    return sorted(found)


def many(call: Callable[[], object], times: int, rounds: int = 7) -> tuple[float, float]:
    """Median and worst of some rounds: nanoseconds per call, with the loop around it."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        for _ in range(times):
            call()
        found.append((time.perf_counter_ns() - begun) / times)
    return statistics.median(found), max(found)


def reading(what: str, call: Callable[[], object], times: int, asked: float | None) -> Row:
    """A row of microseconds per call."""
    seconds = each(call, times)
    return Row(what, percentile(seconds, 0.5) * 1e6, percentile(seconds, 0.99) * 1e6, "us", asked)


def with_all_hung(times: int) -> list[Row]:
    """Read while 20 plain checks hang, on the health's own runner thread."""
    let_go = threading.Event()
    health = Health(max_threads=16)
    for number in range(CHECKS):
        health.add(f"c{number}", lambda: let_go.wait(600), timeout=TIMEOUT, every=TIMEOUT)
    before = threading.active_count()
    health.start()
    time.sleep(5 * TIMEOUT)
    held = threading.active_count() - before
    rows = [
        reading(
            f"read a group of {CHECKS}, all hung", lambda: health.read("readiness"), times, 50
        ),
        reading("snapshot of all groups, the same", health.snapshot, times, None),
    ]
    grown = threading.active_count() - before - held
    rows.append(Row(f"threads that came with {2 * times} readings", grown, grown, "threads", 0))
    rows.append(Row("threads held, runner included", held, held, "threads", 17))
    let_go.set()
    health.stop()
    return rows


def with_the_loop_blocked(times: int) -> list[Row]:
    """Read from a thread while the loop that runs the checks is blocked for that long."""
    rows: list[Row] = []

    async def main() -> None:
        health = Health()
        for number in range(CHECKS):

            async def check() -> bool:
                return True

            health.add(f"c{number}", check)
        async with health:
            await asyncio.sleep(0.1)
            what = "read from a thread, the application's loop blocked"
            done = threading.Event()

            def probe() -> None:
                rows.append(reading(what, lambda: health.read("readiness"), times, 50))
                done.set()

            threading.Thread(target=probe).start()
            done.wait(60)

    asyncio.run(main())
    return rows


def stamps(times: int) -> list[Row]:
    """Nanoseconds of what a program calls on its way."""
    health = Health()
    progress = health.progress("work", within=60.0)
    health.report("flag", Status.OK)

    def nothing() -> None: ...

    rows = []
    for what, call, share, asked in (
        ("an empty function", nothing, 1, None),
        ("time.monotonic_ns()", time.monotonic_ns, 1, None),
        ("progress.stamp()", progress.stamp, 1, 200),
        ("progress.idle() and stamp()", lambda: progress.idle().stamp(), 1, None),
        ("health.report()", lambda: health.report("flag", Status.OK, "fine"), 20, None),
    ):
        median, worst = many(call, max(1, times // share))
        rows.append(Row(what, median, worst, "ns", asked))
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    times = 500 if given.quick else 5000
    rows = with_all_hung(times) + with_the_loop_blocked(times) + stamps(40 * times)
    if given.json:
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}))
    else:
        print(machine())
        for row in rows:
            print(row.line())
    missed = [row for row in rows if row.asked is not None and row.median > row.asked]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
