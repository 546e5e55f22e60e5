"""When is a resource about to run out?

Two questions about each: is it *near* its limit (most of it is gone, now), and does it *grow*
so that it will be (see :mod:`outlast.detect.core.trend`). The first needs a limit, the second
is the one that leaves time to do something.
"""

from dataclasses import dataclass, fields
from typing import Final

from outlast.detect.core.trend import Growing, Growth
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimit:
    """Where a resource ends, and what growth towards it is worth a word.

    Args:
        limit: Where it ends; ``None`` takes what the system says (each kind says what).
        share: Part of the limit, above 0 to 1, from which it is near.
        growth: Units a second from which fast growth is told, however far the limit is;
            ``None`` tells it only if it leads to the limit within ``soon``.
        within: Seconds over which fast growth must go on. Above 0.
        soon: Seconds to the limit below which fast growth is told. 0 or more.
        horizon: Seconds to the limit below which slow growth is told. 0 or more.
        bucket: Seconds of which slow growth takes the lowest sample; it needs eight. Above 0.

    Raises:
        ConfigError: A value is out of range.
    """

    limit: float | None = None
    share: float = 0.9
    growth: float | None = None
    within: float = 4.0
    soon: float = 30.0
    horizon: float = 900.0
    bucket: float = 15.0

    def __post_init__(self) -> None:
        """Check the values."""
        what = type(self).__name__
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = 0.0 if field.name in {"soon", "horizon"} else None
            if not isinstance(value, (int, float)):
                continue
            if value < 0 or (value == 0 and lowest is None):
                least = "0 or more" if lowest is not None else "above 0"
                raise ConfigError(f"{what}: {field.name} is {value}; {least}")
        if self.share > 1:
            raise ConfigError(f"{what}: share is {self.share}; above 0, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit(ResourceLimit):
    """Resident memory in bytes; ends at the cgroup's limit, or that of the machine."""

    growth: float | None = 5.0 * _MIB
    within: float = 3.5
    soon: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FdLimit(ResourceLimit):
    """Open file descriptors; end at the soft limit of the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadLimit(ResourceLimit):
    """Threads of the process; end at the cgroup's limit of processes, or at 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimit(ResourceLimit):
    """Bytes used on the file system of ``path``; ends when nothing is free for us."""

    path: str = "."
    share: float = 0.95
    soon: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuLimit:
    """Processor time.

    Args:
        share: Part of what the process may use, above 0 to 1, that is too much.
        throttled: Part of the time, above 0 to 1, in which the cgroup holds it back.
        lasting: Seconds over which both are taken. Above 0.

    Raises:
        ConfigError: A value is out of range.
    """

    share: float = 0.95
    throttled: float = 0.25
    lasting: float = 10.0

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.share <= 1 or not 0 < self.throttled <= 1 or self.lasting <= 0:
            raise ConfigError(
                f"CpuLimit: share is {self.share}, throttled {self.throttled}, lasting "
                f"{self.lasting} s; parts above 0 to 1, and a time above 0"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sample says: near the limit, growing towards it, both or neither."""

    value: float
    limit: float | None
    near: bool
    growing: Growing | None


class ResourceJudge:
    """Judges the samples of one resource. Not thread-safe."""

    __slots__ = ("_growth", "last", "rules")

    def __init__(self, rules: ResourceLimit) -> None:
        self.rules = rules
        self.last: Verdict | None = None
        self._growth = Growth(
            round(rules.within * _NS),
            rules.growth,
            round(rules.soon * _NS),
            round(rules.horizon * _NS),
            round(rules.bucket * _NS),
        )

    def add(self, now_ns: int, value: float, limit: float | None) -> Verdict:
        """Take a sample. ``limit`` is the system's; that of the rules comes before it."""
        end = self.rules.limit if self.rules.limit is not None else limit
        near = end is not None and value >= end * self.rules.share
        self.last = Verdict(value, end, near, self._growth.add(now_ns, value, end))
        return self.last


class ShareMeter:
    """Part of the time that something went on, from a counter of its time. Not thread-safe.

    Args:
        lasting_ns: Time over which the part is taken; before, there is none.
    """

    __slots__ = ("_lasting_ns", "_samples")

    def __init__(self, lasting_ns: int) -> None:
        self._lasting_ns = lasting_ns
        self._samples: list[tuple[int, int]] = []

    def add(self, now_ns: int, counter_ns: int) -> float | None:
        """Take a reading of the counter; return its growth over the last while, per time."""
        samples = self._samples
        if samples and (counter_ns < samples[-1][1] or now_ns <= samples[-1][0]):
            samples.clear()
        samples.append((now_ns, counter_ns))
        while len(samples) > 2 and samples[1][0] <= now_ns - self._lasting_ns:
            samples.pop(0)
        if len(samples) > 256:
            del samples[1::2]
        begin_ns, before_ns = samples[0]
        if now_ns - begin_ns < self._lasting_ns:
            return None
        return (counter_ns - before_ns) / (now_ns - begin_ns)


class ClockWatch:
    """Notices that one clock has moved against another. Not thread-safe.

    Args:
        jump_ns: Change of their difference between two looks that is a jump. Above 0: clocks
            that are adjusted gently move by 0.05 % at most.
    """

    __slots__ = ("_difference_ns", "_jump_ns")

    def __init__(self, jump_ns: int) -> None:
        self._jump_ns = jump_ns
        self._difference_ns: int | None = None

    def add(self, steady_ns: int, other_ns: int) -> int:
        """Take a reading of both; return by how much the other has jumped, or 0."""
        difference_ns = other_ns - steady_ns
        before_ns, self._difference_ns = self._difference_ns, difference_ns
        moved_ns = 0 if before_ns is None else difference_ns - before_ns
        return moved_ns if abs(moved_ns) >= self._jump_ns else 0
