"""Majorities, single and joint: the arithmetic of commitment and of elections. Pure.

During a membership change two majorities are needed, one of the old and one of the new voters
(joint consensus, Raft paper 6). Everything that asks "did enough members …?" is one of two
questions: *up to which number* (match index, read round, time heard) or *yes or no* (votes).
"""

from collections.abc import Iterable, Mapping
from enum import Enum

from outlast.kernel import ReplicaId


class VoteResult(Enum):
    """What the votes so far decide."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """Return how many of ``count`` voters are a majority.

    >>> [majority(n) for n in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return count // 2 + 1


def reached(values: list[int]) -> int:
    """Return the largest number that a majority of ``values`` has reached.

    ``values`` holds one number per voter and must not be empty.

    >>> reached([7, 3, 5])
    5
    >>> reached([7, 3])
    3
    """
    return sorted(values)[len(values) - majority(len(values))]


def joint_reached(voters: list[int], old_voters: list[int]) -> int:
    """Return what both majorities have reached; ``old_voters`` is empty outside a change.

    >>> joint_reached([9, 9, 0], [1, 2, 3])
    2
    """
    if not old_voters:
        return reached(voters)
    return min(reached(voters), reached(old_voters))


def votes_of(voters: Iterable[ReplicaId], votes: Mapping[ReplicaId, bool]) -> VoteResult:
    """Judge one electorate. A voter that is missing in ``votes`` has not answered yet."""
    granted = refused = count = 0
    for voter in voters:
        count += 1
        answer = votes.get(voter)
        if answer is True:
            granted += 1
        elif answer is False:
            refused += 1
    needed = majority(count)
    if granted >= needed:
        return VoteResult.WON
    if count - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_votes(
    voters: Iterable[ReplicaId], old_voters: tuple[ReplicaId, ...], votes: Mapping[ReplicaId, bool]
) -> VoteResult:
    """Judge an election that needs both majorities during a change: lost by either is lost."""
    new = votes_of(voters, votes)
    if not old_voters:
        return new
    old = votes_of(old_voters, votes)
    if VoteResult.LOST in (new, old):
        return VoteResult.LOST
    return VoteResult.WON if new is old is VoteResult.WON else VoteResult.PENDING
