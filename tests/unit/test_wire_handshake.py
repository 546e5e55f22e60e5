"""The pure decision of a handshake: each refusal is one line that names both values."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from outlast.kernel import ProtocolError
from outlast.wire import Identity, Scope
from outlast.wire.core.handshake import (
    Admitted,
    Credentials,
    Hello,
    Refuse,
    Welcome,
    decode_message,
    encode_message,
    hello_of,
    judge_hello,
    judge_welcome,
    overlap,
    show,
)

US = Identity(cluster="blue", node="n1", incarnation=1, hash_seed=7, versions=(2, 4))
THEM = Identity(cluster="blue", node="n2", incarnation=3, hash_seed=7, versions=(3, 9))
CHANNELS = {"raft": Scope.PEER, "app": Scope.CLIENT, "ops": Scope.ADMIN}
OPEN = Credentials(required=False)
HELLO = hello_of(THEM, channel="raft", token=None, cluster="blue", expect_node="n1")


def judge(hello: Hello = HELLO, credentials: Credentials = OPEN, **changes: Any) -> object:
    return judge_hello(
        msgspec.structs.replace(hello, **changes),
        identity=US,
        channels=CHANNELS,
        credentials=credentials,
    )


def test_a_fitting_hello_is_admitted_at_the_highest_common_version() -> None:
    assert judge() == Admitted(wire=1, version=4, scope=Scope.PEER)


@pytest.mark.parametrize(
    ("changes", "yours", "ours"),
    [
        ({"magic": "other"}, "'other'", "'outlast/wire'"),
        ({"wire": (2, 3)}, "(2, 3)", "(1, 1)"),
        ({"versions": (5, 6)}, "(5, 6)", "(2, 4)"),
        ({"cluster": "green"}, "'green'", "'blue'"),
        ({"cluster": ""}, "''", "'blue'"),
        ({"channel": "nope"}, "'nope'", "app, ops, raft"),
        ({"expect_node": "n7"}, "'n7'", "'n1'"),
        ({"hash_seed": 8}, "8", "7"),
        ({"node": "n1"}, "'n1'", "this node"),
        ({"node": ""}, "empty", "node id"),
    ],
)
def test_each_misfit_is_refused_with_both_values(
    changes: dict[str, object], yours: str, ours: str
) -> None:
    refuse = judge(**changes)
    assert isinstance(refuse, Refuse)
    assert yours in refuse.reason
    assert ours in refuse.reason
    assert "\n" not in refuse.reason


def test_a_client_may_leave_cluster_node_and_hash_seed_open() -> None:
    hello = hello_of(
        Identity(versions=(2, 2)), channel="app", token=None, cluster="", expect_node=None
    )
    assert judge(hello) == Admitted(wire=1, version=2, scope=Scope.CLIENT)
    assert isinstance(judge(hello, cluster="green"), Refuse)


TOKEN = {s: Credentials(required=True, token=s) for s in Scope}
CERT_N2 = Credentials(required=True, names=("n2",), tls=True)
CERT_N3 = Credentials(required=True, names=("n3", "x"), tls=True)


@pytest.mark.parametrize(
    ("credentials", "channel", "granted"),
    [
        (TOKEN[Scope.CLIENT], "app", Scope.CLIENT),
        (TOKEN[Scope.CLIENT], "raft", None),
        (TOKEN[Scope.CLIENT], "ops", None),
        (TOKEN[Scope.PEER], "raft", Scope.PEER),
        (TOKEN[Scope.PEER], "app", Scope.PEER),
        (TOKEN[Scope.PEER], "ops", None),
        (TOKEN[Scope.ADMIN], "ops", Scope.ADMIN),
        (TOKEN[Scope.ADMIN], "app", Scope.ADMIN),
        (TOKEN[Scope.ADMIN], "raft", None),
        (Credentials(required=True), "app", None),
        (Credentials(required=True, token_valid=False), "app", None),
        (replace(CERT_N2, token_valid=False), "raft", None),
        (CERT_N2, "raft", Scope.PEER),
        (CERT_N2, "app", Scope.PEER),
        (CERT_N2, "ops", None),
        (CERT_N3, "raft", None),
        (CERT_N3, "app", Scope.CLIENT),
        (replace(CERT_N3, token=Scope.PEER), "raft", None),
        (replace(CERT_N2, token=Scope.CLIENT), "raft", None),
        (Credentials(required=True, tls=True, token=Scope.PEER), "raft", None),
        (Credentials(required=True, tls=True, token=Scope.CLIENT), "app", Scope.CLIENT),
    ],
)
def test_what_each_credential_is_good_for(
    credentials: Credentials, channel: str, granted: Scope | None
) -> None:
    verdict = judge(credentials=credentials, channel=channel)
    if granted is None:
        assert isinstance(verdict, Refuse)
    else:
        assert isinstance(verdict, Admitted)
        assert verdict.scope is granted


def test_a_stranger_learns_no_names() -> None:
    refuse = judge(credentials=Credentials(required=True), channel="nope", cluster="green")
    assert isinstance(refuse, Refuse)
    for secret in ("blue", "n1", "raft", "ops"):
        assert secret not in refuse.reason


WELCOME = Welcome(
    wire=1, version=4, versions=(2, 4), cluster="blue", node="n1", incarnation=1, hash_seed=7
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"wire": 2}, "wire version: theirs 2"),
        ({"version": 10}, "version: theirs 10, ours (3, 9)"),
        ({"cluster": "green"}, "theirs 'green', expected 'blue'"),
        ({"node": "n9"}, "theirs 'n9', expected 'n1'"),
        ({"hash_seed": 8}, "theirs 8, ours 7"),
        ({"hash_seed": None}, None),
    ],
)
def test_the_dialler_judges_the_welcome(changes: dict[str, Any], says: str | None) -> None:
    misfit = judge_welcome(
        msgspec.structs.replace(WELCOME, **changes),
        identity=THEM,
        expect_cluster="blue",
        expect_node="n1",
        names=("n1", "n9"),
    )
    assert (misfit is None) if says is None else (misfit is not None and says in misfit)


def test_a_certificate_must_name_the_node_that_answers() -> None:
    misfit = judge_welcome(
        WELCOME, identity=THEM, expect_cluster=None, expect_node=None, names=("n2",)
    )
    assert misfit == "certificate: it names n2, the node says 'n1'"


def test_messages_travel_and_unknown_fields_are_skipped() -> None:
    assert decode_message(Hello, encode_message(HELLO)) == HELLO
    wider = msgspec.to_builtins(HELLO) | {"later": 1}
    assert decode_message(Hello, msgspec.msgpack.encode(wider)) == HELLO


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x80", b"\x91" * 3000, b"\xff" * 100, encode_message(WELCOME)],
)
def test_unreadable_messages_are_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_message(Hello, body)
    assert "\n" not in str(caught.value)


def test_hostile_text_is_shown_harmless_and_short() -> None:
    shown = show("a\nb\x1b[31m" + "x" * 5000)
    assert shown.startswith("a?b?[31m")
    assert len(shown) <= 81


def test_a_hello_does_not_show_its_token() -> None:
    assert "tok-secret" not in repr(msgspec.structs.replace(HELLO, token="tok-secret"))


def test_overlap() -> None:
    assert overlap((1, 3), (2, 9)) == 3
    assert overlap((2, 9), (1, 3)) == 3
    assert overlap((1, 1), (2, 2)) is None
    assert overlap((3, 2), (1, 9)) is None
