"""Locks that another thread held at the moment of a fork stay locked in the child for ever.

Parts that have one get another after a fork: what a lock guards here is a few numbers that are
written one by one, and each of them is right by itself.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """What wants to hear of forks."""

    def forked(self) -> None:
        """This is the child of a fork, and its only thread."""
        ...


_all: "WeakSet[Forked]" = WeakSet()


def tell_of_forks(part: Forked) -> None:
    """Call ``part.forked()`` in each child process, for as long as ``part`` lives."""
    _all.add(part)


def _after_fork() -> None:
    for part in tuple(_all):
        part.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
