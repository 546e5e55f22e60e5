"""What libraries of call protection do when it matters: ``python -m benchmarks.probes [--json]``.

Eighteen questions, put to ours and to every peer that has the part in question, on the real clock
(a minute in all). ``--only P2 P7`` asks some. The same questions to ours alone, in virtual
time, are ``tests/unit/test_protect_probes.py``. A dash is a library without such a part.
"""

import argparse
import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from benchmarks.common import machine
from benchmarks.peers import probed
from benchmarks.peers.calls import OURS
from benchmarks.probe_tools import (
    HANG,
    LIMIT,
    OPEN,
    Answer,
    Broken,
    Entered,
    Inside,
    attempt,
    attempt_async,
    fail,
    fail_async,
    in_threads,
    refused,
)  # fmt: skip
from benchmarks.protect_measure import why_missing

Maker = Callable[..., probed.Decorator]


# --- breakers ----------------------------------------------------------------------------------


def p1_stale(make: Maker) -> Answer:
    """A success from before the trip must not close an open breaker."""
    guard = make(3, 60.0)
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(LIMIT)

    thread = threading.Thread(target=guard(slow), daemon=True)
    thread.start()
    begun.wait(LIMIT)
    failing = guard(fail)

    def trip() -> None:
        for _ in range(10):
            if refused(attempt(failing)):
                break

    tripping = threading.Thread(target=trip, daemon=True)
    tripping.start()
    tripping.join(0.5)
    blocked = tripping.is_alive()
    go.set()
    thread.join(LIMIT)
    tripping.join(LIMIT)
    if blocked:
        return Answer(True, "cannot arise: calls do not overlap")
    still = refused(attempt(guard(lambda: None)))
    return Answer(still, "stays open" if still else "closed by a call from before the trip")


async def opened(guard: probed.Decorator) -> None:
    """Open a breaker of three failures, and wait until it is half open."""
    failing = guard(fail_async)
    for _ in range(10):
        if refused(await attempt_async(failing)):
            await asyncio.sleep(OPEN * 1.3)
            return
    raise RuntimeError("did not open")


async def p2_stampede(make: Maker) -> Answer:
    """Of twenty callers a half-open breaker lets few through: here one."""
    guard = make(3, OPEN)
    await opened(guard)
    started, ended, probes = 0, False, 0

    async def probe() -> None:
        nonlocal started, ended, probes
        started += 1
        if not ended:
            probes = started
        await asyncio.sleep(0.05)
        ended = True

    guarded = guard(probe)
    await asyncio.gather(*(attempt_async(guarded) for _ in range(20)))
    return Answer(probes == 1, f"{probes} of 20 callers before the first had its answer")


async def p3_cancelled(make: Maker) -> Answer:
    """A cancelled probe tells nothing: another probe follows, and its failure opens again."""
    guard = make(3, OPEN)
    await opened(guard)
    probe = asyncio.ensure_future(guard(asyncio.sleep)(HANG))
    await asyncio.sleep(0.02)
    probe.cancel()
    await asyncio.wait([probe])
    if refused(await attempt_async(guard(fail_async))):
        return Answer(False, "opened again, or blocked, by a cancelled probe")
    if refused(await attempt_async(guard(asyncio.sleep), 0)):
        return Answer(True, "the next call is the probe")
    return Answer(False, "closed by a cancelled probe")


def p4_serialised(make: Maker) -> Answer:
    """Four threads that wait 0.1 s in one breaker take 0.1 s."""
    guarded = make(3, 60.0)(lambda: time.sleep(0.1))
    began = time.perf_counter()
    in_threads(guarded, 4)
    took = time.perf_counter() - began
    return Answer(took < 0.25, f"4 x 0.1 s in {took:.2f} s")


async def p8_counted(make: Maker) -> Answer:
    """Fifty failures of a coroutine open a breaker of five."""
    calls = 0

    async def failing() -> None:
        nonlocal calls
        calls += 1
        raise Broken

    guarded = make(5, 60.0)(failing)
    for _ in range(50):
        await attempt_async(guarded)
    return Answer(calls <= 6, f"{calls} of 50 failing calls went through")


