"""The kinds of places in which a process may hold a function that a simulation replaces.

Each knows how to swap the original for its stand-in and back. Who finds them is
:mod:`outlast.sim.search`.
"""

import gc
import weakref
from collections.abc import Callable
from types import CellType, FunctionType, MemberDescriptorType
from typing import Any

try:
    import ctypes
except ImportError:  # pragma: no cover  (a Python built without libffi)
    ctypes = None  # type: ignore[assignment]

CAN_CHANGE_BUILTINS = ctypes is not None


class Place:
    """A place that holds an original; ``put(True)`` lets it hold the stand-in, ``False`` back.

    A place that somebody else has changed in the meantime is left alone.
    """

    __slots__ = ("fake", "real")

    def __init__(self, real: Any, fake: Any) -> None:
        self.real = real
        self.fake = fake

    def put(self, inside: bool) -> None:
        """Swap."""
        if inside:
            self._swap(self.real, self.fake)
        else:
            self._swap(self.fake, self.real)

    def _swap(self, old: Any, new: Any) -> None:
        raise NotImplementedError


class Key(Place):
    """A value in a dictionary: the namespace of a module, an object or generated code."""

    __slots__ = ("holder", "key")

    def __init__(self, holder: dict[Any, Any], key: Any, real: Any, fake: Any) -> None:
        super().__init__(real, fake)
        self.holder = holder
        self.key = key

    def _swap(self, old: Any, new: Any) -> None:
        if self.holder.get(self.key) is old:
            self.holder[self.key] = new


class ClassAttribute(Place):
    """An attribute of a class, set past its metaclass."""

    __slots__ = ("holder", "key")

    def __init__(self, holder: type, key: str, real: Any, fake: Any) -> None:
        super().__init__(real, fake)
        self.holder = holder
        self.key = key

    def _swap(self, old: Any, new: Any) -> None:
        if self.holder.__dict__.get(self.key) is old:
            type.__setattr__(self.holder, self.key, new)


class BuiltinMethod(Place):
    """A method of a builtin class, which forbids assignment.

    Its dictionary is reached through the garbage collector, and the interpreter is told to
    forget what it remembers of the class. The class stays the same object, which pickle, msgspec,
    pydantic and every ``from datetime import datetime`` rely on. Needs ctypes: without it these
    methods stay real, and :func:`find_clock_readers` says so.
    """

    __slots__ = ("cls", "key", "namespace")

    def __init__(self, cls: type, key: str, function: Callable[..., Any]) -> None:
        super().__init__(cls.__dict__[key], classmethod(function))
        self.cls = cls
        self.key = key
        (self.namespace,) = gc.get_referents(cls.__dict__)

    def _swap(self, old: Any, new: Any) -> None:
        self.namespace[self.key] = new
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(self.cls))


class Cell(Place):
    """A variable that a closure holds."""

    __slots__ = ("cell",)

    def __init__(self, cell: CellType, real: Any, fake: Any) -> None:
        super().__init__(real, fake)
        self.cell = cell

    def _swap(self, old: Any, new: Any) -> None:
        try:
            if self.cell.cell_contents is old:
                self.cell.cell_contents = new
        except ValueError:  # it was emptied
            pass


class Defaults(Place):
    """The default arguments of a function. Here the original is the whole tuple."""

    __slots__ = ("function",)

    def __init__(self, function: FunctionType, real: Any, fake: Any) -> None:
        super().__init__(real, fake)
        self.function = weakref.ref(function)

    def _swap(self, old: Any, new: Any) -> None:
        function = self.function()
        if function is not None and function.__defaults__ is old:
            function.__defaults__ = new


class Slot(Place):
    """A slot of an object."""

    __slots__ = ("holder", "slot")

    def __init__(self, holder: Any, slot: MemberDescriptorType, real: Any, fake: Any) -> None:
        super().__init__(real, fake)
        self.slot = slot
        try:
            self.holder: Callable[[], Any] = weakref.ref(holder)
        except TypeError:
            self.holder = lambda: holder

    def _swap(self, old: Any, new: Any) -> None:
        holder = self.holder()
        try:
            if holder is not None and self.slot.__get__(holder) is old:
                self.slot.__set__(holder, new)
        except AttributeError:  # it was deleted
            pass
