"""What a machine class says about itself, read once: fields, commands, queries, schema.

Nothing here runs per command except the prepared encoders and decoders that a
:class:`CommandSpec` holds. Classes are checked twice: when Python creates them (so that the
error stands at the line that is wrong) and in :func:`machine_spec`, where forward references
can be resolved and the dataclass is complete.
"""

import dataclasses
import sys
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, ClassVar, get_origin

import msgspec

from outlast.kernel import CommandError, CommandTypeError, ConfigError
from outlast.state.commands import CommandSpec, command_spec
from outlast.state.machine import Kind, Operation, StateMachine
from outlast.state.table import Table
from outlast.state.values import (
    MisuseError,
    changeable,
    checker,
    describe,
    exact_types,
    is_value,
    refusal,
    shown,
    type_text,
)

_MUTABLE = (dict, list, set, frozenset, bytearray, deque)
_encode = msgspec.msgpack.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """One dataclass field of a machine.

    Attributes:
        name: The field's name.
        type: Its resolved annotation.
        table: ``(K, V)`` when it is a Table, else ``None``.
        derived: Whether its name begins with an underscore: rebuilt, never saved.
        value: Whether it can only change by being set, so that changes are cheap to notice.
    """

    name: str
    type: Any
    table: tuple[Any, Any] | None
    derived: bool
    value: bool


@dataclasses.dataclass(frozen=True, slots=True)
class TableShape:
    """What a running Table knows of its field: name, types, and whether it is derived."""

    name: str
    key_types: frozenset[type]
    value_types: frozenset[type]
    derived: bool
    to_key: Callable[[Any], Any]
    to_value: Callable[[Any], Any]

    def check_key(self, key: Any) -> None:
        """Raise :class:`MisuseError` unless ``key`` is of the field's key type."""
        if type(key) not in self.key_types:
            try:
                again = self.to_key(key)
            except MisuseError as error:
                raise MisuseError(f"Table {self.name!r}: key {error}") from None
            if again is not key:
                raise MisuseError(
                    f"Table {self.name!r}: key {shown(key)} would be restored as {shown(again)}"
                )

    def checked(self, value: Any) -> Any:
        """Return ``value`` as a restore would give it.

        Raises:
            MisuseError: It is not of the field's value type.
        """
        if type(value) in self.value_types:
            return value
        try:
            return self.to_value(value)
        except MisuseError as error:
            raise MisuseError(f"Table {self.name!r}: {error}") from None


