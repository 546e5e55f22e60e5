"""Workloads without processes: a loop whose time jumps, and a target that does what it is told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from selectors import DefaultSelector
from typing import Any, ClassVar

from outlast.check import history_of
from outlast.drill import Node, Workload, operation
from outlast.drill.workload import Running
from outlast.host import make_world
from outlast.kernel import HistoryEvent, World

NS = 1_000_000_000


class _Selector(DefaultSelector):
    """Never waits: what the loop would have waited is added to its time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours of waiting take no time."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class LoopTime:
    """Clock and timers that follow the running loop."""

    def monotonic_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * NS)

    def wall_ns(self) -> int:
        return self.monotonic_ns()

    def boot_id(self) -> str:
        return ""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Any:
        return asyncio.get_running_loop().call_at(when_ns / NS, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def virtual_world() -> World:
    """A world with the time of the loop that runs."""
    time = LoopTime()
    return replace(make_world(seed=1), clock=time, timers=time)


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    """Run ``main`` on a loop whose time jumps."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


Behaviour = Callable[[str, str], Awaitable[None]]


async def _well(f: str, node: str) -> None:
    """Take 10 ms."""
    await asyncio.sleep(0.01)


@dataclass
class Fake:
    """A register, and what is noted of its clients. ``behave(f, node)`` may wait or raise."""

    behave: Behaviour = _well
    value: int | None = None
    connects: Callable[[str], None] = lambda _: None
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


class FakeClient:
    """Closed by ``aclose``."""

    def __init__(self, fake: Fake, node: Node) -> None:
        self.fake, self.node = fake, node

    async def ask(self, f: str) -> None:
        self.fake.asked.append((f, f"{self.node.name}{'*' if self.node.pinned else ''}"))
        await self.fake.behave(f, self.node.name)

    async def aclose(self) -> None:
        self.fake.closed.append(self.node.name)


class Register(Workload):
    """Reads and writes of one register."""

    model = "register"
    name = "register"
    clients = 2
    rate = 10.0
    timeout = 1.0
    fake: ClassVar[Fake]
    client: ClassVar[type[FakeClient]] = FakeClient

    async def connect(self, node: Node) -> Any:
        self.fake.connects(node.name)
        self.fake.opened.append(node.name)
        return self.client(self.fake, node)

    @operation
    async def write(self, client: FakeClient, value: int) -> None:
        await client.ask("write")
        self.fake.value = value

    @operation
    async def read(self, client: FakeClient) -> int | None:
        await client.ask("read")
        return self.fake.value


def workload_of(fake: Fake, base: type[Workload] = Register, **changed: Any) -> Workload:
    """``base`` on ``fake``, with some attributes changed."""
    made: Any = type(base.__name__, (base,), {"fake": fake, **changed})
    found: Workload = made()
    return found


def running_on(workload: Workload, *, nodes: int = 3, seed: int = 1, **more: Any) -> Running:
    """The workload on nodes ``n1``, ``n2``, …, ready to start."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    everyone: Mapping[str, str] = {name: f"fake:{name}" for name in names}
    return Running(
        virtual_world(),
        workload,
        [Node(name, "fake", 1, everyone) for name in names],
        seed,
        0,
        pinned=[Node(name, "fake", 1, everyone, pinned=True) for name in names],
        **more,
    )


def load(workload: Workload, seconds: float = 5.0, **more: Any) -> Running:
    """Run the workload for ``seconds`` of virtual time and stop it."""

    async def main() -> Running:
        running = running_on(workload, **more)
        running.start()
        await asyncio.sleep(seconds)
        await running.stop(workload.timeout + 2.0)
        return running

    found: Running = in_virtual_time(main())
    return found


def ends(events: Sequence[HistoryEvent], f: str) -> list[HistoryEvent]:
    """The completions of operations ``f``."""
    return [event for event in events if event.f == f and event.type != "invoke"]


def raising(error: BaseException, *, f: str = "", node: str = "") -> Behaviour:
    """Raise ``error`` in operations ``f`` at ``node``; empty means all of them."""

    async def behave(asked: str, at: str) -> None:
        await asyncio.sleep(0.01)
        if f in {"", asked} and node in {"", at}:
            raise error

    return behave


def hanging(*, f: str = "", node: str = "") -> Behaviour:
    """Never answer operations ``f`` at ``node``."""

    async def behave(asked: str, at: str) -> None:
        await asyncio.sleep(3600 if f in {"", asked} and node in {"", at} else 0.01)

    return behave


def assert_well_formed(running: Running) -> None:
    """Each process has one operation open at a time, and none after its info."""
    open_, over = set[Any](), set[Any]()
    for event in running.events:
        assert event.process not in over, f"{event} after the info of its process"
        if event.type == "invoke":
            assert event.process not in open_, f"{event} while another is open"
            open_.add(event.process)
        else:
            open_.remove(event.process)
        if event.type == "info":
            over.add(event.process)
    assert not open_, f"invoked and never ended: {open_}"
    history_of(running.events, running.header)