def p9_interrupt(make: Maker) -> Answer:
    """Ctrl-C is no failure, and comes through itself."""
    guard = make(2, 60.0)

    def interrupted() -> None:
        raise KeyboardInterrupt

    seen = [attempt(guard(interrupted)) for _ in range(4)]
    if not all(isinstance(one, KeyboardInterrupt) for one in seen):
        other = next(one for one in seen if not isinstance(one, KeyboardInterrupt))
        return Answer(False, f"Ctrl-C became {type(other).__name__}")
    counted = refused(attempt(guard(lambda: None)))
    return Answer(not counted, "opened by Ctrl-C" if counted else "comes through, is not counted")


def p14_hidden(make: Maker) -> Answer:
    """The call that opens the breaker raises the callee's own exception."""
    guard = make(3, 60.0)
    calls = 0

    def failing() -> None:
        nonlocal calls
        calls += 1
        raise Broken

    guarded = guard(failing)
    seen = [attempt(guarded) for _ in range(10)]
    other = [type(one).__name__ for one in seen[:calls] if not isinstance(one, Broken)]
    return Answer(not other, f"became {other[0]}" if other else "comes through")


async def p15_wedged(make: Maker) -> Answer:
    """A probe that hangs does not keep the breaker half open for ever."""
    guard = make(3, OPEN)
    await opened(guard)
    hung = asyncio.ensure_future(guard(asyncio.sleep)(HANG))
    await asyncio.sleep(OPEN * 10)
    outcome = await attempt_async(lambda: asyncio.wait_for(guard(asyncio.sleep)(0), 0.5))
    hung.cancel()
    await asyncio.wait([hung])
    wedged = refused(outcome)
    return Answer(not wedged, f"blocked after {OPEN * 10:g} s" if wedged else "goes on")


# --- permits -----------------------------------------------------------------------------------


async def p5_leak(make: Maker) -> Answer:
    """Cancelled waiters take nothing with them: three may run and two wait, then as before."""

    async def hold() -> str:
        await asyncio.sleep(0.1)
        return "fine"

    guarded = make(3)(hold)
    first = [asyncio.ensure_future(guarded()) for _ in range(3)]
    await asyncio.sleep(0.02)
    waiters = [asyncio.ensure_future(guarded()) for _ in range(2)]
    await asyncio.sleep(0.02)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait([*first, *waiters])
    late = [asyncio.ensure_future(attempt_async(guarded)) for _ in range(5)]
    _, hanging = await asyncio.wait(late, timeout=1.0)
    for one in hanging:
        one.cancel()
    served = sum(one.done() and not one.cancelled() and one.result() == "fine" for one in late)
    return Answer(served == 5, f"{served} of 5 callers served after two were cancelled")


def p16_loops(make: Maker) -> Answer:
    """One permit is one permit, also for two event loops."""
    inside = Inside()

    async def hold() -> None:
        with inside:
            await asyncio.sleep(0.05)

    guarded = make(1)(hold)

    async def several() -> list[object]:
        return [await attempt_async(guarded) for _ in range(3)]

    answers = in_threads(lambda: asyncio.run(several()), 2, 2.0)
    errors = [
        one for many in answers for one in (many if isinstance(many, list) else [many])
        if isinstance(one, BaseException)
    ]  # fmt: skip
    if errors:
        return Answer(False, f"{type(errors[0]).__name__} in another loop")
    if len(answers) < 2:
        return Answer(False, "a loop waits for ever")
    return Answer(inside.most == 1, f"{inside.most} at once under a limit of 1")


# --- retries, time -----------------------------------------------------------------------------


