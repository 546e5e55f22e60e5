"""Events as JSON lines in a file."""

import json
import os
from io import FileIO
from typing import IO, Any

from outlast.kernel import ConfigError, Event, Events, current_world
from outlast.observe.bus import Sink, bus_for, facts_of, room_of


def to_jsonl(target: "str | os.PathLike[str] | IO[str]", events: Events | None = None) -> Sink:
    """Append each event as one line of JSON: time, event, room, level, node and its fields.

    ``time`` is wall time in nanoseconds since 1970. A path is opened for appending and each line
    is one write, so that several processes may share the file. A line that cannot be written is
    counted in ``lost`` of what is returned, and the next one is tried again.

    Args:
        target: A path, or a text file that is open for writing; that one stays open in the end.
        events: The bus to listen to; that of the current world by default.

    Raises:
        ConfigError: Definite. The path cannot be opened, or ``target`` is neither.
    """
    bus = bus_for(events, "to_jsonl")
    own: FileIO | None = None
    if isinstance(target, str | os.PathLike):
        try:
            own = FileIO(os.fspath(target), "a")
        except OSError as error:
            raise ConfigError(f"to_jsonl: {os.fspath(target)}: {error.strerror}") from error
    elif not hasattr(target, "write"):
        kind = type(target).__name__
        raise ConfigError(f"to_jsonl: target is a {kind}; a path or a text file would be right")

    given: Any = target

    def write(event: Event) -> None:
        row = {
            "time": current_world().clock.wall_ns(),
            "event": type(event).__name__,
            "room": room_of(event),
            "level": event.level,
            "node": event.node,
        }
        # Its own fields cannot hide these: one of the same name gets an underscore.
        row |= {f"{key}_" if key in row else key: value for key, value in facts_of(event).items()}
        line = json.dumps(row) + "\n"
        try:
            if own is not None:
                _write(own, line.encode())
            else:
                given.write(line)
        except (OSError, ValueError):
            sink.lost += 1

    unsubscribe = bus.subscribe(write)

    def end() -> None:
        unsubscribe()
        if own is not None:
            own.close()

    sink = Sink(end)
    return sink


def _write(file: FileIO, data: bytes) -> None:
    if file.write(data) < len(data):
        # The disk is full: end the torn line, so that the next one stands on its own.
        file.write(b"\n")
        raise OSError("short write")
