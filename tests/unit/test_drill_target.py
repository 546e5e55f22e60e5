"""What a drill asks of all nodes together at the end."""

from typing import Any

import pytest

from outlast.drill import target
from outlast.drill.core.verdict import judge
from outlast.drill.report import FaultReport, WorkloadReport
from outlast.drill.target import ClusterTarget, OwnNodes
from outlast.host import make_world

pytestmark = pytest.mark.anyio
WORK = WorkloadReport("kv", "kv", 10, 0, 0, "valid")
SHOWN = FaultReport("crash@one", ("n1",), 1, 2, "pid gone", verdict="survived")


@pytest.mark.parametrize(
    ("problems", "verdict"), [([], "survived"), (["states differ at index 7"], "failed")]
)
async def test_replicas_whose_states_differ_condemn_the_cluster(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, problems: list[str], verdict: str
) -> None:
    async def compare(*_: Any) -> list[str]:
        return problems

    monkeypatch.setattr(target, "compare_digests", compare)
    cluster = ClusterTarget(make_world(), OwnNodes("kv"), str(tmp_path))
    found = await cluster.verify(["a:1", "b:1", "c:1"])
    assert judge([SHOWN], [WORK], found, ())[0] == verdict
