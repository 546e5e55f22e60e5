"""A pool without instances of anything: its time, its calls, and what it has told."""

from collections import Counter
from typing import Any

from outlast.kernel import Event, Prng
from outlast.pool import Found, Instance, ramp
from outlast.pool.core.pool import Picked, PoolCore, Rules
from outlast.pool.core.settings import pick_of

S = 1_000_000_000
MS = 1_000_000


class Story:
    """A pool, its time, and what it has told."""

    def __init__(self, *names: str, weights: dict[str, float] | None = None, **rules: Any) -> None:
        given = {"pick": pick_of("round_robin"), "readmit": ramp(0), **rules}
        self.core = PoolCore("shop", Rules(**given), Prng(7))
        self.now = 0
        self.weights = weights or {}
        self.find(*names)
        self.core.events.clear()

    def find(self, *names: str, avoid: str = "", zones: dict[str, str] | None = None) -> None:
        made = tuple(
            Instance(name, self.weights.get(name, 1.0), (zones or {}).get(name, ""))
            for name in names
        )
        self.core.found(Found(made, frozenset(avoid)), self.now)

    def take(self, *tried: str) -> Picked:
        picked = self.core.pick(tried, self.now)
        assert picked is not None
        return picked

    def ask(self, verdict: Any = "ok", took: int = 10 * MS, *tried: str) -> str:
        picked = self.take(*tried)
        self.now += took
        self.core.done(picked, verdict, took, self.now)
        return picked.member.address

    def ask_of(self, name: str, verdict: Any, times: int = 1, took: int = 10 * MS) -> None:
        """Call ``name``, by leaving all others out."""
        others = [member.address for member in self.core.members if member.address != name]
        for _ in range(times):
            assert self.ask(verdict, took, *others) == name

    def told(self) -> list[Event]:
        told, self.core.events = self.core.events, []
        return told

    def standing(self, name: str) -> str:
        self.core.tend(self.now)
        member = self.core.member(name)
        return "gone" if member is None else member.standing

    def chosen(self, count: int) -> Counter[str]:
        return Counter(self.ask() for _ in range(count))


def ejected(**rules: Any) -> Story:
    story = Story("a", "b", "c", **rules)
    story.ask_of("a", "failed", 5)
    story.told()
    return story