async def p6_shared(make: Callable[[], Callable[[], Any]]) -> Answer:
    """Five tasks that share one retry make three attempts each."""
    attempts = make()

    async def caller() -> int:
        calls = 0
        with suppress(ConnectionError):
            async for one in attempts():
                block = one if hasattr(one, "__aenter__") else Entered(one)
                async with block:
                    calls += 1
                    await asyncio.sleep(0.01)
                    raise Broken
        return calls

    made = await asyncio.gather(*(caller() for _ in range(5)))
    return Answer(made == [3] * 5, f"attempts made: {made}")


async def p7_cancellation(make: Maker) -> Answer:
    """A retry of everything does not retry cancellation."""
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.3)

    began = time.perf_counter()
    outcome = await attempt_async(lambda: asyncio.wait_for(make(5)(hang)(), 0.05))
    took = time.perf_counter() - began
    right = isinstance(outcome, TimeoutError) and calls == 1
    return Answer(right, f"wait_for(0.05): {calls} calls, {took:.2f} s, {outcome!r}")


def p10_stream(make: Maker) -> Answer:
    """A consumer sees no item of a generator twice."""

    def items() -> Iterator[int]:
        yield from range(3)
        raise Broken

    seen: list[int] = []
    with suppress(Exception):
        for item in make(3)(items)():
            seen.append(item)  # one by one: those before the error count
    return Answer(seen == [0, 1, 2], f"the consumer saw {seen}")


async def p11_total(make: Maker) -> Answer:
    """A total of 0.2 s ends a call that hangs for one second."""
    began = time.perf_counter()
    await attempt_async(make(0.2)(asyncio.sleep), 1.0)
    took = time.perf_counter() - began
    return Answer(took < 0.4, f"0.2 s became {took:.2f} s")


async def p12_attempts(make: Maker) -> Answer:
    """Three attempts are three calls."""
    calls = 0

    async def failing() -> None:
        nonlocal calls
        calls += 1
        raise Broken

    outcome = await attempt_async(make(3)(failing))
    swapped = "" if isinstance(outcome, Broken) else f", ends with {type(outcome).__name__}"
    return Answer(calls == 3, f"{calls} calls{swapped}")


def p17_ours() -> Answer:
    """Waits and breakers agree about the time of tests."""
    from outlast import CircuitBreaker, CircuitOpenError, Policy, Retry
    from outlast.testing import virtual_time

    retry = Retry(on=(Broken, CircuitOpenError), base=40, cap=40, jitter="none")
    policy = Policy("probe", retry=retry, breaker=CircuitBreaker(1, 30))
    with virtual_time():
        return p17_story(policy)


def p17_nopanic() -> Answer:
    import nopanic
    from nopanic.testing import instant

    with instant():
        return p17_story(nopanic.compose(
            nopanic.retry(3, (Broken, nopanic.CircuitOpen), backoff=40.0),
            nopanic.circuit_breaker(min_calls=1, reset_timeout=30.0),
        ))  # fmt: skip


def p17_story(guard: probed.Decorator) -> Answer:
    """Fail once; the wait before the second attempt is longer than the breaker is open."""
    calls = 0

    def once() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Broken
        return "fine"

    outcome = attempt(guard(once))
    if outcome == "fine":
        return Answer(calls == 2, "as in real time")
    return Answer(False, f"fine in real time, {type(outcome).__name__} in the test")


def p18_queue(make: Maker) -> Answer:
    """Eight healthy calls of 0.2 s under a timeout of 0.3 s all succeed."""
    guarded = make(0.3)(lambda: time.sleep(0.2))
    late = sum(isinstance(one, TimeoutError) or refused(one) for one in in_threads(guarded, 8))
    return Answer(late == 0, f"{late} of 8 healthy calls timed out")


# --- running -----------------------------------------------------------------------------------

