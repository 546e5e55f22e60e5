"""In which order the parts of a policy stand around the call, from outside to inside.

The canonical order answers for each pair which one must see what the other does: a fallback
answers for everything; the deadline bounds retries and their waits; each attempt asks the breaker
anew, and the breaker sees attempts and not calls; a permit is held while an attempt runs and not
while it waits for its turn.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from outlast.kernel import ConfigError

Position = Literal[
    "fallback", "cache", "deadline", "retry", "hedge", "breaker", "rate", "limit",
    "attempt_timeout", "inject",
]  # fmt: skip

CANONICAL: Final[tuple[Position, ...]] = (
    "fallback", "cache", "deadline", "retry", "hedge", "breaker", "rate", "limit",
    "attempt_timeout", "inject",
)  # fmt: skip

_WRAPPING: Final = frozenset({"cache", "hedge", "inject"})
"""Parts that stand around a function of their own; the others share one frame."""


def check_order(order: Iterable[str]) -> tuple[Position, ...]:
    """Return ``order`` with the positions that it leaves out put in at their canonical places.

    Raises:
        ConfigError: It names an unknown position, or one twice.
    """
    given = tuple(order)
    for name in given:
        if name not in CANONICAL:
            raise ConfigError(f"Policy: order names {name!r}; known are {', '.join(CANONICAL)}")
        if given.count(name) > 1:
            raise ConfigError(f"Policy: order names {name!r} twice")
    full: list[Position] = [name for name in given if name in CANONICAL]
    for index, name in enumerate(CANONICAL):
        if name in given:
            continue
        before = [full.index(other) for other in CANONICAL[:index] if other in full]
        full.insert(max(before) + 1 if before else 0, name)
    return tuple(full)


def frames(order: Sequence[Position], present: Iterable[str]) -> list[tuple[Position, ...]]:
    """Cut ``order`` into frames, outermost first.

    Each is one part that wraps, or parts that stand in canonical order and so share one frame.

    >>> frames(CANONICAL, {"retry", "breaker", "limit"})
    [('retry', 'breaker', 'limit')]
    >>> frames(("breaker", "retry"), {"retry", "breaker"})
    [('breaker',), ('retry',)]
    """
    here = set(present)
    cut: list[list[Position]] = []
    last = len(CANONICAL)
    for name in order:
        if name not in here:
            continue
        place = CANONICAL.index(name)
        if name in _WRAPPING:
            cut.append([name])
            last = len(CANONICAL)
        elif place > last and cut:
            cut[-1].append(name)
            last = place
        else:
            cut.append([name])
            last = place
    return [tuple(group) for group in cut]
