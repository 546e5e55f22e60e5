"""From the words of a command line to a drill class."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from outlast.drill.api import NODES_MAX, Drill
from outlast.kernel import ConfigError

BROKEN = "broken-"


def choose_drill(name: str, nodes: int | None, target: str) -> tuple[type[Drill], str]:
    """Return the drill, and the directory where its processes run.

    Args:
        name: ``bank``, or ``FILE.py:Class``.
        nodes: How many; the drill's own number by default.
        target: For ``bank``: ``outlast``, or a node that breaks a promise on purpose.

    Raises:
        ConfigError: Definite. There is no such drill or target, or the number makes no sense.
    """
    if nodes is not None and not 1 <= nodes <= NODES_MAX:
        message = f"--nodes {nodes}: give 1 to {NODES_MAX}"
        raise ConfigError(message)
    if name == "bank":
        from outlast.drill.cluster_drill import bank_drill

        return bank_drill(nodes=nodes or 3, **_canary(target)), str(Path.cwd())
    if target != "outlast":
        message = f"--target {target}: only for the drill bank; {name} says itself what it runs"
        raise ConfigError(message)
    from outlast.drill.loader import load_drill

    chosen = load_drill(name)
    if nodes is not None:
        chosen = _with_nodes(chosen, nodes)
    return chosen, str(Path(name.partition(".py")[0] + ".py").resolve().parent)


def _with_nodes(chosen: type[Drill], nodes: int) -> type[Drill]:
    return type(chosen.__name__, (chosen,), {
        "nodes": replace(chosen.nodes, count=nodes), "__doc__": chosen.__doc__,
        "__module__": chosen.__module__,
    })  # fmt: skip


def _canary(target: str) -> dict[str, Any]:
    """Return what runs the target: our own nodes, or broken ones."""
    if target == "outlast":
        return {}
    from outlast.testing.broken.node import BROKEN as BREAKAGES

    known = ["outlast", *(f"{BROKEN}{name}" for name in BREAKAGES)]
    if target not in known:
        near = get_close_matches(target, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        message = f"--target {target}: {hint}"
        raise ConfigError(message)
    breakage = target.removeprefix(BROKEN)
    return {
        "program": "outlast.testing.broken.node",
        "environment": {"OUTLAST_BROKEN": breakage},
        "label": f"a broken cluster on purpose ({breakage}): {BREAKAGES[breakage].breaks}",
    }
