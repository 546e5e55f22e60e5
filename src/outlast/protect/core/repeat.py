"""Whether a request may be sent again.

A repeat is harmless if the first one surely did nothing, if the method says that two are as good
as one (RFC 9110, 9.2.2), or if the other side can recognise it by an idempotency key. And it must
be possible: a body that could be read only once is gone.
"""

from typing import Final, Literal

IDEMPOTENT: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})
"""Methods of which several requests mean the same as one."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that ask for no change at all; they need no idempotency key."""

RETRY_STATUSES: Final = frozenset({429, 502, 503, 504})
"""Statuses after which to ask again: too much to do, or a proxy without its server."""


def why_not(
    method: str, *, promised: bool, happened: Literal["no", "maybe", "yes"], spent: bool
) -> str | None:
    """Return why a request may not be sent again after an attempt; ``None`` if it may.

    Args:
        method: In capital letters.
        promised: Whether a repeat is recognised (a key), or known to do no harm.
        happened: Whether the attempt may have had an effect.
        spent: Whether the body was read and cannot be read again.

    >>> why_not("GET", promised=False, happened="maybe", spent=False)
    >>> why_not("POST", promised=False, happened="no", spent=False)
    >>> why_not("POST", promised=False, happened="maybe", spent=False)
    'POST may have taken effect, and nothing would tell a repeat from a second one'
    """
    if spent:
        return "the body of the request was read and cannot be read again"
    if happened == "no" or promised or method in IDEMPOTENT:
        return None
    return f"{method} may have taken effect, and nothing would tell a repeat from a second one"


def fit(limits: dict[str, float | None], left: float | None) -> dict[str, float | None]:
    """Return ``limits`` in seconds by what they bound, none of them above ``left``.

    >>> fit({"connect": 5.0, "read": None}, 2.0)
    {'connect': 2.0, 'read': 2.0}
    """
    if left is None:
        return dict(limits)
    return {name: left if own is None else min(own, left) for name, own in limits.items()}
