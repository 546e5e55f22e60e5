"""The spine with one disk that is lost or rots: a minority, which the protocol claims to survive.

Whoever looks after a node does what its message says. A damaged directory is emptied, and the
node then asks the others to be admitted anew: it never comes back as the replica that it was.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from outlast import sim
from outlast.kernel import CorruptionError
from tests.support.spine import DATA, Spine

_FLIPS = 12


class DamagedSpine(Spine):
    """One life of a cluster, in which one disk is damaged once."""

    def __init__(self, lab: sim.Lab, **options: Any) -> None:
        super().__init__(lab, **options)
        drawn = self.prng.fork()
        self.victim = drawn.choice(self.names)
        self.rots = drawn.chance(1, 2)
        self.damaged = False
        self._drawn = drawn

    def _others(self) -> list[Coroutine[Any, Any, None]]:
        return [*super()._others(), self._damage()]

    async def _damage(self) -> None:
        await self.lab.sleep(self.seconds * self._drawn.between(20, 80) / 100)
        host = self.lab.hosts[self.victim]
        if host.up:
            self.lab.crash(self.victim)
        self.damaged = True
        if self.rots:
            where = self._drawn.choice((f"{DATA}/log", self._newest(), self._newest()))
            if any([host.disk.rot(self._drawn, where) for _ in range(_FLIPS)]):
                self.lab.sim.count("disk rotted")
        elif self._drawn.chance(1, 2):
            self._empty()
            self.lab.sim.count("disk lost")
        elif host.disk.exists(f"{DATA}/log"):
            host.disk.rmtree(f"{DATA}/log")  # its identity stays: it must not trust that
            self.lab.sim.count("log lost")
        await asyncio.sleep(self._drawn.between(10, 1000) / 1000)
        if not host.up:
            self.lab.restart(self.victim)

    def _newest(self) -> str:
        """Return the segment that was written last: damage in it may pass for a torn tail."""
        found = [path for path in self.lab.hosts[self.victim].disk.files(DATA) if ".seg" in path]
        return max(found, default=f"{DATA}/log")

    def _empty(self) -> None:
        self.emptied[self.victim] = None
        disk = self.lab.hosts[self.victim].disk
        if disk.exists(DATA):
            disk.rmtree(DATA)

    def _excuses(self, name: str, failure: BaseException | None) -> bool:
        if name != self.victim or not self.damaged:
            return False
        if isinstance(failure, CorruptionError) or "CRC" in str(failure):
            self.lab.sim.count("damage found")
            self._empty()
        return True
