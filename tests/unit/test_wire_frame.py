"""The frame codec: layout, limits, and refusal of every kind of damage."""

import pytest

from outlast.kernel import ConfigError, ProtocolError
from outlast.wire import HEADER_BYTES, FrameDecoder, Limits, encode_frame

SMALL = Limits(frame_bytes_max=100, send_buffer_bytes_max=1000)


def test_layout_is_fixed() -> None:
    frame = encode_frame(0x21, 0x01020304, b"body")
    assert frame[:4] == (4).to_bytes(4, "little")
    assert frame[8:12] == b"\x21\x00\x00\x00"
    assert frame[12:16] == b"\x04\x03\x02\x01"
    assert frame[16:] == b"body"
    # RFC 3720 appendix B.4: crc32c of 32 zero bytes is 0x8a9136aa; ours covers 8 + body.
    zeros = encode_frame(0, 0, bytes(24))
    assert zeros[4:8] == (0x8A9136AA).to_bytes(4, "little")


def test_big_and_small_bodies_take_the_same_form() -> None:
    for size in (0, 1, 8191, 8192, 8193, 70_000):
        body = bytes(range(256)) * (size // 256 + 1)
        frame = encode_frame(3, 9, body[:size])
        assert len(frame) == HEADER_BYTES + size
        assert FrameDecoder(Limits()).feed(frame) == [(3, 9, body[:size])]


@pytest.mark.parametrize(("kind", "stream"), [(256, 0), (-1, 0), (0, 1 << 32), (0, -1)])
def test_numbers_that_do_not_fit_are_refused(kind: int, stream: int) -> None:
    with pytest.raises(ProtocolError, match=f"kind {kind}, stream {stream}"):
        encode_frame(kind, stream, b"")


def test_length_above_the_limit_is_refused_from_the_header_alone() -> None:
    assert FrameDecoder(SMALL).feed(encode_frame(1, 1, bytes(100))) == [(1, 1, bytes(100))]
    decoder = FrameDecoder(SMALL)
    with pytest.raises(ProtocolError, match="frame of 101 bytes; at most 100"):
        decoder.feed(encode_frame(1, 1, bytes(101))[:HEADER_BYTES])
    assert decoder.held_bytes == 0


@pytest.mark.parametrize("at", [9, 10, 11])
def test_reserved_bits_are_refused_even_with_a_good_checksum(at: int) -> None:
    from crc32c import crc32c

    frame = bytearray(encode_frame(1, 1, b"abc"))
    frame[at] = 1
    frame[4:8] = crc32c(bytes(frame[8:])).to_bytes(4, "little")
    with pytest.raises(ProtocolError, match="reserved"):
        FrameDecoder(Limits()).feed(bytes(frame))


def test_wrong_checksum_names_both_values() -> None:
    frame = bytearray(encode_frame(1, 1, b"abc"))
    frame[-1] ^= 1
    with pytest.raises(ProtocolError, match=r"checksum is 0x[0-9a-f]{8}, computed 0x[0-9a-f]{8}"):
        FrameDecoder(Limits()).feed(bytes(frame))


def test_a_failed_decoder_stays_failed() -> None:
    decoder = FrameDecoder(Limits())
    with pytest.raises(ProtocolError):
        decoder.feed(b"\xff" * 16)
    with pytest.raises(ProtocolError):
        decoder.feed(encode_frame(1, 1, b""))
    with pytest.raises(ProtocolError):
        decoder.feed_one(encode_frame(1, 1, b""))


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "looks like HTTP"),
        (b"\x16\x03\x01\x02\x00" + bytes(20), "looks like TLS"),
    ],
)
def test_other_protocols_are_named(data: bytes, hint: str) -> None:
    with pytest.raises(ProtocolError, match=hint):
        FrameDecoder(Limits(frame_bytes_max=4096)).feed(data)


def test_one_byte_at_a_time_holds_one_frame_at_most() -> None:
    decoder = FrameDecoder(SMALL)
    got = []
    most = 0
    for byte in encode_frame(1, 1, bytes(100)) * 3:
        got += decoder.feed(bytes([byte]))
        most = max(most, decoder.held_bytes)
    assert got == [(1, 1, bytes(100))] * 3
    assert most == HEADER_BYTES + 99
    assert decoder.held_bytes == 0


def test_feed_one_leaves_what_follows_untouched() -> None:
    first, rest = encode_frame(1, 1, b"a"), b"\xff" * 40
    assert FrameDecoder(SMALL).feed_one(first + rest) == ((1, 1, b"a"), rest)
    decoder = FrameDecoder(SMALL)
    assert decoder.feed_one(first[:10]) == (None, b"")
    assert decoder.feed_one(first[10:] + rest) == ((1, 1, b"a"), rest)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"frame_bytes_max": 0}, "frame_bytes_max is 0"),
        ({"frame_bytes_max": 1 << 32, "send_buffer_bytes_max": 1 << 40}, "32 bits"),
        ({"send_buffer_bytes_max": 10}, "could never be sent"),
        ({"idle_timeout": 10.0, "keepalive": 5.0}, "three times"),
    ],
)
def test_limits_are_checked(given: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Limits(**given)
