"""Every error of outlast, split by the one question a caller must ask: did it happen?

``error.happened`` is ``"no"`` (definite: surely no effect, now or later), ``"maybe"``
(indefinite: it may have had an effect or may yet have one) or ``"yes"`` (the operation was
carried out and this is its answer). Fields, not prose, carry what a program needs. All errors
pickle. ``ERROR_TABLE`` at the end is the reference page's source.
"""

from typing import Any, Literal, NamedTuple, Self

Happened = Literal["no", "maybe", "yes"]


class OutlastError(Exception):
    """Base of all errors raised by outlast. ``happened`` tells whether there was an effect."""

    happened: Happened = "maybe"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by arguments and fields, whatever the signature of ``__init__``."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[OutlastError], args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class DefiniteError(OutlastError):
    """Surely had no effect and never will have. Safe to repeat."""

    happened: Happened = "no"


class IndefiniteError(OutlastError):
    """May have had an effect, or may yet have one. Repeat only within a session."""

    happened: Happened = "maybe"


class CommandError(OutlastError):
    """A command ran and raised: this is its answer, equal on every replica.

    Users derive their own errors from it; the client raises the same class. An exception that
    the machine did not declare arrives as a plain ``CommandError`` with ``type_name`` set.
    """

    happened: Happened = "yes"
    type_name: str = ""

    @classmethod
    def undeclared(cls, type_name: str, *args: Any) -> Self:
        """Return the error that stands for an exception class unknown to the client."""
        error = cls(*args)
        error.type_name = type_name
        return error


# --- definite ------------------------------------------------------------------------------


class ConfigError(DefiniteError, ValueError):
    """A setting or argument is wrong; the message names the value and what would be right."""


class EscapeError(ConfigError):
    """Code in a simulation asked for something that cannot be simulated: a socket, a process."""


