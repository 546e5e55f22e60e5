"""The idempotency key that a caller gives to what is called inside a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from outlast.kernel.errors import ConfigError

KEY_CHARACTERS_MAX: Final = 255

_key: ContextVar[str] = ContextVar("outlast_idempotency_key", default="")


def current_idempotency_key() -> str:
    """Return the idempotency key of this context, or an empty string."""
    return _key.get()


@contextmanager
def idempotency_key(key: str) -> Iterator[None]:
    """Send the command or call in this block under ``key``, so that it can be recognised again.

    A session ends with its client, and a minted key with its process; this key does not: a later
    process may repeat the call. Use one key for one command or call.

    Raises:
        ConfigError: Empty, or longer than 255 characters.
    """
    if not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise ConfigError(
            f"idempotency key of {len(key)} characters; it must have 1 to {KEY_CHARACTERS_MAX}"
        )
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)
