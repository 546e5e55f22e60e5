"""The bank of the tutorial."""

from dataclasses import dataclass, field

from outlast import CommandError, StateMachine, Table, command, query


class Overdrawn(CommandError): ...


@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def deposit(self, account: str, amount: int) -> int:
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]

    @command
    def transfer(self, source: str, target: str, amount: int) -> int:
        if self.balances.get(source, 0) < amount:
            raise Overdrawn(source)
        self.balances[source] = self.balances.get(source, 0) - amount
        self.balances[target] = self.balances.get(target, 0) + amount
        return self.balances[source]

    @query
    def all(self) -> dict[str, int]:
        return dict(self.balances)
