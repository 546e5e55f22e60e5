"""``Endpoint``: an instance as it is handed out for one call."""

from typing import TYPE_CHECKING, Any

from outlast.pool.core.instance import Instance

if TYPE_CHECKING:
    from types import TracebackType

    from outlast.pool.core.pool import Picked
    from outlast.pool.pool import Pool


class Endpoint:
    """An instance that is to take one call. ``str()`` gives its address.

    Made by a :class:`~outlast.pool.Pool`, for one call, and used by one caller.

    Attributes:
        instance: Address, weight, zone and host.
        probe: Whether this call decides if an ejected instance comes back.
        lie: What :meth:`lied` was told; empty if the answer is not known to be wrong.
    """

    __slots__ = ("_pool", "answered_ns", "begun_ns", "ended", "lie", "picked", "probe")

    def __init__(self, pool: "Pool", picked: "Picked", begun_ns: int) -> None:
        self._pool = pool
        self.picked = picked
        self.probe = picked.probe
        self.begun_ns = begun_ns
        self.answered_ns: int | None = None
        self.ended = False
        self.lie = ""

    @property
    def instance(self) -> Instance:
        """Address, weight, zone and host."""
        return self.picked.member.instance

    @property
    def address(self) -> str:
        """The address, as it was given to the pool or found."""
        return self.picked.member.instance.address

    def answered(self) -> None:
        """The answer has begun: its latency is known, though the instance is still busy with it.

        For answers that come bit by bit. Without it the time of the whole call counts.
        """
        self.answered_ns = self._pool.now_ns()

    def lied(self, why: str) -> None:
        """Say that its answer is wrong, such as a balance below zero or a bad signature.

        During the call, the call fails for it, whatever it returns; afterwards it is held against
        the instance all the same.

        Args:
            why: In a few words; for events and errors.
        """
        already, self.lie = self.lie, why or "a wrong answer"
        if self.ended and not already:
            self._pool.note_lie(self)

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r}{', probe' if self.probe else ''})"


class Borrowed:
    """A block in which an instance is used; made by :meth:`Pool.endpoint`, entered once."""

    __slots__ = ("_endpoint", "_pool", "_tried")

    def __init__(self, pool: "Pool", tried: list[str]) -> None:
        self._pool = pool
        self._tried = tried
        self._endpoint: Endpoint | None = None

    def __enter__(self) -> Endpoint:
        """Choose an instance.

        Raises:
            UnavailableError: Definite. There is none.
        """
        if self._endpoint is not None:
            raise RuntimeError("endpoint() was entered already; call it anew for each block")
        self._endpoint = self._pool.take(self._tried)
        return self._endpoint

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Note how it went: an error as a failure, else the time that it took."""
        if self._endpoint is not None:
            self._pool.end(self._endpoint, error)

    async def __aenter__(self) -> Endpoint:
        """Choose an instance."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Note how it went."""
        self.__exit__(kind, error, trace)


def refuse_wrong(endpoint: Endpoint, valid: Any, result: Any) -> None:
    """Say that ``result`` is a lie if ``valid`` does not hold of it."""
    if valid is not None and not endpoint.lie and not valid(result):
        endpoint.lied("the answer is not valid")
