"""What a supervisor of local nodes says of the health of their cluster: ``outlast serve``."""

from collections.abc import Mapping, Sequence

from outlast.cluster.health_port import HealthPort, run_checks
from outlast.cluster.overview import Overview, overview
from outlast.detect import Health, Status
from outlast.kernel import World

_EVERY_SECONDS = 1.0
_ASK_SECONDS = 1.0
_CHECK_SECONDS = 4.0
"""Longer than asking the addresses, and then the members that they name, takes."""
_LATE_SECONDS = 30.0
_STOPPING = "stopping"


class ClusterHealth:
    """The health of a whole cluster, as one who runs its nodes sees it from outside.

    * *startup*: a leader has been there. *readiness*: a leader answers, and so does a majority
      that knows it; a node that does not answer, or is in a crash loop, degrades it. *liveness*:
      the supervisor's loop goes on. Nodes that are down do not fail it: they are restarted here.

    Args:
        world: Clock, timers, network and events.
        addresses: Of the nodes.
        address: ``HOST:PORT`` for probes.
    """

    def __init__(self, world: World, addresses: Sequence[str], address: str) -> None:
        self._world = world
        self._addresses = tuple(addresses)
        self.health = Health(world, name="cluster")
        self._loop = self.health.progress("event loop", within=_LATE_SECONDS)
        self.health.add(
            "can serve",
            self._can_serve,
            groups=("startup", "readiness"),
            every=_EVERY_SECONDS,
            timeout=_CHECK_SECONDS,
        )
        self._port = HealthPort(self.health, address, world)

    @property
    def url(self) -> str:
        """Where probes are answered, once started."""
        return self._port.url

    def start(self) -> None:
        """Begin to answer probes.

        Raises:
            ConfigError: Definite. The address is in use or not ours.
        """
        self.health.forget(_STOPPING)
        self._port.start()

    def stopping(self) -> None:
        """Fail readiness: the nodes are going to be stopped."""
        self.health.report(_STOPPING, Status.FAILED, "the cluster is being stopped")

    def stop(self) -> None:
        """Stop answering probes."""
        self._port.stop()

    async def run(self) -> None:
        """Run the checks and stamp that the loop goes on, until cancelled."""
        await run_checks(self.health, self._loop, self._world)

    async def _can_serve(self) -> tuple[Status, str]:
        return judge(await overview(self._addresses, timeout=_ASK_SECONDS, world=self._world))


def judge(seen: Overview) -> tuple[Status, str]:
    """Return whether a cluster that was ``seen`` like this can serve, and why.

    A leader alone proves nothing: it may be cut off and not know yet. So voters count only if
    they answer, and name the same leader in the same term.
    """
    leading = next((row for row in seen.nodes if row.node == seen.leader and row.reachable), None)
    if leading is None:
        name = f"the leader {seen.leader} does not answer" if seen.leader else "no leader is known"
        return Status.FAILED, name
    if leading.role != "leader":
        return Status.FAILED, f"{seen.leader} is said to lead and does not"
    members: Sequence[Mapping[str, object]] = leading.facts.get("members", ())
    voters = [str(row["node"]) for row in members if row["voter"]]
    follow = [
        row.node
        for row in seen.nodes
        if row.reachable
        and row.node in voters
        and row.facts.get("leader") == seen.leader
        and row.term == seen.term
    ]
    if 2 * len(follow) <= len(voters):
        return Status.FAILED, f"{len(follow)} of {len(voters)} voters follow {seen.leader}"
    missing = [row.node for row in seen.nodes if not row.reachable]
    if missing:
        return Status.DEGRADED, f"led by {seen.leader}; no answer from {', '.join(missing)}"
    return Status.OK, f"led by {seen.leader}"
