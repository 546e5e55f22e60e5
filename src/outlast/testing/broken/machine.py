"""Machines whose replicas would differ, one reason each, for ``check_machine`` to find.

Each is what a hurried author might write. ``BROKEN`` maps the class to words that the failure
must contain.
"""

import itertools
import time  # noqa: TID251 - what two of these machines do wrong
from dataclasses import dataclass, field
from typing import Any

from outlast.kernel import CommandError
from outlast.state import StateMachine, Table, command, query

_clock = {"now": time.time_ns}  # hidden from a reader of the source
_calls = itertools.count()


@dataclass
class HiddenClock(StateMachine):
    """Reads the clock through a name that no look at the source would find."""

    @command
    def stamp(self) -> int:
        """Return the machine's time."""
        return _clock["now"]()


@dataclass
class OpenClock(StateMachine):
    """Reads the clock."""

    count: int = 0

    @command
    def late(self) -> bool:
        """Answer the same on every run of a test, and not at midnight."""
        return time.time() < 0


@dataclass
class RaisesLate(StateMachine):
    """Raises after changing a plain field."""

    count: int = 0
    names: Table[str, int] = field(default_factory=Table)

    @command
    def add(self, name: str) -> int:
        """Count first and check later."""
        self.count += 1
        if name in self.names:
            raise CommandError(name)
        self.names[name] = self.count
        return self.count


@dataclass
class SetOrder(StateMachine):
    """Lets the order of a set decide."""

    names: Table[str, int] = field(default_factory=Table)

    @command
    def first(self, a: str, b: str, c: str) -> str:
        """Return the first of a set."""
        chosen = {f"{a}1", f"{b}2", f"{c}3"}
        name = next(iter(chosen))
        self.names[name] = 1
        return name


@dataclass
class HiddenState(StateMachine):
    """Counts outside its fields."""

    @command
    def count(self) -> int:
        """Return how often this process ran it."""
        return next(_calls)


@dataclass
class LostAttribute(StateMachine):
    """Keeps state in an attribute that is not a field."""

    total: int = 0

    @command
    def add(self, amount: int) -> None:
        """Remember the last amount beside the state."""
        self.last: int = amount


@dataclass
class BehindTheJournal(StateMachine):
    """Changes a Table by the methods of dict."""

    names: Table[str, int] = field(default_factory=Table)

    @command
    def put(self, name: str, value: int) -> None:
        """Write past the Table."""
        dict.__setitem__(self.names, name, value)


@dataclass(frozen=True)
class _Cell:
    value: int


@dataclass
class InPlace(StateMachine):
    """Changes a value of a Table in place, by force."""

    cells: Table[str, _Cell] = field(default_factory=Table)

    @command
    def put(self, name: str, value: int) -> None:
        """Set a frozen value's field."""
        cell: Any = self.cells.setdefault(name, _Cell(0))
        object.__setattr__(cell, "value", value)


@dataclass
class StaleIndex(StateMachine):
    """Forgets to keep a derived field."""

    owners: Table[str, str] = field(default_factory=Table)
    _by_owner: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Rebuild the index."""
        for owner in self.owners.values():
            self._by_owner[owner] = self._by_owner.get(owner, 0) + 1

    @command
    def own(self, thing: str, owner: str) -> int:
        """Count an owner twice when the thing was known."""
        self.owners[thing] = owner
        self._by_owner[owner] = self._by_owner.get(owner, 0) + 1
        return self._by_owner[owner]


@dataclass
class WrongResult(StateMachine):
    """Returns what its annotation does not say."""

    names: Table[str, int] = field(default_factory=Table)

    @command
    def find(self, name: str) -> int:
        """Return ``None`` when it is missing."""
        return self.names.get(name)  # type: ignore[return-value]


@dataclass
class WrongValue(StateMachine):
    """Puts a value of another type into a Table."""

    names: Table[str, int] = field(default_factory=Table)

    @command
    def put(self, name: str) -> None:
        """Put text where numbers are declared."""
        self.names[name] = name  # type: ignore[assignment]


@dataclass
class WrongField(StateMachine):
    """Puts a value of another type into a plain field."""

    limit: int = 0

    @command
    def put(self, name: str) -> None:
        """Put text where a number is declared."""
        self.limit = name  # type: ignore[assignment]


@dataclass
class Replaced(StateMachine):
    """Puts a new Table in the place of the old one."""

    names: Table[str, int] = field(default_factory=Table)

    @command
    def reset(self) -> None:
        """Start again with an empty Table."""
        self.names = Table()


@dataclass
class BusyQuery(StateMachine):
    """Counts its reads."""

    reads: int = 0

    @query
    def read(self) -> int:
        """Change a field in a query."""
        self.reads += 1
        return self.reads


@dataclass
class Failing(StateMachine):
    """Raises what stops a node."""

    @command
    def load(self) -> None:
        """Find no file."""
        raise FileNotFoundError("rates.json")


BROKEN: dict[type[StateMachine], str] = {
    HiddenClock: "HiddenClock.stamp: answered ",
    OpenClock: "OpenClock.late: time.time() in line",
    RaisesLate: "RaisesLate.add: raised CommandError after changing field 'count'",
    SetOrder: "SetOrder.first: answered ",
    HiddenState: "HiddenState.count: answered int 0, and int 1 on a replica restored just before",
    LostAttribute: "LostAttribute.add: sets 'last', which is not a field",
    BehindTheJournal: "BehindTheJournal.put: changed Table 'names' at",
    InPlace: "InPlace.put: changed Table 'cells' at",
    StaleIndex: "StaleIndex.own: left derived field '_by_owner' other than __post_init__",
    WrongResult: "WrongResult.find: WrongResult.find returned None; its annotation says int",
    WrongValue: "WrongValue.put: Table 'names': str ",
    WrongField: "WrongField.put: field 'limit': str ",
    Replaced: "Replaced.reset: Replaced.reset replaced Table 'names'",
    BusyQuery: "BusyQuery.read: is a query and changed field 'reads'",
    Failing: "Failing.load: raised FileNotFoundError, which stops the node",
}
