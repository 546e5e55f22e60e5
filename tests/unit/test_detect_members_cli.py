"""``outlast members``: arguments, key files, and how a change is told in one line."""

import json
from pathlib import Path

import pytest

from outlast.cli import main
from outlast.cli.members import _event_json, _event_text
from outlast.detect import (
    ConfirmFailed,
    Evidence,
    EvidenceKind,
    Member,
    MemberDead,
    MemberState,
    MemberSuspected,
    PacketDropped,
)
from outlast.detect.members_seal import read_keys

MEMBER = Member("n2", "10.0.0.2:7946", 3, MemberState.SUSPECT, {"zone": "a"}, ("n3",), 1_000, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("join", "NAME is missing"),
        ("join a --bind 10.0.0.1:1", "without a key only a loopback address"),
        ("join a --bind 127.0.0.1:x", "port 'x' is not a number"),
        ("join a --metadata zone", "--metadata zone: write KEY=VALUE"),
        ("join a --metadata z=1 --metadata z=2", "each key once"),
        ("join a --key-file nowhere", "--key-file nowhere: No such file"),
        ("join a --profile slow", "Choose from"),
        ("join a --seed a:b:c", "IPv6 address in brackets"),
        ("list --address a/b", "the host is"),
        ("list --timeout 0", "--timeout 0"),
        ("list --address 127.0.0.1:1 --timeout 1", "no member listens there"),
        ("keygen --out /nowhere/key", "--out /nowhere/key: No such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["members", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_file_that_holds_no_key_is_refused_without_showing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    for content in (b"secret\n", b"\xff\xfe", b""):
        file.write_bytes(content)
        assert main(["members", "join", "a", "--key-file", str(file)]) == 2
        err = capsys.readouterr().err
        assert "keygen` makes one" in err
        assert "secret" not in err


def test_keygen_makes_another_key_each_time_and_a_file_only_for_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = []
    for _ in range(2):
        assert main(["members", "keygen"]) == 0
        keys += read_keys(capsys.readouterr().out)
    file = tmp_path / "key"
    assert main(["members", "keygen", "--out", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    keys += read_keys(file.read_text())
    assert len(set(keys)) == 3
    before = file.read_bytes()
    assert main(["members", "keygen", "--out", str(file)]) == 2
    assert "File exists" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_change_is_told_with_who_accused_whom_and_why() -> None:
    evidence = Evidence(EvidenceKind.REFUSED, 0.5, 3, 3, 2)
    suspected = MemberSuspected(node="n1", member=MEMBER, by="n3", evidence=evidence)
    assert _event_text(suspected) == "suspected n2 10.0.0.2:7946 by n3: refused"
    dead = MemberDead(node="n1", member=MEMBER, accusers=("n3", "n4"), silence=1.0)
    assert _event_text(dead) == "dead n2 10.0.0.2:7946 accused by n3, n4"
    dropped = PacketDropped(node="n1", source="10.0.0.9:1", reason="unknown key", count=2)
    assert _event_text(dropped) == "PacketDropped source=10.0.0.9:1 reason=unknown key count=2"
    failed = ConfirmFailed(node="n1", member="n2", reason="LookupError: n2")
    assert _event_text(failed) == "ConfirmFailed member=n2 reason=LookupError: n2"


def test_a_change_as_json_holds_all_of_it() -> None:
    evidence = Evidence(EvidenceKind.SILENCE, 0.5)
    event = MemberSuspected(node="n1", member=MEMBER, by="n3", evidence=evidence)
    told = json.loads(_event_json(event))
    assert (told["event"], told["node"], told["by"]) == ("MemberSuspected", "n1", "n3")
    assert told["member"]["metadata"] == {"zone": "a"}
    assert told["evidence"]["kind"] == "silence"
