"""Leaves what a process leaves that died while it applied an entry."""

from pathlib import Path

from outlast.host import default_world
from outlast.state.poison import ApplyMarker


def mark_death(directory: Path, index: int, deaths: int) -> None:
    """Let ``directory`` say that a process has died ``deaths`` times while applying ``index``."""
    directory.mkdir(exist_ok=True)
    marker = ApplyMarker(default_world(), str(directory))
    marker.accuse(index, deaths - 1)
    marker.begin(index)
    marker.close()
