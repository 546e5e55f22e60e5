"""Listens to what the real nodes of a simulated cluster say to each other, as it leaves them.

A promise is broken when it is spoken too early or twice, long before anybody suffers from it:
one vote per term, whatever restarts in between, nothing said that is not on disk, and no read of
a state that has not got as far as the read must see.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from outlast.log.engines.raft.core.types import AppendResponse, VoteRequest, VoteResponse
from outlast.log.engines.raft.driver import RaftDriver
from outlast.state.reads import ReadRounds

Message = tuple[Any, Any]
"""(target, message), as the driver sends it."""


@dataclass
class Said:
    """What every replica has said so far.

    Attributes:
        problem: Called with each broken promise.
    """

    problem: Callable[[str], None]
    votes: dict[tuple[str, int], str] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    """By replica: the last entry that was on its disk and known there to be committed."""

    def on_start(self, driver: RaftDriver) -> None:
        """Nothing that was durable is forgotten by a restart; a lost disk is another replica."""
        me, node = str(driver.me), driver.node
        last = max(int(node.last_index), driver.transfers.covered)
        if last < self.kept.get(me, 0):
            self.problem(f"{me} had {self.kept[me]} on disk, committed; it came back with {last}")
        if node.term < self.terms.get(me, 0):
            self.problem(f"{me} voted in {self.terms[me]}; it came back in term {node.term}")

    def on_send(self, driver: RaftDriver, messages: Sequence[Message]) -> None:
        """Judge what ``driver`` sends now."""
        me, kept = str(driver.me), min(int(driver.node.commit), driver.store.wal.durable[0])
        self.kept[me] = max(self.kept.get(me, 0), kept)
        for target, message in messages:
            if isinstance(message, VoteResponse) and message.granted and not message.pre:
                self._vote(driver, message.term, str(target))
            elif isinstance(message, VoteRequest) and not message.pre:
                self._vote(driver, message.term, str(driver.me))
            elif isinstance(message, AppendResponse) and message.success:
                self._match(driver, message.match)

    def _vote(self, driver: RaftDriver, term: int, candidate: str) -> None:
        """One vote per term (Raft 5.2), and not before it is durable (figure 2)."""
        me = str(driver.me)
        self.terms[me] = max(self.terms.get(me, 0), term)
        known = self.votes.setdefault((me, term), candidate)
        if known != candidate:
            self.problem(f"one vote per term: {me} voted for {known} and {candidate} in {term}")
        durable = driver.store.wal.hard_state
        if durable[0] < term or (durable[0] == term and durable[1] != candidate):
            self.problem(f"{me} voted for {candidate} in {term}, its disk says {durable}")

    def _match(self, driver: RaftDriver, match: int) -> None:
        """Nothing is acknowledged before it is durable, or part of a snapshot that is."""
        durable = max(driver.store.wal.durable[0], driver.transfers.covered)
        if match > durable:
            self.problem(f"{driver.me} acknowledged {match}, its disk has {durable}")


@contextmanager
def listening(problem: Callable[[str], None]) -> Iterator[None]:
    """Listen to every node of this process until the block ends."""
    said, send, start = Said(problem), RaftDriver._send, RaftDriver.start
    wait, round_ = ReadRounds.wait, ReadRounds._round

    def started(self: RaftDriver) -> None:
        said.on_start(self)
        start(self)

    def heard(self: RaftDriver, messages: list[Message]) -> None:
        said.on_send(self, messages)
        send(self, messages)

    async def waited(self: ReadRounds, deadline: Any) -> int:
        index = await wait(self, deadline)
        applied = self._applier.passed
        if applied < index:
            problem(f"a read must see {index} and looks at a state that has applied {applied}")
        return index

    async def asked_for(self: ReadRounds, asked: list[Any]) -> None:
        await round_(self, asked)
        if any(one.done() and not one.cancelled() and not one.exception() for one in self._next):
            problem("a read was answered by a round that had begun before it")

    RaftDriver.start = started  # type: ignore[method-assign]
    RaftDriver._send = heard  # type: ignore[method-assign]
    ReadRounds.wait = waited  # type: ignore[method-assign]
    ReadRounds._round = asked_for  # type: ignore[method-assign]
    try:
        yield
    finally:
        RaftDriver.start = start  # type: ignore[method-assign]
        RaftDriver._send = send  # type: ignore[method-assign]
        ReadRounds.wait = wait  # type: ignore[method-assign]
        ReadRounds._round = round_  # type: ignore[method-assign]
