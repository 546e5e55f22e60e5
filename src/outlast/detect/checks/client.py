"""Checks that ask a service with the program's own client: SQL databases, Redis."""

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from outlast.detect.core.health import Status
from outlast.kernel import ConfigError

Told = tuple[Status, str]


def sql(
    source: Any, statement: str = "SELECT 1", *, target: str = ""
) -> Callable[[], Told] | Callable[[], Awaitable[Told]]:
    """Check that a database runs a statement.

    With an engine it takes a connection from the engine's pool, so a pool that is used up shows
    as well: the check hangs and fails by its timeout. Give the driver timeouts of its own.

    Args:
        source: An SQLAlchemy ``Engine`` or ``AsyncEngine``, or a function that returns a new
            DB-API connection, such as ``lambda: psycopg.connect(dsn, connect_timeout=1)``.
        statement: What to run; its first row is fetched.
        target: How the database is called in the detail; by default what the engine's URL
            says of backend, host and name.

    Raises:
        ConfigError: Definite. The source is none of these.
    """
    if hasattr(source, "sync_engine"):
        return _SqlAsync(source, statement, target or _engine_name(source))
    if hasattr(source, "connect") and hasattr(source, "url"):
        return _Sql(source, statement, target or _engine_name(source))
    if callable(source):
        return _DbApi(source, statement, target or "database")
    raise ConfigError(
        f"sql: source is {type(source).__name__}; an SQLAlchemy engine, or a function that"
        " returns a DB-API connection"
    )


class _Asking:
    """A client, and the name of what it asks."""

    needs_network = True

    def __init__(self, source: Any, statement: str, target: str) -> None:
        self._source, self._statement, self.target = source, statement, target

    def __repr__(self) -> str:
        return f"<check {self.target}>"

    def _lost(self, error: Exception) -> Told:
        """Tell the types: texts of drivers hold addresses, users, sometimes passwords."""
        told = type(error).__name__
        inner = getattr(error, "orig", None)
        if isinstance(inner, BaseException) and type(inner).__name__ != told:
            told = f"{told} ({type(inner).__name__})"
        return Status.FAILED, f"{self.target}: {told}"


class _Sql(_Asking):
    def __call__(self) -> Told:
        try:
            with self._source.connect() as connection:
                connection.exec_driver_sql(self._statement).first()
        except Exception as error:
            return self._lost(error)
        return Status.OK, self.target


class _SqlAsync(_Asking):
    async def __call__(self) -> Told:
        try:
            async with self._source.connect() as connection:
                (await connection.exec_driver_sql(self._statement)).first()
        except Exception as error:
            return self._lost(error)
        return Status.OK, self.target


class _DbApi(_Asking):
    def __call__(self) -> Told:
        try:
            with contextlib.closing(self._source()) as connection:
                cursor = connection.cursor()
                cursor.execute(self._statement)
                cursor.fetchone()
        except Exception as error:
            return self._lost(error)
        return Status.OK, self.target


def redis(client: Any, *, target: str = "") -> Callable[[], Told] | Callable[[], Awaitable[Told]]:
    """Check that a Redis or Valkey server answers ``PING``.

    Give the client ``socket_timeout`` and ``socket_connect_timeout``: without them it waits for
    as long as the kernel does, and the check hangs on its thread meanwhile.

    Args:
        client: A client of ``redis`` or ``redis.asyncio``, or what has a ``ping`` like theirs.
        target: How the server is called in the detail; by default what the client's pool says.

    Raises:
        ConfigError: Definite. The client has no ``ping``.
    """
    if not callable(getattr(client, "ping", None)):
        raise ConfigError(f"redis: client is {type(client).__name__}; what has ping() is needed")
    target = target or _redis_name(client)
    asynchronous = any(
        inspect.iscoroutinefunction(getattr(client, name, None))
        for name in ("ping", "execute_command")
    )
    return _RedisAsync(client, "", target) if asynchronous else _Redis(client, "", target)


class _Redis(_Asking):
    def __call__(self) -> Told:
        try:
            answer = self._source.ping()
        except Exception as error:
            return self._lost(error)
        return _ponged(self.target, answer)


class _RedisAsync(_Asking):
    async def __call__(self) -> Told:
        try:
            answer = await self._source.ping()
        except Exception as error:
            return self._lost(error)
        return _ponged(self.target, answer)


def _ponged(target: str, answer: object) -> Told:
    if answer:
        return Status.OK, target
    return Status.FAILED, f"{target}: did not answer PING with PONG"


def _engine_name(engine: Any) -> str:
    """Return backend, host and name of the database; nothing of user or password."""
    url = engine.url
    try:
        host = f"{url.host}:{url.port}" if url.port else (url.host or "")
        place = "/".join(part for part in (host, url.database or "") if part)
        return f"{url.get_backend_name()} {place}".strip()
    except AttributeError:
        return "database"


def _redis_name(client: Any) -> str:
    settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if not isinstance(settings, dict):
        return "redis"
    if settings.get("path"):
        return f"redis {settings['path']}"
    if not settings.get("host"):
        return "redis"
    return f"redis {settings['host']}:{settings.get('port', 6379)}/{settings.get('db') or 0}"
