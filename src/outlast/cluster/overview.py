"""What all nodes of a cluster say of themselves, side by side: ``outlast status``."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.cluster.connect import connect
from outlast.kernel import OutlastError, World
from outlast.wire import Security


@dataclass(frozen=True, slots=True)
class NodeOverview:
    """One node. Numbers are ``None`` when it does not answer.

    ``lag`` counts committed entries that it does not hold, as the leader sees it, or else that
    it has not applied. ``problem`` says why it does not answer.
    """

    node: str
    address: str
    reachable: bool
    role: str = ""
    term: int | None = None
    commit: int | None = None
    applied: int | None = None
    lag: int | None = None
    problem: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Overview:
    """A cluster at one moment. ``leader`` is empty when no node that answers knows one."""

    cluster: str
    machine: str
    leader: str
    term: int
    nodes: tuple[NodeOverview, ...]
    warnings: tuple[str, ...] = ()


async def overview(
    addresses: Sequence[str],
    *,
    security: Security | None = None,
    routes: Mapping[str, str] | None = None,
    timeout: float = 2.0,
    world: World | None = None,
) -> Overview:
    """Ask the nodes at ``addresses``, and all members that they name, for their status.

    Args:
        addresses: Where to begin, ``"host:port"`` each.
        security: TLS and token.
        routes: Address to dial instead of a member's own, by node.
        timeout: Seconds to wait for each round of answers.
        world: Clock and network; those of this process by default.
    """
    overriding = dict(routes or {})

    async def ask(address: str) -> dict[str, Any] | str:
        client = connect(None, [address], security=security, timeout=timeout, world=world)
        try:
            async with client:
                return dict(await client.status(address))
        except (OutlastError, OSError) as error:
            return _reason(error, address)

    answers: dict[str, dict[str, Any] | str] = {}
    wanted = {address: "" for address in addresses}
    while fresh := [address for address in wanted if address not in answers]:
        said = await asyncio.gather(*(ask(address) for address in fresh))
        answers.update(zip(fresh, said, strict=True))
        named = {answer["node"] for answer in answers.values() if isinstance(answer, dict)}
        for node, address in _members(answers.values()).items():
            where = overriding.get(node, address)
            if node not in named or where in wanted:
                wanted[where] = node
    return _combine(answers, wanted)


def _reason(error: BaseException, address: str) -> str:
    """Return why ``address`` did not answer, without naming it again and again."""
    text = str(error) or type(error).__name__
    for prefix in (f"{address}: ", f"node at {address}: "):
        text = text.removeprefix(prefix)
    return text


def _members(answers: Any) -> dict[str, str]:
    """Return the members' addresses as the node with the newest membership names them."""
    told = [answer for answer in answers if isinstance(answer, dict)]
    newest = max(told, key=lambda facts: facts.get("membership_version", -1), default={})
    return {row["node"]: row["address"] for row in newest.get("members", ())}


def _combine(answers: Mapping[str, dict[str, Any] | str], names: Mapping[str, str]) -> Overview:
    told = [answer for answer in answers.values() if isinstance(answer, dict)]
    newest = max(told, key=lambda f: (f.get("term", 0), bool(f.get("leader"))), default={})
    leading = next((f for f in told if f.get("node") == newest.get("leader")), {})
    lags = {row["node"]: row["lag"] for row in leading.get("members", ())}
    top = max((facts.get("commit_index", 0) for facts in told), default=0)
    rows: dict[str, NodeOverview] = {}
    for facts in told:
        row = _row(facts, top, lags)
        rows[row.node] = row
    for address, answer in answers.items():
        if isinstance(answer, str) and (names[address] or address) not in rows:
            row = NodeOverview(names[address] or "?", address, reachable=False, problem=answer)
            rows[names[address] or address] = row
    return Overview(
        cluster=str(newest.get("cluster", "")),
        machine=str(newest.get("machine", "")),
        leader=str(newest.get("leader", "")),
        term=int(newest.get("term", 0)),
        nodes=tuple(sorted(rows.values(), key=lambda row: (row.node == "?", row.node))),
        warnings=tuple(leading.get("warnings", ())),
    )


def _row(facts: dict[str, Any], top: int, lags: Mapping[str, int | None]) -> NodeOverview:
    node = str(facts["node"])
    applied = facts.get("applied_index")
    lag = lags.get(node)
    if lag is None and applied is not None:
        lag = max(0, top - int(applied))
    return NodeOverview(
        node=node,
        address=str(facts.get("address", "")),
        reachable=True,
        role=str(facts.get("role") or facts.get("phase", "")),
        term=facts.get("term"),
        commit=facts.get("commit_index"),
        applied=applied,
        lag=lag,
        facts=facts,
    )
