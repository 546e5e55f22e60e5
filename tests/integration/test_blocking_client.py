"""Blocking clients: the same answers without ``await``, from any thread."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import CommandError, StateMachine, Table, blocking, command, query
from outlast.kernel import current_deadline

pytestmark = pytest.mark.timeout(120)


class Overdrawn(CommandError):
    pass


@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def deposit(self, account: str, amount: int) -> int:
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]

    @command
    def withdraw(self, account: str, amount: int) -> int:
        if self.balances.get(account, 0) < amount:
            raise Overdrawn(account)
        self.balances[account] -= amount
        return self.balances[account]

    @query
    def everything(self) -> dict[str, int]:
        return dict(self.balances)


@pytest.fixture
def bank() -> Iterator[blocking.Client[Bank]]:
    with blocking.open(Bank) as client:
        yield client


def test_commands_and_queries_return_what_they_returned(bank: blocking.Client[Bank]) -> None:
    assert bank.call(Bank.deposit, "alice", 30) == 30
    assert bank.call(Bank.withdraw, account="alice", amount=10) == 20
    assert bank.call(Bank.everything) == {"alice": 20}
    assert bank.call_json("everything", {}, query=True) == {"alice": 20}


def test_a_command_error_arrives_as_its_own_class(bank: blocking.Client[Bank]) -> None:
    with pytest.raises(Overdrawn) as caught:
        bank.call(Bank.withdraw, "alice", 1)
    assert caught.value.args == ("alice",)
    assert outlast.happened(caught.value) == "yes"


def test_what_was_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    with blocking.open(Bank, tmp_path / "data") as bank:
        bank.call(Bank.deposit, "alice", 30)
    with blocking.open(Bank, tmp_path / "data") as bank:
        assert bank.call(Bank.everything) == {"alice": 30}


def test_many_threads_lose_nothing(bank: blocking.Client[Bank]) -> None:
    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(lambda _: bank.call(Bank.deposit, "till", 1), range(200)))
    assert sorted(left) == list(range(1, 201))


def test_it_works_inside_a_running_loop(bank: blocking.Client[Bank]) -> None:
    async def view() -> int:
        return bank.call(Bank.deposit, "alice", 1)

    assert asyncio.run(view()) == 1


def test_the_callers_deadline_holds(bank: blocking.Client[Bank]) -> None:
    with outlast.deadline(0), pytest.raises(outlast.TooLateError):
        bank.call(Bank.deposit, "alice", 1)
    assert bank.call(Bank.everything) == {}


def test_the_callers_idempotency_key_holds(bank: blocking.Client[Bank]) -> None:
    for _ in range(2):
        with outlast.idempotency_key("order-17"):
            bank.call(Bank.deposit, "alice", 5)
    assert bank.call(Bank.everything) == {"alice": 5}


class FakeClient:
    """Notes under which deadline it was opened."""

    def __init__(self) -> None:
        self.opened_under: list[Any] = []
        self.closed = 0
        self.fails = 0

    async def __aenter__(self) -> Any:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("not yet")
        self.opened_under.append(current_deadline.get())
        return self

    async def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        return current_deadline.get()

    async def call_json(self, name: str, arguments: Any, *, query: bool = False) -> Any:
        return name

    async def close(self) -> None:
        self.closed += 1


def client_of(fake: FakeClient) -> blocking.Client[Any]:
    return blocking.Client(lambda: fake, what="a fake", survives_fork=True)


def test_the_client_is_not_opened_under_the_deadline_of_the_first_call() -> None:
    fake = FakeClient()
    client = client_of(fake)
    with outlast.deadline(30) as bound:
        assert client.call(Bank.deposit, "alice", 1) == bound.at
    assert fake.opened_under == [None]
    client.close()


def test_it_is_opened_once_and_closed_once() -> None:
    fake = FakeClient()
    client = client_of(fake)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.call_json("x", {}), range(50)))
    assert len(fake.opened_under) == 1
    client.close()
    client.close()
    assert fake.closed == 1


def test_a_failed_opening_is_tried_again_at_the_next_call() -> None:
    fake = FakeClient()
    fake.fails = 1
    client = client_of(fake)
    with pytest.raises(ConnectionError, match="not yet"):
        client.call_json("x", {})
    assert client.call_json("x", {}) == "x"
    client.close()


def test_after_closing_it_refuses_definitely() -> None:
    client = blocking.open(Bank)
    client.close()
    with pytest.raises(outlast.UnavailableError, match="is closed") as caught:
        client.call(Bank.everything)
    assert outlast.happened(caught.value) == "no"
    assert "closed" in repr(client)


def test_wrong_arguments_show_where_it_is_made() -> None:
    with pytest.raises(outlast.ConfigError, match="no port"):
        blocking.connect(Bank, "n1")
    with pytest.raises(outlast.ConfigError, match="StateMachine"):
        blocking.open(int)  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["everything", "deposit"])
def test_without_anybody_there_it_says_so_within_the_deadline(name: str) -> None:
    arguments = {"account": "alice", "amount": 1} if name == "deposit" else {}
    with blocking.connect(Bank, "127.0.0.1:1") as client, outlast.deadline(0.5):
        with pytest.raises(outlast.UnavailableError, match=r"127\.0\.0\.1:1") as caught:
            client.call_json(name, arguments, query=name == "everything")
        assert outlast.happened(caught.value) == "no"
