"""A second judge, from the definition alone: try every order of every choice of uncertain ones.

Slow, and so simple that it can be read against the definition. It shares no code with
outlast.check: values are compared as JSON text, so that 1, 1.0 and true differ.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

Op = dict[str, Any]
NO = object()


def text(value: Any) -> str:
    """Return a value as the one JSON text that stands for it."""
    return json.dumps(value, sort_keys=True)


def number(value: Any) -> str:
    """Return a number, or one with a fraction, as the one text that stands for it."""
    return str(Fraction(str(value)))


def pair_up(lines: Sequence[str]) -> tuple[dict[str, Any], list[Op]]:
    """Pair the events of a well-formed history; who is no integer is no client."""
    header: dict[str, Any] = {}
    operations: list[Op] = []
    open_by_process: dict[int, Op] = {}
    for at, line in enumerate(lines):
        event = json.loads(line)
        if "process" not in event:
            header = event
            continue
        process = event["process"]
        if not isinstance(process, int) or isinstance(process, bool):
            continue
        if event["type"] == "invoke":
            op = {**event, "start": at, "end": None, "out": None, "result": None}
            open_by_process[process] = op
            operations.append(op)
            continue
        op = open_by_process.pop(process)
        if event["type"] == "fail":
            operations.remove(op)
        elif event["type"] == "ok":
            op.update(end=at, out=event.get("value"), result=event.get("result"))
    return header, operations


def first_state(model: str, header: dict[str, Any]) -> Any:
    """Return what is there before the first operation: nothing, but in a bank."""
    if model == "bank":
        accounts = {name: number(balance) for name, balance in header["accounts"].items()}
        return {"balances": accounts, "done": {}}
    return {}


def register(here: Any, op: Op) -> Any:
    """One value under a key, where a missing one is null; text can be appended to."""
    f, value, known = op["f"], op.get("value"), op["end"] is not None
    if f in {"read", "get"}:
        return here if not known or text(here) == text(op["out"]) else NO
    if f in {"write", "put"}:
        return value
    if f == "delete":
        return None
    if f == "append":
        if here is not None and not isinstance(here, str):
            return NO
        new = (here or "") + value
        return NO if isinstance(op["result"], str) and op["result"] != new else new
    equal = text(here) == text(value[0])
    if known and op["result"] is False:
        return NO if equal else here
    return value[1] if equal else NO


def counter(here: Any, op: Op) -> Any:
    """A sum, kept as text."""
    if op["f"] == "add":
        return number(Fraction(here or 0) + Fraction(str(op["value"])))
    fits = op["end"] is None or number(op["out"] or 0) == number(here or 0)
    return here if fits else NO


def grown_set(here: Any, op: Op) -> Any:
    """Values, each once, in any order."""
    here = here or []
    if op["f"] == "add":
        new = text(op["value"])
        return here if new in here else [*here, new]
    return here if op["end"] is None or sorted(here) == sorted(map(text, op["out"] or [])) else NO


def queue(here: Any, op: Op) -> Any:
    """Values, first in first out."""
    here = here or []
    if op["f"] == "enqueue":
        return [*here, text(op["value"])]
    if op["end"] is None:
        return here[1:]
    if op["out"] is None:
        return NO if here else here
    return here[1:] if here and here[0] == text(op["out"]) else NO


def transaction(state: Any, op: Op) -> Any:
    """Lists by key; the parts of a transaction one after the other, with nothing between."""
    lists = dict(state)
    known = op["end"] is not None
    for kind, key, what in op["out"] if known else op["value"]:
        here = lists.get(text(key), [])
        if kind == "append":
            lists[text(key)] = [*here, text(what)]
        elif known and here != list(map(text, what or [])):
            return NO
    return lists


def bank(state: Any, op: Op) -> Any:
    """Balances, none below zero; what has an id happens once, and an id names one transfer."""
    balances, done = dict(state["balances"]), dict(state["done"])
    if op["f"] == "read":
        if op["end"] is None:
            return state
        shown = {
            name: text(balance) if balance is None else number(balance)
            for name, balance in op["out"].items()
        }
        return state if shown == balances else NO
    value = op["value"]
    if op["result"] is False:
        return state
    ident = text(value.get("id"))
    if ident in done:
        return state if done[ident] == text(value) else NO
    source, sink, amount = str(value["from"]), str(value["to"]), Fraction(str(value["amount"]))
    if source not in balances or sink not in balances:
        return NO
    balances[source] = number(Fraction(balances[source]) - amount)
    balances[sink] = number(Fraction(balances[sink]) + amount)
    if ident != "null":
        done[ident] = text(value)
    if min(map(Fraction, balances.values())) < 0:
        return NO
    return {"balances": balances, "done": done}


BY_KEY: dict[str, Callable[[Any, Op], Any]] = {
    "register": register,
    "kv": register,
    "set": grown_set,
    "counter": counter,
    "queue": queue,
}


def apply(model: str, state: Any, op: Op) -> Any:
    """The state after ``op``, or NO when its answer is impossible there; changes nothing."""
    if model == "bank":
        return bank(state, op)
    if model == "append":
        return transaction(state, op)
    key = text(op.get("key"))
    here = BY_KEY[model](state.get(key), op)
    return NO if here is NO else {**state, key: here}


def has_order(model: str, lines: Sequence[str]) -> bool:
    """Whether some order of the operations, in line with time, explains every answer."""
    header, operations = pair_up(lines)
    dead: set[tuple[tuple[int, ...], str]] = set()

    def go(left: tuple[int, ...], state: Any) -> bool:
        ends = [operations[n]["end"] for n in left if operations[n]["end"] is not None]
        if not ends:
            return True
        if (left, text(state)) in dead:
            return False
        for n in left:
            if operations[n]["start"] < min(ends):
                after = apply(model, state, operations[n])
                if after is not NO and go(tuple(m for m in left if m != n), after):
                    return True
        dead.add((left, text(state)))
        return False

    return go(tuple(range(len(operations))), first_state(model, header))


def lines_of(operations: Iterable[Any], header: dict[str, Any]) -> list[str]:
    """Return the lines in which ``operations`` of a judge's report would have been recorded."""
    events: list[tuple[int, dict[str, Any]]] = []
    for op in operations:
        asked = {"process": op.index, "f": op.f, "key": op.key}
        events.append((op.start, {**asked, "type": "invoke", "value": op.value}))
        if op.end is not None:
            told = {**asked, "type": "ok", "value": op.output, "result": op.result}
            events.append((op.end, told))
    events.sort(key=lambda event: event[0])
    return [text(line) for line in ([header] if header else []) + [line for _, line in events]]


