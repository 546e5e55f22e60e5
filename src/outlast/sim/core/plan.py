"""Which faults strike when: drawn from a seed, one step at a time.

A run does not try everything at once. As in swarm testing (Groce and others, 2012), it first
draws which of the asked faults exist at all, at what pace they come, how long they last and how
many may overlap; some bugs only show while another fault stays away. Then steps are drawn lazily,
since nobody knows how long a test takes. Each step draws from a generator of its own, so that a
run with some steps left out keeps all others as they were: that is what shrinking needs.

The pace follows the length of the test without faults. It halves every sixteen steps, so that
a test that waits for an hour is not hit a million times.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from outlast.kernel import ConfigError, Fault, Prng

Group = Literal["down", "partition", "link", "disk", "dns", "clock", "slow"]
"""What a fault changes. ``down``: hosts that do nothing for a time."""

TARGETS: Final = ("one", "minority", "majority", "all", "leader", "follower")
"""Which hosts a fault hits, beside a host's name. ``one`` is a host drawn from the seed."""

_MS: Final = 1_000_000
_NS: Final = 1_000_000_000
_MASK: Final = (1 << 64) - 1
_ODD: Final = 0x9E3779B97F4A7C15
_GAP_MIN_NS: Final = 20_000
_GAP_MAX_NS: Final = 5 * _NS
_LASTS_MIN_NS: Final = 20_000
_LASTS_MAX_NS: Final = 20 * _NS
_STEPS_PER_PACE: Final = 16
_NONE_IN: Final = 16
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault that a simulation can inject.

    Args:
        name: As it is asked for, without a target.
        group: What it changes.
        what: What it does, in one line.
        budgeted: Whether a host that it hits counts as lost while it lasts.
        lasting: Whether it goes on for a time; otherwise it happens at an instant.
    """

    name: str
    group: Group
    what: str
    budgeted: bool = False
    lasting: bool = True


FAULT_KINDS: Final = (
    FaultKind("crash", "down", "the program ends at once; its files stay as written", True),
    FaultKind("power-cut", "down", "the host loses its power, and what was not fsynced", True),
    FaultKind("pause", "down", "the program stands still; its kernel still answers", True),
    FaultKind("partition:halves", "partition", "the network splits in two"),
    FaultKind("partition:isolate", "partition", "the target is cut off from all other hosts"),
    FaultKind("partition:one-way", "partition", "the target is heard and hears nothing"),
    FaultKind("partition:bridge", "partition", "two halves that only the target reaches both of"),
    FaultKind("partition:flapping", "partition", "the target is cut off over and over"),
    FaultKind("link:slow", "link", "what is sent arrives late"),
    FaultKind("link:jitter", "link", "what is sent arrives late by changing times"),
    FaultKind("link:loss", "link", "segments come again later; datagrams get lost or doubled"),
    FaultKind("link:drop", "link", "connections are half-open: bytes vanish without an error"),
    FaultKind("link:reset", "link", "connections break"),
    FaultKind("link:bandwidth", "link", "the link is narrow"),
    FaultKind("disk:eio", "disk", "reads, writes and fsync fail with EIO", True),
    FaultKind("disk:full", "disk", "the disk has no byte left", True),
    FaultKind("disk:slow", "disk", "each operation of the disk takes long"),
    FaultKind("disk:readonly", "disk", "the file system is read-only", True),
    FaultKind("disk:rot", "disk", "a bit flips in what is durable", True, lasting=False),
    FaultKind("dns:nxdomain", "dns", "names are said not to exist"),
    FaultKind("dns:timeout", "dns", "name servers do not answer"),
    FaultKind("dns:wrong", "dns", "names resolve to another host"),
    FaultKind("clock:skew", "clock", "the wall clock is wrong for a time"),
    FaultKind("clock:jump", "clock", "the wall clock jumps and stays there", lasting=False),
    FaultKind("clock:drift", "clock", "both clocks run too fast or too slowly"),
    FaultKind("slow", "slow", "the host computes slowly"),
)
"""Everything that a simulation can inject."""

_BY_NAME: Final = {kind.name: kind for kind in FAULT_KINDS}


def kind_of(fault: Fault) -> FaultKind:
    """Return the row of ``fault``, whatever its target.

    Raises:
        ConfigError: Definite. There is no such fault; the message says what there is.
    """
    name = f"{fault.kind}:{fault.variant}" if fault.variant else fault.kind
    kind = _BY_NAME.get(name)
    if kind is None:
        near = get_close_matches(name, _BY_NAME, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}? " if near else ""
        message = f"fault '{fault}': {hint}a simulation has {', '.join(_BY_NAME)}"
        raise ConfigError(message)
    return kind


def read_faults(names: str | Iterable[str]) -> tuple[Fault, ...]:
    """Read faults by name: ``KIND[:VARIANT][@TARGET]``, several with commas between them.

    A target is one of :data:`TARGETS` or the name of a host; without one, ``one`` is meant.

    Raises:
        ConfigError: Definite. A name is unknown.

    >>> [str(fault) for fault in read_faults(["crash@api", "link:slow"])]
    ['crash@api', 'link:slow@one']
    """
    given = [names] if isinstance(names, str) else names
    found = []
    for name in (part.strip() for each in given for part in each.split(",")):
        if name:
            fault = Fault.parse(name)
            kind_of(fault)
            found.append(Fault(fault.kind, fault.variant, fault.target or "one"))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a plan.

    Args:
        index: From 0, the same in every run of the seed.
        at_ns: When, counted from the start of the first host, in virtual time.
        fault: Which.
        lasts_ns: For how long.
        draw: Everything else about it (victims, strength) is drawn from this.
    """

    index: int
    at_ns: int
    fault: Fault
    lasts_ns: int
    draw: int


