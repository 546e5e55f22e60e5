"""A group of members, each on a simulated host of its own."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from outlast import sim
from outlast.detect import Members, MemberState
from outlast.kernel import Event

KEY = bytes(range(32))
PORT = 7946


class Group:
    """Members by the name of their host.

    Attributes:
        now: The latest of each name.
        told: The events of each name, over all its lives, with their virtual time.
    """

    def __init__(self, lab: sim.Lab, **settings: Any) -> None:
        self.lab = lab
        self.settings = settings
        self.now: dict[str, Members] = {}
        self.told: dict[str, list[tuple[float, Event]]] = {}

    async def run(self, name: str, seeds: Sequence[str], settings: dict[str, Any]) -> None:
        """Program of a host."""
        merged: dict[str, Any] = {"key": KEY, **self.settings, **settings}
        members = Members(
            merged.pop("name", name), bind=f"0.0.0.0:{PORT}", advertise=name, seeds=seeds, **merged
        )
        self.now[name] = members
        events = members.events()
        async with members:
            async for event in events:
                self.told.setdefault(name, []).append((self.lab.now, event))

    def add(self, name: str, seeds: Sequence[str] = ("n1",), **settings: Any) -> None:
        """Start a member on a new host."""
        self.lab.host(name, partial(self.run, name, seeds, settings))

    async def of(self, count: int, **settings: Any) -> list[str]:
        """Start so many, wait until they know each other, and return their names."""
        names = [f"n{number}" for number in range(1, count + 1)]
        for name in names:
            self.add(name, **settings)
        await self.until(lambda: self.met(count))
        return names

    async def until(self, condition: Any, within: float = 20.0) -> float:
        """Wait until ``condition()`` holds; return how long it took."""
        begin = self.lab.now
        while not condition():
            assert self.lab.now - begin < within, "not within the time"
            await asyncio.sleep(0.05)
        return self.lab.now - begin

    def met(self, count: int) -> bool:
        """Whether so many run, and all of them know all."""
        return len(self.now) == count and all(
            len(members.alive()) == count for members in self.now.values()
        )

    def state(self, observer: str, subject: str) -> MemberState | None:
        """What one believes of another."""
        member = self.now[observer].member(subject)
        return None if member is None else member.state

    def all_say(self, observers: Sequence[str], subject: str, state: MemberState) -> bool:
        return all(self.state(one, subject) is state for one in observers)

    def kinds(self, name: str) -> list[str]:
        """The kinds of events that one has told."""
        return [type(event).__name__ for _, event in self.told.get(name, [])]
