"""From ``drill_shop.py:Shop`` on a command line to the class."""

from difflib import get_close_matches
from pathlib import Path

from outlast.drill.api import Drill
from outlast.drill.running import LoadedSoFar, loading
from outlast.kernel import ConfigError
from outlast.state.loader import choose_class, load_file

READY = ("bank",)
"""Drills by a short name."""


def load_drill(target: str) -> type[Drill]:
    """Return the drill class that ``FILE.py:Class`` names.

    The class may be left out when the file has one. A file that runs its drill at its end is
    loaded up to there.

    Raises:
        ConfigError: Definite. No such file or class, the file raised, or it is not a Drill.
    """
    place, _, name = target.rpartition(":")
    if name.endswith(".py") or not place:
        place, name = target, ""
    if not place.endswith(".py"):
        near = get_close_matches(target, READY, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(READY)};"
        raise ConfigError(f"drill {target!r}: {hint} or write FILE.py:Class")
    loading.append(True)
    try:
        module = load_file(Path(place), until=LoadedSoFar)
    finally:
        loading.pop()
    return choose_class(place, name, module, Drill)