class RejectedError(DefiniteError):
    """Refused before any work began. ``retry_after`` is in seconds, ``None`` when unknown."""

    def __init__(self, message: str = "rejected", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open."""


class BulkheadFullError(RejectedError):
    """All permits are taken and the queue is full."""


class RateLimitedError(RejectedError):
    """The rate limit is used up."""


class OverloadedError(RejectedError):
    """Load was shed: a queue, byte budget or concurrency limit is full."""


class TooLateError(RejectedError):
    """The deadline had passed before the work began."""


class InFlightError(RejectedError):
    """A call with this idempotency key is under way; this one did nothing. Ask again later."""


class UnavailableError(RejectedError):
    """No replica can serve this now, for example because there is no majority."""


class DiskFullError(RejectedError):
    """The disk has no room for the entry; nothing was written. Reads go on."""


class ElsewhereError(DefiniteError):
    """This replica cannot take it; another can. ``hint`` names it, or is ``None``."""

    def __init__(self, message: str = "not the leader", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SealedError(DefiniteError):
    """The log is sealed. ``next`` is what the winning seal said about where it continues."""

    def __init__(self, message: str = "the log is sealed", *, next: bytes = b"") -> None:
        super().__init__(message)
        self.next = next


class NoEffectError(DefiniteError):
    """The operation was answered, and the answer says that it surely changed nothing."""


class LostError(DefiniteError):
    """The entry is known to have been overwritten by another leader's; it never took effect."""


class TrimmedError(DefiniteError):
    """The entries asked for were trimmed. ``first`` is the first index still readable."""

    def __init__(self, message: str = "trimmed", *, first: int = 0) -> None:
        super().__init__(message)
        self.first = first


class FencedError(DefiniteError):
    """The epoch that the entry carried is no longer current. ``epoch`` is the current one."""

    def __init__(self, message: str = "fenced", *, epoch: int = 0) -> None:
        super().__init__(message)
        self.epoch = epoch


class KeyReusedError(DefiniteError):
    """The same request id or idempotency key came with another command or other arguments."""


class SessionExpiredError(DefiniteError):
    """The session is unknown or expired. This request was not executed under it now.

    An earlier attempt of the same request may have been: the client reports that case as
    :class:`IndefiniteError`.
    """


class BarredError(DefiniteError):
    """The request was barred by ``Resolve``: it has not been and will never be executed."""


class CommandTypeError(DefiniteError, TypeError):
    """The command is unknown, or its arguments do not fit its signature. Nothing was run."""


class HandshakeError(DefiniteError, ConnectionError):
    """The peers do not belong together: cluster, version, certificate, token or hash seed."""


class ProtocolError(DefiniteError):
    """Bytes from a peer break the protocol: bad magic, checksum, size or order."""


class DataError(DefiniteError):
    """A data directory cannot be used: other cluster, newer format, missing or locked parts."""


# --- indefinite ----------------------------------------------------------------------------


class DeadlineError(IndefiniteError, TimeoutError):
    """The deadline passed while it was under way."""


class ConnectionLostError(IndefiniteError, ConnectionError):
    """The connection broke while it was under way."""


class NoMajorityError(IndefiniteError):
    """Redundant instances gave no answer that enough of them agree on.

    ``parties`` tells how many gave each answer, ``failed`` names those that gave none, with the
    kind of error, and ``unheard`` those that had not answered in time. Answers are not told.
    """

    def __init__(
        self,
        message: str = "no majority",
        *,
        parties: tuple[int, ...] = (),
        failed: dict[str, str] | None = None,
        unheard: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.parties = parties
        self.failed = failed or {}
        self.unheard = unheard


class LogFailedError(IndefiniteError):
    """The log's storage failed (write or fsync). The node stops; what was pending is unknown."""


class ReplyLostError(IndefiniteError):
    """The request took effect, but its recorded answer is no longer kept."""

    happened: Happened = "yes"


# --- not for callers to handle ---------------------------------------------------------------


class CorruptionError(OutlastError):
    """Bytes on disk that were acknowledged are damaged. Never dropped silently.

    Args:
        message: One line with what was expected and found.
        file: Path of the damaged file.
        offset: Byte offset of the damage in it.
        first: First log index or sequence known to be touched, 0 when unknown.
        last: Last one, 0 when unknown.
    """

    happened: Happened = "no"

    def __init__(
        self, message: str, *, file: str = "", offset: int = 0, first: int = 0, last: int = 0
    ) -> None:
        super().__init__(message)
        self.file = file
        self.offset = offset
        self.first = first
        self.last = last


class DivergedError(OutlastError):
    """This replica's digest differs from the majority's at the same index."""


class InvariantError(OutlastError):
    """A promise of outlast itself is broken: our bug. No policy catches it; the node stops."""


class DeadlockError(InvariantError):
    """Nobody can go on: a simulation in which nothing is due, or a circle of watched locks."""


def invariant(condition: object, message: str) -> None:
    """Raise :class:`InvariantError` unless ``condition`` holds; stays on under ``python -O``."""
    if not condition:
        raise InvariantError(message)


def happened(error: BaseException) -> Happened:
    """Tell whether the operation that raised ``error`` may have had an effect.

    Errors of outlast answer for themselves. Of foreign errors only those are definite whose
    request surely was not sent (a connection refused, a name not found, what HTTP clients raise
    before they send), or was answered by a refusal that means that it was not carried out (HTTP
    401, 412, 429 …; Redis ``READONLY``, ``OOM`` …; gRPC ``UNIMPLEMENTED``, ``UNAUTHENTICATED``),
    with no earlier attempt or redirect within the same call. Known are httpx, httpcore,
    requests, urllib3, aiohttp, redis, grpc and the standard library; everything else is
    ``"maybe"``. Ask while the error still has its traceback: some answers need it. A group is
    ``"maybe"`` if anything in it is, and ``"no"`` if everything in it is.

    >>> happened(ConnectionRefusedError())
    'no'
    >>> happened(TimeoutError())
    'maybe'
    """
    try:
        answer = getattr(error, "happened", None)
    except Exception:  # a foreign object may do anything when it is looked at
        answer = None
    if isinstance(answer, str) and answer in {"no", "maybe", "yes"}:
        return answer  # type: ignore[return-value]
    if isinstance(error, BaseExceptionGroup):
        answers = {happened(one) for one in error.exceptions}
        return "maybe" if "maybe" in answers else "yes" if "yes" in answers else "no"
    from outlast.kernel.foreign import surely_not

    return "no" if surely_not(error) else "maybe"


def kernel_error(name: str, message: str, **fields: Any) -> OutlastError:
    """Return the error class called ``name`` with ``message``, as told by another process.

    A name that is not one of ours becomes an :class:`IndefiniteError`, since what is not
    understood cannot be called definite.
    """
    for cls in _family(OutlastError):
        if cls.__name__ == name:
            error = cls.__new__(cls)
            error.args = (message,)
            for field, value in fields.items():
                setattr(error, field, value)
            return error
    return IndefiniteError(f"{name}: {message}")


class ErrorRow(NamedTuple):
    """One row of the reference table."""

    name: str
    happened: str
    bases: str
    meaning: str


def _row(cls: type[OutlastError]) -> ErrorRow:
    builtin = [base.__name__ for base in cls.__mro__ if base.__module__ == "builtins"]
    family = [base.__name__ for base in cls.__bases__]
    wide = [name for name in builtin if name not in {"Exception", "BaseException", "object"}]
    bases = ", ".join(dict.fromkeys([*family, *wide[:1]]))
    meaning = (cls.__doc__ or "").strip().splitlines()[0]
    return ErrorRow(cls.__name__, cls.happened, bases, meaning)


def _family(cls: type[OutlastError]) -> list[type[OutlastError]]:
    found = [cls]
    for child in cls.__subclasses__():
        if child.__module__ == __name__:
            found.extend(_family(child))
    return found


ERROR_TABLE: tuple[ErrorRow, ...] = tuple(_row(cls) for cls in _family(OutlastError))
