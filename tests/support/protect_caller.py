"""The sending side of the protected fleet: clients, their calls, and what is checked of each."""

import asyncio
import contextlib
import json
from contextlib import ExitStack
from typing import Any

from outlast.kernel import (
    CommandError,
    DeadlineError,
    InFlightError,
    KeyReusedError,
    OverloadedError,
    Prng,
    current_deadline,
    current_world,
    happened,
    idempotency_key,
)
from outlast.protect import current_call, deadline, priority
from outlast.protect.headers import inject
from outlast.protect.permits import Permits
from outlast.protect.shared import Shared
from tests.support.protect_parts import Settings, make_policy
from tests.support.protect_service import NS, PORT, Books, Broken, FleetStore

TICK_NS = 1_000_000
OUT_OF_TIME = {"pause", "slow", "clock:drift"}
"""Faults of a host during which it cannot keep to the tick."""
CALLS_MAX = 120
"""For each life of a client."""


class RefusedAnswer(CommandError):
    """The service's answer is no."""


class Late(DeadlineError):
    """The service gave up because the caller's time was over."""


class Call:
    """One logical call and its attempts.

    Args:
        number: Of the call, with the life of the client that makes it.
        order: What the service is asked to do; the key, too, where the caller gives one.
        limit: Seconds of a deadline of its caller.
        block: Whether it is made as blocks of ``policy.attempts()``.

    Attributes:
        attempts: Key, attempt number and hedge number of each.
        refused: Attempts whose error says that they did not happen.
        cancelled: Whether its caller has cancelled it.
        said: What ``happened`` said of its error when it ended.
    """

    def __init__(self, number: str, order: str, limit: float | None, *, block: bool) -> None:
        self.number = number
        self.order = order
        self.limit = limit
        self.block = block
        self.attempts: list[tuple[str | None, int, int]] = []
        self.refused: list[str] = []
        self.cancelled = False
        self.tried = False
        self.ended = False
        self.began_ns = 0
        self.result: Any = None
        self.error: BaseException | None = None
        self.said = ""


