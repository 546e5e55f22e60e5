"""A command that raised, as bytes, and the same error again at the client.

The body is ``[class name, arguments]`` and, only if the error has fields of its own, those as a
map. What cannot be encoded is replaced by its type's name: a ``repr`` may hold an address, which
differs between replicas.
"""

from typing import Any

import msgspec

from outlast.kernel import CommandError, CommandTypeError
from outlast.state.spec import MachineSpec

_encode = msgspec.msgpack.Encoder().encode


def encode_error(error: Exception) -> bytes:
    """Encode what a command raised; equal on every replica that raised it."""
    name = getattr(error, "type_name", "") or type(error).__name__
    fields = {k: v for k, v in vars(error).items() if k not in {"type_name", "__notes__"}}
    try:
        return _encode([name, error.args, fields] if fields else [name, error.args])
    except (TypeError, ValueError, OverflowError, RecursionError):
        body = [name, [_encodable(value) for value in error.args]]
        if fields:
            body.append({key: _encodable(value) for key, value in fields.items()})
        return _encode(body)


def _encodable(value: Any) -> Any:
    try:
        _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return f"<{type(value).__name__}>"
    return value


def decode_error(body: bytes, spec: MachineSpec | None) -> CommandError | CommandTypeError:
    """Return the error that a command answered with, as the class that the machine raised.

    A class that the machine's modules do not know becomes a plain ``CommandError`` with
    ``type_name``. Arguments come back as plain data: a tuple as a list.

    Args:
        body: What :meth:`Runner.execute` returned beside 1.
        spec: The machine, or ``None`` when the caller does not have the class.
    """
    name, args, *more = msgspec.msgpack.decode(body)
    if name == CommandTypeError.__name__:
        return CommandTypeError(*args)
    found = spec.error_class(name) if spec is not None else None
    if found is None and name == CommandError.__name__:
        found = CommandError
    if found is None:
        return CommandError.undeclared(name, *args)
    error = found.__new__(found, *args)
    error.args = tuple(args)
    error.__dict__.update(more[0] if more else {})
    return error
