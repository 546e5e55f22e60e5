"""Simulated histories: what clients of a correct object would record, and planted faults.

For tests and benchmarks of judges. An object is a plain Python value; every operation takes effect
at one instant between its invocation and its completion, an ``info`` one at some instant after its
invocation or never. Everything is drawn from the seed.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from outlast.kernel import ConfigError, HistoryEvent, HistoryType, Prng

ACCOUNTS: Mapping[str, int] = {name: 100 for name in "abcdefgh"}
"""Balances at the start of simulated banks."""

NS = 1_000_000
_GONE = object()


def header_of(model: str) -> dict[str, Any]:
    """Return what the first line of a history of ``model`` has to say; empty for most."""
    return {"model": "bank", "accounts": dict(ACCOUNTS)} if model == "bank" else {}


def simulate(
    model: str,
    operations: int,
    *,
    clients: int = 10,
    keys: int = 10,
    seed: int = 0,
    info_share: float = 0.0,
    distinct: bool = True,
) -> list[HistoryEvent]:
    """Return the events of clients that use a correct object at once.

    Args:
        model: ``register``, ``kv``, ``append``, ``set``, ``counter``, ``bank`` or ``queue``.
        operations: How many operations are invoked.
        clients: How many run at once; one whose operation ended as ``info`` goes on under a new
            number.
        keys: How many keys ``register``, ``kv`` and ``append`` spread over.
        seed: Where all that is drawn comes from.
        info_share: Share of operations whose outcome the client does not learn, from 0 to 1.
        distinct: Whether every value is written once only.

    Raises:
        ConfigError: The model is unknown.
    """
    if model not in _OBJECTS:
        raise ConfigError(f"unknown model {model!r}; one of {', '.join(_OBJECTS)} would be right")
    run = _Run(_OBJECTS[model](Prng(seed ^ 0x5EED), keys, distinct), Prng(seed))
    return run.events(operations, clients, round(info_share * 1_000_000))


class _Run:
    """Clients, each with at most one operation open, and a heap of what happens next."""

    def __init__(self, target: "_Object", prng: Prng) -> None:
        self._target = target
        self._prng = prng
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        self._events: list[HistoryEvent] = []
        self._left = 0

    def events(self, operations: int, clients: int, info_millionths: int) -> list[HistoryEvent]:
        self._left = operations
        self._info = info_millionths
        self._processes = clients
        for process in range(clients):
            self._at(self._prng.below(NS), partial(self._invoke, process=process))
        while self._heap:
            now, _, act = heapq.heappop(self._heap)
            act(now)
        return self._events

    def _at(self, when: int, act: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, act))

    def _invoke(self, now: int, process: int) -> None:
        if not self._left:
            return
        self._left -= 1
        f, key, value = self._target.draw()
        self._note(now, process, "invoke", (f, key, value))
        answer: list[Any] = [_GONE]

        def happen(_: int) -> None:
            answer[0] = self._target.apply(f, key, value)

        def complete(then: int) -> None:
            kind: HistoryType = "ok" if answer[0] is not _REFUSED else "fail"
            self._note(then, process, kind, (f, key, value if kind == "fail" else answer[0]))
            self._at(then + 1 + self._prng.below(NS // 2), lambda at: self._invoke(at, process))

        if self._prng.chance(self._info, 1_000_000):
            if self._prng.chance(1, 2):
                self._at(now + 1 + self._prng.below(20 * NS), happen)
            self._at(now + NS * 5, lambda at: self._lose(at, process, (f, key, value)))
            return
        wait = 1 + self._prng.below(NS)
        self._at(now + wait, happen)
        self._at(now + wait + 1 + self._prng.below(NS), complete)

    def _lose(self, now: int, process: int, what: tuple[str, Any, Any]) -> None:
        self._note(now, process, "info", what)
        fresh = self._processes
        self._processes += 1
        self._invoke(now + 1, fresh)

    def _note(self, now: int, process: int, kind: HistoryType, what: tuple[str, Any, Any]) -> None:
        f, key, value = what
        result = None
        if f == "cas" and kind == "ok":
            result = None if value[2] else False
            value = value[:2]
        self._events.append(HistoryEvent(process, kind, f, value, key, now, result))


_REFUSED = object()


@dataclass
class _Object:
    """An object that draws operations and carries them out."""

    prng: Prng
    keys: int
    distinct: bool

    def __post_init__(self) -> None:
        self.state: Any = {}
        self.made = 0
        self.start()

    def start(self) -> None:
        """Set the first state."""

    def value(self) -> int:
        """Return a value to write."""
        self.made += 1
        return self.made if self.distinct else self.prng.below(5)

    def key(self) -> str:
        """Return one of the keys."""
        return f"k{self.prng.below(self.keys)}"

    def pick(self, weights: Sequence[tuple[str, int]]) -> str:
        """Return a name, drawn by weight out of 100."""
        draw = self.prng.below(100)
        for name, weight in weights:
            draw -= weight
            if draw < 0:
                return name
        return weights[-1][0]

    def draw(self) -> tuple[str, Any, Any]:
        """Return the function, key and value of another operation."""
        raise NotImplementedError

    def apply(self, f: str, key: Any, value: Any) -> Any:
        """Carry it out and return the value of its completion, or ``_REFUSED``."""
        raise NotImplementedError


class _Register(_Object):
    weights: Sequence[tuple[str, int]] = (("read", 50), ("write", 35), ("cas", 15))

    def draw(self) -> tuple[str, Any, Any]:
        f, key = self.pick(self.weights), self.key()
        if f == "cas" and self.distinct:
            f = "write"
        if f == "cas":
            return f, key, [self.value(), self.value()]
        return f, key, self.value() if f == "write" else None

    def apply(self, f: str, key: Any, value: Any) -> Any:
        here = self.state.get(key)
        if f == "read":
            return here
        if f == "write":
            self.state[key] = value
            return value
        if here == value[0]:
            self.state[key] = value[1]
            return [*value, True]
        return [*value, False] if self.prng.chance(1, 2) else _REFUSED


class _Kv(_Object):
    def draw(self) -> tuple[str, Any, Any]:
        f = self.pick((("get", 50), ("put", 30), ("append", 15), ("delete", 5)))
        text = f"{self.value()}." if f in {"put", "append"} else None
        return f, self.key(), text

    def apply(self, f: str, key: Any, value: Any) -> Any:
        here = self.state.get(key)
        if f == "get":
            return here
        self.state[key] = (here or "") + value if f == "append" else value
        return value


class _Append(_Object):
    def draw(self) -> tuple[str, Any, Any]:
        parts: list[list[Any]] = []
        for _ in range(1 + self.prng.below(4)):
            key = self.key()
            append = self.prng.chance(1, 2)
            parts.append(["append", key, self.value()] if append else ["r", key, None])
        return "txn", None, parts

    def apply(self, f: str, key: Any, value: Any) -> Any:
        done = []
        for kind, name, item in value:
            here = self.state.setdefault(name, [])
            if kind == "append":
                here.append(item)
                done.append([kind, name, item])
            else:
                done.append([kind, name, list(here)])
        return done


class _Set(_Object):
    def start(self) -> None:
        self.state = dict.fromkeys(())

    def draw(self) -> tuple[str, Any, Any]:
        f = self.pick((("add", 95), ("read", 5)))
        return f, None, self.value() if f == "add" else None

    def apply(self, f: str, key: Any, value: Any) -> Any:
        if f == "read":
            return list(self.state)
        self.state[value] = None
        return value


class _Counter(_Object):
    def start(self) -> None:
        self.state = 0

    def draw(self) -> tuple[str, Any, Any]:
        f = self.pick((("add", 60), ("read", 40)))
        return f, None, 1 + self.prng.below(5) if f == "add" else None

    def apply(self, f: str, key: Any, value: Any) -> Any:
        if f == "read":
            return self.state
        self.state += value
        return value


class _Queue(_Object):
    def start(self) -> None:
        self.state = []

    def draw(self) -> tuple[str, Any, Any]:
        f = self.pick((("enqueue", 50), ("dequeue", 50)))
        return f, None, self.value() if f == "enqueue" else None

    def apply(self, f: str, key: Any, value: Any) -> Any:
        if f == "enqueue":
            self.state.append(value)
            return value
        return self.state.pop(0) if self.state else None


class _Bank(_Object):
    def start(self) -> None:
        self.state = dict(ACCOUNTS)

    def draw(self) -> tuple[str, Any, Any]:
        if self.pick((("transfer", 60), ("read", 40))) == "read":
            return "read", None, None
        names = list(ACCOUNTS)
        self.prng.shuffle(names)
        self.made += 1
        amount = 1 + self.prng.below(30)
        value = {"from": names[0], "to": names[1], "amount": amount, "id": self.made}
        return "transfer", None, value

    def apply(self, f: str, key: Any, value: Any) -> Any:
        if f == "read":
            return dict(self.state)
        if self.state[value["from"]] < value["amount"]:
            return _REFUSED
        self.state[value["from"]] -= value["amount"]
        self.state[value["to"]] += value["amount"]
        return value


_OBJECTS: Mapping[str, type[_Object]] = {
    "register": _Register,
    "kv": _Kv,
    "append": _Append,
    "set": _Set,
    "counter": _Counter,
    "bank": _Bank,
    "queue": _Queue,
}

# --- planted faults --------------------------------------------------------------------------

_READS = frozenset({"read", "get"})


def plant(events: Sequence[HistoryEvent], seed: int = 0) -> list[HistoryEvent]:
    """Return ``events`` with one answer made wrong: a stale read, or two values swapped.

    A read, drawn from the seed, shows what an earlier one showed, although a change was
    acknowledged in between; in a queue two values come out in the wrong order. With distinct
    values (and, for a counter, additions above 0) no order explains that.

    Raises:
        ConfigError: The history is too short to hold such a fault.
    """
    spans = _spans(events)
    places = [n for n, event in enumerate(events) if event.type == "ok"]
    Prng(seed).shuffle(places)
    for place in places:
        wrong = _wrong(events, spans, place)
        if wrong is not None:
            planted = list(events)
            for at, value in wrong.items():
                planted[at] = replace(planted[at], value=value)
            return planted
    raise ConfigError("no fault fits into this history; a longer one would be right")


def _spans(events: Sequence[HistoryEvent]) -> dict[int, int]:
    """Return for the place of each ``ok`` the place of its invocation."""
    spans: dict[int, int] = {}
    begun: dict[int | str, int] = {}
    for place, event in enumerate(events):
        if event.type == "invoke":
            begun[event.process] = place
        elif event.type == "ok":
            spans[place] = begun[event.process]
    return spans


def _wrong(
    events: Sequence[HistoryEvent], spans: Mapping[int, int], place: int
) -> dict[int, Any] | None:
    event = events[place]
    if event.f == "dequeue":
        return _swapped(events, spans, place)
    if event.f == "txn":
        return _stale_txn(events, spans, place)
    if event.f not in _READS or event.value is None:
        return None
    changed = spans[place]  # the latest start of a change that was acknowledged in time
    seen_change = False
    for before in range(spans[place] - 1, -1, -1):
        other = events[before]
        if other.type != "ok" or other.key != event.key:
            continue
        if other.f not in _READS:
            if not seen_change:
                changed, seen_change = spans[before], True
        elif seen_change and before < changed and other.value not in (None, event.value):
            return {place: other.value}
    return None


def _swapped(
    events: Sequence[HistoryEvent], spans: Mapping[int, int], place: int
) -> dict[int, Any] | None:
    """Swap the answer with that of the next ``dequeue``, where the values went in in order."""
    value = events[place].value
    puts = {e.value: n for n, e in enumerate(events) if e.type == "ok" and e.f == "enqueue"}
    for later in range(place + 1, len(events)):
        other = events[later]
        if other.type == "ok" and other.f == "dequeue" and spans[later] > place:
            pair = (puts.get(value), puts.get(other.value))
            if None not in pair and pair[0] < spans[pair[1]]:  # type: ignore[index,operator]
                return {place: other.value, later: value}
            return None
    return None


def _stale_txn(
    events: Sequence[HistoryEvent], spans: Mapping[int, int], place: int
) -> dict[int, Any] | None:
    """Take from a read the last value, which was acknowledged before the read began."""
    for n, (kind, key, shown) in enumerate(events[place].value):
        if kind != "r" or not shown:
            continue
        own = any(part[:2] == ["append", key] for part in events[place].value)
        for before in range(spans[place] - 1, -1, -1):
            other = events[before]
            if own or other.type != "ok" or ["append", key, shown[-1]] not in other.value:
                continue
            parts = [list(part) for part in events[place].value]
            parts[n] = [kind, key, shown[:-1]]
            return {place: parts}
    return None
