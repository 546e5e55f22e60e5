"""Replies: how the answer to one command, or the error instead of it, travels as bytes."""

from typing import Any, Final

import msgspec

from outlast import kernel
from outlast.kernel import DefiniteError, IndefiniteError, OutlastError

OK: Final = 0
COMMAND_ERROR: Final = 1
DEFINITE: Final = 2
INDEFINITE: Final = 3
LOST: Final = 4
"""Kept in a session only: it was executed, its answer is gone. Sent as ``INDEFINITE``."""


class Reply(msgspec.Struct, array_like=True, gc=False):
    """The answer to one request.

    Args:
        status: ``OK``, ``COMMAND_ERROR`` (it ran and raised), ``DEFINITE`` (no effect now or
            later), ``INDEFINITE`` (may have had one).
        index: Index of the entry whose apply gave it; for a query, the index it saw.
        digest: Running digest of the replica after that entry; empty if none took part.
        body: The encoded result; or, for an error, ``[class name, message, fields]``.
        age_ns: For a stale query, how long ago the replica last knew that it was up to date.
    """

    status: int
    index: int
    digest: bytes
    body: bytes
    age_ns: int = 0


class ErrorBody(msgspec.Struct, array_like=True):
    """Body of a ``DEFINITE`` or ``INDEFINITE`` reply."""

    name: str
    message: str
    fields: dict[str, Any] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode
_decode_error = msgspec.msgpack.Decoder(ErrorBody).decode

_CLASSES: dict[str, type[OutlastError]] = {
    name: value
    for name, value in vars(kernel).items()
    if isinstance(value, type) and issubclass(value, OutlastError)
}


def encode_reply(reply: Reply) -> bytes:
    """Return the bytes of ``reply``."""
    return _encode(reply)


def encode_error_reply(error: BaseException) -> bytes:
    """Return the bytes of the reply for ``error``."""
    return _encode(error_reply(error))


def decode_reply(body: bytes) -> Reply:
    """Return the reply in ``body``.

    Raises:
        msgspec.DecodeError: It is not a reply.
    """
    return _decode_reply(body)


def encode_error(error: BaseException) -> bytes:
    """Return the body of the reply that tells ``error``: class, message, plain fields."""
    fields = {
        name: value
        for name, value in sorted(getattr(error, "__dict__", {}).items())
        if not name.startswith("_") and isinstance(value, str | int | float | bytes | None)
    }
    name = type(error).__name__ if isinstance(error, OutlastError) else _family(error).__name__
    message = str(error) if isinstance(error, OutlastError) else f"{type(error).__name__}: {error}"
    return _encode([name, message, fields])


def _family(error: BaseException) -> type[OutlastError]:
    return DefiniteError if kernel.happened(error) == "no" else IndefiniteError


def error_reply(error: BaseException, index: int = 0) -> Reply:
    """Return the reply for ``error``, definite or indefinite as the error says itself."""
    status = DEFINITE if kernel.happened(error) == "no" else INDEFINITE
    return Reply(status, index, b"", encode_error(error))


def decode_reply_error(reply: Reply) -> OutlastError:
    """Return the error in a ``DEFINITE`` or ``INDEFINITE`` reply, in its own class.

    A class unknown here becomes the plain definite or indefinite error of the same status.
    """
    family: type[OutlastError] = DefiniteError if reply.status == DEFINITE else IndefiniteError
    try:
        body = _decode_error(reply.body)
    except msgspec.MsgspecError:
        return family("the error in the reply could not be read")
    cls = _CLASSES.get(body.name, family)
    error = cls(body.message)
    if cls.happened == "no" and reply.status != DEFINITE:
        error = family(body.message)
    error.__dict__.update(body.fields)
    return error
