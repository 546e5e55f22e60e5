"""A node's process: the hash seed is known at last when the cluster has admitted the node."""

import asyncio
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.cluster import NodeSettings, process
from outlast.cluster.identity import NodeIdentity
from outlast.kernel import ClusterId, NodeId


class RestartedError(Exception):
    """Stands for the end of this process."""


def admit_with(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run a node that is admitted to a cluster with ``seed``; return what it restarts under."""
    restarts: list[int] = []
    identity = NodeIdentity(ClusterId("c"), NodeId("n3"), 7, seed, (), admitted=False)

    async def run(node, **_: object) -> None:
        node._admitted(identity)

    def restart(found: int) -> None:
        restarts.append(found)
        raise RestartedError

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(process, "restart_under", restart)
    monkeypatch.setattr(process.gc, "freeze", lambda: None)
    monkeypatch.setattr(process.gc, "set_threshold", lambda *_: None)
    settings = NodeSettings(node=NodeId("n3"), data=str(folder), listen="127.0.0.1:7400")
    try:
        assert process.run_node("kv", settings) == 0
    except RestartedError:
        assert restarts
    return restarts


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Take back what a node that ends its process does with signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_node_admitted_without_knowing_the_cluster_restarts_under_its_hash_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    assert admit_with(4711, tmp_path, monkeypatch) == [4711]
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert admit_with(4711, tmp_path, monkeypatch) == [4711]


def test_one_that_runs_under_it_already_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    assert admit_with(4711, tmp_path, monkeypatch) == []


def test_a_node_whose_loop_is_gone_is_not_waited_for() -> None:
    """A coroutine that is closed can wait for nothing: its end must not begin to."""
    stopped: list[str] = []

    class Stuck:
        async def start(self) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            stopped.append("stop")

    async def main() -> None:
        running = process.run(Stuck(), until=asyncio.Event())  # type: ignore[arg-type]
        running.send(None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            running.close()

    asyncio.run(main())
    assert not stopped
