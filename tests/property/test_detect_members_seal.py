"""Whatever comes from the network is either what a member of the group closed, or refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.members_seal import Purpose, Seal, key_text, make_seal, read_keys
from outlast.detect.members_view import decode_view
from outlast.kernel import ConfigError, ProtocolError

KEY = bytes(range(32))
SEALS: list[Seal] = [make_seal([]), make_seal([KEY], encrypt=False), make_seal([KEY])]
purposes = st.sampled_from(list(Purpose))


@settings(deadline=None)
@given(st.sampled_from(SEALS), purposes, st.binary(max_size=2000), st.binary(max_size=40))
def test_a_body_comes_out_as_it_went_in(
    seal: Seal, purpose: Purpose, body: bytes, bound: bytes
) -> None:
    message = seal.close(purpose, body, bound=bound)
    assert seal.open(purpose, message, bound=bound) == body
    assert len(message) == len(body) + seal.overhead


@settings(deadline=None)
@given(st.sampled_from(SEALS[1:]), purposes, st.binary(max_size=300), st.data())
def test_nothing_that_was_made_without_the_key_opens(
    seal: Seal, purpose: Purpose, noise: bytes, data: st.DataObject
) -> None:
    """Noise, also behind the first bytes of a true message."""
    true = seal.close(purpose, b"a true body")
    kept = data.draw(st.integers(0, len(true) - 16))
    message = true[:kept] + noise
    if message == true:
        return
    with pytest.raises(ProtocolError):
        seal.open(purpose, message)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=8, unique=True))
def test_a_key_file_gives_back_its_keys(keys: list[bytes]) -> None:
    assert read_keys("\n".join(map(key_text, keys))) == keys


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_file_of_anything_is_read_or_refused(text: str) -> None:
    try:
        keys = read_keys(text)
    except ConfigError:
        return
    assert all(len(key) == 32 for key in keys)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_an_answer_of_anything_is_read_or_refused(data: bytes) -> None:
    try:
        decode_view(data)
    except ProtocolError:
        return
