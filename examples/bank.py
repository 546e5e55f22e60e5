"""A replicated bank: `outlast serve examples/bank.py:Bank --nodes 3 --data data/`."""

from dataclasses import dataclass, field

import outlast
from outlast import CommandError, StateMachine, Table, command


class Overdrawn(CommandError): ...  # raised in a command = a result; the client raises it too


@dataclass
class Bank(StateMachine):
    # annotated fields are the state; Table is a dict that can roll back
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def transfer(self, source: str, target: str, amount: int) -> int:
        # also self.ctx.now, .random, .index
        if self.balances.get(source, 0) < amount:
            raise Overdrawn(source)
        self.balances[source] -= amount
        self.balances[target] = self.balances.get(target, 0) + amount
        return self.balances[source]


async def main() -> None:
    # outlast.open(Bank, "data/"): same client, no server
    async with outlast.connect(Bank, "n1:7400,n2:7400,n3:7400") as bank:
        with outlast.deadline(1.0):
            # mypy: int; outlast.blocking.connect: no await
            left = await bank.call(Bank.transfer, "alice", "bob", 30)
            print(left)


def test_bank() -> None:
    # commands stay plain methods
    assert Bank(Table(alice=30)).transfer("alice", "bob", 30) == 0  # noqa: S101
    # drawn commands; replicas, a restore in the middle, other hash seeds: equal digests
    outlast.testing.check_machine(Bank)
