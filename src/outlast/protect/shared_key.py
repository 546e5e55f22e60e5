"""Under which name processes share a part that stands for one key; see ``Keyed``."""

from collections.abc import Hashable
from typing import Any

from outlast.kernel import ConfigError

_DIGEST_BYTES = 16


def store_name(name: str, key: str) -> str:
    """Return the name in the store of the part ``name`` for ``key``; one without is not shared.

    >>> store_name("hosts", ""), store_name("hosts", "3f"), store_name("", "3f")
    ('hosts', 'hosts:3f', '')
    """
    return f"{name}:{key}" if name and key else name


def key_digest(key: Hashable) -> str:
    """Return a text for ``key`` that is the same in every process, and for every equal key.

    Raises:
        ConfigError: Definite. The key is something else than text, bytes, whole numbers, ``None``
            and tuples of these: another process might take it for another key.
    """
    # hashlib takes milliseconds to import.
    from hashlib import blake2b

    # Unlike repr, ascii does not depend on what the interpreter holds for printable.
    said = ascii(_ordinary(key, key)).encode()
    return blake2b(said, digest_size=_DIGEST_BYTES).hexdigest()


def share_under(part: Any, key: Hashable) -> None:
    """Let ``part`` be one with the parts of the same name and ``key`` in other processes.

    Raises:
        ConfigError: See :func:`key_digest`.
    """
    # A breaker has its link beside its rules; the rules of a rate that is shared are the link.
    link = getattr(part, "shared", None) or getattr(part, "core", None)
    if link is not None:
        link.key = key_digest(key)


def check_shared(part: Any) -> None:
    """Refuse a part with a store and without a name, which would silently be this process's own.

    Raises:
        ConfigError: Definite. It has a store and no name.
    """
    if getattr(part, "store", None) is not None and not part.name:
        raise no_name(type(part).__name__)


def no_name(kind: str) -> ConfigError:
    """Return the error for a part of this ``kind`` that has a store and no name."""
    return ConfigError(
        f"{kind}: store= needs a name, under which the processes share it; give it name=, or give "
        "its policy a name"
    )


def _ordinary(key: Any, whole: object) -> Any:
    """Return ``key`` made of plain values, the same for keys that are equal."""
    if isinstance(key, tuple):
        return tuple(_ordinary(one, whole) for one in key)
    if isinstance(key, int):
        return int(key)  # True is 1, as in a dict
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return bytes(key)
    if key is None:
        return None
    raise ConfigError(
        f"Keyed: with store= a key is {whole!r}; text, bytes, whole numbers, None, or tuples of "
        "these would be right: processes must agree on it"
    )
