"""``HeartbeatMonitor``: hears beats and says who has gone silent, and how sure that is."""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from outlast.detect.core.detector import Detector
from outlast.detect.core.heartbeat import Change, Postponed, Watchlist
from outlast.detect.core.phi import PhiAccrual
from outlast.detect.core.quality import Score
from outlast.detect.core.scale import NEVER, NS, LevelName, Levels, whole
from outlast.detect.detectors_events import (
    AccusationPostponed,
    PeerSuspected,
    PeerTrusted,
)
from outlast.detect.local_health import LocalHealth
from outlast.kernel import ConfigError, Event, TimerHandle, World, current_world
from outlast.kernel.registry import watch

PeerChange = PeerSuspected | PeerTrusted

_CHANGES_MAX = 1024


class Changes:
    """Changes as they come, for ``async for``. Made by :meth:`HeartbeatMonitor.changes`.

    It hears from the moment it is made until the monitor stops. One that nobody reads keeps the
    last 1024 changes and counts in ``lost`` what gave way.
    """

    def __init__(self) -> None:
        self._waiting: deque[PeerChange] = deque(maxlen=_CHANGES_MAX)
        self._wake = asyncio.Event()
        self._ended = False
        self.lost = 0

    def put(self, change: PeerChange | None) -> None:
        """Add a change; ``None`` ends it."""
        if change is None:
            self._ended = True
        else:
            self.lost += len(self._waiting) == _CHANGES_MAX
            self._waiting.append(change)
        self._wake.set()

    def __aiter__(self) -> "Changes":
        return self

    async def __anext__(self) -> PeerChange:
        """Wait for the next change. Cancelling it loses none."""
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


