"""Counting the answers of redundant instances.

Answers that compare equal form a party; the first party of ``quorum`` members wins. As soon as
no party can reach the quorum any more, the vote is *hopeless*, however many are still to answer.
With ``n`` instances and a majority as the quorum, ``(n - 1) // 2`` instances may lie, in any way
and together, and the answer is still that of the honest ones (Lamport, Shostak and Pease 1982,
for answers that are collected by one who is trusted).

States: *open* (``winner`` is ``None``, not ``hopeless``), *won*, *hopeless*.
"""

from typing import Any


class Party:
    """Instances that gave the same answer, and the first of these answers."""

    __slots__ = ("answer", "ballot", "members")

    def __init__(self, ballot: Any, answer: Any, member: int) -> None:
        self.ballot = ballot
        self.answer = answer
        self.members = [member]


class Tally:
    """The count of one vote. Not thread-safe.

    Args:
        count: How many instances were asked.
        quorum: How many equal answers decide; from 1 to ``count``.

    Attributes:
        failed: Instances that gave no answer, by number.
        winner: The party that reached the quorum first.
    """

    __slots__ = ("_parties", "count", "failed", "quorum", "winner")

    def __init__(self, count: int, quorum: int) -> None:
        self.count = count
        self.quorum = quorum
        self.failed: list[int] = []
        self.winner: Party | None = None
        self._parties: list[Party] = []

    def answered(self, member: int, ballot: Any, answer: Any) -> None:
        """Count the answer of instance ``member``; ``ballot`` is what is compared."""
        for party in self._parties:
            if party.ballot is ballot or party.ballot == ballot:
                party.members.append(member)
                break
        else:
            party = Party(ballot, answer, member)
            self._parties.append(party)
        if self.winner is None and len(party.members) >= self.quorum:
            self.winner = party

    def gave_none(self, member: int) -> None:
        """Count instance ``member`` as one that will not answer."""
        self.failed.append(member)

    @property
    def parties(self) -> tuple[int, ...]:
        """How many gave each answer, most first; the answers are not told."""
        return tuple(sorted((len(party.members) for party in self._parties), reverse=True))

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Who gave each answer, by number."""
        return tuple(tuple(party.members) for party in self._parties)

    @property
    def open_count(self) -> int:
        """How many are still to answer."""
        return self.count - len(self.failed) - sum(self.parties)

    @property
    def hopeless(self) -> bool:
        """Whether no answer can reach the quorum any more."""
        if self.winner is not None:
            return False
        return max(self.parties, default=0) + self.open_count < self.quorum

    @property
    def dissenters(self) -> tuple[int, ...]:
        """Instances that answered otherwise than the winner, by number."""
        if self.winner is None:
            return ()
        others = (party for party in self._parties if party is not self.winner)
        return tuple(sorted(member for party in others for member in party.members))


def majority(count: int) -> int:
    """Return the least number that is more than half of ``count``."""
    return count // 2 + 1


def told(tally: Tally) -> str:
    """Return in words what the instances have answered; not the answers themselves.

    >>> tally = Tally(3, 2)
    >>> for member in range(3):
    ...     tally.answered(member, member, member)
    >>> told(tally)
    '3 instances gave 3 different answers'
    """
    count, parties = tally.count, tally.parties
    answers = sum(parties)
    who = f"{count} instances" if answers == count else f"{answers} of {count} instances"
    if answers < 2:
        return f"{answers or 'none'} of {count} instances answered"
    if len(parties) == 1:
        return f"{who} gave the same answer"
    alike = "" if parties[0] == 1 else f", at most {parties[0]} the same"
    return f"{who} gave {len(parties)} different answers{alike}"
