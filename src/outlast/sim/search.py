"""Where a process keeps the functions that a simulation replaces, and how they are swapped.

``from time import monotonic`` copies the function, so that replacing ``time.monotonic`` is not
enough. Modules and classes are searched for such copies, and the garbage collector is asked who
else holds one: default arguments, closures, attributes of objects and the globals of generated
code are swapped too. What cannot be swapped (a ``functools.partial``, a container, an object of
an extension module) is told by :func:`find_clock_readers`.

The search is made once and again when modules were imported since; what it found is kept, so
that entering a simulation is cheap.
"""

import datetime
import functools
import gc
import operator
import random
import sys
from collections.abc import Iterator
from types import (
    BuiltinFunctionType,
    CellType,
    FrameType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final
from weakref import WeakValueDictionary

from outlast.sim import fakes, places
from outlast.sim.escape import Escape
from outlast.sim.fakes import DATETIME_METHODS, ORIGINALS, READS, Original
from outlast.sim.places import (
    CAN_CHANGE_BUILTINS,
    BuiltinMethod,
    Cell,
    ClassAttribute,
    Defaults,
    Key,
    Place,
    Slot,
)

_LEVELS_MAX: Final = 4  # so far up the holders of a holder are asked for a name
_NOTES_MAX: Final = 100
_TOOLS: Final = frozenset({"_pytest", "pluggy", "pytest", "xdist", "execnet", "hypothesis"})


# --- modules and classes ------------------------------------------------------------------------


def _stand_in(value: Any) -> Original | None:
    """Return what ``value`` is the original of, if it is one."""
    found = ORIGINALS.get(id(value))
    if found is None and type(value) is BuiltinFunctionType:
        return _alias(value)
    return found


def _alias(value: Any) -> Original | None:
    """Recognise ``datetime.now`` taken by itself: each such taking makes a new object."""
    owner = value.__self__
    if not isinstance(owner, type) or not issubclass(owner, datetime.date):
        return None
    for cls, name, fake in DATETIME_METHODS:
        if value.__name__ == name and issubclass(owner, cls):
            full = f"{owner.__name__}.{name}"
            return Original(full, "reads the real clock", value, MethodType(fake, owner))
    return None


class _Search:
    """All places found so far in this process.

    Attributes:
        readers: Who holds what cannot be replaced.
        refreezes: How often a search has met a frozen heap, and has left more of it frozen: all
            that had been made by then. So whoever froze it can tell without counting objects.
    """

    def __init__(self) -> None:
        self.refreezes = 0
        self.readers: list[Escape] = []
        self._modules: list[Any] = []
        self._fixed: list[Place] = []  # in modules and classes: they stay
        self._others: list[Place] = []  # the rest, looked for anew after each import
        self._held: set[tuple[int, Any]] = set()
        self._marks: set[tuple[int, Any]] = set()
        self._seen: dict[int, Any] = {}  # modules and classes by identity, kept alive
        self._fakes = {id(original.fake): original for original in ORIGINALS.values()}
        self._settled: dict[int, Any] = {}  # static methods that have their place
        self._foreign: WeakValueDictionary[int, random.Random] = WeakValueDictionary()
        self._searching = False
        self._stale = True
        for module in (fakes, places, sys.modules[__name__]):
            self._seen[id(module)] = module
        if CAN_CHANGE_BUILTINS:
            self._fixed += [BuiltinMethod(*row) for row in DATETIME_METHODS]
        seed = random.Random.__dict__["seed"]
        self._fixed.append(ClassAttribute(random.Random, "seed", seed, fakes.random_seed))

    def put(self, inside: bool) -> None:
        """Swap all places: to the stand-ins, or back to the originals."""
        for place in self._fixed:
            place.put(inside)
        for place in self._others:
            place.put(inside)

    def _add(self, place: Place, holder: Any, key: Any) -> None:
        mark = (id(holder), key)
        if mark in self._held or mark in self._marks:
            return
        if self._searching:
            self._marks.add(mark)
            self._others.append(place)
        else:
            self._held.add(mark)
            self._fixed.append(place)

    # --- modules and classes ---

    def look(self) -> None:
        """Search the modules that are new; cheap when there are none."""
        main = sys.modules.get("__main__")
        if main is not None:
            self._namespace(_space(main), "__main__")  # where people type
        now = list(sys.modules.values())
        if len(now) == len(self._modules) and all(map(operator.is_, now, self._modules)):
            return
        self._modules = now
        self._stale = True
        for name, module in list(sys.modules.items()):
            if id(module) not in self._seen and _is(module, ModuleType):
                self._seen[id(module)] = module
                space = _space(module)
                self._namespace(space, space.get("__name__", name))

    def _namespace(self, namespace: dict[str, Any], module: str) -> None:
        for name, value in list(namespace.items()):
            pair = self._pair(value)
            if pair is not None:
                self._add(Key(namespace, name, *pair), namespace, name)
            elif _is(value, type) and value.__module__ == module:
                self._class(value)

    def _class(self, cls: type) -> None:
        if id(cls) in self._seen:
            return
        self._seen[id(cls)] = cls
        for name, value in list(cls.__dict__.items()):
            if not _is(value, type):
                self._class_attribute(cls, name, value)
            elif value.__module__ == cls.__module__:
                self._class(value)

    def _class_attribute(self, cls: type, name: str, value: Any) -> None:
        pair = self._pair(value)
        if pair is not None and cls.__flags__ & _CHANGEABLE == _HEAP_TYPE:
            self._add(ClassAttribute(cls, name, *pair), cls, name)

    def _pair(self, value: Any) -> tuple[Any, Any] | None:
        """Return what should stand outside and inside where ``value`` stands now."""
        wrapped = value.__func__ if type(value) is staticmethod else value
        original = _stand_in(wrapped) or self._fakes.get(id(wrapped))
        if original is None:
            return None
        real, fake = original.real, original.fake
        if wrapped is value:
            return real, fake
        if wrapped is fake:  # made inside a simulation
            return staticmethod(real), value
        self._settled[id(value)] = value
        return value, staticmethod(fake)

    # --- everything else ---

    def search(self) -> None:
        """Ask the garbage collector for other holders, and for generators of random numbers."""
        if not self._stale:
            return
        self._stale = False
        frozen = gc.get_freeze_count() > 0  # it counts them one by one, as a search does anyway
        gc.unfreeze()  # of what is frozen the collector knows no referrers
        try:
            self._search_all()
        finally:
            if frozen:
                gc.freeze()
                self.refreezes += 1

    def _search_all(self) -> None:
        targets = {id(original.real): original for original in ORIGINALS.values()}
        generators = []
        classes = _family(random.Random)
        for value in gc.get_referrers(datetime.datetime, datetime.date, *classes):
            if _is(value, random.Random):
                generators.append(value)
            elif type(value) is BuiltinFunctionType:
                alias = _alias(value)
                if alias is not None:
                    targets[id(value)] = alias
        self._keep_generators(generators)
        reals = tuple(original.real for original in targets.values())
        spaces = {id(_space(module)) for module in self._modules if _is(module, ModuleType)}
        holders = [
            holder
            for holder in gc.get_referrers(*reals)
            if holder is not reals
            and id(holder) not in spaces
            and id(holder) not in self._settled
            and not _is(holder, Original, Place, FrameType, MethodType)
        ]
        owners = _owners(holders)
        left = []
        self._others, self._marks, self._searching = [], set(), True
        for holder in holders:
            above = owners.get(id(holder), [])
            if not above and type(holder) is dict and "__name__" in holder:
                continue  # the interpreter's own copy of an extension module's namespace
            for original in _held_by(holder, targets):
                if not self._settle(holder, above, original) and original.what in READS:
                    left.append((holder, original))
        self._marks, self._searching = set(), False
        self.readers = [] if CAN_CHANGE_BUILTINS else [_NO_CTYPES]
        self.readers += _describe(left, self._modules)

    def _settle(self, holder: Any, owners: list[Any], original: Original) -> bool:
        """Make ``holder`` of ``original`` a place, or return ``False``."""
        if type(holder) is CellType:
            self._add(Cell(holder, original.real, original.fake), holder, None)
            return True
        if type(holder) is tuple:
            functions = [o for o in owners if _is_function(o) and o.__defaults__ is holder]
            new = tuple(_swapped(value) for value in holder)
            for function in functions:
                self._add(Defaults(function, holder, new), function, None)
            return bool(functions)
        if type(holder) is dict:
            return self._settle_dict(holder, owners, original)
        return self._settle_object(holder, original)

    def _settle_dict(self, holder: dict[Any, Any], owners: list[Any], original: Original) -> bool:
        keys = [key for key, value in holder.items() if value is original.real]
        for owner in owners:
            if _is(owner, type) and any(d is holder for d in gc.get_referents(owner.__dict__)):
                for key in keys:
                    self._class_attribute(owner, key, holder[key])
                return True
            if _is_function(owner) and owner.__dict__ is holder:
                return True  # what functools.wraps leaves behind; nobody calls it
            if _is_namespace(holder, owner):
                for key in keys:
                    self._add(Key(holder, key, original.real, original.fake), holder, key)
                return True
        return False

    def _settle_object(self, holder: Any, original: Original) -> bool:
        """Look for ``original`` in the attributes and slots of ``holder``."""
        real, fake = original.real, original.fake
        space = _attributes(holder)
        keys = [key for key, value in space.items() if value is real]
        for key in keys:
            self._add(Key(space, key, real, fake), space, key)
        slots = [
            slot
            for cls in type(holder).__mro__
            for slot in cls.__dict__.values()
            if type(slot) is MemberDescriptorType and _slot_is(slot, holder, real)
        ]
        for slot in slots:
            self._add(Slot(holder, slot, real, fake), holder, slot.__name__)
        return bool(keys or slots)

    def _keep_generators(self, found: list[random.Random]) -> None:
        """Remember who draws random numbers, but not those of tools that run the tests."""
        fakes.GENERATORS[id(_HIDDEN)] = _HIDDEN
        new = [
            each
            for each in found
            if not _is(each, random.SystemRandom)
            and fakes.GENERATORS.get(id(each)) is not each
            and self._foreign.get(id(each)) is not each
        ]
        owners = _owners(new)
        for each in new:
            foreign = any(map(_is_tool, owners.get(id(each), [])))
            (self._foreign if foreign else fakes.GENERATORS)[id(each)] = each


_HIDDEN: Final = random._inst  # shared by the functions of the module
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_CHANGEABLE: Final = _HEAP_TYPE | 1 << 8  # and not Py_TPFLAGS_IMMUTABLETYPE
_OURS: Final = frozenset({"builtins", __name__, places.__name__, fakes.__name__})
_NO_CTYPES: Final = Escape(
    "reads the real clock",
    "datetime.now, datetime.utcnow and date.today",
    "this Python has no ctypes, without which they cannot be replaced: use time.time()",
)


def _is(value: Any, *classes: type) -> bool:
    """Like ``isinstance``, but asks the type alone: proxies may answer for ``__class__``."""
    return issubclass(type(value), classes)


def _space(module: Any) -> dict[str, Any]:
    """Return the namespace of a module without waking one that loads itself when looked at."""
    return object.__getattribute__(module, "__dict__")  # type: ignore[no-any-return]


def _family(cls: type[Any]) -> list[type[Any]]:
    return [cls, *(each for child in cls.__subclasses__() for each in _family(child))]


def _owners(holders: list[Any]) -> dict[int, list[Any]]:
    """Return who refers to each of ``holders``, by identity."""
    wanted = {id(holder) for holder in holders}
    found: dict[int, list[Any]] = {}
    if not holders:
        return found
    asked = tuple(holders)
    for owner in gc.get_referrers(*asked):
        if owner is holders or owner is asked or type(owner) is FrameType:
            continue
        for referent in gc.get_referents(owner):
            if id(referent) in wanted:
                found.setdefault(id(referent), []).append(owner)
    return found


def _held_by(holder: Any, targets: dict[int, Original]) -> Iterator[Original]:
    once: dict[int, None] = {}
    for referent in gc.get_referents(holder):
        if id(referent) in targets and id(referent) not in once:
            once[id(referent)] = None
            yield targets[id(referent)]


def _swapped(value: Any) -> Any:
    original = _stand_in(value)
    return value if original is None else original.fake


def _is_function(value: Any) -> bool:
    return type(value) is FunctionType


def _attributes(holder: Any) -> dict[str, Any]:
    """Return the dictionary of an object's attributes, or an empty one."""
    try:
        space = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return {}
    return space if type(space) is dict else {}


def _is_namespace(holder: dict[Any, Any], owner: Any) -> bool:
    """Whether ``holder`` is where code or an object called ``owner`` looks names up."""
    if _is_function(owner):
        return owner.__globals__ is holder or owner.__kwdefaults__ is holder
    return _attributes(owner) is holder


def _slot_is(slot: MemberDescriptorType, holder: Any, real: Any) -> bool:
    try:
        if slot.__get__(holder) is not real:
            return False
        slot.__set__(holder, real)  # a slot of an extension's class may be read-only
    except (AttributeError, TypeError):
        return False
    return True


def _is_tool(owner: Any) -> bool:
    return type(owner).__module__.partition(".")[0] in _TOOLS


# --- telling what is left ---------------------------------------------------------------------

_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (functools.partial, "in a functools.partial"),
    (dict, "in a dict"),
    (list, "in a list"),
    (tuple, "in a tuple"),
    (set, "in a set"),
    (frozenset, "in a frozenset"),
)


