"""What a leader looks after: here, an entry that kills whoever applies it."""

from types import SimpleNamespace
from typing import Any

import pytest

from outlast.cluster.core.stepping import better_leader
from outlast.cluster.tending import Tending
from outlast.host import make_world
from outlast.kernel import LogIndex, ReplicaId
from outlast.log import Progress

pytestmark = pytest.mark.anyio

ME = ReplicaId("n1#1")


def far(replica: str, match: int, *, voter: bool = True, reachable: bool = True) -> Progress:
    return Progress(ReplicaId(replica), LogIndex(match), voter, reachable)


def test_the_reachable_voter_with_most_of_the_log_leads_instead():
    able = {ME, "n2#1", "n3#1", "n4#1", "n5#1"}
    rows = [
        far(ME, 9), far("n2#1", 7), far("n3#1", 8), far("n4#1", 9, voter=False),
        far("n5#1", 9, reachable=False), far("n6#1", 9),
    ]  # fmt: skip
    assert better_leader(rows, ME, able) == "n3#1"  # type: ignore[arg-type]
    assert better_leader(rows[:1], ME, able) is None  # type: ignore[arg-type]


class Cluster:
    """Stands for log, replica and comparison of the leader."""

    def __init__(self, *, held: int, majority: int) -> None:
        self.me = ME
        self.reports = {
            ME: SimpleNamespace(poisoned=held),
            "n2#1": SimpleNamespace(poisoned=majority),
            "n3#1": SimpleNamespace(poisoned=0),
        }
        self.held, self.majority = held, majority
        self.done: list[tuple[str, object]] = []

    def status(self) -> Any:
        return SimpleNamespace(poisoned=self.held)

    def poisoned_by_majority(self) -> int:
        return self.majority

    def progress(self) -> list[Progress]:
        return [far(ME, 9), far("n2#1", 9), far("n3#1", 8)]

    async def transfer(self, target: str, **_: object) -> None:
        self.done.append(("transfer", target))

    async def skip(self, index: int) -> None:
        self.done.append(("skip", index))

    async def lead(self) -> list[tuple[str, object]]:
        me: Any = self
        await Tending(make_world(), me, me, me, me)._skip_poisoned()
        return self.done


async def test_a_leader_that_alone_holds_before_an_entry_lets_another_one_lead():
    assert await Cluster(held=7, majority=0).lead() == [("transfer", "n2#1")]


async def test_an_entry_that_a_majority_holds_before_is_skipped_by_its_leader():
    assert await Cluster(held=7, majority=7).lead() == [("skip", 7)]


async def test_a_leader_that_goes_on_stays():
    assert await Cluster(held=0, majority=0).lead() == []
