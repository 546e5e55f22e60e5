"""The quorum arithmetic against a deliberately naive second implementation."""

from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from outlast.kernel import ReplicaId
from outlast.log.engines.raft.core.quorum import (
    VoteResult,
    joint_reached,
    joint_votes,
    majority,
    reached,
    votes_of,
)

NAMES = [ReplicaId(f"n{i}#1") for i in range(7)]
numbers = st.lists(st.integers(0, 6), min_size=1, max_size=7)
electorate = st.lists(st.sampled_from(NAMES), min_size=1, max_size=7, unique=True).map(tuple)
ballots = st.dictionaries(st.sampled_from(NAMES), st.booleans())


def quorums(voters: tuple[ReplicaId, ...]) -> list[frozenset[ReplicaId]]:
    """Return every set of voters that is more than half: by listing all sets."""
    return [
        frozenset(chosen)
        for size in range(len(voters) + 1)
        for chosen in combinations(voters, size)
        if 2 * size > len(voters)
    ]


def naive_reached(values: list[int]) -> int:
    """Try every number from the top, and count."""
    for number in range(max(values), -1, -1):
        if 2 * sum(value >= number for value in values) > len(values):
            return number
    return 0


def naive_votes(
    electorates: list[tuple[ReplicaId, ...]], votes: dict[ReplicaId, bool]
) -> VoteResult:
    """Ask of every way the missing answers could still come whether it wins."""

    def wins(granted: set[ReplicaId]) -> bool:
        return all(any(q <= granted for q in quorums(voters)) for voters in electorates)

    everyone = {voter for voters in electorates for voter in voters}
    granted = {voter for voter in everyone if votes.get(voter) is True}
    possible = {voter for voter in everyone if votes.get(voter) is not False}
    if wins(granted):
        return VoteResult.WON
    return VoteResult.PENDING if wins(possible) else VoteResult.LOST


@given(numbers)
@example([0, 0, 5, 5])
def test_reached_is_what_more_than_half_have(values: list[int]) -> None:
    assert reached(values) == naive_reached(values)


@given(numbers, numbers)
def test_joint_reached_needs_both(new: list[int], old: list[int]) -> None:
    assert joint_reached(new, old) == min(naive_reached(new), naive_reached(old))
    assert joint_reached(new, []) == naive_reached(new)


@given(electorate, ballots)
def test_votes_of_one_electorate(
    voters: tuple[ReplicaId, ...], votes: dict[ReplicaId, bool]
) -> None:
    assert votes_of(voters, votes) is naive_votes([voters], votes)


@given(electorate, electorate, ballots)
def test_joint_votes_need_both(
    new: tuple[ReplicaId, ...], old: tuple[ReplicaId, ...], votes: dict[ReplicaId, bool]
) -> None:
    assert joint_votes(new, old, votes) is naive_votes([new, old], votes)
    assert joint_votes(new, (), votes) is naive_votes([new], votes)


@given(st.integers(1, 9))
def test_any_two_majorities_meet(count: int) -> None:
    assert 2 * majority(count) > count
    assert 2 * (majority(count) - 1) <= count
