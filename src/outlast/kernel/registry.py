"""What is alive in this process and can tell its state: policies, and parts that have a name.

They are found again at the moment somebody looks (a scrape, a command, a change of settings),
so that being observed costs a call nothing. References are weak: what is watched lives no longer
for it. Safe for threads without a lock, since each step on the dict is atomic.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from weakref import ref


class Watched(Protocol):
    """What can be watched; most have a ``name``, too."""

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        ...


_live: dict[int, "ref[Watched]"] = {}
_hooks: list[Callable[[Watched], None]] = []


def watch(thing: Watched) -> None:
    """Remember ``thing`` for as long as it lives. A second time changes nothing.

    Raises:
        ConfigError: What settings say of it does not fit; it is not watched then.
    """
    key = id(thing)
    known = _live.get(key)
    if known is not None and known() is thing:
        return

    def forget(gone: "ref[Watched]") -> None:
        # The id may belong to another object by now.
        if _live.get(key) is gone:
            _live.pop(key, None)

    _live[key] = ref(thing, forget)
    # Already to be found: a change of settings either meets it here or is what the hook knows.
    try:
        for hook in tuple(_hooks):
            hook(thing)
    except BaseException:
        _live.pop(key, None)
        raise


def watched() -> list[Watched]:
    """Return what is alive, in the order in which it was made."""
    found = (reference() for reference in list(_live.values()))
    return [thing for thing in found if thing is not None]


def kind_of(thing: object) -> str:
    """Return the name of ``thing``'s class as users know it.

    A class that is watched in place of another one names that as ``shown_as``.
    """
    kind = type(thing)
    return str(getattr(kind, "shown_as", kind.__name__))


def on_watch(hook: Callable[[Watched], None]) -> Callable[[], None]:
    """Call ``hook`` with each thing as it begins to be watched; return a function that ends that.

    What the hook raises comes out where the thing is made.
    """
    _hooks.append(hook)

    def remove() -> None:
        if hook in _hooks:
            _hooks.remove(hook)

    return remove


# --- worlds ------------------------------------------------------------------------------------

_starts: list[Callable[[], None]] = []
_ended: list[bool] = []


def on_fresh_world(hook: Callable[[], None]) -> Callable[[], None]:
    """Call ``hook`` when another world begins; return a function that ends that.

    What is made when a module is imported lives longer than a world: simulated runs follow each
    other in one process, and the clock of each starts anew. The hook lets such things begin
    anew, too: an instant, a permit or an answer of one world means nothing in another. It must
    neither tell nor draw anything.
    """
    _starts.append(hook)

    def remove() -> None:
        if hook in _starts:
            _starts.remove(hook)

    return remove


def fresh_world(*, after_another: bool = False) -> None:
    """Another world begins: whoever asked to hear of it is called, in the order of asking.

    Args:
        after_another: Only if one has ended since the last time: what was made and changed by
            hand in the real world stays.
    """
    if after_another and not _ended:
        return
    _ended.clear()
    for hook in tuple(_starts):
        hook()


def world_ended() -> None:
    """A world has ended. What it has left can be looked at until another one begins."""
    _ended[:] = [True]
