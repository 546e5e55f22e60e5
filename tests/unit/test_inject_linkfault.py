"""What a link does to bytes, decided without a socket or a clock."""

import pytest

from outlast.inject.core.linkfault import LOSSES_MAX, Lane, LinkFault, Pace, timing
from outlast.kernel import ConfigError, Prng

MS = 1_000_000


def lane_with(*payloads: bytes, fault: LinkFault, seed: int = 1, now: int = 0) -> Lane:
    lane, pace, prng = Lane(100), Pace(), Prng(seed)
    for payload in payloads:
        lane.put(payload, fault, now, pace, prng)
    return lane


def taken(lane: Lane, now: int) -> list[object]:
    found = []
    while (waiting := lane.take(now)) is not None:
        found.append(waiting.payload)
    return found


def test_a_delay_is_kept_to_the_nanosecond():
    lane = lane_with(b"a", fault=LinkFault(delay_ns=5 * MS))
    assert taken(lane, 5 * MS - 1) == []
    assert lane.next_due_ns() == 5 * MS
    assert taken(lane, 5 * MS) == [b"a"]
    assert not lane


def test_a_chunk_is_never_due_before_the_one_before_it():
    lane, pace, prng = Lane(100), Pace(), Prng(1)
    lane.put(b"slow", LinkFault(delay_ns=50 * MS), 0, pace, prng)
    lane.put(b"fast", LinkFault(), 1, pace, prng)
    assert taken(lane, 49 * MS) == []
    assert taken(lane, 50 * MS) == [b"slow", b"fast"]


def test_jitter_is_within_its_bounds_and_the_same_for_the_same_seed():
    fault = LinkFault(delay_ns=MS, jitter_ns=10 * MS)
    prng = Prng(3)
    dues = [timing(fault, 1, 0, Pace(), prng).due_ns for _ in range(200)]
    assert min(dues) >= MS
    assert max(dues) <= 11 * MS
    assert len(set(dues)) > 100
    again = Prng(3)
    assert dues == [timing(fault, 1, 0, Pace(), again).due_ns for _ in range(200)]


def test_each_loss_in_a_row_doubles_the_wait_up_to_a_bound():
    fault = LinkFault(loss_ppm=1_000_000)
    found = timing(fault, 1, 0, Pace(), Prng(1))
    assert found.losses == LOSSES_MAX
    assert found.due_ns == 200 * MS * (1 + 2 + 4 + 8 + 16)


def test_losses_come_as_often_as_asked():
    fault, prng = LinkFault(loss_ppm=100_000), Prng(9)
    lost = sum(timing(fault, 1, 0, Pace(), prng).losses > 0 for _ in range(10_000))
    assert 900 < lost < 1_100


def test_a_narrow_line_is_shared_by_all_connections():
    fault, pace, prng = LinkFault(bytes_per_second=1_000), Pace(), Prng(1)
    assert timing(fault, 100, 0, pace, prng).due_ns == 100 * MS
    assert timing(fault, 100, 0, pace, prng).due_ns == 200 * MS
    assert timing(fault, 100, 500 * MS, pace, prng).due_ns == 600 * MS


def test_large_chunks_are_paced_in_pieces():
    assert LinkFault(bytes_per_second=1_000_000).slice_bytes(1 << 20) == 20_000
    assert LinkFault(bytes_per_second=100).slice_bytes(1 << 20) == 256
    assert LinkFault().slice_bytes(1 << 20) == 1 << 20


def test_a_held_lane_gives_nothing_and_is_full():
    lane = lane_with(b"a", fault=LinkFault(cut=True))
    lane.held = True
    assert lane.full
    assert lane.next_due_ns() is None
    assert taken(lane, 10**12) == []
    lane.held = False
    assert taken(lane, 0) == [b"a"]


def test_a_lane_is_full_at_its_limit_and_not_after_it_was_emptied():
    lane = lane_with(b"a" * 99, fault=LinkFault())
    assert not lane.full
    lane.put(b"b", LinkFault(), 0, Pace(), Prng(1))
    assert lane.full
    taken(lane, 0)
    assert not lane.full
    assert lane.waiting_bytes == 0


def test_hurrying_makes_all_due_and_keeps_the_order():
    lane = lane_with(b"a", b"b", fault=LinkFault(delay_ns=10**12))
    lane.hurry(7)
    assert taken(lane, 7) == [b"a", b"b"]


def test_the_end_of_a_stream_waits_for_what_was_sent_before_it():
    lane, pace, prng = Lane(100), Pace(), Prng(1)
    fault = LinkFault(delay_ns=MS)
    lane.put(b"a", fault, 0, pace, prng)
    lane.put("eof", fault, 0, pace, prng)
    assert taken(lane, MS) == [b"a", "eof"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("delay_ns", -1), ("jitter_ns", -1), ("loss_ppm", 1_000_001), ("bytes_per_second", -5)],
)
def test_a_setting_out_of_range_is_named(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} is {value}"):
        LinkFault(**{setting: value})


def test_the_default_is_harmless_and_everything_else_is_not():
    assert LinkFault().harmless
    for wrong in ("cut", "drop", "reset", "delay_ns", "jitter_ns", "loss_ppm", "bytes_per_second"):
        assert not LinkFault(**{wrong: 1}).harmless
