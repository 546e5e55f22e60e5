"""State shared by the processes of one host, in an SQLite file."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from outlast.kernel import current_world
from outlast.protect.store.keyed import KeyedStore, Rule

if TYPE_CHECKING:
    import sqlite3

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS outlast_state "
    "(key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_ns INTEGER NOT NULL) WITHOUT ROWID"
)
_INDEX: Final = "CREATE INDEX IF NOT EXISTS outlast_expiry ON outlast_state (expires_ns)"
_PURGE_EVERY: Final = 64
_stores: "WeakSet[SqliteStore]" = WeakSet()
_abandoned: list[Any] = []


class SqliteStore(KeyedStore):
    """A store in a file that the processes of one host open together.

    The file is opened on first use and made with access for its owner only. It lies beside its
    ``-wal`` and ``-shm`` files, on a local disk: a network file system does not lock as needed.
    Records survive a kill of any process; a power cut may lose the last of them, which is the
    same as their expiry. The store's clock is the wall clock of the host.

    Safe to share between threads (one at a time) and to carry through a fork.

    Args:
        path: The file. Its directory must exist.
        **settings: As for every store; see ``KeyedStore``.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(self, path: str | Path, **settings: Any) -> None:
        super().__init__(**settings)
        self.path = str(path)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._writes = 0
        _stores.add(self)

    def transact(self, key: str, rule: Rule) -> Any:
        """Apply ``rule`` in a transaction that has the file to itself from its begin."""
        if not self._lock.acquire(timeout=self.timeout):
            raise TimeoutError("other threads of this process are waiting for the file")
        try:
            connection = self._connection or self._open()
            try:
                return self._within(connection, key, rule)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            self._lock.release()

    def _within(self, connection: "sqlite3.Connection", key: str, rule: Rule) -> Any:
        connection.execute("BEGIN IMMEDIATE")
        now_ns = current_world().clock.wall_ns()
        row = connection.execute(
            "SELECT value FROM outlast_state WHERE key = ? AND expires_ns > ?", (key, now_ns)
        ).fetchone()
        kept = row[0] if row and isinstance(row[0], bytes) else None
        data, keep_ns, answer = rule(kept, now_ns)
        if data:
            connection.execute(
                "INSERT OR REPLACE INTO outlast_state VALUES (?, ?, ?)",
                (key, data, now_ns + keep_ns),
            )
            self._writes += 1
            if self._writes % _PURGE_EVERY == 0:
                connection.execute(
                    "DELETE FROM outlast_state WHERE key IN "
                    "(SELECT key FROM outlast_state WHERE expires_ns <= ? LIMIT ?)",
                    (now_ns, 4 * _PURGE_EVERY),
                )
        elif data is not None:
            connection.execute("DELETE FROM outlast_state WHERE key = ?", (key,))
        connection.execute("COMMIT")
        return answer

    def _open(self) -> "sqlite3.Connection":
        import sqlite3

        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_TABLE)
            connection.execute(_INDEX)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def where(self) -> str:
        """Return ``sqlite:`` and the path."""
        return f"sqlite:{self.path}"

    def _forked(self) -> None:
        # SQLite forbids a child to use the connection, and even to close it.
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._connection = None
        self._lock = threading.Lock()


def _after_fork() -> None:
    for store in tuple(_stores):
        store._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
