"""A dict that can take back what one command did to it.

Reads are those of ``dict``, at its speed. Writes are noted in a journal while a command runs, as
the value that stood there before. A key that a command deletes is only marked (a *hole*) and
what it inserts after that waits in a *tail*, until the command ends: so taking a deletion back
puts the key where it was, without moving a million others. The class of the object tells the
two apart: a table with holes is a :class:`_Holed` until its command ends.

The same journal feeds checkpoints (``_shadow`` keeps the old value of a key that is changed while
a checkpoint is being written) and running digests. Outside a running machine there is no journal
and a table is a dict.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")

_get = dict.get
_has = dict.__contains__
_put = dict.__setitem__
_del = dict.__delitem__
_iter = dict.__iter__


class _Mark:
    """A value that no user has."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


MISSING: Any = _Mark("MISSING")
"""Stands in the journal for the value of a key that was not there."""
HOLED: Any = _Mark("HOLED")
"""Stands in the journal for the key where a table got its first hole."""

Undo = list[tuple["Table[Any, Any]", Any, Any]]
"""The journal of one command: table, key, value before; shared by the tables of a machine."""


class Table(dict[K, V]):
    """A ``dict`` field of a state machine, rolled back when a command raises.

    Everything a ``dict`` does works, insertion order included: order is state, kept by
    checkpoints and by rollback. Values must not change in place, so their types are checked
    when the machine is defined: take ``tuple`` for ``list`` and a frozen dataclass for a record,
    and set the key to a new value.

    Within a command, a view (``keys()``, ``values()``, ``items()``) taken before the command's
    first deletion does not show that deletion; take a new one.

    Not thread-safe. Pickles and copies as a table of its own, outside any machine.

    >>> Table(alice=30)
    Table({'alice': 30})
    """

    __slots__ = ("_holes", "_shadow", "_shape", "_tail", "_undo")

    if TYPE_CHECKING:
        _undo: Undo | None
        _shadow: dict[K, V] | None
        _shape: Any
        _holes: dict[K, None]
        _tail: dict[K, V]

        @overload
        def __init__(self) -> None: ...
        @overload
        def __init__(self: "Table[str, V]", **pairs: V) -> None: ...
        @overload
        def __init__(self, pairs: Mapping[K, V], /) -> None: ...
        @overload
        def __init__(self, pairs: Iterable[tuple[K, V]], /) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    else:

        def __new__(cls, *args: Any, **kwargs: Any) -> "Table[Any, Any]":  # noqa: D102
            self = dict.__new__(cls)
            self._undo = None
            self._shadow = None
            self._shape = None
            return self

    def __setitem__(self, key: K, value: V) -> None:
        undo = self._undo
        if undo is not None:
            old = _get(self, key, MISSING)
            undo.append((self, key, old))
            shadow = self._shadow
            if shadow is not None and key not in shadow:
                shadow[key] = old
        _put(self, key, value)

    def __delitem__(self, key: K) -> None:
        undo = self._undo
        if undo is None:
            _del(self, key)
            return
        if not _has(self, key):
            raise KeyError(key)
        self._open_holes(undo)[key] = None

    def _open_holes(self, undo: Undo) -> dict[K, None]:
        self._holes = {}
        self._tail = {}
        undo.append((self, HOLED, None))
        self.__class__ = _Holed
        return self._holes

    if not TYPE_CHECKING:  # checkers see the overloads of dict

        def pop(self, key: K, *default: Any) -> Any:
            """Remove ``key`` and return its value, or ``default`` when it is not there.

            Raises:
                KeyError: ``key`` is not there and no default was given.
            """
            if key not in self:
                if default:
                    return default[0]
                raise KeyError(key)
            value = self[key]
            del self[key]
            return value

        def popitem(self) -> tuple[K, V]:
            """Remove the pair that was inserted last and return it.

            Raises:
                KeyError: The table is empty.
            """
            for key in reversed(self):
                return key, self.pop(key)
            raise KeyError("popitem(): the table is empty")

        def clear(self) -> None:
            """Remove everything."""
            undo = self._undo
            if undo is None:
                dict.clear(self)
            elif len(self):
                self._open_holes(undo).update(dict.fromkeys(_iter(self)))

        def setdefault(self, key: K, default: Any = None) -> Any:
            """Return the value of ``key``, after setting it to ``default`` if it was not there."""
            if key in self:
                return self[key]
            self[key] = default
            return default

        def update(self, *others: Any, **pairs: Any) -> None:
            """Set every pair of a mapping or of an iterable of pairs, then the keywords."""
            for key, value in dict(*others, **pairs).items():
                self[key] = value

    def __ior__(self, other: Any) -> "Table[K, V]":  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> "Table[K, V]":
        """Return a table of its own with the same pairs."""
        return Table(dict(self.items()))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Table, (dict(self.items()),)

    def __repr__(self) -> str:
        return f"Table({dict(self.items())!r})"

    if TYPE_CHECKING:

        @classmethod
        def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> "Table[Any, Any]":
            """Return a table with ``value`` under each of ``keys``."""


