"""The client's side of a session: numbers requests, and knows what each answer means.

Used by every client, in this process or over the network; it does no I/O. The rules:

- a request keeps its number through all its attempts, and its arguments with it;
- at most ``window`` requests are unanswered; ``ack_below`` on each attempt is the lowest
  unanswered number, so the replicas may forget the answers below it;
- a request that was given up without an answer (deadline, cancellation) stays in the way
  of ``ack_below`` until ``Resolve`` has told what became of it, or barred it.
"""

from collections.abc import Callable
from typing import Any

from outlast.kernel import ConfigError, OutlastError, OverloadedError, invariant
from outlast.state.core.envelope import encode_command
from outlast.state.core.reply import COMMAND_ERROR, OK, Reply, decode_reply_error

WINDOW_MAX = 256


class Request:
    """One request through all its attempts."""

    __slots__ = ("args", "attempt_count", "key", "name", "seq")

    def __init__(self, seq: int, name: str, args: bytes, key: str) -> None:
        self.seq = seq
        self.name = name
        self.args = args
        self.key = key
        self.attempt_count = 0


class RequestWindow:
    """Numbers the requests of one session. Not thread-safe.

    Args:
        session: Id that the replicas gave it.
        window: Most unanswered requests, 1 to 256.
    """

    __slots__ = ("_ack_below", "_next", "_open", "_unresolved", "id", "window")

    def __init__(self, session: int, window: int = WINDOW_MAX) -> None:
        if not 1 <= window <= WINDOW_MAX:
            raise ConfigError(f"window is {window}; it must be 1 to {WINDOW_MAX}")
        self.id = session
        self.window = window
        self._next = 1
        self._ack_below = 1
        self._open: dict[int, Request] = {}
        self._unresolved: dict[int, Request] = {}

    @property
    def ack_below(self) -> int:
        """Every request below this number is answered."""
        return self._ack_below

    @property
    def full(self) -> bool:
        """Whether :meth:`begin` would refuse: the window is used up."""
        return self._next >= self._ack_below + self.window

    @property
    def room(self) -> int:
        """How many more requests may begin now."""
        return max(0, self._ack_below + self.window - self._next)

    @property
    def unresolved(self) -> list[int]:
        """Numbers of the requests that were given up and not resolved yet, in order."""
        return list(self._unresolved)

    def begin(self, name: str, args: bytes, key: str = "") -> Request:
        """Number a new request.

        Raises:
            OverloadedError: Definite. ``window`` requests are unanswered.
        """
        if self.full:
            raise OverloadedError(
                f"session {self.id}: {self.window} requests are unanswered; at most that many",
                retry_after=0.01,
            )
        request = Request(self._next, name, args, key)
        self._open[self._next] = request
        self._next += 1
        return request

    def attempt(self, request: Request) -> bytes:
        """Return the bytes to send for the next attempt of ``request``."""
        request.attempt_count += 1
        return encode_command(
            self.id, request.seq, self._ack_below, request.name, request.args, request.key
        )

    def end(self, request: Request) -> None:
        """The request is answered: its number may be forgotten."""
        invariant(request.seq in self._open, f"request {request.seq} ended twice")
        del self._open[request.seq]
        self._advance()

    def give_up(self, request: Request) -> None:
        """Stop waiting without an answer. Resolve :attr:`unresolved` to free the window."""
        if self._open.pop(request.seq, None) is None:
            return
        if request.attempt_count:
            self._unresolved[request.seq] = request
        else:
            self._advance()

    def resolved(self, seq: int) -> None:
        """``Resolve`` has answered for ``seq``, or the whole session is over."""
        self._unresolved.pop(seq, None)
        self._advance()

    def _advance(self) -> None:
        opened, unresolved, low = self._open, self._unresolved, self._ack_below
        while low < self._next and low not in opened and low not in unresolved:
            low += 1
        self._ack_below = low


def result_of(
    reply: Reply,
    decode_result: Callable[[bytes], Any],
    decode_command_error: Callable[[bytes], OutlastError],
) -> Any:
    """Return the result in ``reply`` or raise its error.

    Raises:
        CommandError: The command ran and raised; its own class where the machine declares it.
        OutlastError: Any error of :mod:`outlast.kernel`, in its own class.
    """
    if reply.status == OK:
        return decode_result(reply.body)
    if reply.status == COMMAND_ERROR:
        raise decode_command_error(reply.body)
    raise decode_reply_error(reply)
