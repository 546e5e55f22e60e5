"""The machine that our own cluster runs in a drill: four small services side by side.

A map, a bank, a set and counters in one state, so that four workloads meet the same log, the
same leader and the same faults. The bank records how often each transfer was applied, by its
id, and does nothing about repeats: that they do not happen is the session's promise.
"""

from dataclasses import dataclass, field

from outlast.kernel import CommandError
from outlast.state import StateMachine, Table, command, query


class OverdrawnError(CommandError):
    """The source account holds less than the amount; the argument is the account."""


@dataclass
class Proving(StateMachine):
    """A map, a bank, a set and counters."""

    items: Table[str, str] = field(default_factory=Table)
    accounts: Table[str, int] = field(default_factory=Table)
    transfers: Table[str, int] = field(default_factory=Table)
    members: Table[int, bool] = field(default_factory=Table)
    counters: Table[str, int] = field(default_factory=Table)

    # --- map -----------------------------------------------------------------------------------

    @query
    def get(self, key: str) -> str | None:
        """Return the text of ``key``, ``None`` when it is missing."""
        return self.items.get(key)

    @command
    def put(self, key: str, value: str) -> None:
        """Set ``key`` to ``value``."""
        self.items[key] = value

    @command
    def append(self, key: str, value: str) -> None:
        """Append text to the text of ``key``, which counts as empty when missing."""
        self.items[key] = self.items.get(key, "") + value

    @command
    def delete(self, key: str) -> None:
        """Remove ``key``."""
        self.items.pop(key, None)

    @command
    def cas(self, key: str, old: str | None, new: str) -> bool:
        """Set ``key`` to ``new`` if it is ``old`` now; return whether it was set."""
        if self.items.get(key) != old:
            return False
        self.items[key] = new
        return True

    # --- bank ----------------------------------------------------------------------------------

    @command
    def deposit(self, account: str, amount: int) -> None:
        """Make ``account`` hold ``amount``."""
        self.accounts[account] = amount

    @command
    def transfer(self, source: str, target: str, amount: int, id: str) -> None:
        """Move money and count the id.

        Raises:
            OverdrawnError: ``source`` holds less than that; nothing is counted.
        """
        if self.accounts.get(source, 0) < amount:
            raise OverdrawnError(source)
        self.accounts[source] -= amount
        self.accounts[target] = self.accounts.get(target, 0) + amount
        self.transfers[id] = self.transfers.get(id, 0) + 1

    @query
    def balances(self) -> dict[str, int]:
        """Return what every account holds."""
        return dict(self.accounts)

    @query
    def applied(self) -> dict[str, int]:
        """Return how often each transfer was applied, by id."""
        return dict(self.transfers)

    @query
    def books(self) -> dict[str, dict[str, int]]:
        """Return :meth:`balances` and :meth:`applied` as they are at one moment."""
        return {"balances": self.balances(), "applied": self.applied()}

    # --- set and counters ------------------------------------------------------------------------

    @command
    def add(self, value: int) -> None:
        """Add ``value`` to the set."""
        self.members[value] = True

    @query
    def values(self) -> list[int]:
        """Return the members of the set."""
        return list(self.members)

    @command
    def count(self, name: str, value: int) -> None:
        """Add ``value`` to the counter ``name``."""
        self.counters[name] = self.counters.get(name, 0) + value

    @query
    def total(self, name: str) -> int:
        """Return what the counter ``name`` shows."""
        return self.counters.get(name, 0)
