"""Frames survive any cut and no flip: the stream is given back or refused, never changed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import ProtocolError
from outlast.wire import FrameDecoder, Limits, encode_frame

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)),
    max_size=6,
)


@given(FRAMES, st.data())
def test_any_cut_gives_the_same_frames(frames: list[tuple[int, int, bytes]], data: object) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))  # type: ignore[attr-defined]
    decoder = FrameDecoder(Limits())
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[begin:end])
    assert got == frames
    assert decoder.held_bytes == 0


@settings(max_examples=20)
@given(FRAMES.filter(bool))
def test_a_cut_at_every_byte_gives_the_same_frames(frames: list[tuple[int, int, bytes]]) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder(Limits())
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == frames
        one = FrameDecoder(Limits())
        first, rest = one.feed_one(stream[:cut])
        if first is None:
            first, rest = one.feed_one(stream[cut:])
        else:
            rest += stream[cut:]
        assert first == frames[0]
        assert rest == stream[16 + len(frames[0][2]) :]


@given(FRAMES.filter(bool), st.data())
def test_a_flipped_bit_never_gives_another_frame(
    frames: list[tuple[int, int, bytes]], data: object
) -> None:
    stream = bytearray(b"".join(encode_frame(*frame) for frame in frames))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))  # type: ignore[attr-defined]
    stream[bit // 8] ^= 1 << (bit % 8)
    decoder = FrameDecoder(Limits(frame_bytes_max=1000, send_buffer_bytes_max=1000))
    got: list[tuple[int, int, bytes]] = []
    refused = False
    for at in range(0, len(stream), 16):
        try:
            got += decoder.feed(bytes(stream[at : at + 16]))
        except ProtocolError:
            refused = True
            break
    assert got == frames[: len(got)]
    assert len(got) < len(frames)
    # Only a longer length may still wait for more; what it waits for is bounded.
    assert refused or 0 < decoder.held_bytes <= 1016


@given(st.binary(max_size=200))
def test_garbage_gives_nothing(garbage: bytes) -> None:
    decoder = FrameDecoder(Limits(frame_bytes_max=64, send_buffer_bytes_max=64))
    try:
        got = decoder.feed(garbage)
    except ProtocolError:
        return
    assert got == []
    assert decoder.held_bytes == len(garbage) <= 80
