"""What a node says of itself, before and after it has a log; and what it warns of."""

from typing import Any

import pytest

from outlast.cluster import status
from outlast.cluster.settings import NodeSettings
from outlast.kernel import NodeId
from outlast.state import machine_spec
from outlast.state.ready.bank import Bank


def voters(count: int, **zones: str) -> list[dict[str, Any]]:
    return [
        {"node": f"n{n}", "voter": True, "zone": zones.get(f"n{n}", "")}
        for n in range(1, count + 1)
    ]


def test_a_node_without_a_log_has_a_status() -> None:
    facts = status.node_status(
        settings=NodeSettings(node=NodeId("n1"), data="n1", listen="h1:7400"),
        identity=None, phase="waiting for admission", log=None, replica=None, peers=None,
        listener=None, machine=machine_spec(Bank), uptime_ns=1_500_000_000, term_changes=0,
    )  # fmt: skip
    assert facts["node"] == "n1"
    assert facts["address"] == "h1:7400"
    assert facts["phase"] == "waiting for admission"
    assert facts["uptime_seconds"] == 1.5
    assert not facts["ready"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (voters(1), ["1 voters: losing one stops the cluster"]),
        (voters(2), ["2 voters: losing one stops the cluster"]),
        (voters(3), []),
        (voters(4), ["4 voters: survives the loss of 1, as 3 would"]),
        (voters(5), []),
        (voters(6), ["6 voters: survives the loss of 2, as 5 would"]),
        ([*voters(3), {"node": "n4", "voter": False, "zone": ""}], []),
        (voters(3, n1="a", n2="a", n3="b"), ["zone a holds 2 of 3 voters, a majority"]),
        (voters(3, n1="a", n2="b", n3="c"), []),
    ],
)
def test_what_would_take_a_majority_down_is_said(
    members: list[dict[str, Any]], said: list[str]
) -> None:
    assert status._warnings(members) == said
