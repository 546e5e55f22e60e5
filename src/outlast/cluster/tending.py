"""What a node looks after twice a second, beside its work: views, members, versions, digests.

On every node: tell clients of changed members, tell the others this replica's digests. On the
leader also: make caught-up learners voters, keep the replicas table in step with the members (so
that a new machine version comes into force once all of them support it, and not before), and
skip an entry that killed a majority of the replicas each time it was applied. A leader that
alone holds before such an entry lets another one lead.
"""

import asyncio
import contextlib

from outlast.cluster.comparison import Comparison
from outlast.cluster.core.stepping import better_leader
from outlast.cluster.service import Service
from outlast.kernel import ConfigError, Deadline, OutlastError, World
from outlast.log.engines.raft import RaftLog
from outlast.state import Announce, Forget, Replica

_SECONDS = 0.5
_HAND_OVER_SECONDS = 2.0


class Tending:
    """Looks after one node. Driven from one event loop."""

    def __init__(
        self,
        world: World,
        log: RaftLog,
        replica: Replica,
        service: Service,
        comparison: Comparison,
    ) -> None:
        self._world = world
        self._log = log
        self._replica = replica
        self._service = service
        self._comparison = comparison
        self._skipped = 0
        self._refused: dict[str, Announce] = {}

    async def run(self) -> None:
        """Look after the node until cancelled.

        What waits for its own entry to be applied has a loop of its own: while applying is
        held before an entry to skip, that wait must not keep anybody from proposing the skip.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._keep_members())

    async def _watch(self) -> None:
        while True:
            await self._world.timers.sleep(_SECONDS)
            self._service.renew_view()
            self._comparison.tell(self._replica.status(), self._log.membership.members)
            if self._log.authority.mine:
                with contextlib.suppress(OutlastError):
                    await self._skip_poisoned()

    async def _keep_members(self) -> None:
        while True:
            await self._world.timers.sleep(_SECONDS)
            if self._log.authority.mine:
                with contextlib.suppress(OutlastError):
                    await self._service.promote_due()
                    await self._keep_rows()

    async def _skip_poisoned(self) -> None:
        index = self._comparison.poisoned_by_majority()
        if index and index != self._skipped:
            await self._replica.skip(index)
            self._skipped = index
        elif not index and self._replica.status().poisoned:
            await self._step_aside()

    async def _step_aside(self) -> None:
        """Only this replica holds: it would answer nobody for as long as it led."""
        reports = self._comparison.reports
        able = [name for name, report in reports.items() if not report.poisoned]
        target = better_leader(self._log.progress(), self._log.me, able)
        if target is not None:
            now_ns = self._world.clock.monotonic_ns()
            deadline = Deadline.after(_HAND_OVER_SECONDS, now_ns)
            await self._log.transfer(target, deadline=deadline)

    async def _keep_rows(self) -> None:
        """Write the rows of members that told theirs, remove those of former members."""
        replica = self._replica
        rows = replica.system.members.rows
        members = [member.replica for member in self._log.membership.members]
        for gone in [name for name in rows if name not in members]:
            await replica.operate(Forget(gone))
        for name in members:
            report = self._comparison.reports.get(name)
            if report is None or report.row in (rows.get(name), self._refused.get(name)):
                continue
            try:
                await replica.announce(report.row)
            except ConfigError:
                self._refused[name] = report.row  # one old program must not hold up the others
