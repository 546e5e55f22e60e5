"""What benchmarks.drill says is computed as it says, and its ways differ as it says."""

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks import drill
from benchmarks.common import Result
from outlast.drill.process_lab import ProcessLab as Lab
from outlast.drill.target import OwnNodes, make_target
from outlast.host import make_world
from outlast.kernel import Prng


def result(way: str, rate: float, *, p50: float = 0.01, errors: int = 0, **extra: float) -> Result:
    return Result(
        system="cluster", client=way, callers=8, seconds=1.0, operations=100, errors=errors,
        rate=rate, p50=p50, p99=0.1, gap=0.2, client_cpu=0.01, server_cpu=0.02, extra=extra,
    )  # fmt: skip


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    rounds = [
        {"direct": result("direct", 1000.0), "proxied": result("proxied", 500.0)},
        {"direct": result("direct", 100.0), "proxied": result("proxied", 90.0)},
        {"direct": result("direct", 10.0), "proxied": result("proxied", 6.0, p50=0.02)},
    ]
    table = drill.compare(rounds)
    assert table["direct"]["rate_ratio"] == 1.0
    assert table["proxied"]["rate_ratio"] == pytest.approx(0.6)
    assert table["proxied"]["rate_ratios"] == [0.5, 0.9, 0.6]
    assert table["proxied"]["rate"] == 90.0
    assert table["proxied"]["p50_ratio"] == pytest.approx(1.0)
    assert table["proxied"]["client_cpu_us"] == 100.0


def test_a_direct_run_without_an_answer_does_not_stop_the_report() -> None:
    rounds = [{"direct": result("direct", 0.0, errors=3), "proxied": result("proxied", 0.0)}]
    table = drill.compare(rounds)
    assert table["direct"]["errors"] == 3
    assert len(drill.lines("cluster", "8", table)) == 3


def test_the_table_has_ratios_first_and_a_dash_where_there_is_nothing_to_compare_with() -> None:
    with_direct = drill.compare([{
        "direct": result("direct", 200.0), "watched": result("watched", 100.0, look_ms=3.0),
    }])  # fmt: skip
    lines = drill.lines("cluster", "8", with_direct)
    assert lines[2].split()[:4] == ["watched", "0.50", "1.00", "1.00"]
    assert lines[2].endswith("3.0 ms a look around")
    alone = drill.lines("cluster", "8", drill.compare([{"proxied": result("proxied", 200.0)}]))
    assert alone[1].split()[:4] == ["proxied", "-", "-", "-"]


def test_without_a_proxy_nodes_and_clients_are_told_the_real_ports(tmp_path: Path) -> None:
    async def story() -> None:
        world = make_world()
        target = make_target(world, OwnNodes("outlast.state.ready.kv:Kv"), str(tmp_path), ".")
        lab = Lab(world, target, str(tmp_path), ".", Prng(1))
        lab.proxy = drill.Straight()  # type: ignore[assignment]
        for name, port in target.ports.items():
            await lab.proxy.link(f"clients-{name}", source="clients", target=name,
                                 upstream=("127.0.0.1", port))  # fmt: skip
        assert lab.client_node("n2", pinned=False).port == target.ports["n2"]
        assert lab.proxy.between(target="n2") == []

    asyncio.run(story())


def test_every_target_has_one_operation_to_repeat_and_a_way_to_start_its_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a drill adds its directory
    for target in drill.TARGETS:
        workload, home, errors = drill.workload_of(target)
        during = [spec for spec in workload.operations().values() if not spec.final]
        assert len(during) == 1, target
        assert (type(workload).nodes.count, Path(home).is_dir()) == (3, True)
        assert errors
        assert workload.rate == drill.UNLIMITED


def test_the_cost_of_recording_covers_both_events_of_every_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill, "OPERATIONS", 20)
    found = asyncio.run(drill.recording(2, tmp_path))
    assert found.keys() == {"bare_ns", "recorded_ns", "written_ns"}
    written = (tmp_path / "nothing.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(written) == 1 + 2 * 2 * 20  # header; rounds, events, operations
