"""A process that adds numbers to a durable machine and says which ones were acknowledged.

Arguments: directory, storage (``host``, ``lossy`` or ``noop``), first number. It prints one
line per acknowledged number, unbuffered, until it is killed.
"""

import asyncio
import os
import sys
from dataclasses import dataclass, field

from outlast.host import HostStorage, make_world
from outlast.host.lossy import LossyStorage
from outlast.kernel import Storage
from outlast.state import Limits, ReplicaSettings, StateMachine, Table, command, query
from outlast.state import open as open_machine

IN_FLIGHT = 32
SETTINGS = ReplicaSettings(cluster="embedded", limits=Limits(checkpoint_entries=40))


@dataclass
class Ledger(StateMachine):
    """Remembers how often each number was added."""

    numbers: Table[int, int] = field(default_factory=Table)

    @command
    def add(self, number: int) -> int:
        self.numbers[number] = self.numbers.get(number, 0) + 1
        return self.numbers[number]

    @query
    def all(self) -> dict[int, int]:
        return dict(self.numbers)


def storage(kind: str) -> Storage:
    if kind == "host":
        return HostStorage()
    return LossyStorage(HostStorage(), sync_is_noop=kind == "noop")


async def main(directory: str, kind: str, first: int) -> None:
    world = make_world(storage=storage(kind))
    async with open_machine(Ledger, directory, world=world, settings=SETTINGS) as ledger:
        os.write(1, b"open\n")
        number = first

        async def work() -> None:
            nonlocal number
            while True:
                number += 1
                mine = number
                await ledger.call(Ledger.add, mine)
                os.write(1, b"%d\n" % mine)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