class _Holed(Table[K, V]):
    """A table of which the running command deleted keys.

    The dict below still has them. What is seen: the dict without ``_holes``, then ``_tail``.
    """

    __slots__ = ()

    def __setitem__(self, key: K, value: V) -> None:
        if key in self._tail or key in self._holes or not _has(self, key):
            self._tail[key] = value
        else:
            Table.__setitem__(self, key, value)

    def __delitem__(self, key: K) -> None:
        if key in self._tail:
            del self._tail[key]
        elif key in self._holes or not _has(self, key):
            raise KeyError(key)
        else:
            self._holes[key] = None

    def clear(self) -> None:
        self._tail.clear()
        self._holes.update(dict.fromkeys(_iter(self)))

    def __getitem__(self, key: K) -> V:
        if key in self._tail:
            return self._tail[key]
        if key in self._holes:
            raise KeyError(key)
        return dict.__getitem__(self, key)

    def get(self, key: K, default: Any = None) -> Any:
        if key in self._tail:
            return self._tail[key]
        return default if key in self._holes else _get(self, key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._tail or (_has(self, key) and key not in self._holes)

    def __len__(self) -> int:
        return dict.__len__(self) - len(self._holes) + len(self._tail)

    def __iter__(self) -> Iterator[K]:
        holes = self._holes
        for key in _iter(self):
            if key not in holes:
                yield key
        yield from self._tail

    def __reversed__(self) -> Iterator[K]:
        yield from reversed(self._tail)
        holes = self._holes
        for key in dict.__reversed__(self):
            if key not in holes:
                yield key

    def keys(self) -> Any:
        return KeysView(self)

    def values(self) -> Any:
        return ValuesView(self)

    def items(self) -> Any:
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == other

    def __ne__(self, other: object) -> bool:
        return dict(self.items()) != other

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> Any:
        return dict(self.items()) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self.items())


def roll_back(undo: Undo) -> None:
    """Take back, newest first, everything that the journal notes, and empty it."""
    for table, key, old in reversed(undo):
        if key is HOLED:
            table.__class__ = Table
            del table._holes, table._tail
        elif old is MISSING:
            _del(table, key)
        else:
            _put(table, key, old)
    undo.clear()


def settle(table: Table[Any, Any]) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Carry out the deletions of a command that has ended well.

    Returns:
        The keys deleted, and the pairs inserted after, both in order. A key in both was moved
        to the end.
    """
    holes, tail, shadow = list(table._holes), list(table._tail.items()), table._shadow
    table.__class__ = Table
    del table._holes, table._tail
    for key in holes:
        if shadow is not None and key not in shadow:
            shadow[key] = table[key]
        _del(table, key)
    for key, value in tail:
        if shadow is not None and key not in shadow:
            shadow[key] = MISSING
        _put(table, key, value)
    return holes, tail
