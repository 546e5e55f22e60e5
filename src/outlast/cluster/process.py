"""A node as a process: event loop, signals, storage, exit code."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from outlast.cluster.identity import NodeIdentity, load_identity
from outlast.cluster.layout import hash_seed_of
from outlast.cluster.node import Node
from outlast.cluster.settings import EXIT_FAILED, EXIT_STOPPED, NodeSettings
from outlast.host import HostStorage, LossyStorage, make_world, new_event_loop
from outlast.kernel import (
    ConfigError,
    CorruptionError,
    DataError,
    Event,
    EventBus,
    OutlastError,
    Storage,
)
from outlast.state import load_machine

_HASH_SEED = "PYTHONHASHSEED"
_COLLECT_AFTER = 50_000


def log_events(event: Event) -> None:
    """Write an event as one line to the logger of the room that it comes from."""
    room = type(event).__module__.split(".")[1]
    level = logging.getLevelName(event.level.upper())
    logger = logging.getLogger(f"outlast.{room}")
    if logger.isEnabledFor(level):
        names = [name for name in event.__dataclass_fields__ if name not in {"level", "node"}]
        facts = " ".join(f"{name}={getattr(event, name)!r}" for name in names)
        logger.log(level, "%s %s %s", event.node, type(event).__name__, facts)


def choose_storage(name: str) -> Storage:
    """Return the storage called ``disk`` or ``lossy``.

    Raises:
        ConfigError: Definite. Another name.
    """
    if name == "disk":
        return HostStorage()
    if name == "lossy":
        return LossyStorage(HostStorage())
    message = f"--storage {name!r}: write disk, or lossy (a kill loses what was not fsynced)"
    raise ConfigError(message)


def required_hash_seed(settings: NodeSettings) -> int | None:
    """Return the PYTHONHASHSEED that this node must run under, if it is known yet."""
    identity = load_identity(HostStorage(), settings.data)
    if identity is not None:
        return identity.hash_seed
    return hash_seed_of(settings.cluster) if settings.cluster else None


def restart_under(seed: int) -> None:
    """Run this same command again with PYTHONHASHSEED set, unless it is already.

    The seed must be set before Python starts, and replicas whose hashes differ may iterate
    differently; the handshake refuses such a pair.
    """
    if os.environ.get(_HASH_SEED) == str(seed):
        return
    os.environ[_HASH_SEED] = str(seed)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


class _OtherHashSeedError(ConfigError):
    """Definite. This process runs under another PYTHONHASHSEED than its cluster."""

    seed: int = 0


def check_hash_seed(identity: NodeIdentity) -> None:
    """Refuse to go on in this process if the cluster that admitted it has another hash seed.

    Raises:
        ConfigError: Definite. ``seed`` is what to restart under.
    """
    if os.environ.get(_HASH_SEED) != str(identity.hash_seed):
        message = f"cluster {identity.cluster} runs under {_HASH_SEED}={identity.hash_seed}"
        error = _OtherHashSeedError(message)
        error.seed = identity.hash_seed
        raise error


async def run(
    node: Node, *, until: "asyncio.Event", notify: Callable[[str], None] = lambda _: None
) -> BaseException | None:
    """Run ``node`` until ``until`` is set or it fails; returns the failure, if any."""
    stop = asyncio.ensure_future(until.wait())
    start = asyncio.ensure_future(node.start())
    failure: asyncio.Future[BaseException] | None = None
    closing = False
    try:
        await asyncio.wait({stop, start}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            return None  # asked to stop while it waited, for admission for example
        start.result()
        notify("ready")
        failure = asyncio.ensure_future(node.failed())
        await asyncio.wait({stop, failure}, return_when=asyncio.FIRST_COMPLETED)
        return failure.result() if failure.done() else None
    except GeneratorExit:
        closing = True  # its loop is gone: nothing can be waited for any more
        raise
    finally:
        if not closing:
            await _end(node, (stop, start, failure), notify)


async def _end(
    node: Node, tasks: "Sequence[asyncio.Future[Any] | None]", notify: Callable[[str], None]
) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
    try:
        await asyncio.wait_for(node.stop(), 10.0)
    except (TimeoutError, OutlastError) as error:
        notify(f"stopping: {error}")


def run_node(
    target: str,
    settings: NodeSettings,
    *,
    storage: str = "disk",
    notify: Callable[[str], None] = lambda _: None,
) -> int:
    """Run one node until SIGTERM or SIGINT and return its exit code.

    0: stopped as asked. 1: failed while running; a restart may help. 2: cannot run as asked
    (settings, data directory, corruption); a restart would end the same.

    Raises:
        ConfigError: Definite. The settings or the machine are wrong.
        DataError: Definite. The data directory does not fit.
        CorruptionError: The log or a snapshot is damaged; file and offset are named.
    """
    seed = required_hash_seed(settings)
    if seed is not None:
        restart_under(seed)
    machine = load_machine(target)
    bus = EventBus()
    bus.subscribe(log_events)
    world = make_world(storage=choose_storage(storage), events=bus)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)

    async def main() -> BaseException | None:
        until = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, until.set)
        node = Node(world, machine, settings, admitted=check_hash_seed)
        return await run(node, until=until, notify=notify)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            failure = runner.run(main())
    except _OtherHashSeedError as error:
        restart_under(error.seed)  # the identity is on disk: the next start goes on from there
        raise
    if failure is None:
        return EXIT_STOPPED
    if isinstance(failure, ConfigError | DataError | CorruptionError):
        raise failure
    with contextlib.suppress(OSError):
        said = f"{type(failure).__name__}: {failure}".rstrip(": ")
        sys.stderr.write(f"outlast: node {settings.node} failed: {said}\n")
    return EXIT_FAILED
