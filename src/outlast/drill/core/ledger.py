"""Judges a bank by what its clients were told.

Each client owns one source account that nobody else debits, and pays into shared tills. The
answer to a transfer is the balance that it left, so the client knows every balance its account
may show: a missing acknowledged transfer, one applied twice and one applied though it was
refused all give a number that does not fit. At the end the sum over all accounts must be what
was paid in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Finding = Literal["lost", "applied twice", "out of nothing"]


@dataclass(slots=True)
class Account:
    """What the owner of one source account knows.

    ``balance`` is what it must hold if none of ``unknown`` (amounts of transfers whose outcome
    is not known) took effect.
    """

    name: str
    balance: int
    acknowledged: int = 0
    refused: int = 0
    unknown: list[int] = field(default_factory=list)

    def expects(self, shown: int) -> bool:
        """Whether the account may show ``shown`` now: some subset of the unknown took effect."""
        return shown in _reachable(self.balance, self.unknown)

    def acknowledge(self, amount: int, left: int) -> str | None:
        """Take an acknowledgement that left ``left``; return what is wrong with it, if so."""
        self.acknowledged += 1
        self.balance -= amount
        problem = None
        if not self.expects(left):
            word = "applied twice" if left < self.balance else "lost"
            problem = (
                f"{self.name}: {amount} was acknowledged with {left} left where"
                f" {self.balance} was due: a transfer was {word}"
            )
            self.balance = left  # one fault counts once
            self.unknown.clear()
        if problem is None and self.unknown and left != self.balance:
            self._settle(left)
        return problem

    def leave_unknown(self, amount: int) -> None:
        """A transfer ended without an answer."""
        self.unknown.append(amount)

    def _settle(self, shown: int) -> None:
        took_effect = _subset(self.unknown, self.balance - shown)
        for amount in took_effect:
            self.unknown.remove(amount)
            self.balance -= amount


def _reachable(balance: int, unknown: list[int]) -> set[int]:
    found = {balance}
    for amount in unknown:
        found |= {value - amount for value in found}
    return found


def _subset(amounts: list[int], total: int) -> list[int]:
    """Return amounts that add up to ``total``; the caller knows that some do."""
    sums: dict[int, list[int]] = {0: []}
    for amount in amounts:
        for value, parts in list(sums.items()):
            sums.setdefault(value + amount, [*parts, amount])
    return sums.get(total, [])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the final balances say. ``problems`` is empty when every promise was kept."""

    acknowledged: int
    unknown: int
    lost: int
    applied_twice: int
    money_in: int
    money_found: int
    problems: tuple[str, ...]

    @property
    def survived(self) -> bool:
        """Whether nothing was lost, doubled or created."""
        return not self.problems


def judge(
    accounts: list[Account],
    balances: Mapping[str, int],
    money_in: int,
    earlier: tuple[str, ...] = (),
) -> Judgement:
    """Compare the final ``balances`` with what every client knows."""
    problems = list(earlier)
    lost = sum("lost" in text for text in earlier)
    twice = sum("applied twice" in text for text in earlier)
    for account in accounts:
        shown = balances.get(account.name, 0)
        if account.expects(shown):
            continue
        if account.name not in balances:
            lost += 1
            problems.append(f"{account.name} is gone: the deposit into it was lost")
            continue
        if shown > account.balance:
            lost += 1
            problems.append(
                f"{account.name} holds {shown} where at most {account.balance} is due:"
                " an acknowledged transfer was lost"
            )
        else:
            twice += 1
            problems.append(
                f"{account.name} holds {shown} where at least"
                f" {account.balance - sum(account.unknown)} is due:"
                " a transfer was applied twice"
            )
    found = sum(balances.values())
    if found != money_in:
        problems.append(f"{money_in} was paid in and {found} is there")
    return Judgement(
        acknowledged=sum(account.acknowledged for account in accounts),
        unknown=sum(len(account.unknown) for account in accounts),
        lost=lost,
        applied_twice=twice,
        money_in=money_in,
        money_found=found,
        problems=tuple(problems),
    )
