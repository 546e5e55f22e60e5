"""A system machine over a machine that counts, driven by hand."""

from collections.abc import Callable
from typing import Any

import msgspec

from outlast.state.core.authority import SYSTEM
from outlast.state.core.envelope import (
    Header,
    Kind,
    encode_command,
    pack_commands,
    pack_entry,
    unpack_entry,
)
from outlast.state.core.limits import Limits
from outlast.state.core.operation import Operation, SystemBody, TakeEpoch, encode_body
from outlast.state.core.reply import OK, Reply, decode_reply_error
from outlast.state.core.session import Kept
from outlast.state.core.system import Applied, SystemMachine

Make = Callable[..., SystemMachine]


class Applications:
    """Counts how often each argument was executed, and answers with the count."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def execute(self, name: str, args: bytes, context: Any) -> tuple[int, bytes]:
        self.counts[args] = self.counts.get(args, 0) + 1
        if name == "raise":
            return 1, b"\x91\xa4Oops"
        return OK, msgspec.msgpack.encode([self.counts[args], context[1]])


class Driver:
    """Appends entries to a system machine at growing indices."""

    def __init__(self, make: Make = SystemMachine, limits: Limits | None = None) -> None:
        self.machine = Applications()
        self.make = make
        self.system = make(
            lambda *call: self.machine.execute(*call), lambda *facts: facts, limits=limits
        )
        self.index = 0
        self.now_ns = 0
        self.epoch = 0
        self.version = 1

    def apply(self, entry: bytes) -> Applied:
        self.index += 1
        header, body = unpack_entry(entry, self.index)
        return self.system.apply(self.index, header, body, lambda: b"")

    def header(self, kind: Kind) -> Header:
        return Header(kind, self.version, 0, self.epoch, self.now_ns, self.now_ns)

    def commands(self, *bodies: bytes) -> list[Kept]:
        entry = pack_commands(
            bodies,
            machine_version=self.version,
            system_epoch=self.epoch,
            log_time_ns=self.now_ns,
            wall_ns=self.now_ns,
        )
        return list(self.apply(entry).replies)

    def call(
        self, session: int, seq: int, args: bytes = b"a", *, ack: int = 1, **other: str
    ) -> Kept:
        name, key = other.get("name", "add"), other.get("key", "")
        return self.commands(encode_command(session, seq, ack, name, args, key))[0]

    def operate(self, operation: Operation, **other: Any) -> Any:
        body = encode_body(SystemBody(1, operation, other.get("fence")))
        (kept,) = self.apply(pack_entry(self.header(Kind.SYSTEM), body)).replies
        if kept.status == OK:
            return msgspec.msgpack.decode(kept.body)
        raise error_of(kept)

    def take_system(self) -> int:
        self.epoch = self.operate(TakeEpoch(SYSTEM, self.system.authority.current(SYSTEM), "n1"))
        return self.epoch

    def tick(self) -> Applied:
        return self.apply(pack_entry(self.header(Kind.TICK)))

    def restored(self) -> "Driver":
        """Return a driver whose system machine went through a snapshot."""
        other = Driver(self.make)
        other.system.load(self.system.dump())
        other.machine.counts = dict(self.machine.counts)
        other.index, other.now_ns, other.epoch = self.index, self.now_ns, self.epoch
        other.version = self.version
        return other


def error_of(kept: Kept) -> Exception:
    return decode_reply_error(Reply(kept.status, kept.index, kept.digest, kept.body))
