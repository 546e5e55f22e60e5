"""An attempt to open a connection, as the kernels of both hosts see it."""

import asyncio
import errno
from contextvars import copy_context
from typing import TYPE_CHECKING

from outlast.sim.ports import Address
from outlast.sim.segment import os_error
from outlast.sim.tcp import End
from outlast.sim.weather import SECOND_NS

if TYPE_CHECKING:
    from outlast.sim.hosts import Host, Life
    from outlast.sim.network import Network

_SYN_NS = SECOND_NS
_SYN_MAX = 7
"""SYNs of one attempt: after 1, 3, 7, ... and at last 127 seconds it is given up."""


def failed(number: int, remote: Address) -> OSError:
    """Return the error of an attempt to connect."""
    return os_error(number, f"Connect call failed {remote!r}")


class Dial:
    """An attempt to connect: SYNs until one of them is answered."""

    __slots__ = (
        "_context", "_life", "_local", "_network", "_remote", "_retry", "_target", "_tries",
        "_way", "future",
    )  # fmt: skip

    def __init__(
        self, network: "Network", life: "Life", target: "Host", local: Address, remote: Address
    ) -> None:
        self._network = network
        self._life = life
        self._context = copy_context()
        self._target = network.endpoints[target.name]
        self._way = network.way(life.host.name, target.name)
        self._local = local
        self._remote = remote
        self._tries = 0
        self._retry: asyncio.Handle | None = None
        self.future: asyncio.Future[End] = network.sim.loop.create_future()
        self._send()

    def give_up(self) -> None:
        """Nobody waits for the connection any more."""
        if self._retry is not None:
            self._retry.cancel()
        if self.future.done() and not self.future.cancelled() and self.future.exception() is None:
            self.future.result().close()
        self.future.cancel()

    def _send(self) -> None:
        sim, way = self._network.sim, self._way
        if self.future.done() or not self._life.alive:
            return
        now_ns = sim.moment_ns
        if self._tries == _SYN_MAX:
            sim.count("connect timed out")
            self._answer_at(now_ns, errno.ETIMEDOUT)
            return
        self._retry = sim.at(now_ns + (_SYN_NS << self._tries), self._send)
        self._tries += 1
        way.tally.segments += 1
        if way.reset:
            way.tally.reset += 1
            self._answer_at(now_ns + 2 * way.draw_ns(), errno.ECONNRESET)
        elif way.cut or way.drop:
            way.tally.lost += 1
        elif not way.lost():
            sim.at(way.sent_ns(now_ns, 0) + way.draw_ns(), self._arrive)

    def _arrive(self) -> None:
        """A SYN has reached the machine."""
        sim, way, kernel = self._network.sim, self._way, self._target
        back = way.back
        if self.future.done() or not kernel.powered or not self._life.alive or way.cut:
            return
        if back.cut or back.drop or back.lost():
            back.tally.lost += 1
            return
        when_ns = back.sent_ns(sim.now_ns, 0) + back.draw_ns()
        port = self._remote if isinstance(self._remote, str) else self._remote[1]
        listener = kernel.find(self._reached_by(), port)
        source, target = self._life.host.name, kernel.host.name
        if listener is None:
            way.tally.refused += 1
            sim.note("refused", source, target, port)
            self._answer_at(when_ns, errno.ECONNREFUSED)
            return
        if len(listener.pending) >= listener.backlog:
            sim.note("backlog", source, target, port)
            sim.count("backlog full")
            return
        if self._retry is not None:
            self._retry.cancel()
        network = self._network
        here = End(
            network, network.endpoints[source], self._life, self._context, way,
            self._local, self._remote,
        )  # fmt: skip
        there = End(
            network, kernel, listener.life, listener.context.copy(), back,
            self._remote, self._local,
        )  # fmt: skip
        here.peer, there.peer = there, here
        listener.pending.append(there)
        sim.at_host(when_ns, self._life, self._made, here, context=self._context)
        when_ns += way.base_ns
        sim.at_host(when_ns, listener.life, listener.take, there, context=there.context)

    def _reached_by(self) -> str:
        return self._remote if isinstance(self._remote, str) else str(self._remote[0])

    def _answer_at(self, when_ns: int, number: int) -> None:
        if self._retry is not None:
            self._retry.cancel()
        error = failed(number, self._remote)
        self._network.sim.at_host(when_ns, self._life, self._fail, error, context=self._context)

    def _fail(self, error: OSError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _made(self, end: End) -> None:
        if self.future.done():
            end.close()
        else:
            self.future.set_result(end)
