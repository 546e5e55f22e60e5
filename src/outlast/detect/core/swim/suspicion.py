"""How long a suspect may object: few accusers, long; many, short; a refused port, hardly at all.

Lifeguard (section IV.B): a suspicion begins with the longest time and comes down to the shortest
with the logarithm of further accusers. The number K that is waited for is never larger than the
number of members that could still accuse; memberlist compares with all that it knows, and so
waits the longest time where few are left. A port that refuses two observers is more than silence:
its process is gone, so it only gets the time in which a restart would be heard of.
"""

from collections.abc import Iterable
from math import ceil, log, log2

from outlast.detect.core.swim.settings import SwimSettings, ns
from outlast.detect.core.swim.wire import ACCUSATIONS_MAX, Accusation

_SENT_MAX = 4


class Suspicion:
    """The accusations against one incarnation of one member."""

    __slots__ = ("accusations", "began_ns", "looked_ns", "refused_ns")

    def __init__(self, now_ns: int) -> None:
        self.accusations: dict[str, Accusation] = {}
        self.began_ns = now_ns
        self.refused_ns: int | None = None
        self.looked_ns: int | None = None
        """When the suspect was asked for the last time."""

    def add(self, accusation: Accusation) -> bool:
        """Note an accusation; ``False`` if it says no more than what is known."""
        known = self.accusations.get(accusation.by)
        if known is not None and (known.refused or not accusation.refused):
            return False
        if known is None and len(self.accusations) >= ACCUSATIONS_MAX:
            return False
        self.accusations[accusation.by] = accusation
        return True

    def sent(self) -> list[Accusation]:
        """Return what is passed on: a few, refusals first."""
        ordered = sorted(self.accusations.values(), key=lambda one: not one.refused)
        return ordered[:_SENT_MAX]

    def deadline_ns(self, settings: SwimSettings, others: int, spread_ns: int, now_ns: int) -> int:
        """Return when the time to object is over.

        Args:
            settings: The membership's.
            others: Members that live and could accuse, this node and the suspect not counted.
            spread_ns: What gossip takes to reach everybody.
            now_ns: From when a refused port counts, if it is now that it was refused often enough.
        """
        least = ns(settings.silence) + spread_ns
        if not settings.dynamic:
            return self.began_ns + least
        enough = refusals(self.accusations.values()) >= min(2, others + 1)
        if settings.refusals and self.refused_ns is None and enough:
            self.refused_ns = now_ns
        wanted = min(settings.confirmations, others)
        further = min(len(self.accusations) - 1, wanted)
        most = round(least * settings.silence_factor)
        share = log(further + 1) / log(wanted + 1) if wanted else 1.0
        due = self.began_ns + most - round((most - least) * share)
        if self.refused_ns is not None:
            due = min(due, self.refused_ns + ns(settings.refused))
        return due


def refusals(accusations: Iterable[Accusation]) -> int:
    """Return how many observers saw the port refuse."""
    refused = [one for one in accusations if one.refused]
    return max([len(refused), *(one.observers for one in refused)])


def spread_ns(settings: SwimSettings, members: int) -> int:
    """Return what gossip takes to reach ``members``, about: a round per doubling."""
    return ns(settings.gossip_interval) * ceil(log2(members + 1))