@dataclasses.dataclass(frozen=True)
class MachineSpec:
    """Everything that the library needs to know about a machine class.

    Attributes:
        cls: The class.
        name: Its name.
        place: ``bank.py:Bank``, for messages.
        version: ``cls.version``.
        fields: All fields, in order.
        commands: Name to command.
        queries: Name to query.
        schema: Plain data that describes fields and operations; kept with each checkpoint.
        digest: Hash of ``schema``, 16 bytes.
    """

    cls: type[StateMachine]
    name: str
    place: str
    version: int
    fields: tuple[FieldSpec, ...]
    commands: Mapping[str, CommandSpec]
    queries: Mapping[str, CommandSpec]
    schema: dict[str, Any]
    digest: bytes
    _errors: dict[str, type[CommandError]] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """The fields that are saved."""
        return tuple(field for field in self.fields if not field.derived)

    def operation(self, name: str) -> CommandSpec:
        """Return the command or query called ``name``.

        Raises:
            CommandTypeError: There is none; the line names those that exist.
        """
        found = self.commands.get(name) or self.queries.get(name)
        if found is None:
            known = ", ".join([*self.commands, *self.queries]) or "none"
            raise CommandTypeError(f"{self.name} has no command {name!r}; it has: {known}")
        return found

    def encode_args(
        self, name: str, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> bytes:
        """Encode arguments as a map by parameter name, after checking them.

        Raises:
            CommandTypeError: Definite. The line names the argument, its value and what fits.
        """
        return self.operation(name).encode_args(args, kwargs or {})

    def check_args(self, name: str, body: bytes) -> None:
        """Check encoded arguments without running anything: what a node does before appending.

        Raises:
            CommandTypeError: Definite.
        """
        self.operation(name).decode_args(body)

    def decode_result(self, name: str, body: bytes) -> Any:
        """Decode a result by the operation's return annotation.

        Raises:
            CommandError: The machine returned something else than its annotation says; the
                command took effect.
        """
        return self.operation(name).decode_result(body)

    def error_class(self, name: str) -> type[CommandError] | None:
        """Return the CommandError called ``name`` of :meth:`errors`, quickly when known."""
        if name not in self._errors:
            self._errors.update(self.errors())
        return self._errors.get(name)

    def errors(self) -> dict[str, type[CommandError]]:
        """Return the CommandErrors that the machine's modules define or import, by name."""
        found: dict[str, type[CommandError]] = {}
        modules = {c.__module__ for c in self.cls.__mro__ if issubclass(c, StateMachine)}
        for module in sorted(modules):
            for value in list(vars(sys.modules.get(module, msgspec)).values()):
                if isinstance(value, type) and issubclass(value, CommandError):
                    found.setdefault(value.__name__, value)
        # Of classes that were made again (a notebook's cell, a reload) the last one counts.
        for error in reversed(list(_subclasses(CommandError))):
            if error.__module__ in modules:
                found.setdefault(error.__name__, error)
        return found

    def table_shapes(self) -> Iterator[TableShape]:
        """Yield what each Table field accepts, in the order of the fields."""
        for field in self.fields:
            if field.table is not None:
                key, value = field.table
                yield TableShape(
                    field.name,
                    exact_types(key),
                    exact_types(value),
                    field.derived,
                    checker(key),
                    checker(value),
                )


def _subclasses(cls: type[CommandError]) -> Iterator[type[CommandError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def place_of(cls: type) -> str:
    """Return ``file.py:Class`` for messages."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{PurePath(file).name if file else cls.__module__}:{cls.__name__}"


def refuse_early(cls: type[StateMachine]) -> None:
    """Check what can be checked while the class is being created.

    Raises:
        ConfigError: One line with file, class, field and what to use instead.
    """
    place = place_of(cls)
    for name, value in vars(cls).items():
        if name == "version" and (type(value) is not int or value < 1):
            raise ConfigError(f"{place}: version is {value!r}; write a whole number from 1")
        if not name.startswith("__") and isinstance(value, _MUTABLE):
            raise ConfigError(
                f"{place}: {name!r} is a {type(value).__name__} shared by the class; it would not "
                f"be saved or replicated; write {name}: … = field(default_factory=…)"
            )
    own = vars(cls).get("__annotations__", {})
    for name in ("version", "ctx"):
        if name in own and "ClassVar" not in str(own[name]):
            raise ConfigError(
                f"{place}: {name!r} is annotated, which makes it state; write "
                f"{'version = 2' if name == 'version' else 'another name'}"
            )
    try:
        hints = typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return  # a forward reference: machine_spec looks again
    for name, kind in hints.items():
        if name in own and get_origin(kind) is not ClassVar and kind is not ClassVar:
            _field_spec(place, name, kind)


def _field_spec(place: str, name: str, kind: Any) -> FieldSpec:
    derived = name.startswith("_")
    line = f"{place}: field {name!r} is {type_text(kind)}; "
    if isinstance(kind, dataclasses.InitVar) or kind is dataclasses.KW_ONLY:
        raise ConfigError(line + "a replica starts without arguments; use a field with a default")
    table: tuple[Any, Any] | None = None
    if kind is Table or get_origin(kind) is Table:
        arguments: tuple[Any, ...] = getattr(kind, "__args__", ())
        if len(arguments) != 2:
            raise ConfigError(line + "write its types, as in Table[str, int]")
        table = (arguments[0], arguments[1])
        for part in table:
            reason = refusal(part, state=True) or changeable(part)
            if reason:
                raise ConfigError(line + reason)
    elif not derived:
        reason = refusal(kind, state=True)
        if reason:
            raise ConfigError(line + reason)
    value = table is None and not derived and is_value(kind)
    return FieldSpec(name, kind, table, derived, value)


def machine_spec(cls: Any) -> MachineSpec:
    """Read a machine class; the result is kept with the class.

    Raises:
        ConfigError: The class cannot be replicated; the line says why and what to write.
    """
    kept = vars(cls).get("__outlast_spec__") if isinstance(cls, type) else None
    if isinstance(kept, MachineSpec) and kept.cls is cls:
        return kept
    if not (isinstance(cls, type) and issubclass(cls, StateMachine)):
        raise ConfigError(f"{cls!r} is not a StateMachine; write class Name(StateMachine)")
    place = place_of(cls)
    fields = tuple(_fields(cls, place))
    operations = dict(_operations(cls, place))
    commands = {name: op for name, op in operations.items() if op.kind == "command"}
    queries = {name: op for name, op in operations.items() if op.kind == "query"}
    schema = {
        "machine": cls.__name__,
        "version": cls.version,
        "fields": {f.name: _field_text(f) for f in fields if not f.derived},
        "commands": {name: op.schema() for name, op in commands.items()},
        "queries": {name: op.schema() for name, op in queries.items()},
    }
    spec = MachineSpec(
        cls=cls,
        name=cls.__name__,
        place=place,
        version=cls.version,
        fields=fields,
        commands=commands,
        queries=queries,
        schema=schema,
        digest=blake2b(_encode(schema), digest_size=16).digest(),
    )
    cls.__outlast_spec__ = spec  # type: ignore[attr-defined]
    return spec


def _field_text(field: FieldSpec) -> str:
    if field.table is None:
        return describe(field.type)
    return f"Table[{describe(field.table[0])}, {describe(field.table[1])}]"


def _fields(cls: type[StateMachine], place: str) -> Iterator[FieldSpec]:
    if "__dataclass_params__" not in vars(cls):
        raise ConfigError(f"{place} is not a dataclass; write @dataclass above the class")
    if cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(f"{place} is frozen, so no command could change it; drop frozen=True")
    try:
        hints = typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"{place}: an annotation cannot be read: {error}") from None
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        found = _field_spec(place, field.name, hints[field.name])
        if (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and not found.derived
        ):
            raise ConfigError(
                f"{place}: field {field.name!r} has no default; a replica starts empty; write "
                f"= … or = field(default_factory=…)"
            )
        yield found


def _operations(cls: type[StateMachine], place: str) -> Iterator[tuple[str, CommandSpec]]:
    seen: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(seen.get(name), Operation) and not isinstance(value, Operation):
                raise ConfigError(
                    f"{place}: {base.__name__}.{name} overrides a {seen[name].kind} without "
                    f"@{seen[name].kind}"
                )
            seen[name] = value
    for name, value in seen.items():
        if isinstance(value, Operation):
            yield name, command_spec(place, cls, name, value)


__all__ = ["CommandSpec", "FieldSpec", "Kind", "MachineSpec", "TableShape", "machine_spec"]
