"""How far a log may be trimmed: permission, holds and their limits."""

import pytest

from outlast.kernel import ConfigError, LogIndex, TrimmedError
from outlast.log.api import Hold
from outlast.log.core.hold import MARK_BYTES, Holds, Sizes


def sizes_of(count: int, each: int) -> Sizes:
    sizes = Sizes()
    for index in range(1, count + 1):
        sizes.add(index, each)
    return sizes


def hold(name: str, index: int, bytes_max: int = 1 << 40) -> Hold:
    return Hold(name, LogIndex(index), bytes_max)


def test_without_permission_nothing_goes() -> None:
    assert Holds().settle(tail=LogIndex(9), sizes=sizes_of(8, 10)) == (0, [])


def test_permission_stops_at_the_tail() -> None:
    holds = Holds()
    holds.permit(LogIndex(500))
    assert holds.settle(tail=LogIndex(9), sizes=sizes_of(8, 10)) == (9, [])


def test_a_lower_permission_takes_nothing_back() -> None:
    holds = Holds()
    holds.permit(LogIndex(7))
    holds.permit(LogIndex(3))
    assert holds.permitted == 7


def test_the_lowest_hold_decides() -> None:
    holds = Holds()
    holds.put(hold("a", 4), first=LogIndex(1))
    holds.put(hold("b", 6), first=LogIndex(1))
    holds.permit(LogIndex(9))
    sizes = sizes_of(8, 10)
    assert holds.settle(tail=LogIndex(9), sizes=sizes) == (4, [])
    holds.release("a")
    assert holds.settle(tail=LogIndex(9), sizes=sizes) == (6, [])
    holds.put(hold("b", 8), first=LogIndex(1))
    assert holds.settle(tail=LogIndex(9), sizes=sizes) == (8, [])


def test_a_hold_above_the_permission_does_not_extend_it() -> None:
    holds = Holds()
    holds.put(hold("a", 8), first=LogIndex(1))
    holds.permit(LogIndex(3))
    assert holds.settle(tail=LogIndex(9), sizes=sizes_of(8, 10)) == (3, [])


@pytest.mark.parametrize(("bytes_max", "kept"), [(50, True), (49, False)])
def test_a_hold_is_released_one_byte_past_its_limit(bytes_max: int, kept: bool) -> None:
    holds = Holds()
    holds.put(hold("a", 4, bytes_max), first=LogIndex(1))
    holds.permit(LogIndex(9))
    before, released = holds.settle(tail=LogIndex(9), sizes=sizes_of(8, 10))
    assert before == (4 if kept else 9)
    assert [one.kept_bytes for one in released] == ([] if kept else [50])
    assert len(holds) == kept


def test_only_what_is_permitted_counts_against_a_hold() -> None:
    holds = Holds()
    holds.put(hold("a", 4, 20), first=LogIndex(1))
    holds.permit(LogIndex(6))
    assert holds.settle(tail=LogIndex(1000), sizes=sizes_of(999, 10)) == (4, [])


def test_a_released_hold_does_not_release_the_others() -> None:
    holds = Holds()
    holds.put(hold("forgotten", 2, 5), first=LogIndex(1))
    holds.put(hold("honest", 5, 500), first=LogIndex(1))
    holds.permit(LogIndex(9))
    before, released = holds.settle(tail=LogIndex(9), sizes=sizes_of(8, 10))
    assert before == 5
    assert [one.event().name for one in released] == ["forgotten"]


def test_a_hold_may_not_move_back() -> None:
    holds = Holds()
    holds.put(hold("a", 4), first=LogIndex(1))
    with pytest.raises(ConfigError, match="stands at 4 and may only move forward, not to 3"):
        holds.put(hold("a", 3), first=LogIndex(1))


def test_a_hold_below_first_says_what_is_readable() -> None:
    with pytest.raises(TrimmedError) as caught:
        Holds().put(hold("a", 4), first=LogIndex(5))
    assert caught.value.first == 5


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="bytes_max is -1"):
        Holds().put(hold("a", 4, -1), first=LogIndex(1))


def test_sizes_are_exact_for_equal_entries_and_close_for_others() -> None:
    equal = sizes_of(5000, 100)
    assert equal.between(1, 5001) == 500_000
    assert equal.between(2500, 2600) == 10_000
    mixed, true = Sizes(), [0]
    for index in range(1, 3000):
        size = (index * 7919) % 5000
        mixed.add(index, size)
        true.append(size)
    for low, high in ((1, 3000), (100, 2000), (1234, 1300)):
        assert abs(mixed.between(low, high) - sum(true[low:high])) <= 2 * (MARK_BYTES + 5000)


def test_sizes_stay_right_after_a_trim() -> None:
    sizes = sizes_of(50_000, 100)
    whole = sizes.between(40_000, 50_001)
    sizes.trim(30_000)
    assert sizes.between(40_000, 50_001) == whole
    assert sizes.between(50_001, 50_001) == 0
