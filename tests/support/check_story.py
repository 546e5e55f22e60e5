"""A short way to write a history: a story is a row of steps, each an operation or an end.

A step is ``PROCESS FUNCTION[@KEY] [VALUE] [-> ANSWER] [= RESULT] [HOW]``. Without HOW it is an
invocation and its ``ok``; ``info`` and ``fail`` end it so, and ``...`` leaves it open until
``PROCESS ok``, ``info`` or ``fail``. Without ANSWER the ``ok`` repeats the value. A transfer is
written ``from>to:amount#id``, the parts of a transaction ``+key:value`` (append) and ``key=list``
(read). A process that is no number is a nemesis.
"""

import json
import re
from typing import Any

STEP = re.compile(
    r"(?P<process>\S+) (?P<f>\w+)(@(?P<key>\S+))?(?P<value> (?!\.\.\.$|info$|fail$|-> |= ).*?)?"
    r"( -> (?P<answer>.*?))?( = (?P<result>.*?))?( (?P<how>\.\.\.|info|fail))?"
)
ACCOUNTS = {"a": 10, "b": 10}


def value_of(text: str) -> Any:
    """Return JSON, or the text itself when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def transfer_of(text: str) -> Any:
    """Return ``a>b:5#1`` as a transfer."""
    found = re.fullmatch(r"(\w+)>(\w+):([-.\d]+)(?:#(.+))?", text)
    if found is None:
        return json.loads(text)
    source, sink, amount, ident = found.groups()
    value = {"from": source, "to": sink, "amount": json.loads(amount)}
    return value if ident is None else {**value, "id": json.loads(ident)}


def parts_of(text: str) -> tuple[list[Any], list[Any]]:
    """Return what a transaction asks and what it is told."""
    told: list[Any] = []
    for part in text.split():
        if part.startswith("+"):
            key, value = part[1:].split(":")
            told.append(["append", value_of(key), value_of(value)])
        else:
            key, value = part.split("=")
            told.append(["r", value_of(key), value_of(value)])
    return [[f, key, value if f == "append" else None] for f, key, value in told], told


def story_lines(model: str, story: str) -> list[str]:
    """Return the lines of a story."""
    steps = [step.strip() for step in story.split(";")]
    events: list[dict[str, Any]] = []
    if model == "bank":
        accounts = ACCOUNTS
        if steps[0].startswith("accounts "):
            accounts = json.loads(steps.pop(0).removeprefix("accounts "))
        events.append({"model": "bank", "accounts": accounts})
    begun: dict[str, dict[str, Any]] = {}
    for step in steps:
        found = STEP.fullmatch(step)
        assert found is not None, step
        process, f, how = found["process"], found["f"], found["how"]
        if not process.isdigit():
            events.append({"process": process, "type": "info", "f": f})
            continue
        if f in {"ok", "info", "fail"}:
            events.append({**begun.pop(process), "type": f})
            continue
        asked, told = question(found)
        event = {"process": int(process), "f": f}
        if found["key"] is not None:
            event["key"] = value_of(found["key"])
        events.append({**event, "type": "invoke", "value": asked})
        begun[process] = {**event, "value": told}
        if found["result"] is not None:
            begun[process]["result"] = json.loads(found["result"])
        if how != "...":
            events.append({**begun.pop(process), "type": how or "ok"})
    return [json.dumps({**event, "time": 7}) for event in events]


def question(found: re.Match[str]) -> tuple[Any, Any]:
    """Return what a step asks, and what it is told in the end."""
    text = (found["value"] or "").strip()
    if found["f"] == "txn":
        return parts_of(text)
    read = transfer_of if found["f"] == "transfer" else json.loads
    asked = read(text) if text else None
    return asked, asked if found["answer"] is None else json.loads(found["answer"])
