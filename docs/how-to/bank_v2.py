"""The tutorial's bank, one version later: a field renamed, one added, a command added."""

from dataclasses import dataclass, field
from typing import Any

from outlast import CommandError, StateMachine, Table, command, query


class Overdrawn(CommandError): ...


@dataclass
class Bank(StateMachine):
    version = 2

    accounts: Table[str, int] = field(default_factory=Table)  # was called balances
    owners: Table[str, str] = field(default_factory=Table)  # new

    @command
    def deposit(self, account: str, amount: int) -> int:
        self.accounts[account] = self.accounts.get(account, 0) + amount
        return self.accounts[account]

    @command
    def transfer(self, source: str, target: str, amount: int, fee: int = 0) -> int:
        if self.ctx.version < 2:
            fee = 0  # as version 1 did, until version 2 is in force
        if self.accounts.get(source, 0) < amount + fee:
            raise Overdrawn(source)
        self.accounts[source] = self.accounts.get(source, 0) - amount - fee
        self.accounts[target] = self.accounts.get(target, 0) + amount
        return self.accounts[source]

    @command(since=2)
    def name_owner(self, account: str, owner: str) -> None:
        self.owners[account] = owner

    @query
    def all(self) -> dict[str, int]:
        return dict(self.accounts)

    @classmethod
    def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        if version < 2:
            state["accounts"] = state.pop("balances")
        return state
