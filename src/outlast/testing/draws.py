"""Values drawn from type annotations, from a seed alone.

Small pools, so that commands meet the same keys again, with the awkward values among them:
zero, negative, empty, text that is not ASCII, the largest integers. The drawn thing is plain data
that msgspec then turns into the annotated type.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID  # noqa: TID251 - the type of a drawn value, made from the seed

import msgspec
from msgspec import inspect as shapes

from outlast.kernel import ConfigError, Prng

_TEXT = ("a", "b", "c", "alice", "bob", "", "é", "key 1", "x" * 40)
_INTS = (0, 1, 2, 3, 5, 10, 30, -1, -7, 255, 1 << 31, (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, 1.0, 0.5, -1.5, 1e300, 0.1)
_MOMENT = datetime(2024, 2, 29, 12, 30, 15, 250, tzinfo=UTC)
_DEPTH_MAX = 4


def draw_value(kind: Any, prng: Prng) -> Any:
    """Return a value of the annotated type ``kind``.

    Raises:
        ConfigError: The type has a pattern or bound that no drawn value met.
    """
    shape = shapes.type_info(kind)
    for _ in range(50):
        try:
            return msgspec.convert(_draw(shape, prng, 0), kind, strict=True)
        except msgspec.ValidationError:
            continue
    raise ConfigError(f"no value could be drawn for {kind}; pass draw={{name: function}}")


def _scalar(shape: shapes.Type, prng: Prng) -> Any:
    simple: dict[type, Callable[[], Any]] = {
        shapes.NoneType: lambda: None,
        shapes.BoolType: lambda: prng.chance(1, 2),
        shapes.FloatType: lambda: prng.choice(_FLOATS),
        shapes.BytesType: lambda: prng.choice((b"", b"a", b"\0\xff")),
        shapes.DateTimeType: lambda: _MOMENT + timedelta(hours=prng.below(100)),
        shapes.DateType: lambda: date(2024, 2, 29) + timedelta(days=prng.below(9)),
        shapes.TimeType: lambda: time(prng.below(24), tzinfo=UTC),
        shapes.TimeDeltaType: lambda: timedelta(seconds=prng.below(100)),
        shapes.UUIDType: lambda: UUID(int=prng.below(4)),
        shapes.DecimalType: lambda: Decimal(prng.below(1000)) / 100,
        shapes.AnyType: lambda: prng.choice((None, 0, "a", [1], {"k": 1})),
    }
    made = simple.get(type(shape))
    if made is None:
        raise ConfigError(f"no value can be drawn for {shape}; pass draw={{name: function}}")
    return made()


def _draw(shape: shapes.Type, prng: Prng, depth: int) -> Any:
    def inner(part: shapes.Type) -> Any:
        return _draw(part, prng, depth + 1)

    match shape:
        case shapes.Metadata():
            return inner(shape.type)
        case shapes.UnionType():
            return inner(_branch(shape, prng, depth))
        case shapes.EnumType():
            return prng.choice(list(shape.cls))
        case shapes.LiteralType():
            return prng.choice(shape.values)
        case shapes.IntType():
            return _int(shape, prng)
        case shapes.StrType():
            return _text(shape, prng)
        case shapes.TupleType():
            return tuple(inner(part) for part in shape.item_types)
        case shapes.DictType():
            count = _count(shape, prng, depth)
            return {inner(shape.key_type): inner(shape.value_type) for _ in range(count)}
        case shapes.CollectionType():
            return [inner(shape.item_type) for _ in range(_count(shape, prng, depth))]
        case shapes.DataclassType() | shapes.StructType() | shapes.TypedDictType():
            return {
                field.encode_name: inner(field.type)
                for field in shape.fields
                if field.required or depth < _DEPTH_MAX
            }
        case shapes.NamedTupleType():
            return tuple(inner(field.type) for field in shape.fields)
    return _scalar(shape, prng)


def _branch(shape: shapes.UnionType, prng: Prng, depth: int) -> shapes.Type:
    ends = [part for part in shape.types if isinstance(part, shapes.NoneType)]
    if depth >= _DEPTH_MAX and ends:
        return ends[0]  # a record that holds itself ends here
    return prng.choice(shape.types)


def _int(shape: shapes.IntType, prng: Prng) -> int:
    low = shape.ge if shape.ge is not None else shape.gt + 1 if shape.gt is not None else None
    high = shape.le if shape.le is not None else shape.lt - 1 if shape.lt is not None else None
    fits = [n for n in _INTS if (low is None or n >= low) and (high is None or n <= high)]
    if shape.multiple_of is not None:
        return int(shape.multiple_of) * prng.below(10)
    if fits and not (low is not None and high is not None and prng.chance(1, 2)):
        return prng.choice(fits)
    start = int(low if low is not None else (high or 0) - 100)
    return prng.between(start, int(high if high is not None else start + 100))


def _text(shape: shapes.StrType, prng: Prng) -> str:
    text = prng.choice(_TEXT)
    if shape.min_length is not None and len(text) < shape.min_length:
        text += "y" * (shape.min_length - len(text))
    return text if shape.max_length is None else text[: shape.max_length]


def _count(shape: Any, prng: Prng, depth: int) -> int:
    least = shape.min_length or 0
    most = shape.max_length if shape.max_length is not None else least + 3
    return least if depth >= _DEPTH_MAX else prng.between(least, min(most, least + 3))