class Plan:
    """The faults of one run.

    Args:
        faults: Those that were asked for; empty for none.
        seed: From which all is drawn.
        length_ns: How long the test takes without faults, in virtual time.
        swarm: Whether to draw which faults exist at all. Otherwise all do.

    Attributes:
        chosen: The faults that exist in this run.
        gap_ns: Mean time from one step to the next, for the first sixteen.
        lasts_ns: Shortest and longest time for which a fault goes on.
        overlap: How many faults may go on at the same time.
    """

    def __init__(
        self, faults: Sequence[Fault], seed: int, *, length_ns: int, swarm: bool = True
    ) -> None:
        prng = Prng(seed ^ _ODD)
        length_ns = max(length_ns, _MS)
        self.chosen = _chosen(faults, prng) if swarm else tuple(faults)
        low = min(max(length_ns // 40, _GAP_MIN_NS), _GAP_MAX_NS // 4)
        self.gap_ns = log_between(prng, low, min(max(length_ns // 3, low), _GAP_MAX_NS))
        short = (max(length_ns // 200, _LASTS_MIN_NS), max(length_ns // 2, _MS))
        long = (5 * _MS, _LASTS_MAX_NS)
        self.lasts_ns = prng.choice((short, short, long, (short[0], long[1])))
        self.overlap = prng.between(1, 3)
        self._root = prng.bits64()

    def describe(self) -> dict[str, str | int | float]:
        """Return what was drawn, for a report."""
        return {
            "faults": " ".join(map(str, self.chosen)) or "none",
            "mean_gap_s": self.gap_ns / _NS,
            "shortest_s": self.lasts_ns[0] / _NS,
            "longest_s": self.lasts_ns[1] / _NS,
            "overlap": self.overlap,
        }

    def steps(self) -> Iterator[Step]:
        """Yield one step after the other, without end; none if no fault was chosen."""
        at_ns = index = 0
        while self.chosen:
            prng = Prng((self._root + index * _ODD) & _MASK)
            mean = min(self.gap_ns << min(index // _STEPS_PER_PACE, 40), 4 * _GAP_MAX_NS)
            if prng.chance(1, 6):  # one comes right after the other
                mean = max(mean // 16, 1)
            at_ns += prng.between(1, 2 * mean)
            fault = prng.choice(self.chosen)
            lasts_ns = log_between(prng, *self.lasts_ns)
            yield Step(index, at_ns, fault, lasts_ns, prng.bits64())
            index += 1


def _chosen(faults: Sequence[Fault], prng: Prng) -> tuple[Fault, ...]:
    """Draw which faults exist: each or not, but never none, save for one run of sixteen."""
    none = prng.chance(1, _NONE_IN)
    found: tuple[Fault, ...] = ()
    for _ in range(_TRIES):
        found = tuple(fault for fault in faults if prng.chance(1, 2))
        if found:
            break
    if none or not faults:
        return ()
    return found or (prng.choice(faults),)


def log_between(prng: Prng, low: int, high: int) -> int:
    """Draw a number so that each doubling from ``low`` to ``high`` is equally likely."""
    low = max(low, 1)
    high = max(high, low)
    start = low << prng.below(((high - 1) // low or 1).bit_length())
    return prng.between(start, min(2 * start, high))


def victims_of(
    fault: Fault, hosts: Sequence[str], roles: Mapping[str, str] | None, prng: Prng
) -> tuple[str, ...]:
    """Return whom a fault hits, of ``hosts`` in their order; nobody if the target is not there.

    Args:
        fault: Its target says whom.
        hosts: Those that it may hit.
        roles: Which host is ``leader`` or ``follower``, as far as anybody knows.
        prng: Draws among equals.
    """
    target = fault.target or "one"
    pool = list(hosts)
    if target in {"leader", "follower"}:
        pool = [host for host in pool if (roles or {}).get(host) == target]
        target = "one"
    if target in pool:
        return (target,)
    if target not in TARGETS or not pool:
        return ()
    if target == "all":
        return tuple(pool)
    count = {"one": 1, "minority": max((len(pool) - 1) // 2, 1), "majority": len(pool) // 2 + 1}
    prng.shuffle(pool)
    hit = set(pool[: count[target]])
    return tuple(host for host in hosts if host in hit)


Cut = tuple[str, str]
"""From whom, to whom nothing passes."""


def cuts_of(variant: str, victim: str, hosts: Sequence[str], prng: Prng) -> tuple[Cut, ...]:
    """Return which ways a partition cuts between ``hosts``, the victim among them.

    The victim of ``halves`` is on the smaller side. With fewer than three hosts a ``bridge`` is
    the same as ``halves``.
    """
    others = [host for host in hosts if host != victim]
    if not others:
        return ()
    if variant == "one-way":
        return tuple((other, victim) for other in others)
    if variant in {"isolate", "flapping"}:
        return _both([victim], others)
    prng.shuffle(others)
    if variant == "bridge" and len(others) > 1:
        half = len(others) // 2
        return _both(others[:half], others[half:])
    small = prng.between(1, max(len(hosts) // 2, 1))
    return _both([victim, *others[: small - 1]], others[small - 1 :])


def _both(left: Sequence[str], right: Sequence[str]) -> tuple[Cut, ...]:
    return tuple(cut for a in left for b in right for cut in ((a, b), (b, a)))


Weather = tuple[str, int]
"""A property of one direction between two hosts, and its value."""


def _times(low: int, high: int, *names: str) -> Callable[[Prng], tuple[Weather, ...]]:
    return lambda prng: tuple((name, log_between(prng, low, high)) for name in names)


_LINK: Final[Mapping[str, Callable[[Prng], tuple[Weather, ...]]]] = {
    "slow": _times(_MS, 2 * _NS, "delay_ns"),
    "jitter": _times(_MS, _NS, "jitter_ns"),
    "loss": _times(5_000, 500_000, "loss_ppm", "duplicate_ppm", "reorder_ppm"),
    "drop": lambda _: (("drop", 1),),
    "reset": lambda _: (("reset", 1),),
    "bandwidth": _times(1_000, 1_000_000, "bytes_per_second"),
}


def link_weather(variant: str, prng: Prng) -> tuple[Weather, ...]:
    """Draw how bad a ``link`` fault is."""
    return _LINK[variant](prng)
