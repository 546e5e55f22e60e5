"""Histories of Jepsen and Knossos as events of ours: names, keys, and who is a client.

Jepsen marks what belongs to one key by making every value a pair, ``[key value]``. Printed as EDN
such a pair looks like any vector of two, so that it is taken for one when told so, when it carries
a tag, or when every value of every client is one (a read of a single register is invoked with
``nil``, so its history does not look like that).
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from outlast.check.core.history import History, history_of
from outlast.check.edn import Pair, plain, plain_key, read_edn
from outlast.kernel import ConfigError, HistoryEvent, HistoryType

_TYPES: Mapping[str, HistoryType] = {
    "invoke": "invoke", "ok": "ok", "fail": "fail", "info": "info"
}  # fmt: skip


def read_jepsen(text: str, name: str = "history", *, independent: bool | None = None) -> History:
    """Read a history of Jepsen or Knossos from EDN.

    What a nemesis did is left out. ``:index``, ``:error`` and other fields are not looked at.
    Positions are lines if each event begins a new one, and else count events.

    Args:
        text: Maps one after the other, or one vector of maps.
        name: What errors call the text.
        independent: Whether the values of clients are ``[key value]``; ``None`` decides by their
            looks.

    Raises:
        ConfigError: Not EDN, an event without its fields or one that cannot follow the ones
            before, or ``independent`` and a value that is no pair; the message names the line.
    """
    events: list[HistoryEvent] = []
    lines: list[int] = []
    header: Mapping[str, Any] = {}
    for line, found in read_edn(text, name):
        try:
            fields = _fields(found)
            if "type" not in fields and not events and {"model", "accounts"} & fields.keys():
                header = {key: plain(value) for key, value in fields.items()}
            elif (event := _event(fields)) is not None:
                events.append(event)
                lines.append(line)
        except ValueError as error:
            raise ConfigError(f"{name}:{line}: {error}") from None
    keyed = _looks_keyed(events) if independent is None else independent
    if keyed:
        events = [_keyed(event, f"{name}:{n}") for event, n in zip(events, lines, strict=True)]
    bare = [_bare(event) for event in events]
    if all(earlier < later for earlier, later in pairwise(lines)):
        return history_of(bare, header, name, lines)
    return history_of(bare, header, f"{name}: event")


def _fields(found: Any) -> dict[Any, Any]:
    if isinstance(found, Mapping):
        return {plain_key(key): value for key, value in found.items()}
    raise ValueError(f"{str(found)[:40]!r} is no event; expected a map like {{:type :invoke …}}")


def _event(fields: Mapping[Any, Any]) -> HistoryEvent | None:
    """Return the event of a client; ``None`` for what a nemesis did."""
    for needed in ("type", "process", "f"):
        if needed not in fields:
            raise ValueError(f"an event without :{needed}; expected :type, :process, :f, :value")
    process = fields["process"]
    if isinstance(process, bool) or not isinstance(process, int):
        return None
    kind = _TYPES.get(str(plain(fields["type"])))
    if kind is None:
        what = str(plain(fields["type"]))[:40]
        raise ValueError(f"type {what!r}; expected :invoke, :ok, :fail or :info")
    time = plain(fields.get("time"))
    return HistoryEvent(
        plain(process),
        kind,
        str(plain(fields["f"])),
        plain(fields.get("value")),
        plain(fields.get("key")),
        time if isinstance(time, int) else 0,
        plain(fields.get("result")),
    )


def _looks_keyed(events: Iterable[HistoryEvent]) -> bool:
    """Return whether every value is ``[key value]``, and not only because ``cas`` takes two."""
    seen = False
    for event in events:
        value = event.value
        if isinstance(value, Pair):
            return True
        if event.key is not None:
            return False
        if not isinstance(value, list) or len(value) != 2 or isinstance(value[0], list | dict):
            return False
        seen = seen or event.f != "cas" or isinstance(value[1], list)
    return seen


def _keyed(event: HistoryEvent, where: str) -> HistoryEvent:
    value = event.value
    if not isinstance(value, list | Pair) or len(value) != 2:
        shown = str(value)[:40]
        raise ConfigError(f"{where}: value {shown} is no [key value], as --independent needs")
    key, rest = value
    return HistoryEvent(event.process, event.type, event.f, rest, key, event.time, event.result)


def _bare(event: HistoryEvent) -> HistoryEvent:
    """Return an event whose value holds no pairs, only lists."""
    return HistoryEvent(
        event.process, event.type, event.f, _unpaired(event.value), _unpaired(event.key),
        event.time, event.result,
    )  # fmt: skip


def _unpaired(value: Any) -> Any:
    if isinstance(value, Pair | list):
        return [_unpaired(item) for item in value]
    if isinstance(value, dict):
        return {key: _unpaired(item) for key, item in value.items()}
    return value
