"""The state API as a user's type checker sees it; read by mypy and basedpyright, never run.

Each line with an ignore must be an error: both checkers are told to object to needless ones.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import ParamSpec, TypeVar, assert_type

import outlast
from outlast.kernel import CommandError
from outlast.state import (
    CommandRandom,
    Operation,
    StateMachine,
    Table,
    command,
    load_machine,
    machine_spec,
    query,
)
from outlast.testing import check_machine
from outlast.testing.machine import MachineReport

P = ParamSpec("P")
R = TypeVar("R")


class Overdrawn(CommandError): ...


@dataclass
class Bank(StateMachine):
    version = 2
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def transfer(self, source: str, target: str, amount: int = 1) -> int:
        assert_type(self.ctx.now, datetime)
        assert_type(self.ctx.random, CommandRandom)
        assert_type(self.ctx.random.choice(["a"]), str)
        assert_type(self.balances.get(source), int | None)
        assert_type(self.balances.get(source, 0), int)
        assert_type(self.balances.pop(source, 0), int)
        self.balances[source] -= amount
        self.balances[target] = "5"  # type: ignore[assignment]
        return self.balances[source]

    @command(since=2)
    def close(self, account: str, *, force: bool = False) -> None:
        del self.balances[account]

    @query
    def total(self) -> int:
        return sum(self.balances.values())


class Client:
    """The shape of every client's ``call``."""

    async def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError


async def use(client: Client) -> None:
    assert_type(Bank.transfer, Operation[[str, str, int], int])  # type: ignore[assert-type]
    assert_type(await client.call(Bank.transfer, "alice", "bob", 30), int)
    assert_type(await client.call(Bank.transfer, "alice", target="bob"), int)
    assert_type(await client.call(Bank.close, "alice", force=True), None)
    assert_type(await client.call(Bank.total), int)
    waiting: Awaitable[int] = client.call(Bank.total)
    await waiting
    await client.call(Bank.transfer, "alice", "bob", "30")  # type: ignore[arg-type]
    await client.call(Bank.transfer, "alice")  # type: ignore[call-arg]
    await client.call(Bank.close, "alice", True)  # type: ignore[call-arg]
    await client.call(Bank.total, 1)  # type: ignore[call-arg]


async def through_the_library() -> None:
    async with outlast.connect(Bank, "n1:7400,n2:7400,n3:7400") as bank:
        with outlast.deadline(1.0):
            assert_type(await bank.call(Bank.transfer, "alice", "bob", 30), int)
            await bank.call(Bank.transfer, "alice", "bob", "30")  # type: ignore[arg-type]
    async with outlast.open(Bank, "data/") as here:
        assert_type(await here.call(Bank.transfer, "alice", "bob", 30), int)
        await here.call(Bank.transfer, "alice")  # type: ignore[call-arg]


def blocking() -> None:
    with outlast.blocking.connect(Bank, "n1:7400") as bank:
        assert_type(bank.call(Bank.transfer, "alice", "bob", 30), int)
        bank.call(Bank.total, 1)  # type: ignore[call-arg]
    with outlast.blocking.open(Bank) as here:
        assert_type(here.call(Bank.total), int)


def plain() -> None:
    bank = Bank(Table(alice=30))
    assert_type(bank.balances, Table[str, int])
    assert_type(bank.transfer("alice", "bob", 30), int)
    assert_type(bank.total(), int)
    method: Callable[[], int] = bank.total
    method()
    bank.transfer("alice", "bob", None)  # type: ignore[arg-type]
    bank.close("alice", True)  # type: ignore[call-arg]
    assert_type(Table(a=1), Table[str, int])
    assert_type(Table({1: "a"}), Table[int, str])
    assert_type(Table[str, int]().copy(), Table[str, int])
    assert_type(check_machine(Bank, commands=5), MachineReport)
    assert_type(load_machine("bank.py:Bank"), type[StateMachine])
    assert_type(machine_spec(Bank).version, int)
