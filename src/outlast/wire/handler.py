"""What a connection calls: the channel's user once it is open, a greeter until then."""

from typing import TYPE_CHECKING, Protocol

from outlast.kernel import OutlastError

if TYPE_CHECKING:
    from outlast.wire.connection import Connection


class FrameHandler(Protocol):
    """What a channel's user gives: called on the loop, must not wait.

    An exception from any of the three ends the connection and reaches the loop's exception
    handler; other connections go on.
    """

    def opened(self, connection: "Connection") -> None:
        """The handshake succeeded; ``connection`` may be sent on."""
        ...

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        """Take one frame; ``kind`` is below 0xF0."""
        ...

    def closed(self, error: BaseException | None) -> None:
        """Called once, last. ``None`` if this side closed it, else what ended it."""
        ...


class Greeter(Protocol):
    """The side's part in the handshake: listener or dialler."""

    def began(self, connection: "Connection") -> None:
        """The transport is there; raise to refuse."""
        ...

    def greeted(self, connection: "Connection", kind: int, body: bytes, more: bool) -> None:
        """Take the first frame; establish or raise. ``more``: bytes followed it."""
        ...

    def failed(self, connection: "Connection", error: OutlastError) -> None:
        """The handshake ended without success; may send a last line with ``say``."""
        ...

    def gone(self, connection: "Connection") -> None:
        """The transport has ended; called once."""
        ...
