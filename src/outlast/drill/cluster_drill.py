"""``outlast drill bank``: four workloads on our own cluster, and what it promises them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from outlast.cluster import Client
from outlast.cluster.connect import connect
from outlast.drill.api import Drill, Node, Workload, operation
from outlast.drill.core.transfers import judge_transfers
from outlast.drill.machine import OverdrawnError
from outlast.drill.replicas import LAB
from outlast.drill.report import InvariantReport
from outlast.drill.target import OwnNodes
from outlast.kernel import CommandError, HistoryEvent, NoEffectError

MACHINE = "outlast.drill.machine:Proving"
FAULTS = (
    "crash@leader",
    "crash@follower",
    "crash@all",
    "pause@leader",
    "partition:halves",
    "partition:isolate@leader",
    "partition:one-way@leader",
    "link:slow",
    "partition:flapping@leader",
)
"""What the drill injects by default."""

_READ_SECONDS = 0.6


class ClusterClient:
    """A client of the whole cluster, or of one node that it is pinned to."""

    def __init__(self, node: Node) -> None:
        self._pinned = node.address if node.pinned else ""
        self._client: Client[Any] = connect(
            None,
            [node.address] if node.pinned else list(node.everyone.values()),
            routes=node.everyone,
            timeout=_READ_SECONDS if node.pinned else 30.0,
            security=LAB,
            name=f"drill at {node.name}",
        )

    async def __aenter__(self) -> "ClusterClient":
        """Begin; a pinned one asks nobody but its node."""
        if not self._pinned:
            await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._client.close()

    async def command(self, name: str, /, **arguments: Any) -> Any:
        """Run a command in the client's session."""
        return await self._client.call_json(name, arguments)

    async def query(self, name: str, /, **arguments: Any) -> Any:
        """Run a query: at the leader, or at the node that it is pinned to."""
        if self._pinned:
            return await self._client.read_at(self._pinned, name, arguments)
        return await self._client.call_json(name, arguments, query=True)


class _OnCluster(Workload):
    """A workload whose clients follow the leader, and one stays with each node."""

    async def connect(self, node: Node) -> ClusterClient:
        """Return a client; nothing is dialled before it is used."""
        return ClusterClient(node)


class Map(_OnCluster):
    """Texts by key."""

    model = "kv"
    name = "kv"
    clients = 5
    rate = 20.0

    @operation(weight=5)
    async def get(self, client: ClusterClient, key: str) -> str | None:
        """Read a key."""
        value: str | None = await client.query("get", key=key)
        return value

    @operation(weight=3)
    async def put(self, client: ClusterClient, key: str, value: str) -> None:
        """Write a key."""
        await client.command("put", key=key, value=value)

    @operation(weight=1)
    async def append(self, client: ClusterClient, key: str, value: str) -> None:
        """Append to a key."""
        await client.command("append", key=key, value=value)

    @operation(weight=2)
    async def cas(self, client: ClusterClient, key: str, old: str | None, new: str) -> bool:
        """Write a key if it is what was last seen."""
        return bool(await client.command("cas", key=key, old=old, new=new))


class Transfers(_OnCluster):
    """Money that moves between accounts, each transfer under an id."""

    model = "bank"
    name = "bank"
    clients = 6
    pinned = False
    rate = 20.0
    accounts: ClassVar[Mapping[str, int]] = {f"account-{n}": 1_000 for n in range(8)}

    async def setup(self, client: ClusterClient) -> None:
        """Pay the money in."""
        for account, amount in self.accounts.items():
            await client.command("deposit", account=account, amount=amount)

    @operation(weight=6)
    async def transfer(
        self, client: ClusterClient, source: str, target: str, amount: int, id: str
    ) -> None:
        """Move money."""
        try:
            await client.command("transfer", source=source, target=target, amount=amount, id=id)
        except CommandError as error:
            if error.type_name == OverdrawnError.__name__:
                raise NoEffectError(f"{source} is overdrawn") from error
            raise

    @operation(weight=2)
    async def read(self, client: ClusterClient) -> dict[str, int]:
        """Read all balances at once."""
        balances: dict[str, int] = await client.query("balances")
        return balances

    async def verify(
        self, client: ClusterClient, events: Sequence[HistoryEvent]
    ) -> Sequence[InvariantReport]:
        """Compare what was acknowledged with the ids that the bank recorded."""
        # Both at one moment: a transfer without a known outcome may still arrive meanwhile.
        books = await client.query("books")
        found = judge_transfers(events, self.accounts, books["balances"], books["applied"])
        kept = found.money_found == found.money_in
        amount = f"{found.money_in} paid in, {found.money_found} there"
        return (
            InvariantReport("money is conserved", kept, amount),
            InvariantReport(
                "every acknowledged transfer was applied exactly once",
                not found.problems,
                "; ".join(found.problems)
                or f"{found.acknowledged:,} acknowledged, all there once",
                lost=found.lost,
                doubled=found.doubled,
            ),
        )


class Members(_OnCluster):
    """A set of unique numbers."""

    model = "set"
    name = "set"
    clients = 3
    pinned = False
    rate = 10.0

    @operation
    async def add(self, client: ClusterClient, value: int) -> None:
        """Add a number."""
        await client.command("add", value=value)

    @operation
    async def read(self, client: ClusterClient) -> list[int]:
        """Read the whole set."""
        values: list[int] = await client.query("values")
        return values


class Counter(_OnCluster):
    """A number that grows."""

    model = "counter"
    name = "counter"
    clients = 3
    pinned = False
    rate = 10.0

    @operation
    async def add(self, client: ClusterClient, value: int) -> None:
        """Add to it."""
        await client.command("count", name="hits", value=value)

    @operation
    async def read(self, client: ClusterClient) -> int:
        """Read it."""
        return int(await client.query("total", name="hits"))


class Bank(Drill):
    """No acknowledged write is lost, none is applied twice, and no read is stale."""

    name = "bank"
    faults = FAULTS
    workloads = (Transfers, Map, Members, Counter)


def bank_drill(
    *,
    nodes: int = 3,
    program: str = "outlast",
    environment: Mapping[str, str] | None = None,
    label: str = "",
) -> type[Bank]:
    """Return the drill for a cluster of ``nodes`` that run ``program``."""

    class Chosen(Bank):
        __doc__ = Bank.__doc__

    Chosen.nodes = OwnNodes(
        MACHINE, nodes, program=program, environment=dict(environment or {}), label=label
    )
    return Chosen
