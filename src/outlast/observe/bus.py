"""What all sinks have in common: they listen to a bus until they are closed."""

from collections.abc import Callable
from math import isfinite
from types import TracebackType
from typing import Any, Final

from outlast.kernel import ConfigError, Event, EventBus, Events, current_world
from outlast.observe.core.metrics import label

_TEXT_MAX: Final = 500


class Sink:
    """A listener on a bus. ``close()`` ends it; so does leaving a ``with`` block.

    Attributes:
        lost: Events that could not be written.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end
        self.lost = 0

    def close(self) -> None:
        """Stop listening and give back what is open. A second time does nothing."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __enter__(self) -> "Sink":
        """Return the sink."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def bus_for(events: Events | None, who: str) -> EventBus:
    """Return the bus that ``events`` is, or that of the current world.

    Raises:
        ConfigError: Definite. Nobody can subscribe to it.
    """
    if events is None:
        import outlast.host  # noqa: F401 - makes the real world the default one

        events = current_world().events
    if not hasattr(events, "subscribe"):
        kind = type(events).__name__
        raise ConfigError(f"{who}: events is a {kind}; an EventBus would be right")
    return events  # type: ignore[return-value]


def room_of(event: Event) -> str:
    """Return the room of outlast that an event comes from; of others, the top-level package."""
    package, _, rest = type(event).__module__.partition(".")
    return rest.partition(".")[0] or package if package == "outlast" else package


def facts_of(event: Event) -> dict[str, Any]:
    """Return the fields of an event but ``level`` and ``node``, as values that JSON knows.

    Text is cut to one line of 500 characters. What a call was given is in no event.
    """
    return {
        name: plain(getattr(event, name))
        for name in event.__dataclass_fields__
        if name not in {"level", "node"}
    }


def plain(value: Any) -> Any:
    """Return ``value`` as JSON knows it, cut to a length."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value[:100]]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 and text.isprintable() else _one_line(text)


def _one_line(text: str) -> str:
    cut = text[:_TEXT_MAX]
    return "".join(char if char.isprintable() else " " for char in cut)


def text_of(event: Event) -> str:
    """Return an event as one line: its name and its fields."""
    facts = " ".join(f"{name}={value!r}" for name, value in facts_of(event).items())
    return f"{label(type(event).__name__)} {facts}".rstrip()
