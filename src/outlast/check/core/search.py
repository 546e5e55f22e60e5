"""The Wing-Gong-Lowe search for an order, one return at a time.

Only returns force a decision. At the return of an operation that has not yet been given its
place, some open operations are placed, the returning one last (Lowe's just-in-time
linearization, "Testing for linearizability", 2017). A configuration is the number of the return,
the open operations already placed, the ``info`` operations used and the state. Those looked at
are remembered (Wing and Gong 1993, with Lowe's memoisation), so none is looked at twice.

Four rules cut the search and lose no order:

- a read that fits the state is placed at once: later it could only fit less;
- of interchangeable open operations the one that must return first is placed first, and an
  ``info`` one only when no other is open;
- a configuration need not be looked at when one with the same return, places and state was that
  had used a subset of its ``info`` operations;
- when no chain of open operations, each used any number of times, leads to a state that the
  returning operation fits, none leads there with each used once.

The furthest configuration goes first, less a price for each move that was not the likeliest and
for each ``info`` operation used (limited discrepancy search, Harvey and Ginsberg 1995): one wrong
guess is looked for among the last returns before two are, and before much is taken to have
happened that nobody was told of.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from outlast.check.core.model import Model
from outlast.check.core.operation import Operation
from outlast.check.core.plan import Entry, Plan
from outlast.check.core.values import weight

Over = Callable[[int], str]
"""Given the bytes held, names the limit that was reached, or returns an empty text."""

_CHAIN_MAX = 256  # states looked at for a chain, before the plain order of moves is taken
_TICKS = 256  # configurations between two looks at the limits
_BYTES_PER_CONFIG = 120
_BYTES_PER_NODE = 500
_BYTES_PER_STATE = 300  # beside the state itself

Move = tuple[tuple[Entry, ...], tuple[Entry, ...], int, int]
"""Operations placed, ``info`` operations used, the state after them, and the price.

One that places nothing only says what the moves after it will cost at least."""

INFO_PRICE = 2  # of an ``info`` operation; a move that is not the likeliest costs 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a search ended.

    Attributes:
        verdict: ``valid``, ``invalid`` (all orders tried) or ``unknown``.
        limit: For ``unknown``: the limit that was reached.
        order: The order found, or the longest one that was possible.
        stuck: The operation that the longest order could not place.
        state: The state at the end of ``order``.
        configurations: How many were looked at.
    """

    verdict: Literal["valid", "invalid", "unknown"]
    limit: str
    order: tuple[Operation, ...]
    stuck: Operation | None
    state: Hashable
    configurations: int


class Node:
    """A configuration on a path: where it came from and what was placed on the way.

    Attributes:
        parent: The configuration before, ``None`` for the first.
        placed: Operations placed since, in order.
        at: Number of the return that comes next.
        mask: Bits of the open operations that have their place.
        used: Bits of the ``info`` operations taken to have happened.
        sid: Number of the state.
        price: What the moves so far cost.
    """

    __slots__ = ("at", "mask", "parent", "placed", "price", "sid", "used")

    def __init__(self, parent: "Node | None", at: int, mask: int, sid: int) -> None:
        self.parent = parent
        self.placed: tuple[Operation, ...] = ()
        self.at = at
        self.mask = mask
        self.used: int = 0 if parent is None else parent.used
        self.sid = sid
        self.price: int = 0 if parent is None else parent.price


class _Rest:
    """The moves of a configuration that were not yet made."""

    __slots__ = ("kept", "made", "move", "moves", "price", "tried")

    def __init__(self, price: int) -> None:
        self.price = price
        self.moves: Iterator[Move] | None = None
        self.move: Move | None = None
        self.kept = False
        self.made = 0
        self.tried = 0


