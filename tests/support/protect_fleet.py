"""A fleet of services and clients in the simulator, and the promises that are checked of it."""

from collections import Counter
from functools import partial
from itertools import pairwise

from outlast import sim
from outlast.kernel import Prng
from tests.support.protect_caller import Call, Client
from tests.support.protect_parts import Settings
from tests.support.protect_service import NS, Books, FleetStore, Mood, Records, Service

FAULTS = (
    "crash", "crash@all", "pause", "partition:halves", "partition:isolate", "partition:one-way",
    "partition:flapping", "link:slow", "link:jitter", "link:loss", "link:drop", "link:reset",
    "link:bandwidth", "slow", "clock:drift", "clock:jump", "dns:nxdomain", "dns:timeout",
)  # fmt: skip
RECOVERY_SECONDS = 30.0
"""So long after healing every breaker is closed, and calls work, at the latest."""


class Fleet:
    """One life of a fleet, drawn from the lab's seed."""

    def __init__(self, lab: sim.Lab) -> None:
        self.lab = lab
        prng = self.prng = Prng(lab.seed ^ 0x464C454554)
        self.books = Books(lab)
        self.seconds = prng.between(8, 25) / 10
        lease_ns = prng.choice((NS // 20, NS // 10, NS // 2))
        self.records = Records(self.books, lease_ns)
        interval = prng.choice((0.1, 0.3))
        self.store = FleetStore(self.books, interval=interval, min_nodes=prng.between(1, 2))
        length = round(self.seconds * NS)
        if prng.chance(1, 3):
            begin = prng.below(length)
            self.store.away.append((begin, begin + prng.between(NS // 10, NS)))
        windows = []
        if prng.chance(2, 3):
            begin, kind = prng.below(length // 2), prng.choice(("failing", "hanging", "slow"))
            windows.append((begin, begin + prng.between(length // 10, length // 2), kind))
        self.services = [
            Service(
                f"s{number}", self.books, self.records, Mood(prng, self.seconds, windows),
                prng.fork(),
            )
            for number in range(1, prng.between(2, 3) + 1)
        ]  # fmt: skip
        shared = prng.chance(2, 3)
        self.settings = {
            f"c{number}": Settings(prng.fork(), shared=shared)
            for number in range(1, prng.between(2, 3) + 1)
        }
        self.clients: list[Client] = []
        self.now: dict[str, Client] = {}

    async def run(self) -> None:
        """Live it, heal it, and judge it."""
        lab = self.lab
        for service in self.services:
            lab.host(service.name, service.main)
        for name in self.settings:
            lab.host(name, partial(self._client, name))
        await self._outlive_leases()
        for service in self.services:
            service.well = True
        await lab.heal()
        end = lab.now + RECOVERY_SECONDS
        while not all(client.over for client in self.now.values()) and lab.now < end:
            await lab.sleep(0.05)
        for name, client in self.now.items():
            state = "" if client.breaker is None else f", breaker {client.breaker.snapshot()}"
            last = [call.error for call in client.calls[-3:]]
            self.books.check(client.over, f"{name} has not recovered{state}; last {last}")
        for service in self.services:
            held = service.limit.in_flight
            self.books.check(held == service.running, f"{service.name}: {held} permits are lost")
        self._judge()
        assert not self.books.problems, "\n".join(self.books.problems)

    async def _outlive_leases(self) -> None:
        """Let the load go on; in some runs services stand still for longer than a lease."""
        lab, begun = self.lab, self.lab.now
        if self.prng.chance(1, 2):
            lease = self.records.lease_ns / NS
            for _ in range(self.prng.between(1, 4)):
                await lab.sleep(self.prng.below(round(self.seconds * 200)) / 1000)
                busy = [one.name for one in self.services if one.running]
                if busy:
                    lasts = lease * self.prng.between(11, 30) / 10
                    lab.inject(f"pause@{self.prng.choice(busy)}", lasts=lasts)
        await lab.sleep(max(begun + self.seconds - lab.now, 0))

    async def _client(self, name: str) -> None:
        client = Client(
            name, len(self.clients), self.books, self.settings[name], self.store,
            [service.name for service in self.services], self.prng.fork(),
        )  # fmt: skip
        self.clients.append(client)
        self.now[name] = client
        await client.main()

    # --- the judgement ---------------------------------------------------------------------------

    def _judge(self) -> None:
        keys: dict[str, str] = {}
        for client in self.clients:
            for call in client.calls:
                self._judge_attempts(client, call)
                self._judge_key(call, keys)
                self._judge_outcome(call)
            self._judge_extras(client)
        self._judge_effects()

    def _judge_attempts(self, client: Client, call: Call) -> None:
        check, most = self.books.check, client.settings.attempts_most
        made = call.attempts
        check(len(made) <= most, f"{call.number} made {len(made)} attempts, {most} may be")
        turns = Counter((attempt, hedge) for _, attempt, hedge in made)
        check(max(turns.values(), default=1) == 1, f"{call.number} made an attempt twice: {turns}")
        for _, attempt, hedge in made:
            check(1 <= attempt <= client.settings.attempts, f"{call.number}: attempt {attempt}")
            most = client.settings.hedge_attempts if client.settings.hedged else 1
            check(0 <= hedge < most, f"{call.number}: hedge {hedge}")
        self.lab.sometimes("a call was retried", any(attempt > 1 for _, attempt, _ in made))
        self.lab.sometimes("a call was hedged", any(hedge for _, _, hedge in made))

    def _judge_key(self, call: Call, keys: dict[str, str]) -> None:
        """All attempts have one key, and no other call has it, unless its caller said so."""
        check = self.books.check
        seen = {key for key, _, _ in call.attempts}
        check(None not in seen, f"{call.number} had no key")
        check(len(seen) <= 1, f"{call.number} had several keys: {seen}")
        for key in seen:
            if key is not None:
                first = keys.setdefault(key, call.order)
                check(first == call.order, f"{call.number} has the key of {first}")
                if key == call.order:
                    self.lab.sometimes("calls shared a key")

    def _judge_outcome(self, call: Call) -> None:
        check, books = self.books.check, self.books
        for attempt in call.refused:
            check(attempt not in books.ran, f"{attempt} was said not to have happened, and ran")
        if call.error is not None and call.said == "no":
            ran = [effect.attempt for effects in books.effects.values() for effect in effects
                   if effect.attempt.partition("#")[0] == call.number]  # fmt: skip
            check(
                not ran, f"{call.number} is said not to have happened: {call.error!r}, but {ran}"
            )
        if call.result not in {None, -1}:
            key = next((key for key, _, _ in call.attempts), "") or ""
            receipts = [effect.receipt for effect in books.effects.get(key, ())]
            check(call.result in receipts, f"{call.number} got {call.result}, not {receipts}")

    def _judge_extras(self, client: Client) -> None:
        """Extra attempts stay within the budget, and calls within the rate."""
        check = self.books.check
        rate, budget = client.rate, client.budget
        if rate is not None:
            check(not rate.excess(), f"{client.label}: {rate.excess()}")
        if budget is None:
            return
        check(not budget.excess(), f"{client.label}: {budget.excess()}")
        extra = sum(
            attempt > 1 or hedge > 0
            for call in client.calls
            for _, attempt, hedge in call.attempts
        )
        if not client.settings.order:
            granted = len(budget.granted)
            check(extra <= granted, f"{client.label}: {extra} extra attempts, {granted} granted")

    def _judge_effects(self) -> None:
        """Each key is worked off once, unless the lease of the first was outlived."""
        lease_ns = self.records.lease_ns
        for key, effects in self.books.effects.items():
            if len(effects) > 1:  # too rare to be asked for in every campaign
                self.lab.sometimes("a lease was outlived")
            for first, second in pairwise(sorted(effects, key=lambda one: one.flight.begun_ns)):
                outlived = first.flight.alive_ns + lease_ns <= second.flight.begun_ns
                self.books.check(
                    first.flight is not second.flight and outlived,
                    f"{key} was done twice: by {first.attempt} and {second.attempt}",
                )
