"""A replicated map of text keys to plain values: ``outlast serve kv``."""

from dataclasses import dataclass, field

from outlast.kernel import CommandError
from outlast.state.machine import StateMachine, command, query
from outlast.state.table import Table

Value = str | int | float | bool


class NotTextError(CommandError):
    """``append`` found a value that is not text; the argument is the key."""


@dataclass
class Kv(StateMachine):
    """Keys and values, each command on one key. A missing key reads as ``None``."""

    items: Table[str, Value] = field(default_factory=Table)

    @query
    def get(self, key: str) -> Value | None:
        """Return the value of ``key``, ``None`` when it is missing."""
        return self.items.get(key)

    @command
    def put(self, key: str, value: Value) -> None:
        """Set ``key`` to ``value``."""
        self.items[key] = value

    @command
    def append(self, key: str, value: str) -> str:
        """Append text to the text under ``key``, which counts as empty when missing.

        Raises:
            NotTextError: The value under ``key`` is not text.
        """
        old = self.items.get(key, "")
        if not isinstance(old, str):
            raise NotTextError(key)
        self.items[key] = old + value
        return old + value

    @command
    def delete(self, key: str) -> bool:
        """Remove ``key``; return whether it was there."""
        if key not in self.items:
            return False
        del self.items[key]
        return True

    @command
    def cas(self, key: str, old: Value | None, new: Value | None) -> bool:
        """Set ``key`` to ``new`` if it is ``old`` now; ``None`` stands for missing.

        Returns:
            Whether it was set. ``1`` and ``True`` and ``1.0`` are different values.
        """
        now = self.items.get(key)
        if now != old or type(now) is not type(old):
            return False
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        return True
