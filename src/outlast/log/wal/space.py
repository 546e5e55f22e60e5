"""Room for the log to grow: the next segment is reserved before it is needed.

Running out of space is met here, while nothing has been promised, and never in the middle of
an append. While there is none, entries are refused and a timer looks again.
"""

import asyncio
import errno
from collections.abc import Callable

from outlast.kernel import TimerHandle, World
from outlast.log.wal.events import WalFull, WalRoomAgain
from outlast.log.wal.recovery import SPARE_SUFFIX
from outlast.log.wal.settings import WalSettings
from outlast.log.wal.writer import Spare, make_spare

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class SpaceKeeper:
    """Prepares spare segments on a lane of its own.

    ``changed`` is called on the loop after each attempt; ``broken`` with the error of a disk
    that failed in another way than being full.
    """

    def __init__(
        self, world: World, directory: str, settings: WalSettings, lane: str, *,
        changed: Callable[[], None], broken: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._world = world
        self._directory = directory
        self._settings = settings
        self._lane = lane
        self._changed = changed
        self._broken = broken
        self._count = 0
        self._attempt: asyncio.Future[Spare] | None = None
        self._timer: TimerHandle | None = None
        self._wanted = 0
        self._closed = False
        self.spare: Spare | None = None
        self.full = False

    @property
    def preparing(self) -> bool:
        """Whether an attempt is under way."""
        return self._attempt is not None

    def prepare(self, size: int) -> None:
        """Begin to prepare a segment of ``size``, unless one is ready or under way."""
        if self.spare is not None or self._attempt is not None or self._closed:
            return
        self._wanted = size
        self._count += 1
        path = f"{self._directory}/{self._count}{SPARE_SUFFIX}"
        run = self._world.offload.run(self._lane, lambda: self._make(path, size))
        self._attempt = asyncio.ensure_future(run)
        self._attempt.add_done_callback(self._made)

    def take(self) -> Spare | None:
        """Hand over the spare."""
        spare, self.spare = self.spare, None
        return spare

    def _make(self, path: str, size: int) -> Spare:
        free = self._world.storage.free_bytes(self._directory)
        if free < size + self._settings.disk_reserve_bytes:
            raise OSError(errno.ENOSPC, f"{free} bytes are free", self._directory)
        return make_spare(self._world, path, size)

    def _made(self, attempt: asyncio.Future[Spare]) -> None:
        self._attempt = None
        error = None if attempt.cancelled() else attempt.exception()
        if error is None and not attempt.cancelled():
            self.spare = attempt.result()
            if self.full:
                self.full = False
                self._world.events.emit(WalRoomAgain(directory=self._directory))
        elif isinstance(error, OSError) and error.errno in _NO_SPACE:
            self._no_space()
        elif error is not None:
            self._broken(error)
            return
        self._changed()

    def _no_space(self) -> None:
        settings = self._settings
        needed = self._wanted + settings.disk_reserve_bytes
        if not self.full:
            self.full = True
            free = self._world.storage.free_bytes(self._directory)
            self._world.events.emit(
                WalFull(directory=self._directory, free_bytes=free, needed_bytes=needed)
            )
        if not self._closed:
            when = self._world.clock.monotonic_ns() + int(settings.full_retry * 1e9)
            self._timer = self._world.timers.call_at(when, self._retry)

    def _retry(self) -> None:
        self._timer = None
        self.prepare(self._wanted)

    async def close(self) -> Spare | None:
        """Stop, wait for an attempt under way, and hand over what it made."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        attempt = self._attempt
        if attempt is not None:
            await asyncio.wait([attempt])
        return self.take()
