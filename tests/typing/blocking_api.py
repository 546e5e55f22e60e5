"""Blocking clients and the lazy names as a user's type checker sees them; never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from dataclasses import dataclass, field
from typing import Any, assert_type

import outlast
from outlast import CommandError, StateMachine, Table, blocking, command, query


class Overdrawn(CommandError): ...


@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def transfer(self, source: str, target: str, amount: int) -> int:
        return self.balances[source]

    @query
    def total(self) -> int:
        return sum(self.balances.values())


def connected() -> None:
    client = blocking.connect(Bank, ["n1:7400"], timeout=2.0, routes={"n2": "127.0.0.1:1"})
    assert_type(client, blocking.Client[Bank])
    with client as bank:
        assert_type(bank, blocking.Client[Bank])
        assert_type(bank.call(Bank.transfer, "alice", target="bob", amount=3), int)
        assert_type(bank.call_json("total", {}, query=True), Any)
        bank.call(Bank.transfer, "alice", "bob", "3")  # type: ignore[arg-type]
        bank.call(Bank.transfer, "alice")  # type: ignore[call-arg]
        bank.call_json("total", 3)  # type: ignore[arg-type]
    client.close()


def without_a_class() -> None:
    client = blocking.connect(None, "n1:7400")
    assert_type(client, blocking.Client[Any])
    blocking.connect(int, "n1:7400")  # type: ignore[type-var]
    outlast.connect(Bank)  # type: ignore[call-overload]


def embedded() -> None:
    with outlast.blocking.open(Bank, "data") as bank, outlast.deadline(1.0):
        assert_type(bank.call(Bank.total), int)
    blocking.open(int)  # type: ignore[type-var]


def names() -> None:
    assert_type(outlast.__version__, str)
    error: outlast.RejectedError = outlast.UnavailableError("no", retry_after=1.0)
    assert_type(error.retry_after, float | None)
    outlast.nothing()  # type: ignore[attr-defined]
