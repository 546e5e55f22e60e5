"""The gRPC health checking protocol, v1, over a registry (extra ``grpc``).

Services are names of groups: ``""`` and any of your own mean readiness, ``liveness`` and
``startup`` what they say. ``Check`` reads the snapshot at that moment; ``Watch`` sends changes
within ``every`` seconds. The servicers are those of ``grpcio-health-checking``.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.core.health import GROUPS, Group
from outlast.detect.ticker import Ticker
from outlast.kernel import ConfigError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health import Health

_GROUPS: Final[dict[str, Group]] = {
    "": "readiness", "readiness": "readiness", "liveness": "liveness", "startup": "startup",
}  # fmt: skip


class GrpcHealth:
    """Answers ``grpc.health.v1.Health`` on a ``grpc.server`` or a ``grpc.aio.server``.

    ``SERVING`` while the group passes, ``NOT_SERVING`` otherwise, ``NOT_FOUND`` for a service
    that was not named. When the registry drains, every service of readiness is ``NOT_SERVING``
    for good. Differs from ``enter_graceful_shutdown`` of the servicer: liveness and startup keep
    telling the truth, so that nobody restarts a process that finishes its work.

    A context manager around the time of serving, or :meth:`add_to` and :meth:`close`. On a
    ``grpc.server`` one daemon thread looks for changes; on a ``grpc.aio.server`` a task of its
    loop. For one server; not after a fork.

    Args:
        health: What is read.
        services: More services: a list of names for readiness, or a mapping of names to groups.
        every: Seconds between looks for those who watch.
        world: Clock and timers; by default the current world where it is added.

    Raises:
        ConfigError: Definite. A group that does not exist, ``every`` not positive, or
            ``grpcio-health-checking`` missing.
    """

    def __init__(
        self,
        health: "Health",
        services: Iterable[str] | Mapping[str, Group] = (),
        *,
        every: float = 0.25,
        world: World | None = None,
    ) -> None:
        more = services if isinstance(services, Mapping) else dict.fromkeys(services, "readiness")
        wrong = [group for group in more.values() if group not in GROUPS]
        if wrong or not every > 0:
            raise ConfigError(
                f"GrpcHealth: groups {wrong}, every {every:g}; one of {', '.join(GROUPS)}, and"
                " above 0 would be right"
            )
        _modules()
        self.services: dict[str, Group] = {**_GROUPS, **more}  # type: ignore[dict-item]
        self._read = health.read
        self._every = every
        self._world = world
        self._sent: dict[str, int] = {}
        self._ticker: Ticker | None = None
        self._task: Any = None

    def __repr__(self) -> str:
        """Show the services."""
        return f"<GrpcHealth {', '.join(repr(name) for name in self.services)}>"

    def add_to(self, server: Any) -> Self:
        """Add the service to ``server``, before it is started; for ``grpc.aio`` on its loop."""
        if self._ticker is not None or self._task is not None:
            raise ConfigError("GrpcHealth.add_to: it was added before; one object per server")
        grpc, _, services = _modules()
        world = self._world or current_world()
        if isinstance(server, grpc.aio.Server):
            waits = self._make_async()
            services.add_HealthServicer_to_server(waits, server)
            self._task = world.spawn.task(self._follow(waits, world), name="outlast grpc health")
        else:
            servicer = self._make_blocking()
            services.add_HealthServicer_to_server(servicer, server)
            self._ticker = Ticker("outlast-grpc-health", world, lambda: self._every, servicer.look)
            self._ticker.start()
        return self

    def close(self) -> None:
        """Stop looking for changes. What was sent last stays for those who watch."""
        ticker, self._ticker = self._ticker, None
        task, self._task = self._task, None
        if ticker is not None:
            ticker.stop()
        if task is not None:
            task.cancel()

    def __enter__(self) -> Self:
        """Nothing; :meth:`add_to` begins."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    # --- inside -----------------------------------------------------------------------------

    def _changes(self) -> list[tuple[str, int]]:
        """Return the services whose status is not what was sent last."""
        _, messages, _ = _modules()
        found = {group: self._read(group).passing for group in GROUPS}
        response = messages.HealthCheckResponse
        now = {
            name: int(response.SERVING if found[group] else response.NOT_SERVING)
            for name, group in self.services.items()
        }
        changed = [
            (name, status) for name, status in now.items() if self._sent.get(name) != status
        ]
        self._sent = now
        return changed

    def _make_blocking(self) -> Any:
        from grpc_health.v1 import health as official

        outer = self

        class Servicer(official.HealthServicer):  # type: ignore[misc, unused-ignore]
            """The official servicer; what it knows is refreshed before each answer."""

            def look(self) -> None:
                with self._lock:  # reentrant
                    for name, status in outer._changes():
                        self.set(name, status)

            def Check(self, request: Any, context: Any) -> Any:
                self.look()
                return super().Check(request, context)

        servicer = Servicer()
        servicer.look()
        return servicer

    def _make_async(self) -> Any:
        from grpc_health.v1 import health as official

        outer = self

        class Servicer(official.aio.HealthServicer):  # type: ignore[misc, unused-ignore]
            """The official servicer; what it knows is refreshed before each answer."""

            def __init__(self) -> None:
                super().__init__()
                self._one = asyncio.Lock()

            async def look(self) -> None:
                async with self._one:
                    for name, status in outer._changes():
                        await self.set(name, status)

            async def Check(self, request: Any, context: Any) -> Any:
                await self.look()
                return await super().Check(request, context)

        return Servicer()

    async def _follow(self, servicer: Any, world: World) -> None:
        while True:
            await servicer.look()
            await world.timers.sleep(self._every)


def _modules() -> tuple[Any, Any, Any]:
    try:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ImportError as error:
        raise ConfigError(
            f'gRPC health needs {error.name}: pip install "outlast[grpc]"'
        ) from error
    return grpc, health_pb2, health_pb2_grpc
