"""What is known of the logical call under way: its key, its attempt, its place among hedges.

A *logical call* is what the caller asked for once; retries and hedges are attempts at it. They
share one key, so that the other side can recognise a repeat, and tell their number, so that
policies further in do not multiply retries (``nested``) and services can shed repeats first.
"""

from contextvars import ContextVar
from typing import Final


class CallInfo:
    """The logical call under way. Not to be changed.

    Attributes:
        key: Idempotency key of the logical call; ``None`` where none was minted.
        attempt: Number of this attempt; the first is 1.
        hedge: Which of the attempts side by side; the first is 0.
        policy: Name of the policy that makes the attempt; empty for one from outside.
    """

    __slots__ = ("attempt", "hedge", "key", "policy")

    def __init__(
        self, key: str | None = None, attempt: int = 1, hedge: int = 0, policy: str = ""
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.hedge = hedge
        self.policy = policy

    def __repr__(self) -> str:
        return (
            f"CallInfo(key={self.key!r}, attempt={self.attempt}, hedge={self.hedge}, "
            f"policy={self.policy!r})"
        )


current_call_var: Final[ContextVar[CallInfo | None]] = ContextVar("outlast_call", default=None)


def current_call() -> CallInfo | None:
    """Return the logical call under way, or ``None``.

    There is one from the first attempt on where the policy has ``idempotency=`` or the call came
    in with headers; otherwise only from the second attempt on, since nothing needs to be told of
    a first attempt without a key.
    """
    return current_call_var.get()


def current_attempt() -> int:
    """Return the number of the attempt under way; 1 outside of any."""
    call = current_call_var.get()
    return 1 if call is None else call.attempt
