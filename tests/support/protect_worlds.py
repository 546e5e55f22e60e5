"""What fails, for parts that are used up in one world and met in another."""

from contextlib import suppress
from typing import Any


class Down(Exception):
    """The service is down."""


def failing() -> None:
    raise Down


def fail(part: Any, times: int) -> None:
    for _ in range(times):
        with suppress(Exception):
            part.call(failing)
