"""Nodes, local clusters and clients of a replicated machine.

Importing this needs the extra ``client``; running nodes needs ``cluster``.
"""

from typing import TYPE_CHECKING, Any

from outlast.cluster.client import Client

if TYPE_CHECKING:
    from outlast.cluster.join import administer
    from outlast.cluster.layout import draw_cluster_id, init_node
    from outlast.cluster.local import LocalCluster
    from outlast.cluster.node import Node
    from outlast.cluster.process import run_node
    from outlast.cluster.settings import NodeSettings

_LAZY = {
    "LocalCluster": "local",
    "Node": "node",
    "NodeSettings": "settings",
    "administer": "join",
    "draw_cluster_id": "layout",
    "init_node": "layout",
    "run_node": "process",
}


def __getattr__(name: str) -> Any:
    """Import what only nodes need when it is asked for."""
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


__all__ = [
    "Client",
    "LocalCluster",
    "Node",
    "NodeSettings",
    "administer",
    "draw_cluster_id",
    "init_node",
    "run_node",
]
