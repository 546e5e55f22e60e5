"""Histories: events in Jepsen's vocabulary, read strictly and paired into operations.

One JSON object a line: ``{"process": 3, "type": "invoke", "f": "write", "key": "x", "value": 5,
"time": 12}``, with ``ok``, ``fail`` or ``info`` as the type of the completion. The order of the
file is the order of events; ``time`` (nanoseconds) is shown to people and decides nothing, so that
equal times, or clocks that disagree, change no verdict. A process that is not an integer (a
nemesis) is ignored. A process ends at its ``info``. An operation without completion is ``info``.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Any

from outlast.check.core.operation import Operation
from outlast.check.core.values import show
from outlast.kernel import ConfigError, HistoryEvent

TYPES = ("invoke", "ok", "fail", "info")
_NO_KEY = object()


@dataclass(frozen=True, slots=True)
class History:
    """Operations in order of invocation, with what the first line said about the model.

    Attributes:
        operations: What was ``ok`` or ``info``. What failed had no effect and is only counted.
        header: The first line when it is no event, such as ``{"model": "bank", "accounts": …}``.
        counts: Operations by what their client was told: ``ok``, ``fail``, ``info``.
        name: Where it came from, for messages.
    """

    operations: tuple[Operation, ...]
    header: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    name: str = "history"

    @property
    def invoked(self) -> int:
        """How many operations were invoked, whatever became of them."""
        return sum(self.counts.values())

    def only(self, operations: Iterable[Operation]) -> "History":
        """Return a history of ``operations`` alone, with the same header and name."""
        kept = tuple(operations)
        oks = sum(1 for op in kept if op.kind == "ok")
        counts = {"ok": oks, "fail": 0, "info": len(kept) - oks}
        return History(kept, self.header, counts, self.name)


def parse_lines(lines: Iterable[str | bytes], name: str = "history") -> History:
    """Read a history of JSON lines. Positions of events are line numbers.

    Args:
        lines: The lines, in order; empty ones are skipped.
        name: Name of the file, for messages.

    Raises:
        ConfigError: A line is malformed or its event cannot follow the ones before; the message
            names the file and the line.
    """
    header: Mapping[str, Any] = {}
    pairing = _Pairing(name)
    first = True
    for number, event in _objects(lines, name):
        if first and "process" not in event and "model" in event:
            header = event
        else:
            pairing.take(number, event)
        first = False
    return pairing.history(header)


def history_of(
    events: Iterable[HistoryEvent],
    header: Mapping[str, Any] | None = None,
    name: str = "history",
    positions: Iterable[int] | None = None,
) -> History:
    """Pair the events of a running drill.

    Args:
        events: The events, in order.
        header: What a file would have in its first line, such as the accounts of a bank.
        name: What errors call the history.
        positions: A number for each event, such as its line; they must grow. From 1 if left out.

    Raises:
        ConfigError: An event cannot follow the ones before; the message names its position.
    """
    pairing = _Pairing(name)
    for number, event in zip(
        itertools.count(1) if positions is None else positions, events, strict=False
    ):
        pairing.take(number, _fields(event))
    return pairing.history(header or {})


def line_of(event: HistoryEvent) -> str:
    """Return ``event`` as one JSON line, without its line end, as :func:`parse_lines` reads it."""
    return json.dumps(_fields(event), ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return str(value)


def _fields(event: HistoryEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {"process": event.process, "type": event.type, "f": event.f}
    if event.key is not None:
        fields["key"] = event.key
    fields["value"] = event.value
    if event.result is not None:
        fields["result"] = event.result
    fields["time"] = event.time
    return fields


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text[:40]} is beyond what a float holds")
    return value


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return str(error)


def _objects(lines: Iterable[str | bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8") if isinstance(raw, bytes) else raw
            if number == 1:
                line = line.removeprefix("\ufeff")
            line = line.strip()
            if not line:
                continue
            event = decoder.decode(line)
        except (ValueError, RecursionError) as error:
            what = f"not JSON ({_place(error)}); one JSON object a line would be right"
            raise ConfigError(f"{name}:{number}: {what}") from None
        if not isinstance(event, dict):
            raise ConfigError(
                f"{name}:{number}: {show(event)} is not an object; "
                'an event such as {"process": 0, "type": "invoke", "f": "read"} would be right'
            )
        yield number, event


class _Pairing:
    """Pairs invocations with completions, and refuses what no client could have recorded."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: dict[int, tuple[int, dict[str, Any]]] = {}
        self._ended: dict[int, int] = {}
        self._done: list[tuple[int, dict[str, Any], int | None, dict[str, Any] | None]] = []
        self._failed = 0

    def take(self, at: int, event: dict[str, Any]) -> None:
        """Take the event at position ``at``."""
        if "process" not in event:
            raise self._wrong(at, 'no "process"', "an integer")
        process = event["process"]
        if type(process) is not int:
            return
        kind = event.get("type")
        if kind not in TYPES:
            raise self._wrong(at, f'"type" is {show(kind)}', "invoke, ok, fail or info")
        if not isinstance(event.get("f"), str):
            raise self._wrong(at, f'"f" is {show(event.get("f"))}', "the name of a function")
        if not isinstance(event.get("time", 0), int | float | None):
            raise self._wrong(at, f'"time" is {show(event["time"])}', "nanoseconds")
        if process in self._ended:
            raise self._wrong(
                at,
                f"process {process} ended at its info in line {self._ended[process]}",
                "another process number",
            )
        if kind == "invoke":
            if process in self._open:
                where = self._open[process][0]
                raise self._wrong(
                    at,
                    f"process {process} invokes while its operation of line {where} is open",
                    "a completion first",
                )
            self._open[process] = (at, event)
            return
        self._complete(at, process, kind, event)

    def _complete(self, at: int, process: int, kind: str, event: dict[str, Any]) -> None:
        if process not in self._open:
            raise self._wrong(
                at, f"{kind} of process {process} without an invoke", "an invoke before it"
            )
        start, invoke = self._open[process]
        for name in ("f", "key"):
            told = event.get(name, _NO_KEY)
            if told is not _NO_KEY and told is not None and told != invoke.get(name):
                raise self._wrong(
                    at,
                    f'"{name}" is {show(told)}, but line {start} invoked {show(invoke.get(name))}',
                    "the same in both",
                )
        del self._open[process]
        if kind == "fail":
            self._failed += 1
            return
        if kind == "info":
            self._ended[process] = at
        ok = kind == "ok"
        self._done.append((start, invoke, at if ok else None, event if ok else None))

    def history(self, header: Mapping[str, Any]) -> History:
        """Return the operations taken so far, in order of invocation."""
        left = [(start, invoke, None, None) for start, invoke in self._open.values()]
        ordered = sorted([*self._done, *left], key=lambda item: item[0])
        operations = tuple(_operation(index, *parts) for index, parts in enumerate(ordered))
        oks = sum(1 for op in operations if op.end is not None)
        counts = {"ok": oks, "fail": self._failed, "info": len(operations) - oks}
        return History(operations, header, counts, self._name)

    def _wrong(self, at: int, what: str, right: str) -> ConfigError:
        return ConfigError(f"{self._name}:{at}: {what}; {right} would be right")


def _operation(
    index: int,
    start: int,
    invoke: dict[str, Any],
    end: int | None,
    ok: dict[str, Any] | None,
) -> Operation:
    f = invoke["f"]
    output: Any = None
    result: Any = None
    if ok is not None:
        result = ok.get("result")
        output = (result is not False) if f == "cas" else ok.get("value")
    return Operation(
        index=index,
        process=invoke["process"],
        f=f,
        key=invoke.get("key"),
        value=invoke.get("value"),
        output=output,
        kind="info" if end is None else "ok",
        start=start,
        end=end,
        start_ns=int(invoke.get("time") or 0),
        end_ns=None if ok is None else int(ok.get("time") or 0),
        result=result,
    )
