"""A replicated bank, as the demonstration loads it: ``outlast demo``, ``outlast serve bank``."""

from dataclasses import dataclass, field

from outlast.kernel import CommandError
from outlast.state.machine import StateMachine, command, query
from outlast.state.table import Table


class OverdrawnError(CommandError):
    """The source account holds less than the amount; the argument is the account."""


class AmountError(CommandError):
    """An amount must be at least 1; the argument is the amount."""


@dataclass
class Bank(StateMachine):
    """Accounts with whole amounts. An account that nobody paid into holds 0."""

    accounts: Table[str, int] = field(default_factory=Table)

    @command
    def deposit(self, account: str, amount: int) -> int:
        """Pay money in and return what the account holds then.

        Raises:
            AmountError: The amount is below 1.
        """
        if amount < 1:
            raise AmountError(amount)
        self.accounts[account] = self.accounts.get(account, 0) + amount
        return self.accounts[account]

    @command
    def transfer(self, source: str, target: str, amount: int) -> int:
        """Move money and return what ``source`` holds then.

        Raises:
            AmountError: The amount is below 1.
            OverdrawnError: ``source`` holds less than that.
        """
        if amount < 1:
            raise AmountError(amount)
        if self.accounts.get(source, 0) < amount:
            raise OverdrawnError(source)
        self.accounts[source] -= amount
        self.accounts[target] = self.accounts.get(target, 0) + amount
        return self.accounts[source]

    @query
    def balances(self) -> dict[str, int]:
        """Return what every account holds."""
        return dict(self.accounts)
