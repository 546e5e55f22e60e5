"""Outcomes as bytes, and back: for records that other processes read.

JSON with tags for what JSON lacks, so that a repeat gets the same value and not one that looks
like it: ``{"$tuple": […]}``, ``{"$bytes": "base64"}`` and ``{"$dict": [[key, value], …]}`` (for
dicts with keys that are not text, or that begin with ``$``). Nothing else is encoded, and
decoding makes nothing else: bytes from a store are not trusted, and never run code.
"""

from collections.abc import Iterable
from typing import Any, Final, Protocol

from outlast.kernel import CommandError, DataError, ReplyLostError, kernel_error
from outlast.kernel.errors import OutlastError

VERSION: Final = 1
DEPTH_MAX: Final = 64
BYTES_MAX: Final = 16 << 20


class Returned:
    """The work returned ``value``, which counts ``size`` bytes against a store's bound."""

    __slots__ = ("size", "value")

    def __init__(self, value: Any, size: int = 0) -> None:
        self.value = value
        self.size = size


class Raised:
    """The work raised ``error``."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


Outcome = Returned | Raised


def own(outcome: Outcome) -> Outcome:
    """Return the outcome with an error of its own.

    The one that is raised now collects notes and a traceback, which keeps alive all that its
    frames hold.
    """
    return Raised(_copied(outcome.error)) if isinstance(outcome, Raised) else outcome


def _copied(error: BaseException) -> BaseException:
    """Return a copy with the same arguments and fields, made without calling ``__init__``.

    An error that keeps state outside of ``args`` and ``__dict__`` (such as ``OSError``, or one
    with slots) is returned itself: a copy might differ.
    """
    cls = type(error)
    for base in cls.__mro__:
        if vars(base).get("__slots__"):
            return error
        if base.__module__ == "builtins":
            if base.__basicsize__ != BaseException.__basicsize__:
                return error
            break
    copy = BaseException.__new__(cls)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    notes = getattr(error, "__notes__", None)
    if notes is not None:
        copy.__notes__ = list(notes)
    copy.__cause__ = error.__cause__
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def result_of(outcome: Outcome) -> Any:
    """Return or raise what was kept."""
    if isinstance(outcome, Raised):
        raise _copied(outcome.error).with_traceback(None)
    return outcome.value


class Codec(Protocol):
    """Makes bytes of an outcome, and the outcome of bytes."""

    def encode(self, outcome: Outcome) -> bytes:
        """Return ``outcome`` as bytes.

        Raises:
            TypeError: It cannot be kept exactly.
        """
        ...

    def decode(self, raw: bytes) -> Outcome:
        """Return what :meth:`encode` was given.

        Raises:
            DataError: The bytes are not from :meth:`encode`.
        """
        ...


class Json:
    """Outcomes as tagged JSON.

    Values: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, and lists, tuples and
    dicts of them, each of exactly that type. Errors: those of outlast, and ``errors``; they come
    back as the same class with the same arguments, without their traceback. Another error
    comes back as :class:`~outlast.kernel.CommandError` with ``type_name``.

    Args:
        errors: Exception classes that may be made again, by calling them with ``args``.
    """

    __slots__ = ("_errors",)

    def __init__(self, errors: Iterable[type[Exception]] = ()) -> None:
        self._errors = {_full_name(cls): cls for cls in errors}

    def encode(self, outcome: Outcome) -> bytes:
        """Return ``outcome`` as bytes; ``TypeError`` if it cannot be kept exactly."""
        import json

        if isinstance(outcome, Returned):
            body: dict[str, Any] = {"v": VERSION, "value": _tagged(outcome.value, 0)}
        else:
            body = {"v": VERSION, "error": self._error_out(outcome.error)}
        return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()

    def decode(self, raw: bytes) -> Outcome:
        """Return the outcome; ``DataError`` if the bytes make none."""
        import json

        if len(raw) > BYTES_MAX:
            raise DataError(f"a kept outcome has {len(raw)} bytes; at most {BYTES_MAX} are read")
        try:
            body = json.loads(raw)
            if body["v"] != VERSION:
                raise DataError(f"a kept outcome has version {body['v']!r}, not {VERSION}")
            if "value" in body:
                return Returned(_plain(body["value"]))
            return Raised(self._error_in(body["error"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"a kept outcome cannot be read: {error}") from error

    def _error_out(self, error: BaseException) -> dict[str, Any]:
        kind = type(error)
        name = _full_name(kind)
        if name in self._errors:
            return {"class": name, "args": _tagged(error.args, 0)}
        if isinstance(error, OutlastError) and kind.__module__ == OutlastError.__module__:
            fields = {key: _tagged(value, 0) for key, value in vars(error).items()
                      if not key.startswith("_")}  # fmt: skip
            return {"ours": kind.__name__, "args": _tagged(error.args, 0), "fields": fields}
        return {"other": kind.__name__, "args": [str(error)]}

    def _error_in(self, body: dict[str, Any]) -> BaseException:
        if "ours" in body:
            fields = {
                str(key): _plain(value)
                for key, value in body["fields"].items()
                if not key.startswith("_")
            }
            error = kernel_error(str(body["ours"]), "", **fields)
            error.args = tuple(_plain(body["args"]))
            return error
        if "other" in body:
            return CommandError.undeclared(str(body["other"]), *_plain(body["args"]))
        made = self._errors.get(body["class"])
        if made is None:
            return ReplyLostError(f"the kept error {body['class']!r} is not among Json(errors=…)")
        return made(*_plain(body["args"]))


def _full_name(cls: type[BaseException]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _tagged(value: Any, depth: int) -> Any:
    """Return ``value`` as JSON can hold it, with tags."""
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if depth >= DEPTH_MAX:
        raise TypeError(f"nested deeper than {DEPTH_MAX}")
    if kind is list:
        return [_tagged(item, depth + 1) for item in value]
    if kind is tuple:
        return {"$tuple": [_tagged(item, depth + 1) for item in value]}
    if kind is bytes:
        from binascii import b2a_base64

        return {"$bytes": b2a_base64(value, newline=False).decode()}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _tagged(item, depth + 1) for key, item in value.items()}
        pairs = [[_tagged(k, depth + 1), _tagged(v, depth + 1)] for k, v in value.items()]
        return {"$dict": pairs}
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be kept as JSON")


def _plain(value: Any) -> Any:
    """Return what :func:`_tagged` was given."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, inside),) = value.items()
        if tag == "$tuple":
            return tuple(_plain(item) for item in inside)
        if tag == "$bytes":
            from binascii import a2b_base64

            return a2b_base64(inside, strict_mode=True)
        if tag == "$dict":
            return {_plain(key): _plain(item) for key, item in inside}
    return {key: _plain(item) for key, item in value.items()}