class Search:
    """One search over one plan."""

    moves_bytes = 1000
    """About what the moves of one configuration hold while they are kept."""

    def __init__(self, model: Model, plan: Plan, first: Hashable, over: Over) -> None:
        self.model = model
        self.plan = plan
        self.states: list[Hashable] = [first]
        self.ids: dict[Hashable, int] = {first: 0}
        self._next: list[dict[int, tuple[int, ...]]] = [{} for _ in plan.samples]
        self._over = over
        self._seen: dict[int, int | list[int]] = {}
        self._heap: list[tuple[int, int, Node, _Rest]] = []
        self._count = 0
        self._best: Node | None = None
        self._spans = model.spans([entry.op for entry in plan.returns])
        # Returns that a price of 1 must bring the search further: less where many operations are
        # uncertain, or else what those that did happen cost outweighs all progress.
        self.worth = max(1, min(8, len(plan.returns) // (4 * plan.width + 1)))
        self._state_bytes = 0
        self._live = 0  # moves that are kept
        self.looked = 0
        self.limit = ""
        self.hopeless = False

    # --- states ---------------------------------------------------------------------------------

    def intern(self, state: Hashable) -> int:
        """Return the number of ``state``."""
        number = self.ids.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self._state_bytes += weight(state) + _BYTES_PER_STATE
        return number

    def after(self, sid: int, cls: int) -> tuple[int, ...]:
        """Return the states that an operation of class ``cls`` leads to from state ``sid``."""
        table = self._next[cls]
        found = table.get(sid)
        if found is None:
            states = self.model.step(self.states[sid], self.plan.samples[cls])
            found = table[sid] = tuple(map(self.intern, states))
        return found

    # --- the search ---------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Search until an order is found, none is left or a limit is reached."""
        node: Node | None = self._advance(Node(None, 0, 0, 0), [])
        while node is not None or self._heap:
            if node is None:
                _, _, node, rest = heappop(self._heap)
            else:
                rest = _Rest(node.price)
            if self._best is None or node.at > self._best.at:
                self._best = node
                if node.at == len(self.plan.returns):
                    return self._outcome("valid")
            node = self._look(node, rest)
            if self.limit:
                return self._outcome("unknown")
        return self._outcome("invalid")

    def _look(self, node: Node, rest: "_Rest") -> Node | None:
        """Make one move from ``node``, put the rest back, and return where it leads."""
        self.looked += 1
        if self.looked % _TICKS == 0 and self.spent():
            return None
        if rest.moves is None:
            rest.moves = self.moves(node)
            for _ in range(rest.made):
                next(rest.moves, None)
        move = rest.move or next(rest.moves, None)
        if move is None:
            self._keep(rest, False)
            return None
        price = node.price + move[3] + rest.tried
        if price > rest.price:
            rest.price, rest.move = price, move
            self._keep(rest, True)
            self._put_back(node, rest)
            return None
        rest.made += 1
        rest.move = None
        if move[0] or move[1]:
            rest.tried = 1
        # The first is dropped: it is large, and most nodes are never come back to.
        self._keep(rest, rest.made > 1)
        rest.price = max(rest.price, node.price + rest.tried)
        self._put_back(node, rest)
        return self._child(node, move, price) if move[0] or move[1] else None

    def _keep(self, rest: _Rest, keep: bool) -> None:
        """Keep the moves that are left, or let go of them."""
        self._live += keep - rest.kept
        rest.kept = keep
        if not keep:
            rest.moves = None

    def _put_back(self, node: Node, rest: "_Rest") -> None:
        self._count -= 1
        heappush(self._heap, (rest.price * self.worth - node.at, self._count, node, rest))

    def _child(self, node: Node, move: Move, price: int) -> Node | None:
        """Return the configuration after ``move``, or ``None`` when it is known."""
        placed, infos, sid, _ = move
        child = Node(node, node.at, node.mask, sid)
        for entry in placed:
            child.mask |= entry.bit
        for entry in infos:
            child.used |= entry.bit
        child.price = price
        self._advance(child, [entry.op for entry in (*placed, *infos)])
        return None if self._known(child) else child

    def _advance(self, node: Node, placed: list[Operation]) -> Node:
        """Place the reads that fit, and pass the returns that have their place."""
        returns, seers, after = self.plan.returns, self.plan.seers, self.after
        at, mask, sid = node.at, node.mask, node.sid
        while at < len(returns):
            for entry in seers[at]:
                if not mask & entry.bit and after(sid, entry.cls):
                    mask |= entry.bit
                    placed.append(entry.op)
            bit = returns[at].bit
            if not mask & bit:
                break
            mask ^= bit
            at += 1
        node.at, node.mask, node.placed = at, mask, tuple(placed)
        return node

    def _known(self, node: Node) -> bool:
        """Remember a configuration; tell whether it or a better one was remembered before."""
        used = node.used
        key = ((node.sid * (len(self.plan.returns) + 1) + node.at) << self.plan.slots) | node.mask
        before = self._seen.get(key)
        if before is None:
            self._seen[key] = used
            return False
        if isinstance(before, int):
            if not before & ~used:
                return True
            self._seen[key] = used if not used & ~before else [before, used]
            return False
        if any(not other & ~used for other in before):
            return True
        before[:] = [other for other in before if used & ~other]
        before.append(used)
        return False

    def spent(self) -> bool:
        """Tell whether a limit is reached."""
        held = len(self._seen) * (_BYTES_PER_CONFIG + self.plan.width // 8)
        held += len(self._heap) * _BYTES_PER_NODE + self._state_bytes
        held += self._live * self.moves_bytes
        self.limit = self._over(held)
        return bool(self.limit)

    def _outcome(self, verdict: Literal["valid", "invalid", "unknown"]) -> Outcome:
        order: list[Operation] = []
        node = self._best
        while node is not None:
            order += reversed(node.placed)
            node = node.parent
        at, sid = (0, 0) if self._best is None else (self._best.at, self._best.sid)
        stuck = None if verdict == "valid" else self.plan.returns[at].op
        return Outcome(
            verdict, self.limit, tuple(reversed(order)), stuck, self.states[sid], self.looked
        )

    # --- moves ---------------------------------------------------------------------------------

    def open_entries(self, node: Node) -> tuple[list[Entry], list[Entry]]:
        """Return the open changes that are worth trying: required or optional, then ``info``."""
        at, mask, used = node.at, node.mask, node.used
        chosen: list[Entry] = []
        taken: set[tuple[int, bool]] = set()
        for entry in self.plan.movers[at]:
            kind = (entry.cls, entry.optional)
            if not mask & entry.bit and kind not in taken:
                taken.add(kind)
                chosen.append(entry)
        infos: list[Entry] = []
        now = self.plan.returns[at].op.end or 0
        for entries in self.plan.info_classes:
            first = entries[0]
            if (first.cls, False) in taken or (first.cls, True) in taken or first.op.start > now:
                continue
            for entry in entries:
                if not used & entry.bit:
                    if entry.op.start < now:
                        infos.append(entry)
                    break
        return chosen, infos

    def moves(self, node: Node) -> Iterator[Move]:
        """Return the moves at a configuration, by price, the likely ones first."""
        back = self.plan.returns[node.at]
        sid = node.sid
        fits = self.after(sid, back.cls)
        chosen, infos = self.open_entries(node)
        for entry in self._sooner(back, chosen):
            for new in self.after(sid, entry.cls):
                yield (entry,), (), new, 0
        for new in fits:
            yield (back,), (), new, 0
        if back in chosen:
            chosen.remove(back)
        price = 0
        if not fits:
            chain = self._chain(sid, back, chosen)
            if chain is None and self.hopeless:
                price = INFO_PRICE
                chain = self._chain(sid, back, [*chosen, *infos])
                if chain is None and self.hopeless:
                    if back.optional:
                        yield (back,), (), sid, 0
                    return
            if chain is not None:
                entry, new = chain
                yield ((entry,), (), new, price) if entry in chosen else ((), (entry,), new, price)
        for entry in chosen:
            for new in self.after(sid, entry.cls):
                yield (entry,), (), new, price
        if back.optional:
            yield (back,), (), sid, price
        for entry in infos:
            for new in self.after(sid, entry.cls):
                if new != sid:
                    yield (), (entry,), new, INFO_PRICE

    def _sooner(self, back: Entry, chosen: list[Entry]) -> list[Entry]:
        """Return the open change that the hints of the model put first, if any."""
        begin, spans = self._spans.get(back.op.index, (0, 0))[0], self._spans
        if not begin:
            return []
        sooner = [
            entry
            for entry in chosen
            if entry.op.index in spans and spans[entry.op.index][1] < begin
        ]
        return sorted(sooner, key=lambda entry: spans[entry.op.index][1])[:1]

    def _chain(self, sid: int, back: Entry, movers: list[Entry]) -> tuple[Entry, int] | None:
        """Return the first step of a shortest chain of ``movers`` to a state that ``back`` fits.

        Sets ``hopeless`` when there is none, with every operation used any number of times.
        """
        self.hopeless = False
        operations = [entry.op for entry in movers]
        onward, states = self.model.onward, self.states
        if not self.model.possible(states[sid], back.op, operations):
            self.hopeless = True
            return None
        first: dict[int, tuple[Entry, int] | None] = {sid: None}
        queue = deque([sid])
        while queue:
            here = queue.popleft()
            for entry in movers:
                for new in self.after(here, entry.cls):
                    if new in first:
                        continue
                    first[new] = step = first[here] or (entry, new)
                    if self.after(new, back.cls):
                        return step
                    if onward(states[new], back.op, operations):
                        queue.append(new)
            if len(first) > _CHAIN_MAX:
                return None
        self.hopeless = True
        return None
