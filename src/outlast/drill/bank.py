"""The bank workload: closed-loop clients that transfer money and know what they were told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from outlast.cluster import Client
from outlast.drill.core.gaps import AckTimes
from outlast.drill.core.ledger import Account, Judgement, judge
from outlast.kernel import (
    CommandError,
    HistoryEvent,
    OutlastError,
    World,
    happened,
)
from outlast.protect import deadline

_TILLS = 4
_LATENCIES_KEPT = 20_000


@dataclass(slots=True)
class Counts:
    """How operations ended."""

    ok: int = 0
    fail: int = 0
    info: int = 0


@dataclass(slots=True)
class BankWorkload:
    """Clients that each own one source account and pay into shared tills.

    The machine needs commands ``deposit(account, amount)`` and ``transfer(source, target,
    amount)``, which returns what is left in ``source``, and a query ``balances()``.

    Args:
        world: Clock, tasks, randomness.
        connect: Makes one client.
        clients: How many run side by side.
        funds: What each source account starts with.
        timeout: Seconds after which a transfer counts as unknown.
        impatience: The same for every fourth client, so that outcomes stay unknown when the
            cluster is away; ``None`` for none.
        record: Called with each history event (bank model of ``outlast check``).
    """

    world: World
    connect: Callable[[], Client[Any]]
    clients: int = 8
    funds: int = 1_000_000_000
    timeout: float = 30.0
    impatience: float | None = None
    record: Callable[[HistoryEvent], None] | None = None
    accounts: list[Account] = field(default_factory=list)
    acks: AckTimes = field(default_factory=AckTimes)
    counts: Counts = field(default_factory=Counts)
    latencies_ns: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    _connections: list[Client[Any]] = field(default_factory=list)
    _tasks: list[Any] = field(default_factory=list)
    _stopping: bool = False

    async def start(self) -> None:
        """Connect, pay money in, and start transferring."""
        self._connections = [self.connect() for _ in range(self.clients)]
        for connection in self._connections:
            await connection.__aenter__()
        self.accounts = [Account(f"source-{n}", self.funds) for n in range(self.clients)]
        await asyncio.gather(
            *(
                connection.call_json("deposit", {"account": account.name, "amount": self.funds})
                for connection, account in zip(self._connections, self.accounts, strict=True)
            )
        )
        self._tasks = [
            self.world.spawn.task(self._client(n), name=f"bank client {n}")
            for n in range(self.clients)
        ]

    async def _client(self, number: int) -> None:
        connection = self._connections[number]
        account = self.accounts[number]
        prng = self.world.prng.fork()
        hasty = self.impatience if number % 4 == 3 else None
        limit = self.timeout if hasty is None else hasty
        transfer = 0
        while not self._stopping:
            transfer += 1
            amount = prng.between(1, 100)
            target = f"till-{prng.below(_TILLS)}"
            order = {"source": account.name, "target": target, "amount": amount}
            told = {
                "from": account.name,
                "to": target,
                "amount": amount,
                "id": f"{number}-{transfer}",
            }
            began = self.world.clock.monotonic_ns()
            self._note(number, "invoke", told, began)
            try:
                with deadline(limit):
                    left = await connection.call_json("transfer", order)
            except CommandError:
                self._ended(number, "fail", told)
                account.refused += 1
            except (OutlastError, OSError) as error:
                if happened(error) == "no":
                    self._ended(number, "fail", told)
                    self.refusals[str(error)] = self.refusals.get(str(error), 0) + 1
                else:
                    account.leave_unknown(amount)
                    self._ended(number, "info", told)
            else:
                now = self._ended(number, "ok", told)
                self.acks.add(now)
                if len(self.latencies_ns) < _LATENCIES_KEPT:
                    self.latencies_ns.append(now - began)
                else:
                    self.latencies_ns[self.counts.ok % _LATENCIES_KEPT] = now - began
                problem = account.acknowledge(amount, left)
                if problem is not None:
                    self.problems.append(problem)

    def _ended(self, number: int, kind: str, told: dict[str, Any]) -> int:
        now = self.world.clock.monotonic_ns()
        setattr(self.counts, kind, getattr(self.counts, kind) + 1)
        self._note(number, kind, told, now)
        return now

    def _note(self, number: int, kind: Any, told: dict[str, Any], now: int) -> None:
        if self.record is not None:
            self.record(HistoryEvent(number, kind, "transfer", told, time=now))

    def clients_now(self) -> list[str]:
        """Return what each client says of itself: its leader, what is in flight."""
        return [repr(connection) for connection in self._connections]

    def check(self) -> None:
        """Raise what ended a client, if one has ended before its time.

        Raises:
            Exception: Whatever it was; a client ends only by a bug.
        """
        for task in self._tasks:
            if not self._stopping and task.done():
                task.result()

    async def finish(self, *, within: float = 60.0) -> Judgement:
        """Stop the clients, read all balances, and judge.

        Args:
            within: Seconds that calls under way get to end; then they count as unknown.

        Raises:
            OutlastError: The balances cannot be read.
        """
        self._stopping = True
        tasks: list[Any] = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        for connection in self._connections:
            await connection.close()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, BaseException):
                self.problems.append(f"a client stopped: {type(error).__name__}: {error}")
        async with self.connect() as reader:
            balances: dict[str, int] = await reader.call_json("balances", {}, query=True)
        return judge(self.accounts, balances, self.funds * self.clients, tuple(self.problems))