class Client:
    """One life of a client host: a policy with parts of its own, and calls through it."""

    def __init__(
        self, name: str, life: int, books: Books, settings: Settings, store: FleetStore,
        servers: list[str], prng: Prng,
    ) -> None:  # fmt: skip
        self.name = name
        self.label = f"{name}.{life}"
        self.books = books
        self.settings = settings
        self.servers = servers
        self.prng = prng
        self.shared = Shared(store, node=self.label) if settings.shared else None
        self.policy = make_policy(f"{self.label}", settings, self.shared)
        self.calls: list[Call] = []
        self.running = 0
        self.recovered = False
        self.over = False
        self.protected = self.policy(self.ask)
        parts = self.policy.parts
        self.breaker: Any = parts.get("breaker")
        self.rate: Any = parts.get("rate")
        self.limit: Permits | None = parts.get("limit")
        self.budget = parts["retry"].budget

    # --- one attempt -----------------------------------------------------------------------------

    async def ask(self, call: Call) -> int:
        """Make one attempt: the function that the policy protects."""
        info = current_call()
        attempt = f"{call.number}#{len(call.attempts)}"
        key, turn = (None, (1, 0)) if info is None else (info.key, (info.attempt, info.hedge))
        call.attempts.append((key, *turn))
        probe = None if self.breaker is None else self.breaker.began()
        if probe is not None:
            most, now = self.settings.concurrent, self.breaker.overlapping()
            self.books.check(now <= most, f"{self.label}: {now} probes at a time, {most} may")
            self.books.lab.sometimes("a probe ran")
        self.running += 1
        self._check_permits()
        try:
            return await self._exchange(call, attempt)
        except BaseException as error:
            if happened(error) == "no":
                call.refused.append(attempt)
            raise
        finally:
            self.running -= 1
            if probe is not None:
                self.breaker.probing.pop(probe, None)

    async def _exchange(self, call: Call, attempt: str) -> int:
        headers: dict[str, str] = {}
        inject(headers)
        request = {"attempt": attempt, "order": call.order, "headers": headers}
        reader, writer = await asyncio.open_connection(self.prng.choice(self.servers), PORT)
        with contextlib.closing(writer):
            writer.write(json.dumps(request).encode() + b"\n")
            line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("no answer")
        return self._read(json.loads(line))

    def _read(self, answer: dict[str, Any]) -> int:
        error, after = answer.get("error"), answer.get("after")
        if error is None:
            return int(answer["receipt"])
        self.books.lab.sometimes(f"a service said {error}")
        if error == "InFlightError":
            raise InFlightError("in flight", retry_after=after)
        if error == "OverloadedError":
            raise OverloadedError("overloaded", retry_after=after)
        if error == "KeyReusedError":
            raise KeyReusedError("another request")
        if error == "Late":
            raise Late("late")
        raise RefusedAnswer("no") if error == "Refused" else Broken(error)

    def _check_permits(self) -> None:
        limit = self.limit
        if limit is None:
            return
        held = limit.in_flight
        if self.settings.plain:
            self.books.check(self.running <= held, f"{self.label}: {self.running} run on {held}")
        most = getattr(limit, "max_concurrent", 30)
        self.books.check(held <= most, f"{self.label}: {held} of {most} permits are held")

    # --- one call --------------------------------------------------------------------------------

    async def call(self, number: int, *, patient: bool = False) -> Call:
        """Make one logical call and keep what came of it."""
        name = f"{self.label}-{number}"
        with ExitStack() as stack:
            order = name
            if not patient and self.prng.chance(1, 6):
                order = f"{self.label}-order-{number // 3}"
                stack.enter_context(idempotency_key(order))
            if self.prng.chance(1, 4):
                stack.enter_context(priority(self.prng.below(4)))
            hurried = not patient and self.prng.chance(1, 5)
            call = Call(
                name, order, self.prng.between(20, 600) / 1000 if hurried else None,
                block=self.settings.blocks and self.prng.chance(1, 3),
            )  # fmt: skip
            self.calls.append(call)
            await self._call(call)
        return call

    async def _made(self, call: Call) -> int:
        """Make the call, under a deadline of the caller's if there is one."""
        if call.limit is None:
            return await self._protected(call)
        async with deadline(call.limit):
            return await self._protected(call)

    async def _protected(self, call: Call) -> int:
        call.tried = True
        if not call.block:
            return await self.protected(call)
        self.books.lab.sometimes("a call was made as blocks")
        async for attempt in self.policy.attempts():
            async with attempt:
                return await self.ask(call)
        raise AssertionError("attempts() has ended without an error")

    async def _call(self, call: Call) -> None:
        clock, books = current_world().clock, self.books
        task = asyncio.current_task()
        begun_ns, call.began_ns = clock.monotonic_ns(), books.now_ns
        try:
            call.result = await self._made(call)
        except BaseException as error:
            call.error, call.said = error, happened(error)
            if isinstance(error, GeneratorExit):
                return
        call.ended = True
        took_ns = clock.monotonic_ns() - begun_ns
        limits = [call.limit, self.settings.timeout if self.settings.bounded else None]
        limit_ns = round(min((one for one in limits if one is not None), default=1e6) * NS)
        if took_ns > limit_ns + TICK_NS and not self._stood_still(call):
            books.check(False, f"{call.number} took {took_ns} ns of {limit_ns}: {call.error!r}")
        what = type(call.error).__name__ if call.error is not None else "an answer"
        books.lab.sometimes(f"a call ended with {what}")
        ended = asyncio.CancelledError
        if call.cancelled:
            books.check(isinstance(call.error, ended), f"{call.number} was cancelled, got {what}")
        else:
            books.check(not isinstance(call.error, ended), f"nobody cancelled {call.number}")
            count = 0 if task is None else task.cancelling()
            books.check(count == 0, f"{call.number} left its task cancelled {count} times")
        books.check(current_deadline.get() is None, f"{call.number} left a deadline behind")
        books.check(current_call() is None, f"{call.number} left its identity behind")

    def _stood_still(self, call: Call) -> bool:
        """Whether time was not for this host what it is for others during the call."""
        return any(
            fault.fault.partition("@")[0] in OUT_OF_TIME
            and self.name in fault.victims
            and (fault.until is None or fault.until * NS >= call.began_ns)
            for fault in self.books.lab.events
        )

    # --- a life ----------------------------------------------------------------------------------

    async def main(self) -> None:
        """Call while there is load, then until all is well again, then settle the books."""
        async with asyncio.TaskGroup() as group:
            pump = None if self.shared is None else group.create_task(self.shared.pump())
            number = await self._load()
            await self._recover(number)
            await self._settle()
            if pump is not None:
                pump.cancel()
        self.over = True
        await asyncio.Event().wait()

    async def _load(self) -> int:
        number, tasks, sleep = 0, set[asyncio.Task[Call]](), current_world().timers.sleep
        loop = asyncio.get_running_loop()
        while self.books.lab.healed_ns < 0:
            for _ in range(self.prng.choice((1, 1, 1, 2, 3, 6, 12))):
                if number >= CALLS_MAX:
                    break
                task = loop.create_task(self.call(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                if self.prng.chance(1, 8):
                    due = self.prng.below(300) / 1000
                    loop.call_later(due, self._cancel, task, number - 1)
            await self._check_equal()
            await sleep(self.prng.between(5, 120) / 1000)
        while tasks:
            await asyncio.wait(set(tasks))
        return number

    def _cancel(self, task: "asyncio.Task[Call]", number: int) -> None:
        call = next((c for c in self.calls if c.number == f"{self.label}-{number}"), None)
        if call is None or call.ended or task.done():
            return
        call.cancelled = True
        task.cancel()

    async def _check_equal(self) -> None:
        """What is held is what runs; only calls that were just handed a permit do not run yet."""
        limit = self.limit
        if limit is None or not self.settings.plain:
            return
        for _ in range(20):
            if limit.in_flight == self.running:
                self.books.lab.sometimes("permits were counted", self.running)
                return
            await asyncio.sleep(0)
        held, runs = limit.in_flight, self.running
        self.books.check(False, f"{self.label}: {held} permits are held, {runs} attempts run")

    async def _recover(self, number: int) -> None:
        """Call now and then until the breaker is closed and five calls in a row have worked."""
        good = 0
        while good < 5 or not self._closed():
            call = await self.call(number, patient=True)
            number += 1
            worked = isinstance(call.result, int) and call.result > 0
            good = good + 1 if worked else 0
            await current_world().timers.sleep(0.1)
        self.recovered = True

    def _closed(self) -> bool:
        return self.breaker is None or self.breaker.state == "CLOSED"

    async def _settle(self) -> None:
        """Nothing is held and nothing runs once all calls have ended."""
        books, limit, label = self.books, self.limit, self.label
        if limit is not None:
            for _ in range(5):
                await current_world().timers.sleep(0.01)
            books.check(limit.in_flight == 0, f"{label}: {limit.in_flight} permits are lost")
            books.check(limit.waiting == 0, f"{label}: {limit.waiting} wait for nothing")
        if self.breaker is not None:
            books.check(self.breaker.core.probes_live == 0, f"{label}: a probe is out")
        books.check(self.running == 0, f"{label}: {self.running} attempts still run")
        self._check_tally()

    def _check_tally(self) -> None:
        """Every call is counted once, by how it ended."""
        counts = self.policy.snapshot()["calls"]
        calls = [call for call in self.calls if call.tried]
        answered = sum(call.error is None and call.result != -1 for call in calls)
        fell_back = sum(call.result == -1 for call in calls)
        rest = sum(counts[one] for one in ("failed", "rejected", "cancelled"))
        self.books.check(
            (counts["succeeded"], counts["fell_back"], rest)
            == (answered, fell_back, len(calls) - answered - fell_back),
            f"{self.label}: {answered} answers, {fell_back} fallbacks of {len(calls)}: {counts}",
        )
