"""From the chunks of a checkpoint to a machine: same version, or lifted by ``migrate``."""

import dataclasses
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from outlast.kernel import DataError
from outlast.state.checkpoint import differences, records_of
from outlast.state.machine import StateMachine
from outlast.state.spec import FieldSpec, MachineSpec
from outlast.state.table import Table
from outlast.state.values import type_text

_encode = msgspec.msgpack.Encoder().encode


def restored(
    spec: MachineSpec, chunks: Iterable[bytes], version: int, schema: dict[str, Any] | None
) -> StateMachine:
    """Return a machine with the state that ``chunks`` hold.

    Raises:
        DataError: See :meth:`outlast.state.runner.Runner.restore`.
    """
    check_schema(spec, version, schema)
    collecting = gc.isenabled()
    gc.disable()  # a million new objects would be walked again and again
    try:
        if version == spec.version:
            return _built(spec, _typed(spec, chunks))
        return _built(spec, _migrated(spec, chunks, version))
    finally:
        if collecting:
            gc.enable()


def check_schema(spec: MachineSpec, version: int, schema: dict[str, Any] | None) -> None:
    """Refuse state that this code cannot hold.

    Raises:
        DataError: The state is of a newer version, or fields changed without a new one.
    """
    if version > spec.version:
        raise DataError(
            f"{spec.place}: the checkpoint is of version {version}, this code is version "
            f"{spec.version}; start the newer code"
        )
    if version == spec.version and schema is not None:
        said = differences(schema.get("fields", {}), spec.schema["fields"])
        if said:
            raise DataError(
                f"{spec.place}: fields changed without a new version: {'; '.join(said)}; "
                f"write version = {version + 1} and migrate()"
            )


def _decoder(field: FieldSpec) -> msgspec.msgpack.Decoder[Any]:
    if field.table is None:
        return msgspec.msgpack.Decoder(field.type, strict=True)
    pair: Any = tuple.__class_getitem__(field.table)
    return msgspec.msgpack.Decoder(list.__class_getitem__(pair), strict=True)


def _typed(spec: MachineSpec, chunks: Iterable[bytes]) -> dict[str, Any]:
    decoders = {field.name: _decoder(field) for field in spec.state}
    state: dict[str, Any] = {f.name: Table() for f in spec.state if f.table is not None}
    try:
        for name, body in _sections(chunks, state):
            value = decoders[name].decode(body)
            if name in state and isinstance(state[name], Table):
                dict.update(state[name], value)
            else:
                state[name] = value
    except (msgspec.DecodeError, KeyError) as error:
        raise DataError(f"{spec.place}: the checkpoint does not fit the class: {error}") from None
    return state


def _sections(chunks: Iterable[bytes], state: dict[str, Any]) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield each plain field and slice of a Table, still encoded; check the counts at the end."""
    ended = False
    for kind, *rest in records_of(chunks):
        if kind == "plain":
            yield from msgspec.msgpack.decode(rest[0], type=dict[str, msgspec.Raw]).items()
        elif kind == "table":
            yield msgspec.msgpack.decode(rest[0], type=str), rest[1]
        elif kind == "end":
            ended = True
            for name, count in msgspec.msgpack.decode(rest[0], type=dict[str, int]).items():
                found = len(state.get(name, ()))
                if found != count:
                    raise DataError(f"checkpoint: Table {name!r} has {found} of {count} keys")
        else:
            raise DataError(f"checkpoint: unknown record {kind!r}")
    if not ended:
        raise DataError("the checkpoint has no end record; it is cut off")


def _untyped(chunks: Iterable[bytes]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    tables: dict[str, dict[Any, Any]] = {}
    ended = False
    for kind, *rest in records_of(chunks):
        if kind == "plain":
            plain.update(msgspec.msgpack.decode(rest[0]))
        elif kind == "table":
            table = tables.setdefault(msgspec.msgpack.decode(rest[0]), {})
            table.update((_hashable(k), v) for k, v in msgspec.msgpack.decode(rest[1]))
        elif kind == "end":
            ended = True
            for name in msgspec.msgpack.decode(rest[0]):
                tables.setdefault(name, {})
    if not ended:
        raise DataError("the checkpoint has no end record; it is cut off")
    return plain | tables


def _hashable(key: Any) -> Any:
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key


def _migrated(spec: MachineSpec, chunks: Iterable[bytes], version: int) -> dict[str, Any]:
    lifted: Any = spec.cls.migrate(_untyped(chunks), version)
    place = f"{spec.place}: migrate from version {version}"
    if not isinstance(lifted, dict):
        raise DataError(f"{place} returned {type(lifted).__name__}; return the state dict")
    kinds = {field.name: field for field in spec.state}
    for name in lifted:
        if name not in kinds:
            raise DataError(
                f"{place} left field {name!r}, which the class does not have; rename or drop it"
            )
    return {name: _converted(place, kinds[name], value) for name, value in lifted.items()}


def _converted(place: str, field: FieldSpec, value: Any) -> Any:
    decoder = _decoder(field)
    try:
        if field.table is not None:
            return Table(decoder.decode(_encode(list(value.items()))))
        return decoder.decode(_encode(value))
    except (msgspec.DecodeError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{place} gave field {field.name!r} a value that is not "
            f"{type_text(field.type)}: {error}"
        ) from None


def _built(spec: MachineSpec, state: dict[str, Any]) -> StateMachine:
    machine = spec.cls.__new__(spec.cls)
    for field in dataclasses.fields(spec.cls):  # type: ignore[arg-type]
        if field.name in state:
            setattr(machine, field.name, state[field.name])
        elif field.default_factory is not dataclasses.MISSING:
            setattr(machine, field.name, field.default_factory())
        elif field.default is not dataclasses.MISSING:
            setattr(machine, field.name, field.default)
    rebuild = getattr(machine, "__post_init__", None)
    if rebuild is not None:
        rebuild()
    return machine
