"""The entry envelope: what is on disk for ever, and what is refused by name."""

import msgspec
import pytest

from outlast.kernel import CorruptionError, DataError
from outlast.state.core.envelope import (
    FORMAT,
    Command,
    Header,
    Kind,
    check_version,
    decode_command,
    encode_command,
    pack_commands,
    pack_entry,
    unpack_commands,
    unpack_entry,
)

STAMPS = {"machine_version": 3, "system_epoch": 9, "log_time_ns": 10, "wall_ns": 11}


def test_commands_are_put_together_from_their_bytes_and_decoded_at_once() -> None:
    commands = [Command(7, seq, 1, "add", b"\x80", "k" * (seq % 3)) for seq in range(1, 200)]
    bodies = [
        encode_command(c.session, c.seq, c.ack_below, c.name, c.args, c.key) for c in commands
    ]
    entry = pack_commands(bodies, **STAMPS)
    assert all(body in entry for body in bodies)
    header, body = unpack_entry(entry, 1)
    assert header == Header(Kind.COMMANDS, 3, 199, 9, 10, 11)
    assert unpack_commands(body, header.command_count, 1) == commands


def test_bytes_on_disk_do_not_change() -> None:
    body = encode_command(5, 2, 1, "add", b"\x81\xa1n\xa1x", "")
    assert body.hex() == "960502" + "01a3616464c40581a16ea178a0"
    entry = pack_commands([body], **STAMPS)
    assert entry.hex() == (
        "0101" "0300" "01000000" "0900000000000000" "0a00000000000000" "0b00000000000000"
        "dd00000001" + body.hex()
    )  # fmt: skip
    assert pack_entry(Header(Kind.TICK)).hex() == "0103" + "00" * 30


def test_a_command_of_an_older_client_has_no_key() -> None:
    assert decode_command(msgspec.msgpack.encode([5, 2, 1, "add", b""])).key == ""


@pytest.mark.parametrize(
    ("first", "error", "said"),
    [
        (bytes([FORMAT + 1, 1]), DataError, "entry 42: format 2 is newer than 1"),
        (bytes([FORMAT, 7]), DataError, "entry 42: unknown kind 7"),
        (bytes([0, 1]), CorruptionError, "entry 42: format 0"),
    ],
)
def test_what_is_newer_or_damaged_is_named(
    first: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        unpack_entry(first + bytes(30), 42)


def test_a_short_or_miscounted_entry_is_corrupt() -> None:
    with pytest.raises(CorruptionError, match="entry 3: 4 bytes"):
        unpack_entry(b"\x01\x01\x00\x00", 3)
    with pytest.raises(CorruptionError, match="1 commands, the header says 2"):
        unpack_commands(msgspec.msgpack.encode([[1, 1, 1, "a", b""]]), 2, 3)
    with pytest.raises(CorruptionError, match="holds no commands"):
        unpack_commands(b"\xc1", 1, 3)


@pytest.mark.parametrize("version", [0, 65_536])
def test_a_machine_version_has_to_fit_the_header(version: int) -> None:
    with pytest.raises(DataError, match=str(version)):
        check_version(version)
