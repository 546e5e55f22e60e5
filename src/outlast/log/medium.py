"""What a local log stands on: the medium that keeps the bytes, and the limits in front of it."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from outlast.kernel import ConfigError


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a local log lets queue.

    Args:
        queue_bytes_max: Bytes of entries handed in and not yet durable; above it appends are
            refused with ``OverloadedError``.
        run_bytes_max: Largest run handed to the medium at once; one entry may be larger.
        batch_bytes_max: Largest batch that a reader is given; one entry may be larger.
        retry_after: What a refusal tells the caller, in seconds.
    """

    queue_bytes_max: int = 64 * 1024 * 1024
    run_bytes_max: int = 1024 * 1024
    batch_bytes_max: int = 1024 * 1024
    retry_after: float = 0.1

    def __post_init__(self) -> None:
        for name in ("queue_bytes_max", "run_bytes_max", "batch_bytes_max"):
            if getattr(self, name) < 1:
                message = f"{name} is {getattr(self, name)}; it must be at least 1"
                raise ConfigError(message)
        if self.retry_after < 0:
            message = f"retry_after is {self.retry_after}; it must be 0 or more seconds"
            raise ConfigError(message)


class Medium(Protocol):
    """Where a local log keeps its entries."""

    @property
    def base(self) -> int:
        """Index before the first entry kept."""
        ...

    @property
    def last(self) -> int:
        """Index of the last entry kept; :attr:`base` if there is none."""
        ...

    def write(self, first: int, payloads: list[bytes], kind: bytes) -> asyncio.Future[None]:
        """Keep entries ``first`` on, all of one kind; resolves, in order, when they are durable.

        Raises, through the future:
            RejectedError: Definite. Nothing was written (``DiskFullError``).
            Exception: Anything else means that the medium has failed for good.
        """
        ...

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, int, int, bytes]]:
        """Return rows (index, term, kind, payload) from ``first``, one or more, to a size."""
        ...

    def trim(self, before: int) -> int:
        """Drop what can be dropped below ``before`` and return the first index still kept."""
        ...

    async def close(self) -> None:
        """Finish what is under way and release everything."""
        ...
