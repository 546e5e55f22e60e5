"""The fault catalogue: every fault by name, how it is done, and what it needs of the machine.

A fault is asked for as ``KIND[:VARIANT][@TARGET]``. The catalogue also holds rows that are known
by name and not built yet, so that asking for one is told apart from a misspelling.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from outlast.kernel import ConfigError, Fault

Category = Literal["hardware", "software", "network", "timing"]

TARGETS: Final = ("leader", "follower", "one", "minority", "majority", "all")
"""Which nodes a fault hits. ``one`` is a node drawn from the seed."""

NEEDS: Final = {
    "linux": "signals to processes that /proc identifies",
    "proxy": "the fault proxy on loopback, which every link passes through",
    "namespaces": "a mount namespace of its own (unshare, nsenter, tmpfs)",
}
"""What a fault can need of the machine, by the word that a row uses."""


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One fault of the catalogue.

    Args:
        kind: First part of the name, such as ``partition``.
        variant: Second part, such as ``halves``; empty if the kind has none.
        category: What fails in the world that it stands for.
        what: What it does, in one line.
        how: How it is done.
        needs: Words of :data:`NEEDS`; all must hold.
        target: The target when none is given.
        targets: The targets that make sense.
        built: Whether it can be injected on real processes; otherwise it is only known by name.
        simulated: How the simulator does it; empty if it does not.
    """

    kind: str
    variant: str
    category: Category
    what: str
    how: str = ""
    needs: tuple[str, ...] = ()
    target: str = "one"
    targets: tuple[str, ...] = TARGETS
    built: bool = True
    simulated: str = ""

    def exists(self, *, simulated: bool) -> bool:
        """Whether it can be injected: on real processes, or in the simulator."""
        return bool(self.simulated) if simulated else self.built

    @property
    def name(self) -> str:
        """The name without a target."""
        return f"{self.kind}:{self.variant}" if self.variant else self.kind


_FEW: Final = ("leader", "follower", "one", "minority")
_SINGLE: Final = ("leader", "follower", "one")


def _partition(
    variant: str, what: str, how: str, target: str, targets: tuple[str, ...]
) -> FaultRow:
    return FaultRow(
        "partition", variant, "network", what, how, ("proxy",), target, targets,
        simulated="what crosses waits, and goes on after healing",
    )  # fmt: skip


def _link(variant: str, what: str, how: str) -> FaultRow:
    return FaultRow(
        "link", variant, "network", what, how, ("proxy",), simulated="drawn for each segment"
    )


def _planned(category: Category, kind: str, **variants: str) -> tuple[FaultRow, ...]:
    return tuple(
        FaultRow(kind, variant.strip("_").replace("_", "-"), category, what, built=False)
        for variant, what in variants.items()
    )


def _simulated(category: Category, kind: str, variant: str, what: str, how: str) -> FaultRow:
    """Return a row that only the simulator can inject so far."""
    return FaultRow(kind, variant, category, what, built=False, simulated=how)


CATALOGUE: Final[tuple[FaultRow, ...]] = (
    FaultRow(
        "crash",
        "",
        "hardware",
        "a node's processes end at once, without a word",
        "SIGKILL to the node's whole process tree; what it wrote without fsync survives",
        ("linux",),
        simulated="its tasks vanish; what it wrote without fsync survives",
    ),
    FaultRow(
        "disk",
        "full",
        "hardware",
        "the node's data directory has no byte left",
        "its data lie on a small tmpfs, which a ballast file fills until ENOSPC",
        ("linux", "namespaces"),
        simulated="no file of its disk can grow: ENOSPC",
    ),
    FaultRow(
        "pause",
        "",
        "timing",
        "a node stands still, as in a long collection or a stopped virtual machine",
        "SIGSTOP to the process tree, SIGCONT when the lease ends",
        ("linux",),
        simulated="its callbacks wait while its clocks go on",
    ),
    _partition(
        "halves",
        "the network splits in two; the target is on the smaller side",
        "every link between the sides is cut both ways",
        "one",
        _FEW,
    ),
    _partition(
        "isolate",
        "the target is cut off from all other nodes",
        "every link between the target and the other nodes is cut both ways",
        "leader",
        _SINGLE,
    ),
    _partition(
        "one-way",
        "the target is heard by the others and hears nothing",
        "what others send to the target is withheld; what it sends passes",
        "leader",
        _SINGLE,
    ),
    _partition(
        "flapping",
        "the target is cut off and reachable again, over and over",
        "its links are cut and healed in turns drawn from the seed",
        "one",
        _SINGLE,
    ),
    _link("slow", "bytes arrive late", "every chunk is delivered a fixed time later, in order"),
    _link("jitter", "bytes arrive late by changing times", "a drawn time per chunk, in order"),
    _link(
        "loss",
        "segments are lost and sent again",
        "a drawn chunk, and what follows it, waits 200 ms, doubling with each further loss",
    ),
    _link(
        "drop",
        "connections are half-open: bytes vanish without an error",
        "what is sent is swallowed; connections that lost bytes are reset at the end",
    ),
    _link("reset", "connections break", "each is aborted with RST, new ones too while it lasts"),
    _link("bandwidth", "the link is narrow", "chunks are paced to a number of bytes per second"),
    _simulated(
        "hardware",
        "power-cut",
        "",
        "everything that was not fsynced is lost",
        "unsynced sectors are lost or torn, unsynced names too; peers hear nothing",
    ),
    _simulated(
        "hardware", "disk", "eio", "reads, writes and fsync fail with EIO", "some calls raise EIO"
    ),
    _simulated(
        "hardware", "disk", "slow", "reads, writes and fsync take long", "each call takes longer"
    ),
    _simulated(
        "hardware", "disk", "readonly", "the file system turns read-only", "writes raise EROFS"
    ),
    _simulated("hardware", "disk", "rot", "bits flip at rest", "a durable bit flips"),
    *_planned("hardware", "nic", down="a network interface goes down"),
    *_planned("hardware", "memory", flip="a bit flips in a live replica's state"),
    *_planned(
        "software",
        "memory",
        leak="a process grows until it meets its limit",
        full="no memory is left",
    ),
    *_planned("software", "fds", full="no file descriptor is left"),
    *_planned("software", "cpu", busy="other work takes the processors"),
    _simulated(
        "network",
        "partition",
        "bridge",
        "two halves that only one node can reach both of",
        "links between the halves are cut both ways",
    ),
    _simulated(
        "network", "dns", "nxdomain", "names are said not to exist", "lookups raise EAI_NONAME"
    ),
    _simulated(
        "network", "dns", "timeout", "name servers do not answer", "lookups end late, EAI_AGAIN"
    ),
    _simulated(
        "network", "dns", "wrong", "names resolve to another address", "another host's address"
    ),
    _simulated(
        "timing", "clock", "skew", "a node's clock runs ahead or behind", "its wall clock is off"
    ),
    _simulated("timing", "clock", "jump", "a node's clock jumps", "its wall clock jumps"),
    _simulated(
        "timing", "clock", "drift", "a node's clock is too fast or slow", "by parts per million"
    ),
    _simulated(
        "timing", "slow", "", "a node computes slowly", "each of its callbacks takes longer"
    ),
)  # fmt: skip
"""All faults, those that are built first."""

