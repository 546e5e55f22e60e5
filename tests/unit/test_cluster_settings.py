"""What of a node's settings can be refused before anything is opened."""

from typing import Any

import pytest

from outlast.cluster.settings import NodeSettings
from outlast.kernel import ConfigError, NodeId


def settings(**changed: Any) -> NodeSettings:
    return NodeSettings(**{"node": NodeId("n1"), "data": "n1", "listen": "h1:7400", **changed})


def test_others_dial_what_is_advertised() -> None:
    assert settings().address == "h1:7400"
    assert settings(listen="0.0.0.0:7400", advertise="h1:7400").address == "h1:7400"
    assert settings(listen="h1:0", advertise="h1:7400").address == "h1:7400"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"listen": "0.0.0.0:7400"}, "--listen 0.0.0.0:7400 names no address .* add --advertise"),
        ({"listen": "[::]:7400"}, "add --advertise"),
        ({"listen": "h1:0"}, "--listen h1:0 names no address"),
        ({"listen": "7400"}, "'7400' has no port"),
        ({"advertise": "0.0.0.0:7400"}, "--advertise 0.0.0.0:7400 names no address"),
        ({"advertise": "h1:x"}, "port 'x'"),
        ({"http": "8080"}, "'8080' has no port"),
        ({"peers": {"n2": "h2"}}, "'h2' has no port"),
        ({"routes": {"n2": "h2:99999"}}, "port '99999'"),
    ],
)
def test_addresses_that_nobody_can_use(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings(**changed)
