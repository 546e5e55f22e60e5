"""One command or query: how its arguments and result become bytes, prepared once.

Arguments travel as a map by parameter name, so that a parameter can be added with a default.
They are decoded strictly by the annotations into a generated struct; the slow way through
:func:`_complaint` is taken only to say what was wrong.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import astuple

from outlast.kernel import CommandError, CommandTypeError, ConfigError
from outlast.state.machine import Kind, Operation
from outlast.state.values import describe, refusal, shown, type_text

_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _identity(value: Any) -> Any:
    return value


class CommandSpec:
    """A command or query of one machine class.

    Attributes:
        name: Its name in the log.
        kind: ``"command"`` or ``"query"``.
        since: The first machine version that has it.
        parameters: Parameter name to resolved annotation, in order.
        defaults: Name to default of those that have one.
        returns: The resolved return annotation.
        call: ``call(machine, decoded)`` runs it with what :attr:`decode` returned.
        decode: Strict decoder of arguments; raises ``msgspec.ValidationError``.
    """

    __slots__ = (
        "_positional",
        "_result",
        "call",
        "decode",
        "defaults",
        "kind",
        "machine",
        "name",
        "parameters",
        "returns",
        "since",
    )

    def __init__(
        self,
        machine: str,
        operation: Operation[..., Any],
        name: str,
        signature: inspect.Signature,
        hints: Mapping[str, Any],
    ) -> None:
        self.machine = machine
        self.name = name
        self.kind: Kind = operation.kind
        self.since = operation.since
        taken = list(signature.parameters.values())[1:]
        self.parameters: dict[str, Any] = {p.name: hints[p.name] for p in taken}
        self.defaults = {p.name: p.default for p in taken if p.default is not p.empty}
        self.returns: Any = hints["return"]
        self._positional = tuple(p.name for p in taken if p.kind in _POSITIONAL)
        self._result = msgspec.msgpack.Decoder(self.returns, strict=True)
        struct = self._struct()
        self.decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(struct, strict=True).decode
        self.call = self._caller(operation.function, len(taken) - len(self._positional))

    def _struct(self) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for name, kind in self.parameters.items():
            if name in self.defaults:
                given = partial(_identity, self.defaults[name])
                fields.append((name, kind, msgspec.field(default_factory=given)))
            else:
                fields.append((name, kind))
        return msgspec.defstruct(
            f"{self.machine}.{self.name}", fields, forbid_unknown_fields=True, kw_only=True
        )

    def _caller(self, function: Callable[..., Any], keywords: int) -> Callable[[Any, Any], Any]:
        if not self.parameters:
            return lambda machine, _: function(machine)
        if not keywords:
            return lambda machine, given: function(machine, *astuple(given))
        names = tuple(self.parameters)[len(self._positional) :]
        split = len(self._positional)

        def call(machine: Any, given: Any) -> Any:
            values = astuple(given)
            named = dict(zip(names, values[split:], strict=True))
            return function(machine, *values[:split], **named)

        return call

    def encode_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Encode arguments as a map by name, after checking them against the annotations.

        Raises:
            CommandTypeError: Definite; names command, argument, value and what fits.
        """
        if len(args) > len(self._positional):
            raise self._refused(
                f"takes {len(self._positional)} positional arguments; {len(args)} were given"
            )
        given = dict(zip(self._positional, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise self._refused(f"argument {name!r} was given twice")
            given[name] = value
        try:
            body = _encode(given)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._complaint(given) or self._refused(f"cannot be encoded: {error}") from None
        self.decode_args(body)
        return body

    def decode_args(self, body: bytes) -> Any:
        """Decode arguments into what :attr:`call` takes.

        Raises:
            CommandTypeError: Definite; names command, argument, value and what fits.
        """
        try:
            return self.decode(body)
        except msgspec.DecodeError as error:
            raise self.bad_args(body, error) from None

    def bad_args(self, body: bytes, error: Exception) -> CommandTypeError:
        """Return the error that says what is wrong with the arguments in ``body``."""
        try:
            given = _decode_any(body)
        except msgspec.DecodeError:
            return self._refused("the arguments are not a msgpack map")
        if not isinstance(given, dict):
            return self._refused(f"the arguments are {shown(given)}; expected a map by name")
        return self._complaint(given) or self._refused(str(error))

    def _complaint(self, given: Mapping[Any, Any]) -> CommandTypeError | None:
        for name in given:
            if name not in self.parameters:
                return self._refused(f"has no argument {name!r}; it takes {self.usage()}")
        for name, kind in self.parameters.items():
            if name not in given:
                if name not in self.defaults:
                    return self._refused(f"argument {name!r} ({type_text(kind)}) is missing")
                continue
            try:
                msgspec.msgpack.decode(_encode(given[name]), type=kind, strict=True)
            except (msgspec.ValidationError, TypeError, ValueError, OverflowError):
                return self._refused(
                    f"argument {name!r} is {shown(given[name])}; expected {type_text(kind)}"
                )
        return None

    def _refused(self, reason: str) -> CommandTypeError:
        return CommandTypeError(f"{self.machine}.{self.name}: {reason}")

    def usage(self) -> str:
        """Return the parameters as one would write them."""
        return f"({', '.join(f'{n}: {type_text(k)}' for n, k in self.parameters.items())})"

    def decode_result(self, body: bytes) -> Any:
        """Decode a result by the return annotation.

        Raises:
            CommandError: ``happened`` is yes; the machine returned something else.
        """
        try:
            return self._result.decode(body)
        except msgspec.DecodeError:
            found = shown(_decode_any(body))
            raise CommandError.undeclared(
                "TypeError",
                f"{self.machine}.{self.name} returned {found}; its annotation says "
                f"{type_text(self.returns)}",
            ) from None

    def schema(self) -> dict[str, Any]:
        """Return what a stored schema keeps of it."""
        return {
            "since": self.since,
            "parameters": {name: describe(kind) for name, kind in self.parameters.items()},
            "defaults": {name: repr(value) for name, value in self.defaults.items()},
            "returns": describe(self.returns),
        }


def command_spec(place: str, cls: type, name: str, operation: Operation[..., Any]) -> CommandSpec:
    """Read one operation.

    Raises:
        ConfigError: A parameter has no annotation, cannot be encoded, or takes any number of
            arguments.
    """
    line = f"{place}: {operation.kind} {name!r}: "
    try:
        hints = typing.get_type_hints(
            operation.function, localns={cls.__name__: cls}, include_extras=True
        )
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"{line}an annotation cannot be read: {error}") from None
    signature = inspect.signature(operation.function)
    if not signature.parameters:
        raise ConfigError(f"{line}it has no self; staticmethods cannot be commands")
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise ConfigError(f"{line}{parameter} takes anything; name each parameter")
        if parameter.name not in hints:
            raise ConfigError(f"{line}parameter {parameter.name!r} has no annotation")
        reason = refusal(hints[parameter.name], state=False)
        if reason:
            kind = type_text(hints[parameter.name])
            raise ConfigError(f"{line}parameter {parameter.name!r} is {kind}; {reason}")
    if "return" not in hints:
        raise ConfigError(f"{line}it has no return annotation; write -> None if there is nothing")
    reason = refusal(hints["return"], state=False)
    if reason:
        raise ConfigError(f"{line}it returns {type_text(hints['return'])}; {reason}")
    return CommandSpec(cls.__name__, operation, name, signature, hints)
