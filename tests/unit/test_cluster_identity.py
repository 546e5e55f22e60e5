"""Whose a data directory is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.cluster.identity import (
    NodeIdentity,
    check_node_id,
    first_members,
    load_identity,
    parse_peers,
    save_identity,
)
from outlast.host import HostStorage
from outlast.kernel import ClusterId, ConfigError, DataError, NodeId

MINE = NodeIdentity(
    cluster=ClusterId("c-1"),
    node=NodeId("n1"),
    incarnation=3,
    hash_seed=17,
    members=first_members({NodeId("n1"): "h1:1", NodeId("n2"): "h2:1"}),
)


@pytest.mark.parametrize(
    "identity",
    [
        MINE,
        replace(MINE, started=True),
        replace(MINE, admitted=False, members=()),
        replace(MINE, condemned="it computed something else"),
    ],
)
def test_what_is_saved_is_loaded(tmp_path: Path, identity: NodeIdentity) -> None:
    folder = str(tmp_path / "n1")
    save_identity(HostStorage(), folder, replace(MINE, incarnation=2))
    save_identity(HostStorage(), folder, identity)
    assert load_identity(HostStorage(), folder) == identity
    assert [path.name for path in Path(folder).iterdir()] == ["identity.json"]


def test_a_directory_without_identity_has_none(tmp_path: Path) -> None:
    assert load_identity(HostStorage(), str(tmp_path)) is None
    assert load_identity(HostStorage(), str(tmp_path / "missing")) is None


@pytest.mark.parametrize("key", ["cluster", "node", "incarnation", "members", "admitted"])
def test_a_missing_part_is_an_error_and_no_default(tmp_path: Path, key: str) -> None:
    save_identity(HostStorage(), str(tmp_path), MINE)
    path = tmp_path / "identity.json"
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=rf"identity\.json: .*{key}"):
        load_identity(HostStorage(), str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "\0", "[]", "7", '"text"', '{"format": "1"}', '{"format": 1, "members": 3}', "\xff"],
)
def test_what_is_no_identity_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="not an identity file"):
        load_identity(HostStorage(), str(tmp_path))


def test_a_newer_format_names_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"format": 7}')
    with pytest.raises(DataError, match=r"format 7 is newer .* reads \(1\): upgrade outlast"):
        load_identity(HostStorage(), str(tmp_path))


def test_the_replica_and_the_first_membership() -> None:
    assert MINE.replica == "n1#3"
    assert [(m.replica, m.voter) for m in MINE.bootstrap.members] == [
        ("n1#1", True), ("n2#1", True),
    ]  # fmt: skip


@pytest.mark.parametrize("node", ["n1", "a.b_c-d", "7", "N" * 64])
def test_ids_that_are_taken(node: str) -> None:
    assert check_node_id(node) == node


@pytest.mark.parametrize("node", ["", "n 1", "n/1", "n#1", "ñ", "N" * 65, "..", "-"])
def test_ids_that_are_refused(node: str) -> None:
    with pytest.raises(ConfigError, match="such as n1"):
        check_node_id(node)


def test_peers_are_read_in_order() -> None:
    assert parse_peers("n2=h2:7400, n1=[::1]:7400,") == {"n2": "h2:7400", "n1": "[::1]:7400"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no peers given"),
        (",", "no peers given"),
        ("n1", "'n1': write NODE=HOST:PORT"),
        ("n1=h1", "'n1=h1': write NODE=HOST:PORT"),
        ("=h1:1", "node id ''"),
        ("n1=h1:x", "port 'x'"),
        ("n1=:1", "host"),
        ("n1=h1:0", "port 0"),
        ("n1=h1:1,n1=h2:1", "'n1' stands twice"),
        ("n1=h1:1,n2=h1:1", "'h1:1' stands twice"),
        ("n1=h1:1,n2= h1:1", "'h1:1' stands twice"),
    ],
)
def test_peers_that_are_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("[", r"\[")):
        parse_peers(text)
