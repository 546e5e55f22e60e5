"""A machine whose commands do what commands should not."""

from dataclasses import dataclass, field

from outlast import CommandError, StateMachine, Table, command
from outlast.state import query


class TooOddError(CommandError):
    """The arguments are a number and a word."""


@dataclass
class Odd(StateMachine):
    items: Table[str, int] = field(default_factory=Table)

    @command
    def put(self, key: str, value: int) -> int:
        self.items[key] = value
        return len(self.items)

    @query
    def all(self) -> dict[str, int]:
        return dict(self.items)

    @command
    def refuse(self, key: str, number: int) -> None:
        self.items[key] = number
        raise TooOddError(number, "odd")

    @command
    def undeclared(self, key: str) -> int:
        self.items[key] = 1
        return [][len(self.items)]

    @command
    def exhaust(self, key: str) -> int:
        self.items[key] = 1
        raise MemoryError("as if there were no more")

    @command
    def deep(self, key: str) -> int:
        self.items[key] = 1
        return self.deep(key)

    @query
    def deep_query(self) -> int:
        return _down(1)

    @command
    def large(self, size: int) -> bytes:
        return b"x" * size

    @query
    def large_query(self, size: int) -> bytes:
        return b"x" * size


def _down(number: int) -> int:
    return 1 + _down(number + 1)
