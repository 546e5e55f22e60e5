"""A machine and what is needed to run replicas of it in a test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from outlast.host import make_world
from outlast.kernel import CommandError, Deadline, Event, EventBus, ReplicaId, Storage, World
from outlast.log import Log
from outlast.log.engines.memory import MemoryLog
from outlast.state import (
    DiskSnapshotStore,
    Replica,
    ReplicaSettings,
    Reply,
    Runner,
    StateMachine,
    Table,
    command,
    decode_reply,
    encode_command,
    machine_spec,
    query,
)

NEVER = Deadline.never()


class Refused(CommandError): ...


@dataclass
class Counter(StateMachine):
    """Counts how often each name was added: a command applied twice shows at once."""

    counts: Table[str, int] = field(default_factory=Table)

    @command
    def add(self, name: str, by: int = 1) -> int:
        self.counts[name] = self.counts.get(name, 0) + by
        return self.counts[name]

    @command
    def refuse(self, name: str) -> None:
        self.counts[name] = -1
        raise Refused(name)

    @command
    def blow(self) -> None:
        raise OSError("the disk went away")

    @command
    def when(self) -> tuple[int, int]:
        return self.ctx.now_ns, self.ctx.random.randint(0, 1 << 60)

    @query
    def get(self, name: str) -> int:
        return self.counts.get(name, 0)


SPEC = machine_spec(Counter)


def args(name: str, *values: Any) -> bytes:
    return SPEC.encode_args(name, values, {})


def add(session: int, seq: int, name: str, *, ack_below: int = 1, key: str = "") -> bytes:
    return encode_command(session, seq, ack_below, "add", args("add", name), key)


def value(reply: Reply) -> Any:
    assert reply.status in {0, 1}, (reply.status, reply.body)
    return msgspec.msgpack.decode(reply.body)


@dataclass
class Host:
    """One machine's world with its events kept, and replicas on it."""

    directory: str
    storage: Storage | None = None
    events: list[Event] = field(default_factory=list)
    world: World = field(init=False)

    def __post_init__(self) -> None:
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.world = make_world(storage=self.storage, events=bus, seed=7)

    def plant(self, name: str, act: Callable[[], None]) -> None:
        """Act at fault point ``name``."""

        class Planted:
            def fault_point(self, at: str) -> None:
                if at == name:
                    act()

        self.world = replace(self.world, faults=Planted())

    def store(self) -> DiskSnapshotStore:
        return DiskSnapshotStore(self.world, self.directory)

    def replica(
        self,
        log: Log,
        *,
        me: str = "n1#1",
        store: DiskSnapshotStore | None = None,
        **settings: Any,
    ) -> Replica:
        return Replica(
            self.world,
            log,
            Runner(SPEC),
            store or self.store(),
            me=ReplicaId(me),
            settings=ReplicaSettings(**settings),
        )

    def log(self) -> MemoryLog:
        return MemoryLog(self.world)

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def send(replica: Replica, body: bytes) -> "asyncio.Future[Reply]":
    """Submit one encoded command and return a future for its reply."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answered(reply: bytes) -> None:
        assert not future.done(), "answered twice"
        future.set_result(decode_reply(reply))

    replica.submit(body, answered)
    return future


async def caught_up(replica: Replica) -> Replica:
    await replica.catch_up(deadline=NEVER)
    return replica


async def turns(count: int = 5) -> None:
    """Let other tasks run for some turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
