"""The receiving side of the protected fleet: services that fail, and the books of what they did.

Everything here is told in the true time of the simulation, which no host's clock shows.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from outlast import sim
from outlast.kernel import (
    DeadlineError,
    InFlightError,
    KeyReusedError,
    Prng,
    RejectedError,
    current_world,
)
from outlast.kernel.world import reset_world, use_world
from outlast.protect import AdaptiveLimit, Bulkhead, Policy, current_call
from outlast.protect.core.idempotency import Answer, Begun
from outlast.protect.headers import extract, incoming
from outlast.protect.idempotent import Idempotent
from outlast.protect.store.keyed import Rule
from outlast.protect.store.memory import MemoryStore
from outlast.protect.store.records import MemoryRecords

PORT = 7100
NS = 1_000_000_000
MS = 1_000_000

attempt_var: ContextVar[str] = ContextVar("attempt")
"""Which attempt of which call a service works for."""


class Broken(Exception):
    """The service could not do its work; nothing was done."""


class Refused(Exception):
    """The service has done its work, and the answer is no: kept like any other answer."""


class Flight:
    """Work that has begun under a key, and its last sign of life."""

    def __init__(self, key: str, token: str, at_ns: int) -> None:
        self.key = key
        self.token = token
        self.begun_ns = at_ns
        self.alive_ns = at_ns


class Effect:
    """Something that a service has really done."""

    def __init__(self, key: str, attempt: str, flight: Flight, receipt: int) -> None:
        self.key = key
        self.attempt = attempt
        self.flight = flight
        self.receipt = receipt


class Books:
    """What everybody did, seen by somebody who sees everything.

    Attributes:
        problems: Broken promises; a run in which there is one has failed.
        ran: Attempts for which a service began to work.
        effects: By key.
    """

    def __init__(self, lab: sim.Lab) -> None:
        self.lab = lab
        self.problems: list[str] = []
        self.ran: dict[str, int] = {}
        self.effects: dict[str, list[Effect]] = {}
        self.receipts = 0

    @property
    def now_ns(self) -> int:
        return self.lab.sim.moment_ns

    def check(self, holds: object, text: str) -> None:
        """Note a broken promise unless it ``holds``."""
        if not holds and len(self.problems) < 20:
            self.problems.append(f"{self.now_ns / NS:.6f} s: {text}")


class _OneClock:
    """Lets a store have a clock of its own, whichever host asks it."""

    def __init__(self, lab: sim.Lab) -> None:
        self._world = lab.world()

    @contextlib.contextmanager
    def time(self) -> Iterator[None]:
        token = use_world(self._world)
        try:
            yield
        finally:
            reset_world(token)


class Records:
    """The idempotency records of all services: a store that outlives each of them."""

    local = True

    def __init__(self, books: Books, lease_ns: int) -> None:
        self._inner = MemoryRecords()
        self._clock = _OneClock(books.lab)
        self._books = books
        self.lease_ns = lease_ns
        self.flights: dict[str, Flight] = {}

    def begin(self, key: str, fingerprint: str, lease_ns: int, token: str) -> Answer:
        with self._clock.time():
            answer = self._inner.begin(key, fingerprint, lease_ns, token)
        if isinstance(answer, Begun):
            self.flights[key] = Flight(key, token, self._books.now_ns)
        return answer

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        with self._clock.time():
            return self._inner.finish(key, token, outcome, ttl_ns)

    def release(self, key: str, token: str) -> None:
        with self._clock.time():
            self._inner.release(key, token)

    def renew(self, key: str, token: str, lease_ns: int) -> bool:
        with self._clock.time():
            held = self._inner.renew(key, token, lease_ns)
        flight = self.flights.get(key)
        if held and flight is not None and flight.token == token:
            flight.alive_ns = self._books.now_ns
        return held

    def knows(self, key: str) -> bool:
        return self._inner.knows(key)


class FleetStore(MemoryStore):
    """Where the breakers of all clients meet; it may be away for a while."""

    def __init__(self, books: Books, **settings: Any) -> None:
        super().__init__(**settings)
        self._one = _OneClock(books.lab)
        self._books = books
        self.away: list[tuple[int, int]] = []

    def transact(self, key: str, rule: Rule) -> Any:
        now_ns = self._books.now_ns
        if any(begin <= now_ns < end for begin, end in self.away):
            raise ConnectionError("the store is away")
        with self._one.time():
            return super().transact(key, rule)


class Mood:
    """How a service is: well, except in some windows of time."""

    def __init__(self, prng: Prng, seconds: float, windows: list[tuple[int, int, str]]) -> None:
        self._windows = list(windows)
        length = round(seconds * NS)
        for _ in range(prng.below(3)):
            begin = prng.below(length)
            kind = prng.choice(("failing", "slow", "hanging", "refusing", "flaky"))
            self._windows.append((begin, begin + prng.between(length // 20, length // 3), kind))
        self.base_ms = prng.between(1, 15)

    def at(self, now_ns: int) -> str:
        for begin, end, kind in self._windows:
            if begin <= now_ns < end:
                return kind
        return "well"


class Service:
    """One service: lines of JSON in, lines of JSON out, one request for each connection.

    It does its work once for each key, under the caller's deadline and a limit of its own.
    """

    def __init__(self, name: str, books: Books, records: Records, mood: Mood, prng: Prng) -> None:
        self.name = name
        self.books = books
        self.mood = mood
        self.well = False
        self.records = records
        self.prng = prng
        self.adaptive = prng.chance(1, 2)
        self.size = prng.between(4, 30)
        self.limit: Bulkhead | AdaptiveLimit = Bulkhead(1)
        self.running = 0

    async def main(self) -> None:
        """Serve until killed. Each life begins with fresh parts."""
        books, self.running = self.books, 0
        if self.adaptive:
            self.limit = AdaptiveLimit(initial=self.size, max=60, queue=self.size)
        else:
            self.limit = Bulkhead(self.size, queue=self.size, max_wait=0.2)
        limit = self.limit
        once = Idempotent(
            self.records, lease=self.records.lease_ns / NS, errors=Refused, name="work"
        )
        shield = Policy(limit=limit)

        @shield
        @once
        async def work(order: str) -> int:
            self.running += 1
            held, runs = limit.in_flight, self.running
            books.check(runs <= held, f"{self.name}: {runs} requests run on {held} permits")
            if isinstance(limit, Bulkhead):
                books.check(held <= self.size, f"{self.name}: {held} of {self.size} permits")
            try:
                return await self._work(order)
            finally:
                self.running -= 1

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(OSError):
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                answering = asyncio.ensure_future(self._answer(json.loads(line), work))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                if not answering.done():
                    answering.cancel()  # nobody waits for it any more
                    await asyncio.wait({answering})
                    return
                writer.write(json.dumps(answering.result()).encode() + b"\n")

        server = await asyncio.start_server(connected, None, PORT)
        await server.serve_forever()

    async def _answer(self, request: Any, work: Callable[..., Any]) -> dict[str, Any]:
        came = extract(request["headers"])
        attempt_var.set(request["attempt"])
        try:
            with incoming(came):
                return {"receipt": await work(request["order"])}
        except (InFlightError, KeyReusedError) as error:
            return {"error": type(error).__name__, "after": getattr(error, "retry_after", None)}
        except RejectedError as error:
            return {"error": "OverloadedError", "after": error.retry_after}
        except DeadlineError:
            return {"error": "Late"}
        except (Broken, Refused) as error:
            return {"error": type(error).__name__}

    async def _work(self, order: str) -> int:
        """Do it; the effect and the return are one step, with no wait between."""
        books, attempt = self.books, attempt_var.get()
        call = current_call()
        key = "" if call is None or call.key is None else call.key
        flight = self.records.flights.get(f"work:{key}") or Flight(key, "", books.now_ns)
        books.ran[attempt] = books.now_ns
        mood = "well" if self.well else self.mood.at(books.now_ns)
        milliseconds = self.mood.base_ms + self.prng.below(self.mood.base_ms + 1)
        if mood == "slow" or self.prng.chance(1, 25):
            milliseconds += self.prng.between(50, 400)
        if mood == "hanging":
            milliseconds = 60_000
        await current_world().timers.sleep(milliseconds / 1000)
        if mood == "failing" or (mood == "flaky" and self.prng.chance(1, 2)):
            raise Broken(order)
        books.receipts += 1
        effect = Effect(key, attempt, flight, books.receipts)
        books.effects.setdefault(key, []).append(effect)
        if mood == "refusing":
            raise Refused(order)
        return effect.receipt
