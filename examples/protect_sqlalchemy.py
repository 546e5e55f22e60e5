"""Protect databases by SQLAlchemy: a pool for each, waits that end in time, a breaker in front."""

import sqlite3
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from outlast import Bulkhead, CircuitBreaker, Policy, RejectedError, Retry, deadline, happened
from outlast.protect import classify, remaining


def failed(error: Exception) -> bool:
    """Whether the database failed: a row that is there already is an answer."""
    return isinstance(error, SQLAlchemyError) and classify(error) != "permanent"


def unreached(error: Exception) -> bool:
    return failed(error) and happened(error) == "no"


class Database:
    """One dependency, with connections of its own and as many permits as connections.

    So callers wait for a permit, where their deadline counts and the queue has an end, and never
    inside the pool. A transaction is repeated only if its database was not reached.
    """

    def __init__(self, name: str, url: str, size: int = 5, queue: int = 20, **more: Any) -> None:
        self.engine = create_engine(
            url, poolclass=QueuePool, pool_size=size, max_overflow=0, pool_timeout=1,
            connect_args={"check_same_thread": False}, **more)  # fmt: skip
        event.listen(self.engine, "connect", self.bound)
        self.policy = Policy(
            name, timeout=5, limit=Bulkhead(size, queue=queue),
            retry=Retry(on=unreached, base=0.01), breaker=CircuitBreaker(5, 30, counts=failed),
        )  # fmt: skip

    @staticmethod
    def bound(raw: sqlite3.Connection, record: object) -> None:
        """Let statements end with the deadline; for PostgreSQL set statement_timeout instead."""
        raw.set_progress_handler(lambda: remaining(1.0) == 0, 10_000)

    def run(self, work: Callable[[Connection], Any]) -> Any:
        def transaction() -> Any:
            with self.engine.begin() as connection:
                return work(connection)

        return self.policy.call(transaction)


def refuse() -> sqlite3.Connection:
    raise sqlite3.OperationalError("no such server")


def main() -> None:
    orders, reports = Database("orders", "sqlite://"), Database("reports", "sqlite://", 1, 0)
    stock = Database("stock", "sqlite://", creator=refuse)
    n = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    def attempt(database: Database, query: str) -> None:
        try:
            print(database.run(lambda connection: connection.scalar(text(query))))
        except (RejectedError, SQLAlchemyError) as error:
            shown = getattr(error, "orig", error)
            print(f"{database.policy.name}: {shown}", *getattr(error, "__notes__", ()))

    reports.run(lambda connection: attempt(reports, "SELECT 1"))  # its only connection is in use
    attempt(orders, "SELECT 42")
    with deadline(0.05):
        attempt(reports, n)  # which has no end
    attempt(stock, "SELECT 1")


def test_it_runs() -> None:
    main()


if __name__ == "__main__":
    main()
