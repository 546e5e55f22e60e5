"""Making node directories and the plan of a local cluster."""

import itertools
import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast.cluster import layout
from outlast.cluster.identity import load_identity, save_identity
from outlast.cluster.layout import (
    LocalPlan,
    draw_cluster_id,
    free_ports,
    hash_seed_of,
    init_node,
    load_plan,
    make_plan,
)
from outlast.host import HostStorage
from outlast.kernel import ClusterId, ConfigError, DataError, NodeId, Prng

STORAGE = HostStorage()
PEERS = {NodeId("n1"): "h1:1", NodeId("n2"): "h2:1"}


def plan(folder: Path, *, nodes: int = 3, port: int = 7400, http_port: int | None = 7480):
    return make_plan(
        STORAGE, str(folder), "bank", nodes=nodes, cluster=ClusterId("c-1"), port=port,
        http_port=http_port,
    )  # fmt: skip


def test_a_founding_member_is_made_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "n1")
    made = init_node(STORAGE, folder, NodeId("n1"), PEERS, cluster=ClusterId("c-1"))
    assert load_identity(STORAGE, folder) == made
    assert made.replica == "n1#1"
    with pytest.raises(DataError, match="is node n1 of cluster c-1 already"):
        init_node(STORAGE, folder, NodeId("n1"), PEERS, cluster=ClusterId("c-2"))
    assert load_identity(STORAGE, folder) == made


def test_strangers_and_full_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n3 is not among the peers n1, n2"):
        init_node(STORAGE, str(tmp_path / "n3"), NodeId("n3"), PEERS, cluster=ClusterId("c-1"))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        init_node(STORAGE, str(tmp_path), NodeId("n1"), PEERS, cluster=ClusterId("c-1"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_all_machines_of_a_cluster_run_under_one_hash_seed() -> None:
    ids = [draw_cluster_id(Prng(seed)) for seed in range(50)]
    assert len(set(ids)) == 50
    seeds = {hash_seed_of(one) for one in ids}
    assert all(0 < seed <= 4_294_967_295 for seed in seeds)
    assert hash_seed_of(ids[0]) == hash_seed_of(str(ids[0]))


def test_a_plan_is_made_once_and_read_again(tmp_path: Path) -> None:
    made = plan(tmp_path / "data")
    assert made.addresses == {
        "n1": "127.0.0.1:7400", "n2": "127.0.0.1:7401", "n3": "127.0.0.1:7402",
    }  # fmt: skip
    assert made.http["n3"] == "127.0.0.1:7482"
    assert load_plan(STORAGE, str(tmp_path / "data")) == made
    for name in made.addresses:
        identity = load_identity(STORAGE, made.directory(str(tmp_path / "data"), name))
        assert identity is not None
        assert {m.replica for m in identity.members} == {"n1#1", "n2#1", "n3#1"}


def test_no_plan_where_there_is_none(tmp_path: Path) -> None:
    assert load_plan(STORAGE, str(tmp_path)) is None
    assert plan(tmp_path / "data", http_port=None).http == {}


@pytest.mark.parametrize("nodes", [0, -1, 10])
def test_a_local_cluster_has_one_to_nine_nodes(tmp_path: Path, nodes: int) -> None:
    with pytest.raises(ConfigError, match=f"--nodes {nodes}: give 1 to 9"):
        plan(tmp_path / "data", nodes=nodes)
    assert not (tmp_path / "data").exists()


def again(folder: Path, *, cluster: str = "c-2", nodes: int = 3, port: int = 0) -> LocalPlan:
    return make_plan(
        STORAGE, str(folder), "bank", nodes=nodes, cluster=ClusterId(cluster), port=port,
        http_port=0,
    )  # fmt: skip


@pytest.mark.parametrize("made", [["n1"], ["n1", "n2"], ["n1", "n2", "n3"]])
def test_a_start_that_was_cut_short_is_completed(tmp_path: Path, made: list[str]) -> None:
    first = plan(tmp_path)
    (tmp_path / "cluster.json").unlink()  # as if the start had ended before this was written
    for name in {"n1", "n2", "n3"} - set(made):
        shutil.rmtree(tmp_path / name)
    if "n3" not in made:  # it ended while it wrote this one
        (tmp_path / "n3").mkdir()
        (tmp_path / "n3" / "identity.json.new").write_text("{")
    second = again(tmp_path)
    assert second.cluster == "c-1"
    assert second.addresses == first.addresses
    assert not set(second.http.values()) & set(second.addresses.values())
    assert load_plan(STORAGE, str(tmp_path)) == second
    found = [load_identity(STORAGE, str(tmp_path / name)) for name in ("n1", "n2", "n3")]
    assert {(one.cluster, one.members) for one in found if one} == {("c-1", found[0].members)}
    assert None not in found


@pytest.mark.parametrize(
    "change", [{"started": True}, {"condemned": "lost"}, {"cluster": ClusterId("c-3")}]
)
def test_nodes_that_have_started_or_disagree_are_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    plan(tmp_path)
    (tmp_path / "cluster.json").unlink()
    one = load_identity(STORAGE, str(tmp_path / "n2"))
    assert one is not None
    save_identity(STORAGE, str(tmp_path / "n2"), replace(one, **change))
    with pytest.raises(DataError, match="n1: is node n1 of cluster c-1 already"):
        again(tmp_path)
    assert load_plan(STORAGE, str(tmp_path)) is None


def test_a_start_with_another_number_of_nodes_does_not_complete_it(tmp_path: Path) -> None:
    plan(tmp_path)
    (tmp_path / "cluster.json").unlink()
    with pytest.raises(DataError, match="of cluster c-1 already"):
        again(tmp_path, nodes=2)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "cluster": 3}'])
def test_a_damaged_plan_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(DataError, match=r"cluster\.json: not a cluster file"):
        load_plan(STORAGE, str(tmp_path))


def test_a_newer_plan_says_upgrade(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(DataError, match="format 2 is newer"):
        load_plan(STORAGE, str(tmp_path))


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    assert not set(found) & set(free_ports(20)), "the next ones are others"
    assert all(1024 < port < 32_768 for port in found)
    with socket.create_server(("127.0.0.1", found[0])):
        pass


def test_two_processes_are_not_given_the_same_ports_before_their_nodes_bind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "_tried", itertools.count())
    mine = free_ports(3)
    # Another process that looks from the same place on knows nothing of what this one took.
    monkeypatch.setattr(layout, "_tried", itertools.count())
    monkeypatch.setattr(layout, "_claimed", set())
    assert not set(mine) & set(free_ports(3))
