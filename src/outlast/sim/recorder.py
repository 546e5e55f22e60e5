"""Records what the clients of a simulated system were told, in Jepsen's vocabulary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from outlast.kernel import HistoryEvent, HistoryType, happened

_UNSAID = object()


class Op:
    """One operation that goes on. Say how it ended with :meth:`ok`, or leave it to the block."""

    __slots__ = ("_result", "_value")

    def __init__(self) -> None:
        self._value: Any = _UNSAID
        self._result: Any = None

    def ok(self, value: Any = _UNSAID, *, result: Any = None) -> None:
        """Say what the operation returned.

        Args:
            value: Of a read, what was read. Left out: the value of the invocation.
            result: Beside it: ``False`` when a comparison was seen to fail.
        """
        if value is not _UNSAID:
            self._value = value
        self._result = result


class Recorder:
    """A history while it is written; made by :meth:`outlast.sim.Lab.history`.

    Judge it with :mod:`outlast.check`: ``check.check(check.history_of(history.events,
    history.header), history.model)``.

    Args:
        model: Name of the model by which it is to be judged.
        header: What else the first line of its file says, such as a bank's accounts.
        now_ns: Returns the virtual time.

    Attributes:
        events: Invocations and completions, in order.
    """

    def __init__(self, model: str, header: dict[str, Any], now_ns: Callable[[], int]) -> None:
        self.model = model
        self.header = {"model": model, **header}
        self.events: list[HistoryEvent] = []
        self._now_ns = now_ns
        self._free: list[int] = []
        self._processes = 0

    @contextmanager
    def operation(self, f: str, *, key: Any = None, value: Any = None) -> Iterator[Op]:
        """Record one operation, which the block executes.

        A block that ends is ``ok``. An exception that answers ``outlast.happened`` with "no" is
        ``fail``, any other ``info``; it goes on to the caller.

        Args:
            f: What is done: ``put``, ``read``, ``add`` …
            key: To what.
            value: With what.
        """
        process = self._take()
        said = (process, f, key)
        self._write("invoke", said, value)
        op = Op()
        try:
            yield op
        except BaseException as error:
            failed = isinstance(error, Exception) and happened(error) == "no"
            self._write("fail" if failed else "info", said, value)
            if failed:
                self._give_back(process)
            raise
        answer = value if op._value is _UNSAID else op._value
        self._write("ok", said, answer, op._result)
        self._give_back(process)

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._processes += 1
        return self._processes - 1

    def _give_back(self, process: int) -> None:
        self._free.append(process)

    def _write(
        self, kind: HistoryType, said: tuple[int, str, Any], value: Any, result: Any = None
    ) -> None:
        process, f, key = said
        self.events.append(HistoryEvent(process, kind, f, value, key, self._now_ns(), result))
