"""What a model is: the object that the operations claim to have been done to.

A model says which states an operation may lead to. Three members make one::

    class Latch(Model):
        name, functions, reads = "latch", frozenset({"set", "test"}), frozenset({"test"})

        def init(self, key):
            return False

        def step(self, state, op):
            if op.f == "set":
                return (True,)
            return (state,) if op.output == state else ()

The rest has answers that are right for every model; overriding them makes judging faster or its
words better.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from outlast.check.core.history import History
from outlast.check.core.operation import Operation
from outlast.check.core.result import describe
from outlast.check.core.values import BadValueError, freeze, show


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judge found about one object.

    Attributes:
        verdict: ``valid``, ``invalid`` or ``unknown``.
        reason: Why, in one sentence; empty when valid.
        operations: For an invalid one: operations that show it, by invocation.
        stuck: The operation that found no place.
        best: A longest order that was possible, each operation with the state after it.
        small: Whether ``operations`` need no further shrinking.
    """

    verdict: Literal["valid", "invalid", "unknown"]
    reason: str = ""
    operations: tuple[Operation, ...] = ()
    stuck: Operation | None = None
    best: tuple[tuple[Operation, str], ...] = ()
    small: bool = False


VALID = Finding("valid")


def invalid(reason: str, operations: Iterable[Operation], stuck: Operation | None) -> Finding:
    """Return the finding that ``operations`` alone show that no order exists."""
    shown = sorted(set(operations), key=lambda op: op.start)
    return Finding("invalid", reason, tuple(shown), stuck, small=True)


class Model:
    """A sequential object. Derive from it; states and tokens are hashable and not changed.

    Attributes:
        name: What ``--model`` calls it.
        functions: Names that its operations may have.
        reads: Those that never change the state.
        how: What is required, in words.
        keyed: Whether operations of different ``key`` concern different objects, judged apart.
    """

    name: ClassVar[str]
    functions: ClassVar[frozenset[str]]
    reads: ClassVar[frozenset[str]]
    how: ClassVar[str] = "linearizable"
    keyed: ClassVar[bool] = True

    # --- what every model says --------------------------------------------------------------

    def init(self, key: Any) -> Hashable:
        """Return the state before the first operation on ``key``."""
        raise NotImplementedError

    def step(self, state: Any, op: Operation) -> Sequence[Hashable]:
        """Return the states that ``op`` may lead to; empty when its answer is impossible.

        The output of an ``info`` operation is unknown, so any answer fits it.
        """
        raise NotImplementedError

    # --- what a model may say better ------------------------------------------------------------

    def prepare(self, history: History) -> "Model":
        """Return the model for this history, with what its header says.

        Raises:
            ConfigError: The header does not fit.
        """
        return self

    def token(self, op: Operation) -> Hashable | None:
        """Return what makes ``op`` differ from others; equal tokens are interchangeable.

        ``None`` says that it neither changes nor shows anything, and may be left out.

        Raises:
            BadValueError: Its value does not fit the model.
        """
        if op.kind == "info":
            if op.f in self.reads:
                return None
            return (op.f, freeze(op.value))
        return (op.f, freeze(op.value), freeze(op.output), freeze(op.result))

    def observes(self, op: Operation) -> bool:
        """Tell whether ``op`` surely leaves the state as it is."""
        return op.f in self.reads

    def partition(self, history: History) -> list[tuple[Any, History]]:
        """Split into objects that can be judged apart."""
        if not self.keyed:
            return [(None, history)]
        groups: dict[Hashable, list[Operation]] = {}
        for op in history.operations:
            groups.setdefault(freeze(op.key), []).append(op)
        return [(ops[0].key, history.only(ops)) for ops in groups.values()]

    def relevant(
        self, operations: Sequence[Operation], optional: Collection[Operation] = ()
    ) -> Sequence[Operation]:
        """Drop ``info`` and ``optional`` operations whose effect no answer could depend on."""
        return operations

    def decide(self, key: Any, part: History) -> Finding | None:
        """Decide without a search where a cheap exact rule can; ``None`` leaves it open."""
        return None

    def possible(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """Tell whether ``op`` may become possible once some ``movers`` have been applied.

        Must never say no wrongly. It prunes the search.
        """
        return True

    def onward(self, state: Any, op: Operation, movers: Sequence[Operation]) -> bool:
        """Tell whether a shortest chain of ``movers`` to what ``op`` fits may pass ``state``.

        Must never say no wrongly. It prunes the search.
        """
        return self.possible(state, op, movers)

    def spans(self, operations: Sequence[Operation]) -> Mapping[int, tuple[float, float]]:
        """Return hints about order, as intervals by index of the operation.

        When one returns, open ones whose interval ends before its own begins are tried first.
        """
        return {}

    def describe(self, op: Operation) -> str:
        """Return ``op`` in words for a report."""
        return describe(op)

    def describe_state(self, state: Any) -> str:
        """Return ``state`` in words for a report."""
        return show(state)

    def explain(
        self,
        state: Any,
        stuck: Operation,
        shown: Sequence[Operation],
        history: Sequence[Operation],
    ) -> str:
        """Say why ``stuck`` has no place.

        Args:
            state: Where the longest order ended.
            stuck: The operation that found no place in it.
            shown: The operations of the counter-example.
            history: All operations on the object, up to the return of ``stuck``.
        """
        return (
            f"{self.describe(stuck)} by process {stuck.process} has no place: the longest order "
            f"found ends in {self.describe_state(state)}"
        )

    def kin(self, stuck: Operation, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Return operations that a reader will look for beside ``stuck``, such as its writer."""
        return ()

    def check(self, history: History) -> None:
        """Refuse operations that the model does not know.

        Raises:
            BadValueError: Its text begins with the position of the operation.
        """
        for op in history.operations:
            if op.f not in self.functions:
                known = ", ".join(sorted(self.functions))
                raise BadValueError(
                    f"{op.start}: model {self.name} has no {op.f!r}; one of {known} would be right"
                )
            try:
                self.token(op)
            except BadValueError as error:
                raise BadValueError(f"{op.start}: {error}") from None


class DeltaModel(Model):
    """A model whose state is a tuple of numbers, to which every change adds a tuple.

    Reads show the whole state. The search then asks which set of open changes leads from one
    state to the next one read, and needs no order among them except where :meth:`fits` says so.

    Attributes:
        bounded: Whether :meth:`fits` ever says no.
    """

    bounded: bool = False

    def change(self, op: Operation) -> tuple[Any, ...]:
        """Return what ``op`` adds."""
        raise NotImplementedError

    def target(self, op: Operation) -> tuple[Any, ...]:
        """Return the state that the read ``op`` shows."""
        raise NotImplementedError

    def fits(self, state: tuple[Any, ...]) -> bool:
        """Tell whether ``state`` is allowed at all, such as no balance below zero."""
        return True

    def step(self, state: tuple[Any, ...], op: Operation) -> Sequence[tuple[Any, ...]]:
        """Add the change of ``op``, or compare what it read."""
        if op.f in self.reads:
            return (state,) if self.target(op) == state else ()
        after = tuple(map(sum, zip(state, self.change(op), strict=True)))
        return (after,) if self.fits(after) else ()