def _describe(left: list[tuple[Any, Original]], modules: list[Any]) -> list[Escape]:
    """Return what to tell of those that cannot be swapped, each once."""
    names = _names([holder for holder, _ in left], modules)
    told: dict[Escape, None] = {}
    nameless: dict[str, Escape] = {}
    for holder, original in left:
        name = names.get(id(holder), "")
        if name.partition(":")[0].partition(".")[0] in _TOOLS:
            continue
        kind = next((text for cls, text in _KINDS if _is(holder, cls)), "")
        kind = kind or f"in a {type(holder).__module__}.{type(holder).__qualname__}"
        who = name or "an object that no module names"
        advice = f"call {original.name}() there, or hold a function of yours that calls it"
        found = Escape(original.what, f"{who} keeps {original.name} {kind}", advice)
        if name:
            told[found] = None
            nameless.pop(original.name, None)
        elif not any(f" keeps {original.name} " in escape.where for escape in told):
            nameless[original.name] = found
    return [*told, *nameless.values()][:_NOTES_MAX]


def _names(holders: list[Any], modules: list[Any]) -> dict[int, str]:
    """Return ``module:name`` for each of ``holders`` that somebody with a name leads to."""
    spaces = {id(_space(m)): _space(m).get("__name__", "") for m in modules if _is(m, ModuleType)}
    spaces.pop(id(globals()), None)
    names: dict[int, str] = {}
    trail = {id(holder): [holder] for holder in holders}  # by the holder asked about: its owners
    for _ in range(_LEVELS_MAX):
        open_ends = {key: ends for key, ends in trail.items() if key not in names and ends}
        if not open_ends:
            break
        ends = [end for ends in open_ends.values() for end in ends]
        owners = _owners(ends)
        for key, items in open_ends.items():
            above = []
            for item in items:
                for owner in owners.get(id(item), []):
                    if owner is trail or owner is ends or owner is items:
                        continue
                    name = _own_name(owner, item, spaces)
                    if name and key not in names:
                        names[key] = name
                    above.append(owner)
            trail[key] = above[:20]
    return names


