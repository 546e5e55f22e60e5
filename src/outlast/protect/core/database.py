"""What kind of failure an error of a database is: drivers of PEP 249, SQLAlchemy, asyncpg.

The SQLSTATE tells most (ISO/IEC 9075; PostgreSQL manual, appendix A), then the code of SQLite,
then the class, whose names PEP 249 prescribes. SQLAlchemy has the driver's error inside its own.
"""

from typing import Any, Final, Literal

from outlast.protect.core.pushback import peek

Kind = Literal["transient", "throttled", "permanent", "unreachable"]

_DRIVERS: Final = {
    "MySQLdb", "asyncpg", "django", "mysql", "oracledb", "psycopg", "psycopg2", "pymysql",
    "sqlite3",
}  # fmt: skip
_UNREACHED_STATES: Final = {"08001", "08004"}
_TRANSIENT_STATES: Final = {"08", "40", "57", "58", "XX"}
_TRANSIENT_ALONE: Final = {"25006", "55006", "55P03"}
"""A replica that was the primary a moment ago; what somebody else holds at present."""

_SQLITE: Final[dict[int, Kind]] = {
    1: "permanent",  # SQL error, or no such table
    8: "permanent",  # read only
    11: "permanent",  # corrupt
    14: "unreachable",  # cannot open
    19: "permanent",  # constraint
    20: "permanent",  # type
    21: "permanent",  # misuse
    25: "permanent",  # no such parameter
    26: "permanent",  # not a database
}
_PERMANENT: Final = {"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"}
_ALCHEMY_TRANSIENT: Final = {"DBAPIError", "DisconnectionError", "StaleDataError"}


def database_kind(error: BaseException) -> Kind | None:
    """Return what kind of failure an error of a database is; ``None`` for all others.

    >>> import sqlite3
    >>> database_kind(sqlite3.IntegrityError())
    'permanent'
    """
    homes = {cls.__module__.partition(".")[0]: None for cls in type(error).__mro__}
    alchemy = "sqlalchemy" in homes
    if not alchemy and homes.keys().isdisjoint(_DRIVERS):
        return None
    names = {cls.__name__ for cls in type(error).__mro__}
    if alchemy:
        if "TimeoutError" in names:
            return "throttled"  # no connection came free in the pool
        if names.isdisjoint(_ALCHEMY_TRANSIENT):
            return "permanent"
    for holder in (error, peek(error, "orig"), error.__cause__):
        kind = _by_code(holder)
        if kind is not None:
            return kind
    return "permanent" if not names.isdisjoint(_PERMANENT) else None


def _by_code(error: Any) -> Kind | None:
    state = peek(error, "sqlstate") or peek(error, "pgcode")
    if isinstance(state, str) and len(state) == 5:
        return _by_state(state)
    code = peek(error, "sqlite_errorcode")
    return _SQLITE.get(code & 0xFF) if isinstance(code, int) else None


def _by_state(state: str) -> Kind:
    if state in _UNREACHED_STATES:
        return "unreachable"
    if state.startswith("53"):
        return "throttled"  # out of connections, memory or disk
    if state[:2] in _TRANSIENT_STATES or state in _TRANSIENT_ALONE:
        return "transient"
    return "permanent"
