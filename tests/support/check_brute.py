"""A second judge, from the definition alone: try every order of every choice of uncertain ones.

Slow, and so simple that it can be read against the definition. It shares no code with
outlast.check: objects are plain Python values, changed in place on a copy.
"""

import copy
import json
from typing import Any

NO = object()


def same(left: Any, right: Any) -> bool:
    """Equal as JSON, where 1, 1.0 and true differ."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def pair_up(lines: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pair the events of a well-formed history."""
    header: dict[str, Any] = {}
    operations: list[dict[str, Any]] = []
    open_by_process: dict[int, dict[str, Any]] = {}
    for at, line in enumerate(lines):
        event = json.loads(line)
        if "process" not in event:
            header = event
            continue
        if event["type"] == "invoke":
            op = {**event, "start": at, "end": None, "out": None, "result": None}
            open_by_process[event["process"]] = op
            operations.append(op)
            continue
        op = open_by_process.pop(event["process"])
        if event["type"] == "fail":
            operations.remove(op)
        elif event["type"] == "ok":
            op.update(end=at, out=event.get("value"), result=event.get("result"))
    return header, operations


def first_state(model: str, header: dict[str, Any]) -> Any:
    if model == "bank":
        return {"balances": dict(header["accounts"]), "done": []}
    return {
        "register": {}, "kv": {}, "append": {}, "set": [], "counter": 0, "queue": []
    }[model]  # fmt: skip


def apply(model: str, state: Any, op: dict[str, Any]) -> Any:
    """The state after ``op``, or NO when its answer is impossible there."""
    state = copy.deepcopy(state)
    known = op["end"] is not None
    f, value, out = op["f"], op.get("value"), op["out"]
    if model in {"register", "kv"}:
        key = json.dumps(op.get("key"))
        here = state.get(key)
        if f in {"read", "get"}:
            return state if not known or same(here, out) else NO
        if f in {"write", "put"}:
            state[key] = value
        elif f == "delete":
            state[key] = None
        elif f == "append":
            if here is not None and not isinstance(here, str):
                return NO
            state[key] = (here or "") + value
            if isinstance(op["result"], str) and op["result"] != state[key]:
                return NO
        else:
            if known and op["result"] is False:
                return NO if same(here, value[0]) else state
            if not same(here, value[0]):
                return NO
            state[key] = value[1]
        return state
    if model == "counter":
        if f == "add":
            return state + value
        return state if not known or state == (out or 0) else NO
    if model == "set":
        if f == "add":
            return [*state, value] if value not in state else state
        return state if not known or sorted(state) == sorted(out or []) else NO
    if model == "queue":
        if f == "enqueue":
            return [*state, value]
        if not known:
            return state[1:]
        if out is None:
            return NO if state else state
        return state[1:] if state and state[0] == out else NO
    if model == "append":
        parts = out if known else value
        for kind, key, what in parts:
            if kind == "append":
                state.setdefault(str(key), []).append(what)
            elif known and state.get(str(key), []) != (what or []):
                return NO
        return state
    balances = state["balances"]
    if f == "read":
        return state if not known or balances == out else NO
    if value["id"] in state["done"]:
        return state
    if value["from"] == value["to"]:
        return state
    balances[value["from"]] -= value["amount"]
    balances[value["to"]] += value["amount"]
    state["done"].append(value["id"])
    return NO if min(balances.values()) < 0 else state


def has_order(model: str, lines: list[str]) -> bool:
    """Whether some order of the operations, in line with time, explains every answer."""
    header, operations = pair_up(lines)

    def go(left: list[dict[str, Any]], state: Any) -> bool:
        if all(op["end"] is None for op in left):
            return True
        soonest = min(op["end"] for op in left if op["end"] is not None)
        for op in left:
            if op["start"] < soonest:
                after = apply(model, state, op)
                if after is not NO and go([o for o in left if o is not op], after):
                    return True
        return False

    return go(operations, first_state(model, header))
