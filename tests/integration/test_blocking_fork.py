"""After a fork, as gunicorn and multiprocessing do it, a blocking client goes on."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import blocking
from outlast.cluster import LocalCluster
from outlast.host import default_world, make_world
from outlast.host.portal import Portal
from outlast.state.ready.bank import Bank

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node, run from a loop of its own."""
    portal = Portal("test-cluster")
    data = tmp_path_factory.mktemp("cluster")
    cluster = LocalCluster(make_world(), "bank", str(data), nodes=1, port=0, http_port=None)
    try:
        portal.call(cluster.start)
        portal.call(cluster.ready)
        yield cluster.addresses
    finally:
        portal.call(cluster.stop)
        portal.close()


def in_child(work: Callable[[], Any]) -> Any:
    """Fork, do ``work`` in the child, and return what it returned or the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def session_of(client: blocking.Client[Any]) -> int:
    """The session that the client uses in this process."""

    async def ask() -> int:
        inner: Any = await client._client()
        return int(await inner.register())

    return client._portal.call(ask)


def test_the_child_reconnects_with_a_session_of_its_own(addresses: str) -> None:
    with blocking.connect(Bank, addresses) as bank:
        assert bank.call(Bank.deposit, "alice", 10) == 10
        session = session_of(bank)

        def work() -> list[int]:
            return [bank.call(Bank.deposit, "alice", 5), session_of(bank)]

        left, others = in_child(work)
        assert left == 15
        assert others != session
        assert bank.call(Bank.deposit, "alice", 1) == 16
        assert session_of(bank) == session


def test_two_children_of_one_parent_share_nothing(addresses: str) -> None:
    bank = blocking.connect(Bank, addresses)
    sessions = [in_child(lambda: session_of(bank)) for _ in range(2)]
    assert len(set(sessions)) == 2
    assert all(isinstance(session, int) for session in sessions)


def test_the_child_may_close_and_the_parent_goes_on(addresses: str) -> None:
    with blocking.connect(Bank, addresses) as bank:
        bank.call(Bank.deposit, "bob", 1)
        in_child(bank.close)
        assert bank.call(Bank.deposit, "bob", 1) == 2


def test_the_child_draws_other_random_numbers() -> None:
    def drawn() -> int:
        return default_world().prng.bits64()

    drawn()
    assert in_child(drawn) != drawn()


def test_an_embedded_machine_stays_with_its_process(tmp_path: Path) -> None:
    with blocking.open(Bank, tmp_path / "data") as bank:
        bank.call(Bank.deposit, "alice", 10)
        said = in_child(lambda: bank.call(Bank.deposit, "alice", 5))
        assert said.startswith("ConfigError: Bank in ")
        assert f"was opened by process {os.getpid()} and this is its child" in said
        assert bank.call(Bank.balances) == {"alice": 10}
