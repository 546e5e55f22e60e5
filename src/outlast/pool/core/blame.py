"""Whose fault an error is: the instance's, that of the load on it, or our own.

Only what the instance did may eject it. A call that we have refused, cancelled or written wrongly
says nothing of it (Envoy splits off "local origin" errors for the same reason).

- ``"ok"``: it has answered; that the answer is a refusal (404, a command's error) is no failure.
- ``"failed"``: it could not be reached, broke the connection, or answered by an error of its own.
- ``"late"``: it has not answered in the time that we gave it. Whether that was enough is a
  question of what the others take; see ``PoolCore.done``.
- ``"busy"``: it works and has too much to do.
- ``"lied"``: its answer was wrong.
- ``"cut"``: we have stopped waiting for reasons of our own; it took longer than that.
- ``"ours"``: nothing is known of it.
"""

import errno
from typing import Any, Final, Literal

from outlast.kernel import ConfigError, InvariantError, RejectedError
from outlast.protect.core.classify import classify
from outlast.protect.core.pushback import grpc_code, headers_of, peek

Verdict = Literal["ok", "failed", "late", "busy", "lied", "cut", "ours"]

_OURS_ERRNOS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EADDRNOTAVAIL}
_CHAIN_MAX: Final = 8


def blame(error: BaseException) -> Verdict:
    """Return what an error, raised by a call to an instance, says of the instance.

    >>> blame(ConnectionRefusedError()), blame(TimeoutError()), blame(KeyError("x"))
    ('failed', 'late', 'ours')
    """
    if not isinstance(error, Exception):
        return "cut"
    if isinstance(error, RejectedError | ConfigError | InvariantError):
        return "ours"
    if isinstance(error, OSError) and error.errno in _OURS_ERRNOS:
        return "ours"
    kind = classify(error)
    if kind == "answer":
        return "ok"
    if kind == "throttled":
        return "busy" if _answered(error) else "ours"
    if kind == "permanent":
        if _answered(error):
            return "ok"
        return "failed" if _of_certificate(error) else "ours"
    return "late" if is_late(error) else "failed"


def is_late(error: BaseException) -> bool:
    """Whether an error says that a time was up while an answer was awaited."""
    if isinstance(error, TimeoutError):
        return not _answered(error)
    code = grpc_code(error)
    if code is not None:
        return code == "DEADLINE_EXCEEDED"
    names = [cls.__name__ for cls in type(error).__mro__]
    return any("Timeout" in name for name in names) and not _answered(error)


def _answered(error: BaseException) -> bool:
    """Whether an error is the instance's answer: a response, with a status or a code."""
    if peek(error, "response") is not None or grpc_code(error) is not None:
        return True
    status: Any = peek(error, "status_code") or peek(error, "code")
    return isinstance(status, int) and headers_of(error) is not None


def _of_certificate(error: BaseException) -> bool:
    seen: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if seen is None:
            return False
        if type(seen).__name__ == "SSLCertVerificationError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False
