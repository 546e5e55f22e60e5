"""What is under way on a TCP connection, and what its two ends need of their programs."""

import os
from typing import Final, Protocol

WINDOW_BYTES: Final = 256 * 1024
"""How much may be under way and unread in one direction."""
SEGMENT_BYTES: Final = 64 * 1024
HELD: Final = 1 << 62
DATA, FIN, RST = 0, 1, 2


class User(Protocol):
    """The program's side of an end."""

    reading: bool
    """Whether data may be handed to :meth:`received` right away."""

    def received(self, data: bytes) -> None:
        """Take what has arrived."""

    def readable(self) -> None:
        """There is something to read: data, the end of the stream, or an error."""

    def writable(self) -> None:
        """There is room in the window again."""

    def gone(self) -> None:
        """The program has crashed; it is not told."""


class Segment:
    """Something under way: bytes, the end of the stream, or a reset."""

    __slots__ = ("due_ns", "kind", "parts", "sent_ns", "size", "step")

    def __init__(self, kind: int, part: bytes, size: int, due_ns: int, sent_ns: int) -> None:
        self.kind = kind
        self.parts = [part]
        self.size = size
        self.due_ns = due_ns
        self.sent_ns = sent_ns
        self.step = -1


def os_error(number: int, text: str = "") -> OSError:
    """Return the error that the kernel would give for ``number``."""
    return OSError(number, text or os.strerror(number))