_BY_NAME: Final = {row.name: row for row in CATALOGUE}


def fault_row(fault: Fault, *, simulated: bool = False) -> FaultRow:
    """Return the catalogue's row of ``fault``, whatever its target.

    Raises:
        ConfigError: There is no such fault; near matches are named.
    """
    name = f"{fault.kind}:{fault.variant}" if fault.variant else fault.kind
    row = _BY_NAME.get(name)
    if row is None:
        raise ConfigError(f"fault '{name}': {_instead(fault.kind, name, simulated=simulated)}")
    return row


def _instead(kind: str, name: str, *, simulated: bool = False) -> str:
    """Say what a name that is not in the catalogue may have meant."""
    there = [row for row in CATALOGUE if row.exists(simulated=simulated)]
    built = [row.name for row in there]
    variants = [row.name for row in there if row.kind == kind]
    if name == kind and variants:
        return f"needs a variant: {_any_of(variants)}"
    if variants == [kind]:
        return f"{kind} has no variants; write {kind}"
    wanted = name.partition(":")[2] or name
    by_variant = {row.variant: row.name for row in there if row.variant}
    if variants:  # the kind is right: only its own variants can be meant
        by_variant = {each.partition(":")[2]: each for each in variants}
    near = [by_variant[each] for each in get_close_matches(wanted, by_variant, n=1, cutoff=0.6)]
    near = near or variants or get_close_matches(name, built, n=2, cutoff=0.6)
    if near:
        return f"did you mean {_any_of(near)}?"
    return f"there is {_any_of(built)}; `outlast faults` explains them"


def _any_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def parse_faults(names: Iterable[str], *, simulated: bool = False) -> tuple[Fault, ...]:
    """Read faults by name, check them, and fill in default targets.

    Args:
        names: Each a name, or several with commas between them. Order and repeats are kept.
        simulated: Whether they are to be injected in the simulator.

    Raises:
        ConfigError: A name is unknown (near matches are named), not built yet, or its target
            does not fit.

    >>> [str(fault) for fault in parse_faults(["crash@leader,pause", "partition:halves"])]
    ['crash@leader', 'pause@one', 'partition:halves@one']
    """
    given = [names] if isinstance(names, str) else names
    parts = [part.strip() for name in given for part in name.split(",")]
    return tuple(_read(part, simulated=simulated) for part in parts if part)


def _read(name: str, *, simulated: bool) -> Fault:
    fault = Fault.parse(name)
    row = fault_row(fault, simulated=simulated)
    if not row.exists(simulated=simulated):
        raise ConfigError(f"fault '{row.name}': {_missing(row, simulated=simulated)}")
    if "@" in name and fault.target not in row.targets:
        near = get_close_matches(fault.target, row.targets, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {_any_of(list(row.targets))}"
        raise ConfigError(f"fault '{name}': target '{fault.target}' does not fit; {hint}")
    return Fault(fault.kind, fault.variant, fault.target or row.target)


def _missing(row: FaultRow, *, simulated: bool) -> str:
    """Say why a fault that is known cannot be injected, and what can."""
    if row.exists(simulated=not simulated):
        return (
            "cannot be simulated; leave --world sim out"
            if simulated
            else "so far only in the simulator: --world sim"
        )
    near = [
        other.name
        for other in CATALOGUE
        if other.kind == row.kind and other.exists(simulated=simulated)
    ]
    hint = f"; built: {', '.join(near)}" if near else ""
    return f"known by name, not built yet{hint}"
