"""Telling systemd how a service is: ``READY=1``, ``STATUS=``, ``WATCHDOG=1``, ``STOPPING=1``.

One datagram on a Unix socket (sd_notify(3)); no library is needed. Without systemd, when
``NOTIFY_SOCKET`` is not set, everything here does nothing.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.core.health import GroupHealth
from outlast.detect.core.sd_state import SdState, encode
from outlast.detect.ticker import Ticker
from outlast.kernel import ConfigError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health import Health

_NS: Final = 1_000_000_000
_SEND_SECONDS: Final = 1.0


def notify(**states: object) -> bool:
    """Send states to systemd, such as ``notify(READY=1, STATUS="serving")``.

    A value keeps to one line: line ends in it become spaces. Waits at most a second.

    Returns:
        Whether they were sent: ``False`` without ``NOTIFY_SOCKET``, for a kind of socket that is
        neither a path nor abstract (``@name``), or when nobody took them.

    >>> notify(STATUS="nobody listens here")
    False
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"} or not states:
        return False
    target = f"\0{address[1:]}" if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
        try:
            one.settimeout(_SEND_SECONDS)
            one.sendto(encode(states), target)
        except OSError:
            return False
    return True


def watchdog_seconds() -> float | None:
    """Return the interval of the watchdog that systemd asks of this process, if it does."""
    pid = os.environ.get("WATCHDOG_PID", "")
    text = os.environ.get("WATCHDOG_USEC", "")
    if pid and pid != str(os.getpid()):
        return None
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


class SystemdNotifier:
    """Tells systemd what a registry says, for a unit with ``Type=notify`` (and ``WatchdogSec=``).

    * ``READY=1`` once the group *startup* has passed.
    * ``WATCHDOG=1`` at half of the interval, only while *liveness* passes and something in it is
      known to be well: give it a progress stamp of the work (``health.progress(…)``). If the
      work stops, the stamps stop, systemd kills and restarts; with ``WatchdogSignal=`` of its
      default, SIGABRT, ``faulthandler.enable()`` leaves the stacks in the journal.
    * ``STOPPING=1`` when the registry drains, ``STATUS=`` whenever what it shows has changed.
    * ``EXTEND_TIMEOUT_USEC=`` during a long start or stop, up to ``start_within`` and
      ``stop_within`` seconds in all.

    A context manager; runs on one daemon thread, which only reads snapshots. Methods may be called
    from any thread. After a fork the child has none. Without ``NOTIFY_SOCKET`` it starts nothing.

    Args:
        health: What is read.
        every: Seconds between looks, and so the delay of ``READY`` and ``STATUS``.
        start_within: Longest start for which systemd is asked for more time; 0 asks for none.
        stop_within: The same for a stop.
        world: Clock; by default the current world where it is started.

    Raises:
        ConfigError: Definite. A time out of range; on starting, if systemd watches and *liveness*
            has nothing that could prove life.
    """

    def __init__(
        self,
        health: "Health",
        *,
        every: float = 0.5,
        start_within: float = 0.0,
        stop_within: float = 0.0,
        world: World | None = None,
    ) -> None:
        if not every > 0 or start_within < 0 or stop_within < 0:
            raise ConfigError(
                f"SystemdNotifier: every is {every:g}, start_within {start_within:g}, stop_within"
                f" {stop_within:g}; above 0, and at least 0 would be right"
            )
        self._health = health
        self._every_ns = round(every * _NS)
        self._within_ns = (round(start_within * _NS), round(stop_within * _NS))
        self._world = world
        self._step: Callable[[], None] = lambda: None
        self._ticker: Ticker | None = None

    def __repr__(self) -> str:
        """Show whether it runs."""
        running = self._ticker is not None and self._ticker.running
        return f"<SystemdNotifier {'running' if running else 'not running'}>"

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> bool:
        """Start telling; ``False`` if there is no systemd to tell. A second time: no effect."""
        if not os.environ.get("NOTIFY_SOCKET"):
            return False
        if self._ticker is not None:
            return True
        world = self._world or current_world()
        seconds = watchdog_seconds()
        if seconds is not None and not self._health.read("liveness").results:
            raise ConfigError(
                f"SystemdNotifier: WatchdogSec is {seconds:g} s, but the group liveness is empty:"
                ' nothing would prove that the work goes on; add health.progress("work",'
                " within=…) and stamp it"
            )
        state = SdState(
            world.clock.monotonic_ns(),
            watchdog_ns=None if seconds is None else round(seconds * _NS),
            every_ns=self._every_ns,
            start_ns=self._within_ns[0],
            stop_ns=self._within_ns[1],
        )

        self._step = lambda: self._tell(state, world)
        self._ticker = Ticker("outlast-systemd", world, lambda: state.every_ns / _NS, self._step)
        self._ticker.start()
        return True

    def stop(self) -> None:
        """Stop telling, after a last look."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()
            self._step()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the configuration is read anew while the block lasts (``RELOADING=1``)."""
        world = self._world or current_world()
        notify(RELOADING=1, MONOTONIC_USEC=world.clock.monotonic_ns() // 1000)
        try:
            yield
        finally:
            notify(READY=1)

    def _tell(self, state: SdState, world: World) -> None:
        groups: dict[Any, GroupHealth] = dict(self._health.snapshot())
        told = state.step(groups, self._health.draining, world.clock.monotonic_ns())
        if told:
            notify(**told)
