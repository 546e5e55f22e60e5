"""Limits that decide what an apply does. They are part of the state, equal on every replica.

A limit read from one node's settings would let replicas differ; so these change only by a
``Configure`` operation in the log.
"""

import msgspec

from outlast.kernel import ConfigError

_NS = 1_000_000_000


class Limits(msgspec.Struct, array_like=True, frozen=True):
    """Bounds of the system machine, agreed through the log.

    Args:
        sessions_max: Most sessions; one more evicts the least recently used.
        window: Most requests of a session that may be unanswered at once.
        session_ttl_ns: Log time after which an unused session expires, unless it asked for
            another (up to ``session_ttl_max_ns``).
        session_ttl_max_ns: Longest time to live that a session may ask for.
        session_reply_bytes_max: Bytes of recorded replies per session; past it the oldest
            bodies go, and a repeat of theirs is told so (``ReplyLostError``).
        reply_bytes_max: The same over all sessions.
        keys_max: Most idempotency keys; one more evicts the oldest.
        key_bytes_max: Bytes of keys with their replies; past it the oldest go.
        key_ttl_ns: Log time for which an idempotency key is kept.
        leases_max: Most leases and roles with an epoch.
        checkpoint_entries: Cut a checkpoint after so many applied entries.
        checkpoint_bytes: Cut one after so many bytes of applied entries.
    """

    sessions_max: int = 10_000
    window: int = 256
    session_ttl_ns: int = 600 * _NS
    session_ttl_max_ns: int = 7 * 86_400 * _NS
    session_reply_bytes_max: int = 1 << 20
    reply_bytes_max: int = 256 << 20
    keys_max: int = 100_000
    key_bytes_max: int = 64 << 20
    key_ttl_ns: int = 86_400 * _NS
    leases_max: int = 10_000
    checkpoint_entries: int = 100_000
    checkpoint_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuse limits that cannot work.

        Raises:
            ConfigError: A limit below 1, a window above 256, or a default time to live above
                the longest.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"limits: {name} is {value}; it must be 1 or more")
        if self.window > 256:
            raise ConfigError(f"limits: window is {self.window}; at most 256")
        if self.session_ttl_ns > self.session_ttl_max_ns:
            raise ConfigError(
                f"limits: session_ttl_ns {self.session_ttl_ns} is above "
                f"session_ttl_max_ns {self.session_ttl_max_ns}"
            )
