"""Which types may be state, arguments and results, and how a schema spells them.

A replicated value must be encoded to the same bytes on every node and read back as it was. The
walk over a type is msgspec's; the rules are ours: no iteration order that depends on the
process, nothing untyped in the state, nothing in a Table that could change in place.
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from outlast.state.table import Table

_encode = msgspec.msgpack.Encoder().encode
_MODULES = re.compile(r"\b(?:[A-Za-z_]\w*|<locals>)\.")
_SCALARS = (
    shapes.NoneType,
    shapes.BoolType,
    shapes.IntType,
    shapes.FloatType,
    shapes.StrType,
    shapes.BytesType,
    shapes.DateTimeType,
    shapes.TimeType,
    shapes.DateType,
    shapes.TimeDeltaType,
    shapes.UUIDType,
    shapes.DecimalType,
    shapes.EnumType,
    shapes.LiteralType,
)
_RECORDS = (shapes.DataclassType, shapes.StructType, shapes.NamedTupleType, shapes.TypedDictType)


def type_text(kind: Any) -> str:
    """Return a type as its author would write it, without module names.

    >>> type_text(dict[str, int | None])
    'dict[str, int | None]'
    """
    if kind is None or kind is type(None):
        return "None"
    text = kind.__name__ if isinstance(kind, type) and not _arguments(kind) else repr(kind)
    return _MODULES.sub("", text)


def _arguments(kind: Any) -> bool:
    return bool(getattr(kind, "__args__", ()))


def _inner(shape: shapes.Type) -> Iterator[shapes.Type]:
    if isinstance(shape, shapes.Metadata):
        yield shape.type
    elif isinstance(shape, shapes.UnionType):
        yield from shape.types
    elif isinstance(shape, shapes.DictType):
        yield from (shape.key_type, shape.value_type)
    elif isinstance(shape, shapes.TupleType):
        yield from shape.item_types
    elif isinstance(shape, shapes.CollectionType):
        yield shape.item_type
    elif isinstance(shape, _RECORDS):
        yield from (field.type for field in shape.fields)


def _walk(shape: shapes.Type, seen: set[int]) -> Iterator[shapes.Type]:
    if id(shape) in seen:
        return
    seen.add(id(shape))
    yield shape
    for part in _inner(shape):
        yield from _walk(part, seen)


def _shape(kind: Any) -> shapes.Type:
    try:
        return shapes.type_info(kind)
    except (TypeError, AttributeError, NameError) as error:
        raise ValueError(
            f"it cannot be encoded ({error}); use a type that msgspec knows"
        ) from error


def _ordered_instead(kind: Any) -> str:
    inner: tuple[Any, ...] = getattr(kind, "__args__", ())
    element = type_text(inner[0]) if len(inner) == 1 else "K"
    return f"dict[{element}, None]"


def refusal(kind: Any, *, state: bool) -> str | None:
    """Return why ``kind`` cannot be replicated and what to use, or ``None`` if it can.

    Args:
        kind: A resolved annotation.
        state: Whether it is a field of the machine, where ``Any`` is refused as well.
    """
    try:
        root = _shape(kind)
    except ValueError as error:
        return str(error)
    for part in _walk(root, set()):
        if isinstance(part, shapes.SetType | shapes.FrozenSetType):
            return f"iteration order differs between nodes; use {_ordered_instead(kind)}"
        if isinstance(part, shapes.AnyType | shapes.RawType) and state:
            return "it cannot be checked or restored to what it was; name the type"
        if isinstance(part, shapes.ByteArrayType | shapes.MemoryViewType | shapes.ExtType):
            return "it cannot be restored to what it was; use bytes"
        if isinstance(part, shapes.CustomType):
            if part.cls is Table:
                return "a Table is the type of a whole field of the machine; use dict here"
            return (
                f"{type_text(part.cls)} cannot be encoded; use a dataclass, dict, list, tuple or "
                f"plain value"
            )
    return None


def changeable(kind: Any) -> str | None:
    """Return how a value of ``kind`` could change in place and what to use, or ``None``."""
    for part in _walk(_shape(kind), set()):
        if isinstance(part, shapes.ListType):
            return "a list that changes in place escapes rollback and checkpoints; use a tuple"
        if isinstance(part, shapes.DictType | shapes.TypedDictType):
            return (
                "a dict that changes in place escapes rollback and checkpoints; use a Table "
                "with a tuple of both keys as its key, or a frozen dataclass"
            )
        if isinstance(part, shapes.DataclassType | shapes.StructType) and not _frozen(part.cls):
            return (
                f"{part.cls.__name__} can change in place, which escapes rollback and "
                f"checkpoints; declare it frozen=True"
            )
    return None


def _frozen(cls: Any) -> bool:
    settings = getattr(cls, "__dataclass_params__", None) or cls.__struct_config__
    return bool(settings.frozen)


def describe(kind: Any) -> str:
    """Spell ``kind`` with its records and enums opened up, so that any change shows.

    >>> describe(dict[str, int | None])
    'dict[str, int | None]'
    """
    return _spell(_shape(kind), ())


def _spell(shape: shapes.Type, above: tuple[Any, ...]) -> str:
    def inner(part: shapes.Type) -> str:
        return _spell(part, above)

    if isinstance(shape, shapes.Metadata):
        return inner(shape.type)
    if isinstance(shape, shapes.UnionType):
        return " | ".join(inner(part) for part in shape.types)
    if isinstance(shape, shapes.DictType):
        return f"dict[{inner(shape.key_type)}, {inner(shape.value_type)}]"
    if isinstance(shape, shapes.TupleType):
        return f"tuple[{', '.join(inner(part) for part in shape.item_types)}]"
    if isinstance(shape, shapes.VarTupleType):
        return f"tuple[{inner(shape.item_type)}, ...]"
    if isinstance(shape, shapes.CollectionType):
        name = type(shape).__name__.removesuffix("Type").lower()
        return f"{name}[{inner(shape.item_type)}]"
    if isinstance(shape, _RECORDS):
        if shape.cls in above:
            return shape.cls.__name__
        below = (*above, shape.cls)
        fields = ", ".join(f"{f.name}: {_spell(f.type, below)}" for f in shape.fields)
        return f"{shape.cls.__name__}({fields})"
    if isinstance(shape, shapes.EnumType):
        return f"{shape.cls.__name__}({', '.join(_member(item) for item in shape.cls)})"
    if isinstance(shape, shapes.NoneType):
        return "None"
    if isinstance(shape, shapes.LiteralType):
        return f"Literal[{', '.join(repr(value) for value in shape.values)}]"
    return type(shape).__name__.removesuffix("Type").lower()


def _member(item: Enum) -> str:
    return f"{item.name}={item.value!r}"


def is_value(kind: Any) -> bool:
    """Whether a field of ``kind`` can only change by being set: cheap to compare."""
    return isinstance(_shape(kind), _SCALARS) or changeable(kind) is None


_EXACT = frozenset({int, str, bytes, float, bool, type(None)})


def exact_types(kind: Any) -> frozenset[type]:
    """Return the classes whose values a restore gives back as they are, without a check.

    Empty where values must be checked one by one.

    >>> sorted(t.__name__ for t in exact_types(int | str))
    ['int', 'str']
    """
    parts = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return frozenset(parts) if all(part in _EXACT for part in parts) else frozenset()


class MisuseError(TypeError):
    """A command broke a rule of machines, such as a Table's types. Its answer names the rule.

    It is an answer like any exception: the Tables are as before. ``check_machine`` fails on it.
    """


def checker(kind: Any) -> Callable[[Any], Any]:
    """Return a function that gives back a value as a restore would.

    An ``int`` for a ``float`` and a ``list`` for a ``tuple`` are turned into what the annotation
    says, since the two sides of a restore would otherwise differ. Anything else that is not of
    ``kind`` raises :class:`MisuseError`.
    """
    decode = msgspec.msgpack.Decoder(kind, strict=True).decode

    def check(value: Any) -> Any:
        try:
            body = _encode(value)
            again = decode(body)
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
            raise MisuseError(f"{shown(value)} is not {type_text(kind)} ({error})") from None
        return value if again == value and _encode(again) == body else again

    return check


def shown(value: Any, limit: int = 40) -> str:
    """Return a value for an error line, with its type, cut to ``limit`` characters."""
    if value is None:
        return "None"
    text = repr(value) if isinstance(value, _SHORT) else "…"
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return f"{type(value).__name__} {text}"


_SHORT = (bool, int, float, str, bytes)
