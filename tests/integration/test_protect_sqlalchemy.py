"""SQLAlchemy under a policy, by the class of the example, on SQLite."""

import sqlite3
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from outlast.kernel import BulkheadFullError, CircuitOpenError, TooLateError, happened
from outlast.protect import classify, deadline
from tests.support.deadlines import ends_as
from tests.support.examples import example

pytestmark = pytest.mark.timeout(120)

Database = example("protect_sqlalchemy").Database


def select(connection: Connection) -> Any:
    return connection.scalar(text("SELECT 42"))


def insert(connection: Connection) -> None:
    connection.execute(text("INSERT INTO t VALUES (1)"))


def create(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))


@pytest.fixture
def shop() -> Any:
    made = Database("shop", "sqlite://", size=1, queue=2)
    yield made
    made.engine.dispose()


def test_more_threads_than_connections_wait_for_a_permit_and_never_in_the_pool(shop: Any) -> None:
    at_once, most, ended = [0], [0], list[Any]()

    def work(connection: Connection) -> Any:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        value = select(connection)
        at_once[0] -= 1
        return value

    def run() -> None:
        try:
            ended.append(shop.run(work))
        except BulkheadFullError:
            ended.append("refused")

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert set(ended) <= {42, "refused"}
    assert len(ended) == 12


def test_who_waits_for_a_connection_waits_no_longer_than_the_deadline(shop: Any) -> None:
    def outer(connection: Connection) -> None:
        with pytest.raises(TooLateError), deadline(0.05):
            shop.run(select)

    shop.run(outer)
    assert shop.run(select) == 42


def test_a_transaction_that_fails_leaves_nothing_and_is_not_repeated(shop: Any) -> None:
    shop.run(create)
    runs = []

    def twice(connection: Connection) -> None:
        runs.append(1)
        insert(connection)
        insert(connection)

    with pytest.raises(IntegrityError):
        shop.run(twice)
    assert runs == [1]
    assert shop.run(lambda connection: connection.scalar(text("SELECT count(*) FROM t"))) == 0
    assert shop.policy.parts["breaker"].failure_count == 0


def test_a_database_that_is_not_reached_is_tried_again_and_then_left_alone() -> None:
    tried = []

    def refuse() -> sqlite3.Connection:
        tried.append(1)
        raise sqlite3.OperationalError("no such server")

    lost = Database("lost", "sqlite://", creator=refuse)
    with pytest.raises(OperationalError) as caught:
        lost.run(select)
    assert (len(tried), happened(caught.value)) == (3, "no")
    with pytest.raises(CircuitOpenError):  # its last attempt is refused
        lost.run(select)
    assert len(tried) == 5


def test_a_statement_ends_at_the_deadline_and_its_connection_works_on(shop: Any) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )

    def wait(seconds: float) -> None:
        with deadline(seconds):
            shop.run(lambda connection: connection.scalar(text(endless)))

    error = ends_as(OperationalError, wait)
    assert "interrupted" in str(error)
    assert classify(error) == "transient"
    assert shop.run(select) == 42


def test_a_database_that_is_busy_takes_nothing_from_another(shop: Any) -> None:
    other = Database("other", "sqlite://", size=1, queue=0)

    def hold(connection: Connection) -> None:
        with pytest.raises(BulkheadFullError):
            other.run(select)
        assert shop.run(select) == 42

    other.run(hold)
    other.engine.dispose()
