"""Whether the replicas of one of our clusters hold equal states."""

from collections.abc import Sequence

from outlast.cluster.connect import connect
from outlast.kernel import OutlastError, World
from outlast.wire import Security

_NS = 1_000_000_000
LAB = Security(unprotected=True)
"""Of a drill's own clients: nobody but its nodes can be reached in a lab, real or simulated."""


async def compare_digests(world: World, addresses: Sequence[str], within: float) -> list[str]:
    """Wait until all nodes have applied the same index; say whose state differs there.

    Args:
        world: Clock and timers.
        addresses: Of every node.
        within: Seconds to wait.

    Returns:
        Problems; none when all states are equal.
    """
    end_ns = world.clock.monotonic_ns() + int(within * _NS)
    facts: list[dict[str, object]] = []
    async with connect(None, addresses, timeout=2.0, security=LAB) as client:
        while world.clock.monotonic_ns() < end_ns:
            try:
                facts = [await client.status(address) for address in addresses]
            except (OutlastError, OSError):
                continue
            if len({fact.get("applied_index") for fact in facts}) == 1:
                digests = {str(fact["node"]): str(fact["digest"]) for fact in facts}
                if len(set(digests.values())) == 1:
                    return []
                return [f"states differ at index {facts[0]['applied_index']}: {digests}"]
            await world.timers.sleep(0.02)
    applied = {str(fact["node"]): fact.get("applied_index") for fact in facts}
    return [f"the nodes did not reach one applied index within {within:g} s: {applied}"]
