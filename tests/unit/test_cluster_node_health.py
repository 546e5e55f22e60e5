"""What a node says of its health, and in which group."""

import asyncio
import http.client
from collections.abc import Callable, Coroutine
from contextlib import closing
from types import SimpleNamespace
from typing import Any

from outlast import sim
from outlast.cluster.node_health import NodeHealth
from outlast.cluster.settings import NodeSettings
from outlast.detect import Status
from outlast.kernel import NodeId, current_world


class Odd:
    """A node in whatever state the test wants."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.log: Any = None
        self.member = True
        world = current_world()
        self.told = NodeHealth(
            world,
            NodeSettings(NodeId("n1"), "/data", "127.0.0.1:4001"),
            phase=lambda: self.phase,
            log=lambda: self.log,
            is_member=lambda: self.member,
        )
        self.health = self.told.health

    def serve(self, leader: str | None) -> None:
        self.phase = "serving"
        self.log = SimpleNamespace(authority=SimpleNamespace(holder=leader))

    def passing(self) -> dict[str, bool]:
        return {group: found.passing for group, found in self.health.snapshot().items()}

    def why(self, name: str) -> tuple[Status, str]:
        return next(
            (one.status, one.detail)
            for found in self.health.snapshot().values()
            for one in found.results
            if one.name == name
        )


def story(main: Callable[[Odd], Coroutine[Any, Any, None]]) -> None:
    async def running() -> None:
        odd = Odd()
        task = asyncio.ensure_future(odd.told.run())
        await asyncio.sleep(1)
        await main(odd)
        task.cancel()

    sim.run(running, seed=1)


def test_a_node_that_starts_is_alive_and_not_ready() -> None:
    async def main(odd: Odd) -> None:
        assert odd.passing() == {"startup": False, "liveness": True, "readiness": False}
        assert odd.why("can serve") == (Status.FAILED, "starting")

    story(main)


def test_a_member_that_knows_a_leader_is_ready() -> None:
    async def main(odd: Odd) -> None:
        odd.serve("n2")
        await asyncio.sleep(1)
        assert odd.passing() == {"startup": True, "liveness": True, "readiness": True}
        odd.serve(None)
        await asyncio.sleep(1)
        assert odd.passing() == {"startup": True, "liveness": True, "readiness": False}
        assert odd.why("can serve")[1] == "no leader is known"
        odd.serve("n2")
        odd.member = False
        await asyncio.sleep(1)
        assert odd.why("can serve")[1].startswith("not a member")

    story(main)


def test_a_node_that_failed_is_to_be_restarted() -> None:
    async def main(odd: Odd) -> None:
        odd.phase = "failed"
        await asyncio.sleep(1)
        assert not odd.passing()["liveness"]

    story(main)


def test_a_loop_that_goes_on_is_alive_and_a_disk_is_looked_at() -> None:
    async def main(odd: Odd) -> None:
        odd.serve("n2")
        await asyncio.sleep(120)
        assert odd.why("event loop") == (Status.OK, "")
        assert odd.why("disk space")[1].startswith("/data: ")
        assert odd.health.name == "n1"

    story(main)


def test_a_loop_that_hangs_is_to_be_restarted() -> None:
    async def main(odd: Odd) -> None:
        import time

        time.sleep(31)  # noqa: ASYNC251 - the hang
        assert odd.why("event loop")[0] is Status.FAILED
        assert not odd.passing()["liveness"]
        await asyncio.sleep(2)
        assert odd.passing()["liveness"]

    story(main)


def test_probes_are_answered_on_a_port_of_their_own_and_strangers_learn_no_details() -> None:
    asked: list[tuple[int, bytes]] = []
    for address in ("127.0.0.1:0", "0.0.0.0:0"):
        settings = NodeSettings(NodeId("n1"), "/data", "127.0.0.1:4001", health=address)
        told = NodeHealth(
            current_world(), settings, phase=lambda: "starting", log=lambda: None,
            is_member=lambda: False,
        )  # fmt: skip
        told.start()
        try:
            assert told.health_port is not None
            one = http.client.HTTPConnection("127.0.0.1", told.health_port, timeout=5)
            with closing(one):
                one.request("GET", "/readyz?verbose")
                answer = one.getresponse()
                asked.append((answer.status, answer.read()))
        finally:
            told.stop()
    (status, details), (there, nothing) = asked
    assert status == there == 503
    assert b"can serve" in details
    assert b"can serve" not in nothing