# --- small histories, drawn from choices below a bound ------------------------------------------

Below = Callable[[int], int]
MODELS = ("register", "kv", "set", "counter", "queue", "append", "bank")
MIXED = (1, 1.0, True, "1", None, [1], {"a": 1, "b": [None]})


class Story:
    """Draws the events of few clients; most answers are true, some are old and some made up.

    In some stories the object itself is broken: a queue is a stack, others show old states.

    Args:
        model: What they use.
        below: Draws a whole number from 0 up to, not including, its argument.
        operations: How many operations are invoked at most.
    """

    def __init__(self, model: str, below: Below, operations: int) -> None:
        self.model = model
        self.below = below
        self.left = operations
        self.distinct = below(2) == 0
        self.mixed = below(6) == 5
        self.hurry = 1 + below(3)
        self.broken = below(5) == 4
        self.unsure = below(4) == 3
        self.keys = [[None], [None], ["x", "y"], [1, "1"]][below(4)]
        self.made = 0
        self.asked: list[Any] = []
        self.told: list[Any] = []
        self.lines: list[str] = []
        header: dict[str, Any] = {}
        if model == "bank":
            accounts = {name: below(4) for name in ("a", "b", "c")[: 2 + below(2)]}
            header = {"model": "bank", "accounts": accounts}
            self.lines.append(json.dumps(header))
            self.names = list(accounts)
        self.state = first_state(model, header)
        self.past = [self.state]

    def pick(self, choices: Sequence[Any]) -> Any:
        """Draw one of them."""
        return choices[self.below(len(choices))]

    def value(self) -> Any:
        """Draw a value to write."""
        if self.mixed:
            return self.pick(MIXED)
        self.made += 1
        return self.made if self.distinct else self.pick((1, 2, 3))

    def question(self) -> Op:
        """Draw what a client asks."""
        asked = getattr(self, f"ask_{self.model}")()
        op = {"f": asked[0], "value": asked[1]}
        if self.model not in {"append", "bank"}:
            key = self.pick(self.keys)
            if key is not None:
                op["key"] = key
        return op

    def ask_register(self) -> tuple[str, Any]:
        f = self.pick(("read", "read", "write", "write", "cas"))
        if f == "cas":
            return f, [self.pick((1, 2, None)), self.value()]
        return f, None if f == "read" else self.value()

    def ask_kv(self) -> tuple[str, Any]:
        f = self.pick(("get", "get", "get", "put", "append", "append", "delete", "cas"))
        if f == "cas":
            return f, [self.pick(("a", "ab", None)), self.pick("abc")]
        if f == "append" and self.distinct:
            return f, f"{self.value()}."
        if f == "put" and self.mixed:
            return f, self.value()
        return f, self.pick("abc") if f in {"put", "append"} else None

    def ask_set(self) -> tuple[str, Any]:
        return ("add", self.value()) if self.below(2) else ("read", None)

    def ask_counter(self) -> tuple[str, Any]:
        return ("add", self.pick((1, 2, -1, 3, 0, 0.5))) if self.below(2) else ("read", None)

    def ask_queue(self) -> tuple[str, Any]:
        return ("enqueue", self.value()) if self.below(2) else ("dequeue", None)

    def ask_append(self) -> tuple[str, Any]:
        parts = []
        for _ in range(1 + self.below(3)):
            key = self.pick(self.keys) or "z"
            parts.append(["append", key, self.value()] if self.below(2) else ["r", key, None])
        return "txn", parts

    def ask_bank(self) -> tuple[str, Any]:
        if not self.below(2):
            return "read", None
        if self.asked and not self.below(3):
            again = self.pick(self.asked)
            return "transfer", again if self.below(6) else {**again, "amount": 1}
        self.made += 1
        ident = None if not self.distinct else self.made
        names = [self.pick(self.names), self.pick(self.names)]
        value = {"from": names[0], "to": names[1], "amount": 1 + self.below(3), "id": ident}
        self.asked.append(value)
        return "transfer", value

    def answer(self, op: Op) -> Any:
        """Carry out ``op`` on the true object and return the value of its ``ok``."""
        before = self.state
        key = text(op.get("key"))
        if self.broken and op["f"] == "dequeue":  # last in, first out
            self.state = {**before, key: before.get(key, [])[:-1]}
            return json.loads(before[key][-1]) if before.get(key) else None
        after = apply(self.model, before, {**op, "end": None, "result": None})
        self.state = before if after is NO else after
        self.past.append(self.state)
        if self.broken and self.below(2):  # an old state is shown
            before = self.pick(self.past)
        here = before.get(key)
        if op["f"] in {"read", "get", "dequeue"}:
            return self._seen(before, here)
        if op["f"] == "cas":
            return (op["value"], False) if after is NO else op["value"]
        if op["f"] == "txn":
            return self._parts(before, op["value"])
        return op["value"]

    def _seen(self, before: Any, here: Any) -> Any:
        if self.model == "bank":
            return {name: int(balance) for name, balance in before["balances"].items()}
        if self.model == "counter":
            total = Fraction(here or 0)
            return int(total) if total.denominator == 1 else float(total)
        if self.model == "queue":
            return json.loads(here[0]) if here else None
        return [json.loads(value) for value in here or []] if self.model == "set" else here

    def _parts(self, before: Any, asked: list[Any]) -> list[Any]:
        parts, lists = [], dict(before)
        for kind, key, what in asked:
            here = lists.get(text(key), [])
            if kind == "append":
                lists[text(key)] = [*here, text(what)]
                parts.append([kind, key, what])
            else:
                parts.append([kind, key, [json.loads(value) for value in here] or None])
        return parts

    def untrue(self, op: Op, answer: Any) -> Any:
        """Return another answer of the same kind."""
        f = op["f"]
        if f == "txn":
            return [
                [kind, key, self._other_list(shown or []) if kind == "r" else shown]
                for kind, key, shown in answer
            ]
        if f not in {"read", "get", "dequeue"}:
            return answer
        if self.told and self.below(2):
            return self.pick(self.told)
        if self.model == "bank":
            one, other = self.pick(self.names), self.pick(self.names)
            changed = {**answer, one: answer[one] - 1}
            changed[other] += self.pick((1, 1, 1, 2))
            return changed
        if self.model == "counter":
            return answer + self.pick((1, -1, 2))
        if self.model == "set":
            return self._other_list(answer)
        if self.model == "kv":
            return self.pick(MIXED if self.mixed else ("a", "ab", "ba", "", None))
        return self.pick(MIXED if self.mixed else (1, 2, 3, None))

    def _other_list(self, values: Sequence[Any]) -> list[Any] | None:
        way = self.below(5)
        if way == 0:
            return list(values[:-1])
        if way == 1:
            return [*values, self.pick((1, 2, 3))]
        if way == 2:
            return None
        return list(values[::-1]) if way == 3 else list(values[1:])

    def write(self, process: int | str, kind: str, fields: dict[str, Any]) -> None:
        """Write an event, with a time that means nothing."""
        self.lines.append(
            json.dumps({"process": process, "type": kind, "time": self.below(4), **fields})
        )

    def run(self, processes: int) -> list[str]:
        """Return the lines of the whole history."""
        idle = list(range(processes))
        open_ops: list[tuple[int, Op, Any]] = []
        fresh = processes
        while (self.left and idle) or (open_ops and self.below(8)):
            if not self.below(12):
                self.write("nemesis", "info", {"f": "start", "value": "partition"})
            if self.left and idle and (not open_ops or self.below(1 + self.hurry)):
                process = idle.pop(self.below(len(idle)))
                self.left -= 1
                op = self.question()
                early = self.below(2) == 0
                self.write(process, "invoke", op)
                open_ops.append((process, op, self.answer(op) if early else NO))
                continue
            if not open_ops:
                break
            process, op, answer = open_ops.pop(self.below(len(open_ops)))
            if self.complete(process, op, answer):
                idle.append(process)
            else:
                idle.append(fresh)
                fresh += 1
        return self.lines

    def complete(self, process: int, op: Op, answer: Any) -> bool:
        """Write the end of ``op``; tell whether the process goes on."""
        draw = self.below(10)
        if draw == 9 or (self.unsure and draw > 5):
            self.write(process, "info", {"f": op["f"], "error": "timeout"})
            return False
        if draw == 8:
            self.write(process, "fail", op)
            return True
        if answer is NO:
            answer = self.answer(op)
        fields = dict(op)
        if isinstance(answer, tuple):
            answer, fields["result"] = answer
        if op["f"] == "cas" and not self.below(6):
            fields["result"] = False
        if draw in {5, 6, 7}:
            answer = self.untrue(op, answer)
        fields["value"] = answer
        if op["f"] in {"read", "get", "dequeue"}:
            self.told.append(answer)
        self.write(process, "ok", fields)
        return True


def small_history(model: str, below: Below, operations: int = 6) -> list[str]:
    """Draw a history of few operations as lines; some half of them have an order."""
    lines = Story(model, below, 2 + below(operations - 1)).run(2 + below(4))
    return without_ids(lines) if model == "bank" and open_id(lines) else lines


def open_id(lines: Sequence[str]) -> bool:
    """Whether two different transfers came under one id and neither was acknowledged.

    Only one of them can have been carried out; outlast.check documents that it lets both.
    """
    transfers: dict[str, set[str]] = {}
    told: set[str] = set()
    for op in pair_up(lines)[1]:
        if op["f"] == "transfer" and op["value"].get("id") is not None:
            ident = text(op["value"]["id"])
            transfers.setdefault(ident, set()).add(text(op["value"]))
            if op["end"] is not None:
                told.add(ident)
    return any(len(values) > 1 and ident not in told for ident, values in transfers.items())


def without_ids(lines: Sequence[str]) -> list[str]:
    """Return the same history, where no transfer has an id."""
    events = [json.loads(line) for line in lines]
    for event in events:
        if isinstance(event.get("value"), dict) and "id" in event["value"]:
            event["value"]["id"] = None
    return [json.dumps(event) for event in events]
