"""Short deadlines on machines that may be busy."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

E = TypeVar("E", bound=Exception)

FIRST = 0.1
"""Seconds of the deadline that is long enough but for a busy machine."""


def ends_as(kind: type[E], call: Callable[[float], Any], *, seconds: float = FIRST) -> E:
    """Give ``call`` a short deadline; return the error as which it ends.

    Where it passed before the call was under way, which ends as something else, a longer one is
    given. What depends on no time at all ends as before, and fails.
    """
    for each in (seconds, 10 * seconds, 100 * seconds):
        with pytest.raises(Exception) as caught:
            call(each)
        if isinstance(caught.value, kind):
            return caught.value
    raise AssertionError(f"it ends as {caught.value!r}")
