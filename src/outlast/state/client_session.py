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
        self._waiting: deque[asyncio.Future[None]] = deque()

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
        return self._window.full

    async def take(self) -> int:
        """Return the next request number; waits while the window is used up."""
        while self._window.full:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            try:
                await room
            except asyncio.CancelledError:
                if room.done() and not room.cancelled():
                    self._wake()
                raise
        request = self._window.begin("", b"")
        self._out[request.seq] = request
        return request.seq

    def give_back(self, seq: int) -> None:
        """The request is over for its caller.

        Later requests tell the replicas so: if it was given up without an answer and has not
        been applied by then, it never will be.
        """
        request = self._out.pop(seq, None)
        if request is not None:
            self._window.end(request)
            self._wake()

    def _wake(self) -> None:
        room = self._window.room
        while self._waiting and room:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                room -= 1