class HeartbeatMonitor:
    """Hears beats over any transport and says which peers are suspected, and how much.

    Call :meth:`beat` for whatever came in; read :meth:`level`, ``async for`` over
    :meth:`changes`, or pass ``on_change``. One timer, for the earliest deadline of all peers.

    Levels only rise while a peer is silent, and fall to ``trusted`` with its next beat. With
    ``local`` no level rises while this process is unwell itself: the accusation waits, and is
    looked at again when it is well. Everything belongs to one event loop and is not thread-safe.
    A forked child has to make its own.

    Args:
        detector: Returns a new detector for each peer; ``PhiAccrual`` by default.
        levels: Where on the scale ``watch``, ``avoid`` and ``evict`` are.
        local: Our own health; it is started with the monitor if nobody has started it.
        on_change: A plain function that is called with each change. What it raises goes to the
            loop's exception handler.
        peers_max: Peers at most. Beats of further ones are counted in ``refused`` and forgotten.
        name: Shown in events; with one it is found by the metrics and the commands.
        world: Clock, timers and events; those of the context by default.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    def __init__(
        self,
        detector: Callable[[], Detector] = PhiAccrual,
        *,
        levels: Levels | None = None,
        local: LocalHealth | None = None,
        on_change: Callable[[PeerChange], object] | None = None,
        peers_max: int = 1000,
        name: str = "",
        world: World | None = None,
    ) -> None:
        self.name = name
        self._levels = levels or Levels()
        self._peers_max = whole("HeartbeatMonitor", "peers_max", peers_max, 1, 1_000_000)
        self._list = Watchlist(detector, self._levels, self._peers_max)
        self._settings = detector().describe()
        self._local = local
        self._owns_local = False
        self._on_change = on_change
        self._given = world
        self._world: World | None = None
        self._timer: TimerHandle | None = None
        self._armed_ns = NEVER
        self._readers: list[weakref.ref[Changes]] = []
        self.postponed = 0
        """Accusations that were put off."""
        if name:
            watch(self)

    # --- running -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, on the running loop.

        Raises:
            ConfigError: Definite. It runs already.
        """
        if self._world is not None:
            raise ConfigError(f"HeartbeatMonitor {self.name!r}: it runs already; stop() it first")
        world = self._given or current_world()
        if self._local is not None and not self._local.running:
            self._local.start()
            self._owns_local = True
        self._world = world
        try:
            self._arm()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End: no more changes, and the iterators end. Nothing happens if it does not run."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_ns, self._world = None, NEVER, None
        if self._owns_local and self._local is not None:
            self._local.stop()
        self._owns_local = False
        for reader in self._live_readers():
            reader.put(None)
        self._readers.clear()

    async def __aenter__(self) -> "HeartbeatMonitor":
        """Begin, on the running loop."""
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self.stop()

    def _running(self) -> World:
        if self._world is None:
            message = f"HeartbeatMonitor {self.name!r}: it does not run; async with it, or start()"
            raise ConfigError(message)
        return self._world

    # --- beats -------------------------------------------------------------------------------

    def beat(self, peer: str, seq: int | None = None, *, at_ns: int | None = None) -> None:
        """A beat of ``peer`` has come in. One that was never heard of is watched from now on.

        Args:
            peer: Its name.
            seq: The number that the beat carries, if it does: repeated and old ones then count
                for nothing.
            at_ns: When it came, on the monotonic clock; now by default.

        Raises:
            ConfigError: Definite. The monitor does not run.
        """
        world = self._running()
        now_ns = world.clock.monotonic_ns() if at_ns is None else at_ns
        change = self._list.beat(peer, seq, now_ns)
        if change is not None:
            self._tell(change)
        self._arm()

    def watch(self, peer: str) -> bool:
        """Wait for ``peer`` from now on, though it was not heard yet; ``False``: too many peers.

        Raises:
            ConfigError: Definite. The monitor does not run.
        """
        done = self._list.watch(peer, self._running().clock.monotonic_ns())
        self._arm()
        return done

    def forget(self, peer: str) -> bool:
        """Wait for ``peer`` no longer: it has left, or begins anew. ``False``: it was unknown."""
        return self._list.forget(peer)

    def level(self, peer: str) -> LevelName:
        """Return the level that was decided last for ``peer``.

        Raises:
            KeyError: Nobody of that name is watched.
        """
        return self._list.level(peer)

    def suspicion(self, peer: str) -> float:
        """Return the suspicion of ``peer`` at this moment, whatever was decided.

        Raises:
            KeyError: Nobody of that name is watched.
        """
        return self._list.suspicion(peer, self._running().clock.monotonic_ns())

    def peers(self) -> dict[str, LevelName]:
        """Return the level of everybody who is watched."""
        return {name: self._list.level(name) for name in self._list.names()}

    def stopped(self, peer: str) -> None:
        """Say that ``peer`` has really stopped just now: a drill knows. For :meth:`quality`.

        Raises:
            KeyError: Nobody of that name is watched.
        """
        self._list.stopped(peer, self._running().clock.monotonic_ns())

    def quality(self, peer: str) -> Score:
        """Return mistakes and detection times of ``peer`` so far, at the level ``evict``.

        Raises:
            KeyError: Nobody of that name is watched.
        """
        return self._list.quality(peer, self._running().clock.monotonic_ns())

    def changes(self) -> Changes:
        """Return an iterator over the changes from now on. Any number may be open."""
        reader = Changes()
        self._readers = [one for one in self._readers if one() is not None]
        self._readers.append(weakref.ref(reader))
        return reader

    # --- deciding ----------------------------------------------------------------------------

    def _arm(self) -> None:
        world, next_ns = self._world, self._list.next_ns()
        if world is None or next_ns >= self._armed_ns:
            return  # a timer that comes too early looks and is set anew
        if self._timer is not None:
            self._timer.cancel()
        self._armed_ns = next_ns
        self._timer = world.timers.call_at(next_ns, self._look)

    def _look(self) -> None:
        world, local = self._world, self._local
        self._timer, self._armed_ns = None, NEVER
        if world is None:
            return
        now_ns = world.clock.monotonic_ns()
        well, retry_ns = True, 0
        if local is not None and not local.may_accuse(now_ns):
            well, retry_ns = False, local.retry_ns(now_ns)
        for made in self._list.due(now_ns, well, retry_ns):
            if self._world is None:  # one of them has stopped us
                return
            self._tell(made)
        self._arm()

    def _tell(self, made: Change | Postponed) -> None:
        if isinstance(made, Postponed):
            self.postponed += 1
            self._emit(AccusationPostponed(
                monitor=self.name, peer=made.peer, suspicion=made.suspicion,
                score=0.0 if self._local is None else self._local.score,
            ))  # fmt: skip
            return
        silence = made.silence_ns / NS
        change: PeerChange
        if made.after == "trusted":
            change = PeerTrusted(
                monitor=self.name, peer=made.peer, before=made.before, silence=silence
            )
        else:
            change = PeerSuspected(
                monitor=self.name, peer=made.peer, reached=made.after,
                suspicion=made.suspicion, silence=silence,
            )  # fmt: skip
        self._emit(change)
        for reader in self._live_readers():
            reader.put(change)
        if self._on_change is not None:
            try:
                self._on_change(change)
            except Exception as error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "on_change of a HeartbeatMonitor failed", "exception": error}
                )

    def _live_readers(self) -> list[Changes]:
        found = (reference() for reference in self._readers)
        return [reader for reader in found if reader is not None]

    def _emit(self, event: Event) -> None:
        if self._world is not None:
            self._world.events.emit(event)

    # --- being looked at ---------------------------------------------------------------------

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        watch_, avoid, evict = self._levels.bounds()
        return {
            "kind": "HeartbeatMonitor",
            "name": self.name,
            "detector": dict(self._settings),
            "levels": {"watch": watch_, "avoid": avoid, "evict": evict},
            "local": None if self._local is None else dict(self._local.describe()),
            "peers_max": self._peers_max,
        }

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        world = self._world
        now_ns = 0 if world is None else world.clock.monotonic_ns()
        return {
            "running": world is not None,
            "peers": self._list.snapshot(now_ns),
            "refused": self._list.refused,
            "postponed": self.postponed,
        }

    def __repr__(self) -> str:
        levels = list(self.peers().values())
        suspected = sum(level != "trusted" for level in levels)
        return f"<HeartbeatMonitor {self.name!r} peers={len(levels)} suspected={suspected}>"
