"""How much virtual time passes in a second of real time when servers and clients mostly wait.

An unmodified aiohttp server and its client keep a connection alive by a request each 30 seconds,
and then by the pings of a websocket; uvicorn with httpx, which looks at its own state ten times a
second, shows what a program costs that never quite sleeps. Run it alone::

    python -m benchmarks.sim_idle --hours 24
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx

from outlast import sim
from tests.support.programs import ledger, notes

RATIO_MIN = 10_000
"""Virtual seconds a real second that the aiohttp program must reach when it idles."""
PERIOD_SECONDS = 30.0
ROUNDS = 3
_HOUR_SECONDS = 3600.0

Idling = Callable[[sim.Lab, float], Awaitable[int]]


async def keep_alive(lab: sim.Lab, seconds: float) -> int:
    """Ask each 30 seconds over one connection; return how often."""
    lab.host("notes", notes.main)
    await lab.sleep(0.1)
    pings, end = 0, lab.now + seconds
    async with notes.connect("http://notes:8080") as session:
        while lab.now < end:
            async with session.get("/progress") as answer:
                assert answer.status == 200
            pings += 1
            await lab.sleep(PERIOD_SECONDS)
    return pings


async def heartbeats(lab: sim.Lab, seconds: float) -> int:
    """Leave a websocket to its heartbeats, one each 10 seconds; return about how many."""
    lab.host("notes", notes.main)
    await lab.sleep(0.1)
    async with (
        notes.connect("http://notes:8080", timeout=2 * seconds) as session,
        session.ws_connect("/echo") as socket,
    ):
        reading = lab.spawn("test", socket.receive())
        await lab.sleep(seconds)
        assert not reading.done()
        reading.cancel()
    return int(seconds // 10)


async def ticking(lab: sim.Lab, seconds: float) -> int:
    """Let uvicorn wait for requests that come each 30 seconds; return how many."""
    lab.host("ledger", ledger.main)
    await lab.sleep(0.1)
    pings, end = 0, lab.now + seconds
    async with httpx.AsyncClient(base_url="http://ledger:8080") as client:
        while lab.now < end:
            (await client.get("/nowhere")).read()
            pings += 1
            await lab.sleep(PERIOD_SECONDS)
    return pings


def measure(program: Idling, hours: float) -> dict[str, float]:
    """Run ``program`` once for so many virtual hours and return what that took."""

    async def idle(lab: sim.Lab) -> tuple[int, int]:
        return await program(lab, hours * _HOUR_SECONDS), lab.sim.steps

    begun, begun_cpu = time.perf_counter(), time.process_time()
    pings, steps = sim.run(idle, files=True, limit=2 * hours * _HOUR_SECONDS)
    wall, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    seconds = hours * _HOUR_SECONDS
    return {
        "virtual_hours": hours,
        "pings": pings,
        "steps": steps,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "ratio": round(seconds / wall),
        "cpu_ratio": round(seconds / cpu),
    }


def measure_idle(hours: float = 24.0, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Measure all programs and return the round of median CPU time of each.

    Keys are ``keep_alive`` and ``heartbeats`` (aiohttp) and ``ticking`` (uvicorn, for an hour at
    most). Of the values, ``ratio`` is virtual to real time and ``cpu_ratio`` virtual time to CPU
    time; with other programs on the machine look at the latter. The bar is :data:`RATIO_MIN`, for
    ``keep_alive``.
    """
    programs: tuple[tuple[Idling, float], ...] = (
        (keep_alive, hours),
        (heartbeats, hours),
        (ticking, min(hours, 1.0)),
    )
    found = {}
    for program, length in programs:
        measure(program, 0.1)  # imports and caches
        runs = [measure(program, length) for _ in range(rounds)]
        median = statistics.median_low(run["cpu_seconds"] for run in runs)
        found[program.__name__] = next(run for run in runs if run["cpu_seconds"] == median)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the measurement as JSON; exit 1 if it is below the bar."""
    parser = argparse.ArgumentParser(prog="sim_idle", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="virtual hours of idling (24)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each (3)")
    args = parser.parse_args(arguments)
    found = measure_idle(args.hours, args.rounds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if found["keep_alive"]["cpu_ratio"] >= RATIO_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
