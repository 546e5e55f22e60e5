"""What outlives a process or a world: parts are told when they are in another one.

Locks that another thread held at the moment of a fork stay locked in the child for ever. Parts
that have one get another after a fork: what a lock guards here is a few numbers that are
written one by one, and each of them is right by itself.

Simulated runs follow each other in one process, and the clock of each starts anew. Parts that
were made at import time would bring instants, permits and answers of the last run into the next
one; those that have ``begin_anew`` are as newly made, with the settings that they have by then.
"""

import os
from typing import Protocol
from weakref import WeakSet

from outlast.kernel.registry import on_fresh_world


class Forked(Protocol):
    """What wants to hear of forks, and, if it has ``begin_anew()``, of other worlds."""

    def forked(self) -> None:
        """This is the child of a fork, and its only thread."""
        ...


_all: "WeakSet[Forked]" = WeakSet()


def tell_of_forks(part: Forked) -> None:
    """Call ``part.forked()`` in each child process, for as long as ``part`` lives.

    And, if it has that method, ``part.begin_anew()`` when another world begins. It must neither
    emit an event nor draw a random number: parts are called in no order.
    """
    _all.add(part)


def _after_fork() -> None:
    for part in tuple(_all):
        part.forked()


def _in_another_world() -> None:
    for part in tuple(_all):
        begin_anew = getattr(part, "begin_anew", None)
        if begin_anew is not None:
            begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
on_fresh_world(_in_another_world)
