"""State that processes share: breakers, rates, budgets and idempotency records."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.protect.store.api import FleetStore, RecordStore, Store
    from outlast.protect.store.keyed import KeyedStore
    from outlast.protect.store.memory import MemoryStore
    from outlast.protect.store.redis import RedisStore
    from outlast.protect.store.sqlite import SqliteStore

_HOMES = {
    "FleetStore": "api", "RecordStore": "api", "Store": "api", "KeyedStore": "keyed",
    "MemoryStore": "memory", "RedisStore": "redis", "SqliteStore": "sqlite",
}  # fmt: skip


def open_store(url: str, **settings: Any) -> "Store":
    """Return the store that ``url`` names; nothing is opened before its first use.

    Args:
        url: ``memory:``, ``sqlite:PATH``, or ``redis://…`` / ``rediss://…``.
        **settings: As for every store; see ``KeyedStore``.

    Raises:
        ConfigError: Definite. The url is none of these, or a value is out of range.
    """
    from outlast.kernel import ConfigError

    kind, _, rest = url.partition(":")
    if kind == "memory" and not rest.strip("/"):
        from outlast.protect.store.memory import MemoryStore

        return MemoryStore(**settings)
    if kind == "sqlite" and rest:
        from outlast.protect.store.sqlite import SqliteStore

        return SqliteStore(rest.removeprefix("//"), **settings)
    if kind in {"redis", "rediss", "unix"} and rest:
        from outlast.protect.store.redis import RedisStore

        return RedisStore(url, **settings)
    shown = kind if len(kind) < 20 else f"{kind[:20]}…"
    raise ConfigError(f"open_store: {shown!r} names no store; memory:, sqlite:PATH or redis://…")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FleetStore", "KeyedStore", "MemoryStore", "RecordStore", "RedisStore", "SqliteStore", "Store",
    "open_store",
]  # fmt: skip
