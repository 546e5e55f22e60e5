"""A service that stays down after a short overload, and what of its clients brings it back.

    python -m benchmarks.metastable [--json] [--svg FILE] [--seed N] [--seconds N]
                                    [--load SHARE] [--peak SHARE] [--queue N]

A service has workers and one queue. Clients call it at three quarters of what it can do; for ten
seconds they call at more than it can do; then at three quarters again. What differs is how the
clients repeat calls that fail. Real policies run in the simulator: time is virtual, users come at
random, and one seed gives one result.

Sustained failures of this kind are called metastable: the trigger is gone, and what the system
does because it fails keeps it failing (Bronson and others, HotOS 2021; Huang and others, OSDI
2022).
"""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from outlast import sim
from outlast.check.core import svg
from outlast.kernel import OverloadedError, Prng, RejectedError, current_deadline
from outlast.protect import (
    Budget,
    Bulkhead,
    CircuitBreaker,
    Policy,
    Retry,
    TimeWindow,
    incoming,
)
from outlast.protect.headers import inject

NEVER = math.inf
_GOOD = 0.9
_STEADY = 5


@dataclass
class Scene:
    """What is simulated; seconds, and shares of the capacity."""

    workers: int = 10
    service: float = 0.05
    queue: int = 1000
    clients: int = 20
    load: float = 0.75
    peak: float = 1.3
    peak_at: int = 20
    peak_for: int = 10
    seconds: int = 120
    attempt_timeout: float = 1.0

    @property
    def capacity(self) -> float:
        """Calls that it can serve per second."""
        return self.workers / self.service

    def load_at(self, now: float) -> float:
        """Return how many users come per second."""
        peak = self.peak_at <= now < self.peak_at + self.peak_for
        return (self.peak if peak else self.load) * self.capacity