def _own_name(owner: Any, item: Any, spaces: dict[int, str]) -> str:
    """Return how a reader would find ``owner``, the holder of ``item``, or nothing."""
    if id(owner) in spaces:
        keys = [key for key, value in owner.items() if value is item]
        return f"{spaces[id(owner)]}:{keys[0]}" if keys else spaces[id(owner)]
    if _is_function(owner) or _is(owner, type):
        return f"{owner.__module__}:{owner.__qualname__}"
    cls = type(owner)
    if cls.__flags__ & _HEAP_TYPE and cls.__module__ not in _OURS:
        return f"{cls.__module__}:{cls.__qualname__}"
    return ""


# --- what ambient() uses ------------------------------------------------------------------------

_search: _Search | None = None


def found() -> _Search:
    """Return the search of this process, brought up to date."""
    global _search  # noqa: PLW0603  (one for each process)
    if _search is None:
        _search = _Search()
    if not fakes.active():
        _search.look()
        _search.search()
    return _search


def find_clock_readers() -> list[Escape]:
    """Return who holds a real clock or random source in a way that cannot be replaced.

    What a simulation can replace is not listed: modules, classes, default arguments, closures
    and attributes that hold the function. Objects made after the last import are not searched.

    The first call and those after imports take some tenths of a second; inside a simulation the
    answer is that of its beginning.
    """
    return list(found().readers)
