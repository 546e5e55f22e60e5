"""Who may speak in a group: sealed, signed and open messages, keys and key files."""

from itertools import pairwise

import pytest

from outlast.detect import Members
from outlast.detect.members_seal import (
    OVERHEAD_MAX,
    Purpose,
    Seal,
    check_keys,
    key_text,
    make_seal,
    purpose_of,
    read_keys,
)
from outlast.kernel import ConfigError, ProtocolError

KEY, OTHER = bytes(range(32)), b"o" * 32
BODY = b"a body of some length"


def seals(encrypt: bool) -> Seal:
    return make_seal([KEY], encrypt=encrypt)


@pytest.fixture(params=[True, False], ids=["encrypted", "signed"])
def encrypt(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_is_closed_opens_to_the_same(encrypt: bool) -> None:
    seal = seals(encrypt)
    for body in (b"", b"x", BODY, bytes(70_000)):
        message = seal.close(Purpose.PACKET, body)
        assert seal.open(Purpose.PACKET, message) == body
        assert len(message) == len(body) + seal.overhead <= len(body) + OVERHEAD_MAX


def test_an_encrypted_body_cannot_be_read_and_a_signed_one_can() -> None:
    assert BODY not in seals(True).close(Purpose.PACKET, BODY)
    assert BODY in seals(False).close(Purpose.PACKET, BODY)


def test_no_two_messages_are_equal_though_their_bodies_are(encrypt: bool) -> None:
    messages = sorted(seals(encrypt).close(Purpose.PACKET, BODY) for _ in range(100))
    assert all(a != b for a, b in pairwise(messages))


def test_a_change_of_any_single_bit_is_found(encrypt: bool) -> None:
    seal = seals(encrypt)
    message = seal.close(Purpose.PACKET, BODY)
    for place in range(len(message) * 8):
        changed = bytearray(message)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(ProtocolError):
            seal.open(Purpose.PACKET, bytes(changed))


def test_every_shorter_and_longer_message_is_refused(encrypt: bool) -> None:
    seal = seals(encrypt)
    message = seal.close(Purpose.PACKET, BODY)
    for size in range(len(message)):
        with pytest.raises(ProtocolError):
            seal.open(Purpose.PACKET, message[:size])
    with pytest.raises(ProtocolError, match="forged"):
        seal.open(Purpose.PACKET, message + b"\0")


def test_a_message_for_one_purpose_opens_for_no_other(encrypt: bool) -> None:
    seal = seals(encrypt)
    message = bytearray(seal.close(Purpose.PACKET, BODY))
    with pytest.raises(ProtocolError, match="purpose"):
        seal.open(Purpose.EXCHANGE, bytes(message))
    message[1] = message[1] & 0xF0 | Purpose.EXCHANGE
    with pytest.raises(ProtocolError, match="forged"):
        seal.open(Purpose.EXCHANGE, bytes(message))


def test_an_answer_opens_only_for_the_question_that_it_was_bound_to(encrypt: bool) -> None:
    seal = seals(encrypt)
    answer = seal.close(Purpose.EXCHANGE_ANSWER, BODY, bound=b"question 1")
    assert seal.open(Purpose.EXCHANGE_ANSWER, answer, bound=b"question 1") == BODY
    for other in (b"question 2", b""):
        with pytest.raises(ProtocolError, match="forged"):
            seal.open(Purpose.EXCHANGE_ANSWER, answer, bound=other)


def test_another_key_is_unknown_and_another_mode_is_told() -> None:
    sealed = seals(True).close(Purpose.PACKET, BODY)
    plain = make_seal([]).close(Purpose.PACKET, BODY)
    for seal, message, reason in (
        (make_seal([OTHER]), sealed, "unknown key"),
        (seals(False), sealed, "mode"),
        (make_seal([]), sealed, "mode"),
        (seals(True), plain, "no key"),
        (seals(True), b"\xb0" + sealed[1:], "version"),
        (seals(True), sealed[:30], "short"),
        (seals(True), b"", "version"),
    ):
        with pytest.raises(ProtocolError, match=f"^{reason}$"):
            seal.open(Purpose.PACKET, message)


def test_a_forged_message_with_a_known_key_id_does_not_open(encrypt: bool) -> None:
    seal = seals(encrypt)
    message = seal.close(Purpose.PACKET, BODY)
    with pytest.raises(ProtocolError, match="forged"):
        seal.open(Purpose.PACKET, message[:6] + bytes(len(message) - 6))


def test_the_first_key_closes_and_all_open(encrypt: bool) -> None:
    old = make_seal([KEY], encrypt=encrypt)
    both = make_seal([KEY, OTHER], encrypt=encrypt)
    turned = make_seal([OTHER, KEY], encrypt=encrypt)
    new = make_seal([OTHER], encrypt=encrypt)
    assert both.open(Purpose.PACKET, turned.close(Purpose.PACKET, BODY)) == BODY
    assert turned.open(Purpose.PACKET, both.close(Purpose.PACKET, BODY)) == BODY
    assert old.open(Purpose.PACKET, both.close(Purpose.PACKET, BODY)) == BODY
    assert new.open(Purpose.PACKET, turned.close(Purpose.PACKET, BODY)) == BODY
    with pytest.raises(ProtocolError, match="unknown key"):
        old.open(Purpose.PACKET, turned.close(Purpose.PACKET, BODY))


def test_without_a_key_anybody_may_write() -> None:
    seal = make_seal([])
    message = seal.close(Purpose.PACKET, BODY)
    assert seal.open(Purpose.PACKET, message) == BODY
    with pytest.raises(ProtocolError, match="purpose"):
        seal.open(Purpose.QUESTION, message)


def test_what_is_asked_is_read_from_the_header() -> None:
    assert purpose_of(make_seal([]).close(Purpose.QUESTION, b"")) is Purpose.QUESTION
    for message in (b"", b"\xb1", b"\xb1\x0f"):
        with pytest.raises(ProtocolError, match="purpose"):
            purpose_of(message)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"short", "a key is 5 bytes; it must be 32 bytes"),
        ([KEY, "text"], "a key is a str"),
        ([KEY, KEY], "in the ring twice"),
        ([], "key has 0 keys; give 1 to 8"),
        ([bytes([n]) * 32 for n in range(9)], "key has 9 keys"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(key: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_keys(key)  # type: ignore[arg-type]
    assert "text" not in str(caught.value)


def test_a_key_file_holds_one_key_per_line() -> None:
    keys = [Members.make_key(), Members.make_key()]
    assert len(set(keys)) == 2
    text = f"# the new one\n{key_text(keys[0])}\n\n{key_text(keys[1])}  # the old one\n"
    assert read_keys(text) == keys


@pytest.mark.parametrize("line", ["secret", "!!!", key_text(b"x" * 31), key_text(KEY) + "AA"])
def test_a_line_that_is_no_key_is_named_by_its_number_and_not_shown(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^file:2: not a key") as caught:
        read_keys(f"{key_text(KEY)}\n{line}\n", where="file")
    assert line not in str(caught.value)


def test_a_file_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="file: no key in it"):
        read_keys("# nothing\n", where="file")
