"""Holds role ``system``: whoever appends measures log time and looks after the agreed tables."""

from collections.abc import Awaitable, Callable
from typing import Any

from outlast.kernel import FencedError, IndefiniteError, OutlastError, World
from outlast.log import Authority, Log, Replicated
from outlast.state.core.authority import SYSTEM
from outlast.state.core.envelope import FORMAT
from outlast.state.core.log_time import HolderClock
from outlast.state.core.operation import Announce, Configure, Operation, Raise, TakeEpoch
from outlast.state.core.system import SystemMachine
from outlast.state.events import SystemRoleTaken
from outlast.state.settings import ReplicaSettings

_NS = 1_000_000_000
_TAKE_ATTEMPTS = 16

Operate = Callable[[Operation], Awaitable[Any]]


class SystemRole:
    """Takes role ``system`` whenever this replica is the one whose appends are taken.

    Args:
        world: Clock, timers, events.
        log: Tells who may append, if it knows (:class:`outlast.log.Authority`); else this
            replica is alone with its log and takes the role once.
        system: The applied state.
        clock: Begun here when the role is taken; stamps entries from then on.
        settings: Limits to ask for, ticks.
        me: This replica's own row, written when the role is taken.
        operate: Appends a system operation and returns its result.
        tick: Appends a ``TICK`` entry.
    """

    def __init__(
        self,
        world: World,
        log: Log,
        system: SystemMachine,
        clock: HolderClock,
        *,
        settings: ReplicaSettings,
        me: Announce,
        operate: Operate,
        tick: Callable[[], Awaitable[Any]],
    ) -> None:
        self._world = world
        self._log = log
        self._system = system
        self._clock = clock
        self._settings = settings
        self._me = me
        self._operate = operate
        self._append_tick = tick

    async def hold(self) -> None:
        """Follow the log's authority for ever; ends at once if the log has none."""
        log = self._log
        if not isinstance(log, Authority):
            await self._take(lambda: True)
            return
        async for change in log.authority_changes():
            if change.mine:
                await self._take(lambda: log.authority.mine)
            else:
                self._clock.end()

    async def announce(self, row: Announce) -> None:
        """Write a replica's row, then raise the active versions if all support more.

        A member without a row may run an older program: nothing is raised before all have one.
        """
        members = self._system.members
        if members.rows.get(row.replica) != row:
            await self._operate(row)
        if members.may_raise() and self._all_known():
            machine, format_ = members.supported()
            await self._operate(Raise(machine, format_))

    def _all_known(self) -> bool:
        if not isinstance(self._log, Replicated):
            return True
        rows = self._system.members.rows
        return all(member.replica in rows for member in self._log.membership.members)

    async def tick(self) -> None:
        """Move log time, for ever, while something waits for it and no other entry does."""
        settings = self._settings
        while True:
            await self._world.timers.sleep(settings.tick_seconds)
            due_ns = self._system.next_expiry_ns()
            stamp_ns = self._clock.stamp(self._world.clock.monotonic_ns())
            if due_ns is None or not stamp_ns:
                continue
            lag_ns = stamp_ns - self._system.time.ns
            if due_ns <= stamp_ns or lag_ns >= settings.tick_seconds_max * _NS:
                try:
                    await self._append_tick()
                except OutlastError:
                    continue

    async def _take(self, mine: Callable[[], bool]) -> None:
        current = self._system.authority.current
        expect = current(SYSTEM)
        for _ in range(_TAKE_ATTEMPTS):
            if not mine():
                return
            try:
                epoch = await self._operate(TakeEpoch(SYSTEM, expect, self._me.replica))
            except FencedError as error:
                expect = error.epoch
            except IndefiniteError:
                expect = current(SYSTEM)
            except OutlastError:
                await self._world.timers.sleep(self._settings.tick_seconds / 4)
                expect = current(SYSTEM)
            else:
                await self._taken(epoch)
                return

    async def _taken(self, epoch: int) -> None:
        """See to what the holder sees to: its own row, the versions, the limits."""
        if self._system.authority.current(SYSTEM) != epoch:
            return
        now_ns = self._world.clock.monotonic_ns()
        self._clock.begin(epoch, self._system.time.ns, now_ns)
        self._world.events.emit(SystemRoleTaken(epoch=epoch))
        limits = self._settings.limits
        try:
            await self.announce(self._me)
            if limits is not None and limits != self._system.limits:
                await self._operate(Configure(limits))
        except OutlastError:
            return  # the role is gone, or the log is full: the next holder does it


def own_row(replica: str, settings: ReplicaSettings, machine_version: int) -> Announce:
    """Return the row that a replica announces of itself."""
    return Announce(replica, settings.address, settings.zone, machine_version, FORMAT)
