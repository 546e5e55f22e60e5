"""Doing something under a lock if it is free now: for what must not wait for it.

What a destructor does is such: the garbage collector runs it wherever it likes, within a section
under the very same lock, too. It leaves a mark instead, at which the holder of the lock looks.
"""

import threading
from collections.abc import Callable
from typing import Final

_AT_ONCE: Final = (False,)


def if_free(lock: threading.Lock, do: Callable[[], object]) -> bool:
    """Call ``do`` under ``lock``; return ``False``, without waiting, if somebody holds it."""
    held = False
    try:
        # Signals are looked for after a call, and a loop over an iterator makes none: after
        # `held = lock.acquire(False)` Ctrl-C could leave the lock taken for ever.
        for held in map(lock.acquire, _AT_ONCE):
            if held:
                do()
    finally:
        if held:
            lock.release()
    return held