@dataclass
class Run:
    """What came of it, second by second."""

    name: str
    users: list[int]
    answered: list[int]
    attempts: list[int]
    served: list[int]
    refused: int = 0

    def recovery(self, scene: Scene) -> float:
        """Return how long after the peak users are answered again, lastingly; or never."""
        end = scene.peak_at + scene.peak_for
        for second in range(end, len(self.users) - _STEADY):
            span = slice(second, second + _STEADY)
            if sum(self.answered[span]) >= _GOOD * sum(self.users[span]):
                return float(second - end)
        return NEVER

    def figures(self, scene: Scene) -> dict[str, Any]:
        """Return what matters, as shares of the users, or of the capacity."""
        end = scene.peak_at + scene.peak_for
        last = slice(len(self.users) * 2 // 3, None)
        recovery = self.recovery(scene)
        return {
            "recovered_after_s": None if recovery == NEVER else recovery,
            "answered_at_the_end": round(sum(self.answered[last]) / sum(self.users[last]), 3),
            "answered_after_the_peak": round(sum(self.answered[end:]) / sum(self.users[end:]), 3),
            "attempts_per_user": round(sum(self.attempts[end:]) / sum(self.users[end:]), 3),
            "served_for_nobody": round(1 - sum(self.answered) / max(sum(self.served), 1), 3),
        }


class Service:
    """Workers behind a queue; who has stopped waiting is served all the same, unless it heeds.

    Args:
        scene: Its size.
        prng: For the times that calls take.
        heeds: Whether it reads the deadline that a request carries, and says when to come again.
    """

    def __init__(self, scene: Scene, prng: Prng, run: Run, *, heeds: bool) -> None:
        self._scene = scene
        self._prng = prng
        self._run = run
        self._heeds = heeds
        self._limit = Bulkhead(scene.workers, queue=scene.queue)
        self._begun = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[None]] = set()

    def second(self) -> int:
        """Return the second of the run; the one after the last for all that comes later."""
        now = asyncio.get_running_loop().time()
        return min(int(now - self._begun), self._scene.seconds)

    def send(self, headers: dict[str, str]) -> asyncio.Future[None]:
        """Take a request; what becomes of it does not depend on who waits for the answer."""
        self._run.attempts[self.second()] += 1
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._handle(headers, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def _handle(self, headers: dict[str, str], answer: asyncio.Future[None]) -> None:
        current_deadline.set(None)  # only headers go over the wire
        error: BaseException | None = None
        try:
            if self._heeds:
                async with incoming(headers):
                    await self._work()
            else:
                await self._work()
        except RejectedError as refused:
            self._run.refused += 1
            wait = self._limit.waiting / self._scene.capacity if self._heeds else None
            error = OverloadedError(str(refused), retry_after=wait)
        except TimeoutError as late:
            error = late
        if answer.done():
            return  # nobody waits
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    async def _work(self) -> None:
        permit = await self._limit.acquire()
        try:
            share = (self._prng.below(1000) + self._prng.below(1000)) / 1000  # mean 1
            await asyncio.sleep(self._scene.service * share)
            self._run.served[self.second()] += 1
        finally:
            self._limit.release(permit)


Ask = Callable[[], Awaitable[None]]


def no_retry(scene: Scene) -> Callable[[Ask], Ask]:
    """One attempt: what there would be without retries."""
    return Policy(attempt_timeout=scene.attempt_timeout)


def naive(scene: Scene) -> Callable[[Ask], Ask]:
    """Three attempts, one after the other, as such loops are written by hand."""

    def wrapped(ask: Ask) -> Ask:
        async def protected() -> None:
            for attempt in (1, 2, 3):
                try:
                    async with asyncio.timeout(scene.attempt_timeout):
                        await ask()
                        return
                except (TimeoutError, OverloadedError):
                    if attempt == 3:
                        raise

        return protected

    return wrapped


def _retry(budget: Budget | None = None) -> Retry:
    errors = (TimeoutError, OverloadedError)
    return Retry(errors, 3, base=0.1, cap=5.0, repeat_indefinite=True, budget=budget)


def _breaker() -> CircuitBreaker:
    window = TimeWindow(5)
    return CircuitBreaker(failure_rate=0.5, window=window, min_calls=10, recovery_timeout=1.0)


def backoff_only(scene: Scene) -> Callable[[Ask], Ask]:
    """Three attempts, with exponential backoff and full jitter between them."""
    return Policy(retry=_retry(), attempt_timeout=scene.attempt_timeout)


def budget_only(scene: Scene) -> Callable[[Ask], Ask]:
    """The same with a budget: one retry for ten calls."""
    budget = Budget(ratio=0.1, floor=0.1)
    return Policy(retry=_retry(budget), attempt_timeout=scene.attempt_timeout)


def breaker_only(scene: Scene) -> Callable[[Ask], Ask]:
    """The same with a breaker and no budget."""
    timeout = scene.attempt_timeout
    return Policy(retry=_retry(), breaker=_breaker(), attempt_timeout=timeout)


def protected(scene: Scene) -> Callable[[Ask], Ask]:
    """The same with a budget, a breaker and a limit on the whole."""
    return Policy(
        timeout=3 * scene.attempt_timeout,
        retry=_retry(Budget(ratio=0.1, floor=0.1)),
        breaker=_breaker(),
        attempt_timeout=scene.attempt_timeout,
    )


VARIANTS: dict[str, tuple[Callable[[Scene], Callable[[Ask], Ask]], bool]] = {
    "no retries": (no_retry, False),
    "naive retries": (naive, False),
    "backoff only": (backoff_only, False),
    "budget only": (budget_only, False),
    "breaker only": (breaker_only, False),
    "budget and breaker": (protected, False),
    "deadlines, too": (protected, True),
}
"""How clients call, and whether the service heeds deadlines and says when to come again."""


def simulate(scene: Scene, name: str, seed: int) -> Run:
    """Run one variant from one seed."""
    empty = [0] * (scene.seconds + 1)  # the last is for what ends after the run
    run = Run(name, [*empty], [*empty], [*empty], [*empty])
    make, heeds = VARIANTS[name]

    async def main() -> None:
        prng = Prng(seed)
        service = Service(scene, Prng(prng.bits64()), run, heeds=heeds)

        async def ask() -> None:
            headers: dict[str, str] = {}
            inject(headers)
            await service.send(headers)

        callers = [make(scene)(ask) for _ in range(scene.clients)]
        users: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (now := loop.time() - begun) < scene.seconds:
            second = service.second()
            run.users[second] += 1
            user = asyncio.create_task(_user(prng.choice(callers), run, second))
            users.add(user)
            user.add_done_callback(users.discard)
            chance = (prng.below(1_000_000) + 1) / 1_000_000
            await asyncio.sleep(-math.log(chance) / scene.load_at(now))
        await asyncio.gather(*users)

    sim.run(main, seed=seed)
    for counts in (run.users, run.attempts, run.answered):
        counts.pop()
    return run


async def _user(call: Ask, run: Run, second: int) -> None:
    """One call; it counts for the second in which its user came."""
    with suppress(TimeoutError, RejectedError):
        await call()
        run.answered[second] += 1


# --- the picture -----------------------------------------------------------------------------

DRAWN = ("naive retries", "backoff only", "budget and breaker", "deadlines, too")
WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 860.0, 60.0, 190.0, 210.0, 60.0, 44.0
SHEET = """
svg { --ink: #1f2933; --faint: #cbd2d9; --back: #ffffff; --band: #fce8d5;
  background: var(--back); --c0: #b44d12; --c1: #8a2d8a; --c2: #52606d; --c3: #0b69a3; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7eb; --faint: #3e4c59; --back: #1f2933;
  --band: #4a3524; --c0: #f7a072; --c1: #e38ae3; --c2: #9aa5b1; --c3: #5ed0fa; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--faint); stroke-width: 1; }
.band { fill: var(--band); }
.full { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 6 4; }
.curve { fill: none; stroke-width: 1.9; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); stroke-dasharray: 8 3; }
.c2 { stroke: var(--c2); stroke-dasharray: 2 3; } .c3 { stroke: var(--c3); stroke-width: 2.6; }
"""


def draw(runs: dict[str, Run], scene: Scene) -> str:
    """Return users answered and attempts made over time, as SVG."""
    words = (
        "After ten seconds of overload: users answered, and attempts made, over time, "
        "with naive retries, with backoff only, and with a budget, a breaker and deadlines"
    )
    root = svg.picture(WIDTH, TOP + 2 * PANEL + GAP + 46, label=words)
    svg.style(root, SHEET)
    most = math.ceil(max(max(run.attempts) for run in runs.values()) / scene.capacity)
    _panel(
        root, runs, scene, Panel(TOP, "users answered, of those who come", 1.0, 0.25, _answered)
    )
    second = Panel(
        TOP + PANEL + GAP, "attempts, of what the service can do", float(most), 1.0, _loaded
    )
    _panel(root, runs, scene, second)
    for number, name in enumerate(runs):
        y = TOP + 24 * number + 10
        svg.line(root, (WIDTH - RIGHT + 15, y), (WIDTH - RIGHT + 45, y), f"curve c{number}")
        svg.text(root, WIDTH - RIGHT + 52, y + 4, name)
    return svg.markup(root)


def _answered(run: Run, scene: Scene) -> list[float]:
    return _smooth([a / max(u, 1) for a, u in zip(run.answered, run.users, strict=True)])


def _loaded(run: Run, scene: Scene) -> list[float]:
    return _smooth([attempts / scene.capacity for attempts in run.attempts])


def _smooth(values: list[float]) -> list[float]:
    """Return the mean of each value and its neighbours."""
    spans = [values[max(0, n - 1) : n + 2] for n in range(len(values))]
    return [sum(span) / len(span) for span in spans]


class Panel(NamedTuple):
    """One of the two diagrams: where it begins, what it shows, its scale and its values."""

    top: float
    title: str
    high: float
    step: float
    values: Callable[[Run, Scene], list[float]]


def _panel(root: Any, runs: dict[str, Run], scene: Scene, panel: Panel) -> None:
    top, title, high, step, values = panel
    across = svg.linear(0, scene.seconds, LEFT, WIDTH - RIGHT)
    up = svg.linear(0, high, top + PANEL, top)
    begin, end = across(scene.peak_at), across(scene.peak_at + scene.peak_for)
    svg.rect(root, (begin, top, end - begin, PANEL), "band")
    svg.text(root, LEFT, top - 10, title)
    svg.text(root, (begin + end) / 2, top + 16, "overload", "middle")
    for tick in range(round(high / step) + 1):
        y = up(tick * step)
        svg.line(root, (LEFT, y), (WIDTH - RIGHT, y), "grid")
        svg.text(root, LEFT - 8, y + 4, f"{tick * step:.0%}", "end")
    for tick in range(0, scene.seconds + 1, max(scene.seconds // 6, 1)):
        svg.text(root, across(tick), top + PANEL + 20, f"{tick} s", "middle")
    if high > 1:
        svg.line(root, (LEFT, up(1)), (WIDTH - RIGHT, up(1)), "full")
    for number, run in enumerate(runs.values()):
        points = [
            (across(second + 0.5), up(min(value, high)))
            for second, value in enumerate(values(run, scene))
        ]
        svg.path(root, points, f"curve c{number}")


def main(arguments: list[str] | None = None) -> int:
    """Run all variants and print what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw what happens over time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=Scene.seconds)
    parser.add_argument("--load", type=float, default=Scene.load, help="of the capacity")
    parser.add_argument("--peak", type=float, default=Scene.peak, help="of the capacity")
    parser.add_argument("--queue", type=int, default=Scene.queue, help="calls that may wait")
    chosen = parser.parse_args(arguments)
    names = ("seconds", "load", "peak", "queue")
    scene = replace(Scene(), **{name: getattr(chosen, name) for name in names})
    runs = {name: simulate(scene, name, chosen.seed) for name in VARIANTS}
    figures = {name: run.figures(scene) for name, run in runs.items()}
    if chosen.svg:
        chosen.svg.write_text(draw({name: runs[name] for name in DRAWN}, scene) + "\n")
    if chosen.json:
        answer = {"seed": chosen.seed, "scene": asdict(scene), "runs": figures}
        json.dump(answer, sys.stdout, indent=2)
        print()
        return 0
    end = scene.peak_at + scene.peak_for
    print(f"{scene.capacity:g} calls/s can be served, {scene.load:.0%} of it come; "
          f"{scene.peak:.0%} from {scene.peak_at} s to {end} s")  # fmt: skip
    print(f"{'':20}{'recovered':>12}{'answered after':>16}{'at the end':>12}{'attempts':>10}")
    for name, row in figures.items():
        after = row["recovered_after_s"]
        print(f"{name:20}{'never' if after is None else f'{after:g} s':>12}"
              f"{row['answered_after_the_peak']:>16.1%}{row['answered_at_the_end']:>12.1%}"
              f"{row['attempts_per_user']:>10.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
