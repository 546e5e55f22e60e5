"""A service of several processes, some of which do not work well: a pool beside plain retries.

    python -m benchmarks.pool [--quick] [--json] [--rounds N] [--seconds S]

Each setting runs real processes over HTTP (``tests.support.pool_service``). Callers ask in a
closed loop with a pause between two calls, so that who is quicker does not get more load. After a
quarter of the time an instance is killed, where the setting has one that is. Figures are of the
time *after* that, the first second left out ("after detection") and, beside it, of all of it.

*round robin + retry* is what is usually written: the URLs in turn, and up to two more attempts at
the next ones after an error of the connection or a status of 500 and more; it does not look at
answers. *with a look at answers* does, and retries what is wrong. Both use the same client, with
the same limits of time, as the pool. Rounds alternate between all of them; figures are medians.

The second part is the cost of choosing an instance and noting the outcome, in nanoseconds.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from benchmarks.common import machine, percentile
from outlast.pool import AsyncHttpxPoolTransport, Outlier, Pool, p2c, peak_ewma
from outlast.protect import Policy
from tests.support.pool_service import Instance, is_right, running

GOOD: tuple[str, ...] = ()
SLOW = ("--slow", "0.2")
LIAR = ("--lie",)
CALLERS = 8
PAUSE = 0.01
DETECTED = 1.0

SETTINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "3, all good": (GOOD, GOOD, GOOD),
    "3, one killed": (GOOD, GOOD, GOOD),
    "3, one slow": (GOOD, GOOD, SLOW),
    "3, one lies": (GOOD, GOOD, LIAR),
    "3: killed, slow, lies": (GOOD, SLOW, LIAR),
    "5: killed, slow, lies": (GOOD, SLOW, LIAR, GOOD, GOOD),
}
OURS = "outlast pool"
PLAIN = "round robin + retry"
LOOKING = "with a look at answers"

Ask = Callable[[int], Awaitable[httpx.Response]]


@dataclass
class Figures:
    """What callers saw in one run. Times are in milliseconds, shares of all calls."""

    setting: str
    who: str
    calls: int
    p50: float
    p99: float
    errors: float
    wrong: float
    errors_all: float
    wrong_all: float
    rounds: list[Any] = field(default_factory=list)


def limits() -> httpx.Limits:
    return httpx.Limits(max_connections=64, max_keepalive_connections=64)


def plain(urls: list[str], *, looks: bool) -> tuple[httpx.AsyncClient, Ask]:
    """Return the loop that is usually written."""
    turn = itertools.cycle(urls)
    client = httpx.AsyncClient(timeout=2, limits=limits(), trust_env=False)

    async def ask(number: int) -> httpx.Response:
        failure: Exception = httpx.TransportError("no attempt was made")
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(0.01 * 2**attempt)
            try:
                response = await client.get(f"{next(turn)}/square/{number}")
            except httpx.TransportError as error:
                failure = error
                continue
            if response.status_code >= 500 or (looks and not is_right(response)):
                failure = httpx.TransportError("a bad answer")
                continue
            return response
        raise failure

    return client, ask


def pooled(urls: list[str]) -> tuple[httpx.AsyncClient, Ask]:
    """Return the client of a pool; what differs from its defaults fits a run of seconds."""
    share = 0.67 if len(urls) == 3 else 0.6
    pool = Pool(
        "shop", urls, pick=p2c(peak_ewma()), valid=is_right, attempts=3,
        eject=Outlier(every=0.2, window=5, max_ejected=share), panic=0.3,
        policy=Policy("shop", timeout=6),
    )  # fmt: skip
    inner = httpx.AsyncHTTPTransport(limits=limits())
    transport = AsyncHttpxPoolTransport(pool, inner)
    client = httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=2)

    async def ask(number: int) -> httpx.Response:
        return await client.get(f"/square/{number}")

    return client, ask


WHO: dict[str, Callable[[list[str]], tuple[httpx.AsyncClient, Ask]]] = {
    PLAIN: lambda urls: plain(urls, looks=False),
    LOOKING: lambda urls: plain(urls, looks=True),
    OURS: pooled,
}


async def load(ask: Ask, seconds: float, kill: Callable[[], None] | None) -> list[Any]:
    """Return (second of the end after the change, seconds taken, "ok"/"error"/"wrong")."""
    begin = time.monotonic()
    change, end = begin + seconds / 4, begin + seconds
    seen: list[Any] = []
    numbers = itertools.count()

    async def caller() -> None:
        while (sent := time.monotonic()) < end:
            number = next(numbers)
            how = "ok"
            try:
                if not is_right(await ask(number)):
                    how = "wrong"
            except Exception:
                how = "error"
            done = time.monotonic()
            seen.append((done - change, done - sent, how))
            await asyncio.sleep(PAUSE)

    async def later() -> None:
        await asyncio.sleep(change - time.monotonic())
        if kill is not None:
            kill()

    async with asyncio.TaskGroup() as group:
        group.create_task(later())
        for _ in range(CALLERS):
            group.create_task(caller())
    return seen


def once(setting: str, who: str, seconds: float) -> Figures:
    """Run one setting with one client."""
    with running(*SETTINGS[setting]) as made:
        victim: Instance | None = made[0] if "killed" in setting else None

        async def main() -> list[Any]:
            client, ask = WHO[who]([one.url for one in made])
            async with client:
                return await load(ask, seconds, None if victim is None else victim.kill)

        seen = asyncio.run(main())
    after = [one for one in seen if one[0] >= 0]
    late = [one for one in after if one[0] >= DETECTED]
    took = sorted(one[1] * 1e3 for one in late)
    return Figures(
        setting, who, len(late), percentile(took, 0.5), percentile(took, 0.99),
        *_shares(late), *_shares(after),
    )  # fmt: skip


def _shares(seen: list[Any]) -> tuple[float, float]:
    count = max(len(seen), 1)
    return (
        sum(one[2] == "error" for one in seen) / count,
        sum(one[2] == "wrong" for one in seen) / count,
    )


def settle(runs: list[Figures]) -> Figures:
    """Return the medians of several rounds; shares are of all rounds together."""
    first = runs[0]
    calls = sum(one.calls for one in runs)

    def middle(name: str) -> float:
        return statistics.median(getattr(one, name) for one in runs)

    def mean(name: str) -> float:
        return sum(getattr(one, name) * one.calls for one in runs) / max(calls, 1)

    return Figures(
        first.setting, first.who, calls, middle("p50"), middle("p99"), mean("errors"),
        mean("wrong"), mean("errors_all"), mean("wrong_all"), [asdict(one) for one in runs],
    )  # fmt: skip


def compare(settings: list[str], rounds: int, seconds: float) -> list[Figures]:
    """Run all clients in all settings, in turn, and return the medians."""
    runs: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(rounds):
        for setting in settings:
            for who in WHO:
                runs.setdefault((setting, who), []).append(once(setting, who, seconds))
    return [settle(several) for several in runs.values()]


def costs(count: int) -> dict[str, float]:
    """Nanoseconds for choosing one of ten instances and noting that it answered."""
    found: dict[str, float] = {}
    addresses = [f"http://10.0.0.{number}:80" for number in range(10)]
    kinds: dict[str, Any] = {
        "round_robin": "round_robin", "p2c": "p2c", "p2c(peak_ewma())": p2c(peak_ewma()),
        "least_loaded": "least_loaded", "peak_ewma": "peak_ewma",
    }  # fmt: skip
    for name, pick in kinds.items():
        pool = Pool("cost", addresses, pick=pick)
        best = []
        for _ in range(5):
            begin = time.perf_counter_ns()
            for _ in range(count):
                pool.end(pool.take([]), None)
            best.append((time.perf_counter_ns() - begin) / count)
        found[name] = statistics.median(best)

    def nothing(endpoint: Any) -> None:
        return None

    pool = Pool("cost", addresses)
    bare = Pool("cost", addresses, attempts=1)
    for name, one in {"call": pool, "call, attempts=1": bare}.items():
        best = []
        for _ in range(5):
            begin = time.perf_counter_ns()
            for _ in range(count):
                one.call(nothing)
            best.append((time.perf_counter_ns() - begin) / count)
        found[name] = statistics.median(best)
    return found


def show(rows: list[Figures], cost: dict[str, float]) -> None:
    print(
        f"{'setting':24}{'client':26}{'p50 ms':>8}{'p99 ms':>9}{'errors':>9}{'wrong':>9}"
        f"{'errors, all':>13}{'wrong, all':>12}"
    )
    for row in rows:
        print(
            f"{row.setting:24}{row.who:26}{row.p50:8.1f}{row.p99:9.1f}{row.errors:9.3%}"
            f"{row.wrong:9.3%}{row.errors_all:13.3%}{row.wrong_all:12.3%}"
        )
    print("\nchoosing one of ten and noting the outcome, ns")
    for name, ns in cost.items():
        print(f"  {name:20}{ns:8,.0f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, two settings: is it alive?")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args(arguments)
    settings, rounds, seconds = list(SETTINGS), chosen.rounds, chosen.seconds
    if chosen.quick:
        settings, rounds, seconds = ["3, one killed", "3, one lies"], 1, 3.0
    rows = compare(settings, rounds, seconds)
    cost = costs(2_000 if chosen.quick else 50_000)
    if chosen.json:
        figures = {"machine": machine(), "rows": [asdict(row) for row in rows], "cost_ns": cost}
        json.dump(figures, sys.stdout, indent=2)
        print()
        return 0
    print(machine())
    show(rows, cost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
