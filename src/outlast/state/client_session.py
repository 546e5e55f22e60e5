"""A session as asyncio clients use it: numbers are taken, awaited when the window is full."""

import asyncio
from collections import deque

from outlast.state.core.client_session import WINDOW_MAX, Request, RequestWindow


class ClientSession:
    """Hands out the request numbers of one session. Belongs to one event loop.

    Args:
        session: Id that the replicas gave it.
        window: Most numbers out at once, 1 to 256; further callers wait in order.
    """

    def __init__(self, session: int, window: int = WINDOW_MAX) -> None:
        self._window = RequestWindow(session, window)
        self._out: dict[int, Request] = {}
        self._waiting: deque[asyncio.Future[int]] = deque()

    def __repr__(self) -> str:
        return f"<ClientSession {self.session}, {len(self._out)} requests out>"

    @property
    def session(self) -> int:
        """Id of the session."""
        return self._window.id

    @property
    def ack_below(self) -> int:
        """Every number below this one was given back."""
        return self._window.ack_below

    @property
    def full(self) -> bool:
        """Whether :meth:`take` would wait."""
        return bool(self._waiting) or self._window.full

    async def take(self) -> int:
        """Return the next request number; waits in line while the window is used up."""
        if not self.full:
            return self._begin()
        given: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.give_back(given.result())
            raise

    def give_back(self, seq: int) -> None:
        """The request is over for its caller.

        Later requests tell the replicas so: if it was given up without an answer and has not
        been applied by then, it never will be.
        """
        request = self._out.pop(seq, None)
        if request is None:
            return
        self._window.end(request)
        while self._waiting and not self._window.full:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(self._begin())

    def _begin(self) -> int:
        request = self._window.begin("", b"")
        self._out[request.seq] = request
        return request.seq