Probe = Callable[[Any], Any]
PROBES: dict[str, tuple[str, Probe, dict[str, Any]]] = {
    "P1": ("call from before the trip closes the breaker", p1_stale, probed.BREAKERS),
    "P2": ("half-open stampede", p2_stampede, probed.BREAKERS_ASYNC),
    "P3": ("cancelled probe", p3_cancelled, probed.BREAKERS_ASYNC),
    "P4": ("calls serialised", p4_serialised, probed.BREAKERS),
    "P5": ("permits lost with cancelled waiters", p5_leak, probed.BULKHEADS),
    "P6": ("tasks share one retry", p6_shared, probed.ATTEMPTS),
    "P7": ("retry of a cancellation", p7_cancellation, probed.RETRIES_ASYNC),
    "P8": ("failures of coroutines counted", p8_counted,
           {"pybreaker": probed.pybreaker_breaker, **probed.BREAKERS_ASYNC}),
    "P9": ("Ctrl-C counted or swapped", p9_interrupt, probed.BREAKERS),
    "P10": ("generator retried after items", p10_stream, probed.RETRIES),
    "P11": ("total time that ends an attempt", p11_total, probed.TOTALS),
    "P12": ("attempts are calls", p12_attempts, probed.RETRIES_ASYNC),
    "P14": ("callee's exception hidden", p14_hidden, probed.BREAKERS),
    "P15": ("hung probe blocks the breaker", p15_wedged, probed.BREAKERS_ASYNC),
    "P16": ("one limit, two event loops", p16_loops, probed.BULKHEADS),
    "P17": ("time of tests agrees with itself", lambda make: make(),
            {OURS: p17_ours, "nopanic": p17_nopanic}),
    "P18": ("timeouts while queueing", p18_queue, probed.TIMEOUTS),
}  # fmt: skip
ELSEWHERE = {
    "P13": "a prober that dies blocks a shared breaker: "
    "tests/integration/test_protect_fleet_processes.py, three processes over SQLite and Redis",
}
"""Probes that need more than one process."""


def ask(probe: Probe, make: Any) -> Answer:
    """Put one question to one library."""
    try:
        found = probe(make)
        if asyncio.iscoroutine(found):
            found = asyncio.run(asyncio.wait_for(found, LIMIT))
    except ModuleNotFoundError as error:
        return Answer(None, why_missing(error))
    except Exception as error:
        return Answer(False, why_missing(error))
    answer: Answer = found
    return answer


def report(found: dict[str, dict[str, Answer]]) -> list[str]:
    """The table: one block for each probe, ours first."""
    marks = {True: "right", False: "WRONG", None: "-"}
    lines = []
    for name in sorted([*found, *(ELSEWHERE if found else ())], key=lambda one: int(one[1:])):
        if name in ELSEWHERE:
            lines += ["", f"{name}  {ELSEWHERE[name]}"]
            continue
        lines += ["", f"{name}  {PROBES[name][0]}"]
        lines += [
            f"  {marks[answer.right]:6} {who:18} {answer.text}"
            for who, answer in found[name].items()
        ]
    wrong: dict[str, list[str]] = {}
    for name, answers in found.items():
        for who, answer in answers.items():
            wrong.setdefault(who, [])
            if answer.right is False:
                wrong[who].append(name)
    lines += ["", "wrong, by library"]
    for who, names in wrong.items():
        lines.append(f"  {who:18} {' '.join(names) or 'none'}")
    return lines


def main() -> int:
    """Run as asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", default=list(PROBES), choices=PROBES, metavar="P1")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = {}
    for name in given.only:
        _, probe, makers = PROBES[name]
        found[name] = {who: ask(probe, make) for who, make in makers.items()}
        print(f"{name}: asked", file=sys.stderr)
    if given.json:
        told = {
            name: {who: {"right": one.right, "text": one.text} for who, one in answers.items()}
            for name, answers in found.items()
        }
        print(json.dumps({"machine": machine(), "probes": told, "elsewhere": ELSEWHERE}))
        return 0
    print(machine())
    print("\n".join(report(found)))
    ours = [answers[OURS].right for answers in found.values() if OURS in answers]
    return 0 if all(one is not False for one in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
