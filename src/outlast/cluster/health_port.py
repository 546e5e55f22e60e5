"""Where probes are answered by a program of ours: a thread and a port of its own, if asked for."""

import asyncio

from outlast.detect import Health, HealthServer, Progress
from outlast.kernel import ConfigError, World
from outlast.wire import parse_address

_STAMP_SECONDS = 1.0


class HealthPort:
    """Answers probes of ``health`` at ``address``, also while the program's loop does not.

    Elsewhere than on loopback strangers may ask: they are told no names of checks and no reasons.

    Args:
        health: What is read.
        address: ``HOST:PORT``; ``None`` for no port.
        world: Clock for the instants in bodies.
    """

    def __init__(self, health: Health, address: str | None, world: World) -> None:
        self._address = address
        self._server = (
            None
            if address is None
            else HealthServer(health, address, details=_private(address), world=world)
        )

    def start(self) -> None:
        """Begin to answer, if there is an address.

        Raises:
            ConfigError: Definite. The address is in use or not ours.
        """
        if self._server is not None:
            try:
                self._server.start()
            except OSError as error:
                raise ConfigError(f"--health {self._address}: {error.strerror}") from error

    @property
    def port(self) -> int | None:
        """The port, once started; ``None`` if there is none."""
        return None if self._server is None else self._server.port

    @property
    def url(self) -> str:
        """Where it answers, once started, such as ``http://127.0.0.1:9090``; empty for nowhere."""
        return "" if self._server is None else self._server.url

    def stop(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.stop()


async def run_checks(health: Health, loop: Progress, world: World) -> None:
    """Run the checks of ``health`` and stamp that the ``loop`` goes on, until cancelled."""

    async def stamp() -> None:
        while True:
            loop.stamp()
            await world.timers.sleep(_STAMP_SECONDS)

    async with asyncio.TaskGroup() as group:
        group.create_task(health.run())
        group.create_task(stamp())


def _private(address: str) -> bool:
    """Whether only this machine can ask, so that the answer may name checks and reasons."""
    return parse_address(address).host in {"127.0.0.1", "::1", "localhost"}
