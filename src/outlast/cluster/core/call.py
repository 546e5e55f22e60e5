"""What a client does with an answer: finish, go elsewhere, wait and repeat, or give up.

A repeat is always under the same (session, seq), so that the session recognises it. The one
exception is an expired session: a request that was sent only once and was refused for it was
surely not executed and may go again under a new session; one that was sent more than once may
have been executed under the old one, and its caller is told so.
"""

from dataclasses import dataclass

from outlast.kernel import (
    DefiniteError,
    ElsewhereError,
    IndefiniteError,
    LostError,
    OutlastError,
    RejectedError,
    SessionExpiredError,
)
from outlast.state.core.reply import COMMAND_ERROR, OK


@dataclass(frozen=True, slots=True)
class Finish:
    """Hand the reply to the caller."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise ``error`` at the caller."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class GoTo:
    """Send it to the leader; ``hint`` names it or is empty."""

    hint: str


@dataclass(frozen=True, slots=True)
class WaitAndRepeat:
    """Send it again after a wait of at least ``at_least`` seconds (the policy adds jitter)."""

    at_least: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open a new session and send it under that."""


Step = Finish | Fail | GoTo | WaitAndRepeat | Reopen


def next_step(
    status: int,
    error: OutlastError | None,
    *,
    maybe: bool,
    repeatable: bool,
    applied: bool = True,
) -> Step:
    """Decide what follows an answer.

    Args:
        status: Of the reply.
        error: The error that it carries, ``None`` for OK and command errors.
        maybe: Whether an earlier attempt ended without an answer.
        repeatable: Whether a repeat after an unknown outcome does no harm: a command that its
            session recognises, or a request that changes nothing.
        applied: Whether applying the log gave the answer. If not, this attempt was refused
            before it got there, which says nothing of an earlier one.
    """
    if status in {OK, COMMAND_ERROR} or error is None:
        return Finish()
    if isinstance(error, ElsewhereError):
        return GoTo(error.hint or "")
    if isinstance(error, SessionExpiredError):
        if not maybe:
            return Reopen()
        message = f"{error}; an earlier attempt of this request may have been executed"
        return Fail(IndefiniteError(message))
    if isinstance(error, RejectedError):
        return WaitAndRepeat(error.retry_after or 0.0, error)
    if isinstance(error, LostError):
        return WaitAndRepeat(0.0, error)
    if isinstance(error, DefiniteError):
        if not maybe or applied:
            return Fail(error)
        message = f"refused ({error}), but an earlier attempt may have been executed"
        return Fail(IndefiniteError(message))
    if repeatable and error.happened == "maybe":
        return WaitAndRepeat(0.0, error)
    return Fail(error)
