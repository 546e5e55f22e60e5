"""What kind of failure an error of a database is."""

import sqlite3
from typing import Any

import pytest
import sqlalchemy.exc
import sqlalchemy.orm.exc

from outlast.protect.core.classify import classify
from outlast.protect.core.database import database_kind


def error(module: str, *names: str, **attributes: Any) -> Exception:
    """Return an error of a class of a driver that is not installed; the first name is the base."""
    cls: type[Exception] = Exception
    for name in names:
        cls = type(name, (cls,), {"__module__": module})
    made = cls("told to")
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def of_sqlite(code: int | None) -> sqlite3.Error:
    made = sqlite3.OperationalError("told to")
    if code is not None:
        made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08000", "transient"), ("08001", "unreachable"), ("08004", "unreachable"),
        ("08006", "transient"), ("22012", "permanent"), ("23505", "permanent"),
        ("25006", "transient"), ("28P01", "permanent"), ("40001", "transient"),
        ("40P01", "transient"), ("42601", "permanent"), ("53300", "throttled"),
        ("55006", "transient"), ("55P03", "transient"), ("55P02", "permanent"),
        ("57014", "transient"), ("57P01", "transient"), ("58030", "transient"),
        ("XX000", "transient"),
    ],
)  # fmt: skip
def test_a_state_of_sql_tells_the_kind(state: str, kind: str) -> None:
    assert database_kind(error("psycopg.errors", "Error", sqlstate=state)) == kind
    assert database_kind(error("psycopg2.errors", "Error", pgcode=state)) == kind
    assert database_kind(error("asyncpg.exceptions", "PostgresError", sqlstate=state)) == kind
    inside = sqlalchemy.exc.OperationalError("x", {}, error("psycopg", "Error", sqlstate=state))
    assert database_kind(inside) == kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, "permanent"), (5, None), (6, None), (8, "permanent"), (10, None), (14, "unreachable"),
        (19, "permanent"), (2067, "permanent"), (261, None), (None, None),
    ],
)  # fmt: skip
def test_a_code_of_sqlite_tells_the_kind(code: int | None, kind: str | None) -> None:
    assert database_kind(of_sqlite(code)) == kind


def test_the_cause_is_asked_where_a_framework_wraps_the_error() -> None:
    wrapped = error("django.db.utils", "DatabaseError", "OperationalError")
    wrapped.__cause__ = error("psycopg", "Error", sqlstate="53300")
    assert database_kind(wrapped) == "throttled"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DataError", "permanent"), ("IntegrityError", "permanent"),
        ("ProgrammingError", "permanent"), ("NotSupportedError", "permanent"),
        ("OperationalError", None), ("InternalError", None), ("InterfaceError", None),
    ],
)  # fmt: skip
def test_without_a_code_the_class_tells_as_pep_249_names_it(name: str, kind: str | None) -> None:
    assert database_kind(error("pymysql.err", "Error", "DatabaseError", name)) == kind
    assert database_kind(error("elsewhere", "Error", "DatabaseError", name)) is None


def test_a_state_that_is_none_is_not_taken_for_one() -> None:
    for state in ("", "4000", "400011", 40001, None):
        assert database_kind(error("psycopg", "Error", sqlstate=state)) is None


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (sqlalchemy.exc.TimeoutError("pool"), "throttled"),
        (sqlalchemy.exc.NoResultFound(), "permanent"),
        (sqlalchemy.exc.StatementError("x", None, None, None), "permanent"),
        (sqlalchemy.exc.InvalidRequestError(), "permanent"),
        (sqlalchemy.exc.DisconnectionError(), "transient"),
        (sqlalchemy.orm.exc.StaleDataError(), "transient"),
        (sqlalchemy.exc.OperationalError("x", {}, of_sqlite(5)), "transient"),
        (sqlalchemy.exc.OperationalError("x", {}, of_sqlite(1)), "permanent"),
        (sqlalchemy.exc.IntegrityError("x", {}, Exception()), "permanent"),
    ],
)
def test_sqlalchemy_is_asked_for_what_is_inside(raised: Exception, kind: str) -> None:
    assert classify(raised) == kind
