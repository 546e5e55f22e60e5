"""The operations of one object, laid out by the returns at which decisions fall."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from outlast.check.core.model import Model
from outlast.check.core.operation import Operation


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One operation in a plan.

    Attributes:
        op: The operation.
        cls: Number of its token; entries of one number are interchangeable.
        bit: Its bit in the mask of open operations, or in the mask of ``info`` ones.
        observes: Whether it leaves the state as it is.
        optional: Whether it may also be left out; it still keeps to its interval.
    """

    op: Operation
    cls: int
    bit: int
    observes: bool
    optional: bool


class Plan:
    """Returns in order, and at each the operations that are open.

    Bits are given back when an operation returns, so a mask is as wide as the concurrency and
    not as the history.

    Args:
        model: The model, already prepared.
        operations: Operations on one object.
        optional: Of those, the ones that may be left out. Optional reads are dropped.
    """

    def __init__(
        self,
        model: Model,
        operations: Sequence[Operation],
        optional: Collection[Operation] = (),
    ) -> None:
        self.classes: dict[Hashable, int] = {}
        self.samples: list[Operation] = []
        self.returns: list[Entry] = []
        self.movers: list[tuple[Entry, ...]] = []
        self.seers: list[tuple[Entry, ...]] = []
        self.info_classes: list[tuple[Entry, ...]] = []
        self.slots = 0
        done, infos = self._sort(model, operations, frozenset(optional))
        self._lay_out(model, done, infos, frozenset(optional))

    def _sort(
        self, model: Model, operations: Sequence[Operation], optional: frozenset[Operation]
    ) -> tuple[list[tuple[Operation, int]], list[tuple[Operation, int]]]:
        done: list[tuple[Operation, int]] = []
        infos: list[tuple[Operation, int]] = []
        for op in operations:
            if op in optional and model.observes(op):
                continue
            token = model.token(op)
            if token is None:
                continue
            cls = self.classes.setdefault(token, len(self.samples))
            if cls == len(self.samples):
                self.samples.append(op)
            (done if op.end is not None else infos).append((op, cls))
        done.sort(key=lambda item: item[0].end or 0)
        infos.sort(key=lambda item: item[0].start)
        return done, infos

    def _lay_out(
        self,
        model: Model,
        done: list[tuple[Operation, int]],
        infos: list[tuple[Operation, int]],
        optional: frozenset[Operation],
    ) -> None:
        coming = sorted(done, key=lambda item: item[0].start, reverse=True)
        free: list[int] = []
        open_movers: dict[int, Entry] = {}
        open_seers: dict[int, Entry] = {}
        for op, _ in done:
            while coming and coming[-1][0].start < (op.end or 0):
                new, cls = coming.pop()
                if not free:
                    free.append(self.slots)
                    self.slots += 1
                entry = Entry(new, cls, 1 << free.pop(), model.observes(new), new in optional)
                (open_seers if entry.observes else open_movers)[new.index] = entry
            movers = sorted(open_movers.values(), key=lambda entry: entry.op.end or 0)
            self.movers.append(tuple(movers))
            self.seers.append(tuple(open_seers.values()))
            back = (open_seers if op.index in open_seers else open_movers).pop(op.index)
            self.returns.append(back)
            free.append(back.bit.bit_length() - 1)
        by_class: dict[int, list[Entry]] = {}
        for place, (op, cls) in enumerate(infos):
            by_class.setdefault(cls, []).append(Entry(op, cls, 1 << place, False, True))
        self.info_classes = [tuple(entries) for entries in by_class.values()]

    @property
    def width(self) -> int:
        """Number of ``info`` operations."""
        return sum(map(len, self.info_classes))
