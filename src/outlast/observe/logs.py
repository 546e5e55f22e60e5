"""Events as lines of the standard library's ``logging``."""

import logging
from typing import Final

from outlast.kernel import Event, Events
from outlast.observe.bus import Sink, bus_for, facts_of, room_of, text_of

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def to_logging(events: Events | None = None, *, logger: str = "outlast") -> Sink:
    """Write each event to the logger ``outlast.ROOM``, at the level of its class.

    The message is one line: the name of the event and its fields. The record also has ``event``
    (that name), ``node``, and ``outlast`` (the fields as a dict) for structured formatters.
    Arguments and results of calls are in no event. A ``NullHandler`` is put on the logger, so
    that nothing is printed before the program has set logging up.

    Args:
        events: The bus to listen to; that of the current world by default.
        logger: Name above the rooms.

    Raises:
        ConfigError: Definite. ``events`` is no bus.
    """
    bus = bus_for(events, "to_logging")
    base = logging.getLogger(logger)
    if not any(isinstance(handler, logging.NullHandler) for handler in base.handlers):
        base.addHandler(logging.NullHandler())
    known: dict[str, logging.Logger] = {}

    def write(event: Event) -> None:
        room = room_of(event)
        target = known.get(room)
        if target is None:
            target = known[room] = base.getChild(room)
        level = _LEVELS[event.level]
        if target.isEnabledFor(level):
            kind = type(event).__name__
            extra = {"event": kind, "node": event.node, "outlast": facts_of(event)}
            said = f"{event.node} {text_of(event)}".lstrip()
            try:
                target.log(level, "%s", said, extra=extra)
            except Exception:
                sink.lost += 1

    sink = Sink(bus.subscribe(write))
    return sink
