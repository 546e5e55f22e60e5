"""The health server's HTTP against bytes of every kind."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.core.health_http import Refusal, Request, Then, converse, parse
from outlast.detect.core.health_text import Answer

PIECES = st.sampled_from(
    [b"GET", b" ", b"/", b"readyz", b"?", b"%2", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r", b"\n",
     b"\r\n\r\n", b":", b"Connection", b"close", b"Content-Length: 5", b"\0", b"\xff", b"http://"]
)  # fmt: skip
RAW = st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=30).map(b"".join)


@settings(deadline=None, max_examples=500)
@given(RAW, st.integers(1, 200))
def test_any_bytes_are_read_refused_or_waited_for(raw: bytes, limit: int) -> None:
    found = parse(raw, limit)
    if isinstance(found, Request):
        assert found.size <= limit
        assert raw[: found.size].endswith(b"\r\n\r\n")
        assert found.asked.path.startswith("/")
        assert not (found.keep and found.body)
    elif found is None:
        assert len(raw) < limit


@settings(deadline=None, max_examples=300)
@given(RAW, st.integers(1, 200), st.binary(max_size=20))
def test_what_was_decided_is_not_changed_by_what_comes_after(
    raw: bytes, limit: int, after: bytes
) -> None:
    found = parse(raw, limit)
    if isinstance(found, Request) or found == Refusal(431):
        assert parse(raw + after, limit) == found


REQUEST = st.sampled_from(
    [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"\r\nGET", b"junk\r\n\r\n"]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(REQUEST, max_size=6).map(b"".join), st.lists(st.integers(0, 300), max_size=6))
def test_what_is_said_does_not_depend_on_how_the_bytes_come(raw: bytes, cuts: list[int]) -> None:
    def say(pieces: list[bytes]) -> tuple[bytes, Then]:
        come, said = bytearray(), b""
        for piece in pieces:
            come += piece
            more, then = converse(
                come, 1000, lambda asked: Answer(200, (), asked.path.encode()), 0
            )
            said += more
            if then is not Then.WAIT:
                return said, then
        return said, Then.WAIT

    places = [0, *sorted(cuts), len(raw)]
    pieces = [raw[begin:end] for begin, end in pairwise(places)]
    assert say(pieces) == say([raw])
