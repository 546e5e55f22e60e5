"""What a node says of its health: started, able to serve, not failed, its loop, its disk."""

from collections.abc import Callable

from outlast.cluster.health_port import HealthPort, run_checks
from outlast.cluster.settings import NodeSettings
from outlast.detect import Health, Status, checks
from outlast.kernel import World
from outlast.log.engines.raft import RaftLog

_SECONDS = 0.2
_DISK_SECONDS = 5.0
_LATE_SECONDS = 30.0
"""Longer than any snapshot or checkpoint keeps the loop, and than a machine is paused."""
_SEGMENTS_LEFT = 4


class NodeHealth:
    """The health of one node, in the three groups. Its checks run on the node's loop.

    * *startup*: it serves. *readiness*: it serves, is a member and knows of a leader; little room
      on the disk degrades it. *liveness*: it has not failed, and its loop goes on.

    Args:
        world: Clock, timers, storage and events.
        settings: Of the node.
        phase: What the node is doing, such as ``serving``.
        log: Its log, once it is open.
        is_member: Whether it is a member of its cluster now.
    """

    def __init__(
        self,
        world: World,
        settings: NodeSettings,
        *,
        phase: Callable[[], str],
        log: Callable[[], RaftLog | None],
        is_member: Callable[[], bool],
    ) -> None:
        self._world = world
        self._phase = phase
        self._log = log
        self._is_member = is_member
        self.health = health = Health(world, name=settings.node)
        health.add("started", self._started, groups=("startup",), every=_SECONDS)
        health.add("can serve", self._can_serve, groups=("readiness",), every=_SECONDS)
        health.add("not failed", self._not_failed, groups=("liveness",), every=_SECONDS)
        self._loop = health.progress("event loop", within=_LATE_SECONDS)
        wal = settings.wal
        room = checks.disk_space(
            settings.data,
            min_free=wal.disk_reserve_bytes + wal.segment_bytes,
            warn_free=wal.disk_reserve_bytes + _SEGMENTS_LEFT * wal.segment_bytes,
            world=world,
        )
        health.add("disk space", room, every=_DISK_SECONDS, timeout=_DISK_SECONDS, critical=False)
        # A thread and a port of its own: it answers while the node's loop does not.
        self._port = HealthPort(health, settings.health, world)

    def start(self) -> None:
        """Begin to answer probes on the port for health, if there is one.

        Raises:
            ConfigError: Definite. The address is in use or not ours.
        """
        self._port.start()

    @property
    def health_port(self) -> int | None:
        """The port for probes, once started; ``None`` if there is none."""
        return self._port.port

    def stop(self) -> None:
        """Stop answering probes."""
        self._port.stop()

    async def run(self) -> None:
        """Run the checks and stamp that the loop goes on, until cancelled."""
        await run_checks(self.health, self._loop, self._world)

    async def _started(self) -> tuple[Status, str]:
        phase = self._phase()
        return (Status.OK if phase == "serving" else Status.FAILED), phase

    async def _not_failed(self) -> tuple[Status, str]:
        phase = self._phase()
        return (Status.FAILED if phase == "failed" else Status.OK), phase

    async def _can_serve(self) -> tuple[Status, str]:
        log, phase = self._log(), self._phase()
        if phase != "serving" or log is None:
            return Status.FAILED, phase
        if log.authority.holder is None:
            return Status.FAILED, "no leader is known"
        if not self._is_member():
            return Status.FAILED, "not a member: it was removed, or is not yet admitted"
        return Status.OK, "a leader is known"
