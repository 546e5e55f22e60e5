"""The search for models whose state is a sum, such as a counter or the balances of a bank.

Changes commute, so between two reads only the *set* of changes matters. A move therefore goes
from the state to the one that an open read shows, in one step: it chooses open changes that add
up to the difference, few ``info`` ones first. Where an intermediate state may be forbidden (a
balance below zero) an order among them is looked for, and single changes are moves as well.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

from outlast.check.core.model import DeltaModel
from outlast.check.core.plan import Entry, Plan
from outlast.check.core.search import INFO_PRICE, Move, Node, Over, Search

Vector = tuple[Any, ...]
_NODES = 2048  # choices between two looks at the limits
_TABLE_MAX = 8192  # sums kept in a table


def _plus(left: Vector, right: Vector) -> Vector:
    return tuple([a + b for a, b in zip(left, right, strict=True)])


def _minus(left: Vector, right: Vector) -> Vector:
    return tuple([a - b for a, b in zip(left, right, strict=True)])


class SumSearch(Search):
    """A :class:`Search` whose moves lead from one read to the next."""

    moves_bytes = 4_000

    def __init__(self, model: DeltaModel, plan: Plan, first: Vector, over: Over) -> None:
        super().__init__(model, plan, first, over)
        self._sums = model
        self.changes = [() if model.observes(op) else model.change(op) for op in plan.samples]
        self._targets = [model.target(op) if model.observes(op) else () for op in plan.samples]
        self._rising = [
            all(not change or change[at] >= 0 for change in self.changes)
            for at in range(len(first))
        ]
        self._nodes = 0
        if len(first) > 1:
            self.worth = min(
                self.worth, 2
            )  # several sums that all come out right are seldom chance

    def moves(self, node: Node) -> Iterator[Move]:
        """Return the moves at a configuration: ways to an open read, the returning change."""
        back = self.plan.returns[node.at]
        state: Vector = self.states[node.sid]  # type: ignore[assignment]
        offer = _Offer(self, node)
        reads = [entry for entry in self.plan.seers[node.at] if not node.mask & entry.bit]
        reads.sort(key=lambda entry: entry.op.end or 0)
        targets = list(dict.fromkeys(self._targets[read.cls] for read in reads))
        for target in targets:
            if any(part < state[at] for at, part in enumerate(target) if self._rising[at]):
                return  # nothing ever takes away
        for count in itertools.count():
            if count:
                offer.forget()
                yield (), (), node.sid, count * INFO_PRICE
            for target in targets:
                for placed, infos in offer.ways(_minus(target, state), count):
                    if self._ordered(state, [*placed, *infos]):
                        yield placed, infos, self.intern(target), count * INFO_PRICE
            if self.limit:
                return
            if count == 0:
                for new in () if back.observes else self.after(node.sid, back.cls):
                    yield (back,), (), new, 0
                if back.optional:
                    yield (back,), (), node.sid, 0
            if count == 1 and self._sums.bounded and self._tight(state, offer):
                yield from self._singles(node, back)
            if count > (offer.spare()[0] if count else 1):
                return

    def _singles(self, node: Node, back: Entry) -> Iterator[Move]:
        chosen, infos = self.open_entries(node)
        for entry in chosen:
            if entry is not back:
                for new in self.after(node.sid, entry.cls):
                    yield (entry,), (), new, INFO_PRICE
        for entry in infos:
            for new in self.after(node.sid, entry.cls):
                if new != node.sid:
                    yield (), (entry,), new, INFO_PRICE + 1

    def _tight(self, state: Vector, offer: "_Offer") -> bool:
        """Tell whether open changes, ``info`` ones too, could lead to what is not allowed."""
        offer.spare()  # puts the info ones into the groups
        low = state
        for group in offer.groups:
            times = len(group.entries)
            low = _plus(low, tuple([min(0, part) * times for part in group.change]))
        return not self._sums.fits(low)

    def _ordered(self, state: Vector, entries: Sequence[Entry]) -> bool:
        """Tell whether some order of ``entries`` keeps every state on the way allowed."""
        if not self._sums.bounded:
            return True
        changes = [self.changes[entry.cls] for entry in entries]
        todo = [((1 << len(changes)) - 1, state)]
        seen = set()
        while todo:
            left, here = todo.pop()
            if not left:
                return True
            for place, change in enumerate(changes):
                if left >> place & 1:
                    rest = left ^ (1 << place)
                    after = _plus(here, change)
                    if rest not in seen and self._sums.fits(after):
                        seen.add(rest)
                        todo.append((rest, after))
        return False

    def choice_looked(self) -> bool:
        """Count a choice; tell whether a limit is reached."""
        self._nodes += 1
        return self._nodes % _NODES == 0 and self.spent()


class _Group:
    """Interchangeable open changes, in the order in which they are to be used."""

    __slots__ = ("certain", "change", "entries")

    def __init__(self, change: Vector) -> None:
        self.change = change
        self.entries: list[Entry] = []
        self.certain = 0


class _Offer:
    """The changes that are open at a configuration, and what sets of them add up to.

    Those that are ``info`` are many and seldom needed, so they are looked at only when asked for.
    """

    def __init__(self, search: SumSearch, node: Node) -> None:
        self._search = search
        self._node = node
        self._by_kind: dict[tuple[int, bool], _Group] = {}
        for entry in search.plan.movers[node.at]:
            if not node.mask & entry.bit:
                self._add(entry, entry.optional).certain += 1
        self.groups = list(self._by_kind.values())
        self._certain = len(self.groups)
        self._ranges = _Ranges(self.groups, len(search.states[0]))  # type: ignore[arg-type]
        self._spare: list[int] | None = None
        self._sets: dict[Vector, list[tuple[int, ...]]] | None = None

    def _add(self, entry: Entry, optional: bool) -> _Group:
        key = (entry.cls, optional)
        if key not in self._by_kind:
            self._by_kind[key] = _Group(self._search.changes[entry.cls])
        group = self._by_kind[key]
        group.entries.append(entry)
        return group

    def spare(self) -> list[int]:
        """Return for each group on how many ``info`` operations the groups from there hold."""
        if self._spare is None:
            now = self._search.plan.returns[self._node.at].op.end or 0
            used = self._node.used
            for entries in self._search.plan.info_classes:
                for entry in entries:
                    if entry.op.start > now:
                        break
                    if not used & entry.bit:
                        self._add(entry, False)
            self.groups = list(self._by_kind.values())
            self._spare = [0]
            for group in reversed(self.groups):
                self._spare.append(self._spare[-1] + len(group.entries) - group.certain)
            self._spare.reverse()
        return self._spare

    def forget(self) -> None:
        """Let go of what is large and can be worked out again."""
        self._sets = None

    def ways(
        self, rest: Vector, unsure: int
    ) -> Iterator[tuple[tuple[Entry, ...], tuple[Entry, ...]]]:
        """Return the sets that add up to ``rest`` with ``unsure`` operations that are ``info``."""
        if unsure > (self.spare()[0] if unsure else 0):
            return
        choices = self._with_unsure(0, rest, unsure, ()) if unsure else self._choose(0, rest)
        for counts in choices:
            placed: list[Entry] = []
            infos: list[Entry] = []
            for group, taken in zip(self.groups, counts, strict=True):
                placed += group.entries[: min(taken, group.certain)]
                infos += group.entries[group.certain : taken]
            yield tuple(placed), tuple(infos)

    def _choose(self, place: int, rest: Vector) -> Iterator[tuple[int, ...]]:
        """Choose how many of each group, ``info`` ones left out."""
        if self._search.choice_looked() or not self._ranges.reach(place, rest):
            return
        if place == self._certain:
            yield (0,) * (len(self.groups) - place)
            return
        group = self.groups[place]
        for taken in range(group.certain, -1, -1):
            left = tuple([a - b * taken for a, b in zip(rest, group.change, strict=True)])
            for others in self._choose(place + 1, left):
                yield (taken, *others)
            if self._search.limit:
                return

    def _with_unsure(
        self, place: int, rest: Vector, unsure: int, extra: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[int, ...]]:
        """Choose ``info`` operations from each place on, and look the rest up."""
        if self._search.choice_looked():
            return
        if not unsure:
            for counts in self._certain_sets(rest):
                if all(counts[at] == self.groups[at].certain for at, _ in extra):
                    added = dict(extra)
                    yield tuple([n + added.get(at, 0) for at, n in enumerate(counts)])
            return
        for at in range(place, len(self.groups)):
            if self.spare()[at] < unsure:
                return
            group = self.groups[at]
            left = rest
            for taken in range(1, min(unsure, len(group.entries) - group.certain) + 1):
                left = _minus(left, group.change)
                yield from self._with_unsure(at + 1, left, unsure - taken, (*extra, (at, taken)))
                if self._search.limit:
                    return

    def _certain_sets(self, rest: Vector) -> Iterable[tuple[int, ...]]:
        """Return the sets without ``info`` operations that add up to ``rest``."""
        certain = self.groups[: self._certain]
        if self._sets is None and prod(group.certain + 1 for group in certain) > _TABLE_MAX:
            return self._choose(0, rest)
        if self._sets is None:
            sets: dict[Vector, list[tuple[int, ...]]] = {_minus(rest, rest): [()]}
            for group in certain:
                longer: dict[Vector, list[tuple[int, ...]]] = {}
                for total, choices in sets.items():
                    here = total
                    for taken in range(group.certain + 1):
                        if taken:
                            here = _plus(here, group.change)
                        known = longer.setdefault(here, [])
                        known += [(*choice, taken) for choice in choices]
                sets = longer
            none = (0,) * (len(self.groups) - self._certain)
            self._sets = {total: [c + none for c in chosen] for total, chosen in sets.items()}
        return self._sets.get(rest, ())


class _Ranges:
    """For each group on: the least and most that the groups from there can add."""

    def __init__(self, groups: list[_Group], width: int) -> None:
        low = high = (0,) * width
        self._spans = [(low, high)]
        for group in reversed(groups):
            times = group.certain
            low = tuple(
                [a + b * times if b < 0 else a for a, b in zip(low, group.change, strict=True)]
            )
            high = tuple(
                [a + b * times if b > 0 else a for a, b in zip(high, group.change, strict=True)]
            )
            self._spans.append((low, high))
        self._spans.reverse()

    def reach(self, place: int, rest: Vector) -> bool:
        """Tell whether ``rest`` lies within what the groups from ``place`` on can add."""
        low, high = self._spans[place]
        for least, part, most in zip(low, rest, high, strict=True):
            if part < least or part > most:
                return False
        return True
