"""How one name is judged: its rule, hysteresis over its findings, staleness, progress.

One finding proves little, so a status is taken on only after so many in a row have agreed; and
what was found long ago proves nothing, so it becomes unknown by itself. States of a name: unknown
until its first finding; then ok, degraded, unknown or failed as findings prove; unknown whenever
the last of them is too old. Progress has no findings: it goes on, is idle, or is late.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from outlast.detect.core.health import (
    GROUPS,
    RANK,
    RANKED,
    CheckResult,
    Group,
    Kind,
    Status,
    one_line,
)
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_NAME_MAX: Final = 120

_OK, _DEGRADED, _UNKNOWN, _FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED


@dataclass(frozen=True, slots=True)
class Change:
    """A name is shown with another status than before, which it had for ``lasted_ns``."""

    before: Status
    after: Status
    detail: str
    lasted_ns: int
    took_ns: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """How one name is judged. Times are in nanoseconds; ``stale_ns`` of ``None`` is never."""

    name: str
    kind: Kind = "check"
    groups: tuple[Group, ...] = ("readiness",)
    critical: bool = True
    timeout_ns: int = _NS
    every_ns: int = _NS
    stale_ns: int | None = None
    fail_after: int = 1
    pass_after: int = 1
    needs_network: bool = False
    even_though: str = ""

    def __post_init__(self) -> None:
        """Check the values and their relations."""
        name = self.name
        if not name or len(name) > _NAME_MAX or not name.isprintable():
            raise ConfigError(
                f"check {name[:_NAME_MAX]!r}: the name is empty, not printable or longer than"
                f" {_NAME_MAX} characters"
            )
        for group in self.groups:
            if group not in GROUPS:
                raise ConfigError(f"check {name!r}: group {group!r}; one of {', '.join(GROUPS)}")
        timeout, every = self.timeout_ns / _NS, self.every_ns / _NS
        if not self.groups or timeout <= 0 or every <= 0:
            raise ConfigError(
                f"check {name!r}: groups {tuple(self.groups)}, timeout {timeout:g} s,"
                f" every {every:g} s; give a group and times above 0"
            )
        if self.fail_after < 1 or self.pass_after < 1:
            raise ConfigError(
                f"check {name!r}: fail_after is {self.fail_after}, pass_after"
                f" {self.pass_after}; both are 1 or more findings in a row"
            )
        self._check_stale()
        if self.needs_network and "liveness" in self.groups and not self.even_though.strip():
            raise ConfigError(
                f"check {name!r}: it needs the network and is in liveness, so that an outage of"
                " what it asks would restart every instance at once; put it into readiness, or"
                ' say even_though="why a restart of this process would help"'
            )

    def _check_stale(self) -> None:
        stale_ns = self.stale_ns
        if stale_ns is None:
            return
        if self.kind != "check":
            if stale_ns <= 0:
                raise ConfigError(
                    f"{self.kind} {self.name!r}: within is {stale_ns / _NS:g} s; above 0"
                )
        elif stale_ns < self.every_ns + self.timeout_ns:
            raise ConfigError(
                f"check {self.name!r}: stale_after ({stale_ns / _NS:g} s) is below every +"
                f" timeout ({(self.every_ns + self.timeout_ns) / _NS:g} s), so a good result"
                " could be stale"
            )


class Hysteresis:
    """Which status a row of findings has proven.

    A worse status is taken on when the last ``fail_after`` findings were all at least that bad,
    a better one when the last ``pass_after`` were all at least that good; in between the status
    stays as it was, so that a single finding is no event. From *unknown*, a first good finding
    counts at once: nothing speaks against it. A finding of *unknown* makes worse but never
    better, as a check that could not look has not seen that the failure is over.

    Attributes:
        shown: The status.
    """

    __slots__ = ("_as_bad", "_as_good", "_fail_after", "_pass_after", "shown")

    def __init__(self, fail_after: int = 1, pass_after: int = 1) -> None:
        self._fail_after = fail_after
        self._pass_after = pass_after
        self._as_bad = [0, 0, 0, 0]
        self._as_good = [0, 0, 0, 0]
        self.shown = _UNKNOWN

    def note(self, status: Status) -> Status:
        """Take in one finding and return the status."""
        rank = RANK[status]
        proves_good = RANK[_FAILED] if status is _UNKNOWN else rank
        for one in range(4):
            self._as_bad[one] = self._as_bad[one] + 1 if rank >= one else 0
            self._as_good[one] = self._as_good[one] + 1 if proves_good <= one else 0
        shown = RANK[self.shown]
        if self.shown is _UNKNOWN and rank < shown:
            self.shown = status
            return status
        for worse in range(3, shown, -1):
            if self._as_bad[worse] >= self._fail_after:
                self.shown = RANKED[worse]
                return self.shown
        for better in range(shown):
            if self._as_good[better] >= self._pass_after:
                self.shown = RANKED[better]
                break
        return self.shown

    def doubt(self, status: Status) -> str:
        """Say how far findings like ``status`` have come towards being shown; empty if shown."""
        rank, shown = RANK[status], RANK[self.shown]
        if rank == shown:
            return ""
        if status is _UNKNOWN and rank < shown:
            return "not known whether that is over"
        if rank > shown:
            return f"{self._as_bad[shown + 1]} of {self._fail_after} in a row {status}"
        return f"{self._as_good[shown - 1]} of {self._pass_after} in a row {status}"


@dataclass(frozen=True, slots=True)
class Found:
    """The latest of one name; replaced as a whole, so that readers need no lock."""

    status: Status
    detail: str
    since_ns: int
    at_ns: int | None = None
    took_ns: int | None = None


class Record:
    """One name: its rule, its findings, and what of it was told.

    Not thread-safe but for :meth:`result`, which any thread may call at any time.

    Args:
        rule: How it is judged.
        now_ns: The instant from which on it is unknown.
    """

    __slots__ = ("_hysteresis", "found", "rule", "told")

    def __init__(self, rule: Rule, now_ns: int) -> None:
        self.rule = rule
        self._hysteresis = Hysteresis(rule.fail_after, rule.pass_after)
        first = "not checked yet" if rule.kind == "check" else "not reported yet"
        self.found = Found(_UNKNOWN, first, now_ns)
        self.told = (_UNKNOWN, now_ns)

    def note(self, status: Status, detail: str, now_ns: int, took_ns: int | None = None) -> None:
        """Take in one finding."""
        before = self.found
        shown = self._hysteresis.note(status)
        detail = one_line(detail)
        doubt = self._hysteresis.doubt(status)
        if doubt:
            detail = f"{doubt}: {detail}" if detail else doubt
        was_stale = self._stale_ns(before, now_ns) is not None
        same = shown is before.status and not was_stale and before.at_ns is not None
        since_ns = before.since_ns if same else now_ns
        self.found = Found(shown, detail, since_ns, now_ns, took_ns)

    def result(self, now_ns: int) -> CheckResult:
        """Return what is known now; safe from any thread."""
        rule, found = self.rule, self.found
        at_ns = found.at_ns
        status, detail, since_ns = found.status, found.detail, found.since_ns
        stale_since_ns = self._stale_ns(found, now_ns)
        if at_ns is None:
            age = None
        else:
            age = (now_ns - at_ns) / _NS
            if stale_since_ns is not None:
                detail = f"last result ({status}) is {age:.0f} s old"
                status, since_ns = _UNKNOWN, stale_since_ns
        took = None if found.took_ns is None else found.took_ns / _NS
        return CheckResult(
            rule.name, status, detail, rule.critical, age,
            (now_ns - since_ns) / _NS, took, rule.groups, rule.kind,
        )  # fmt: skip

    def change(self, now_ns: int) -> Change | None:
        """Return the change since the last call, if the status shown is another one."""
        before, since_ns = self.told
        result = self.result(now_ns)
        if result.status is before:
            return None
        self.told = (result.status, now_ns)
        took_ns = self.found.took_ns if result.took is not None else None
        return Change(before, result.status, result.detail, now_ns - since_ns, took_ns)

    def _stale_ns(self, found: Found, now_ns: int) -> int | None:
        """Return since when a finding is too old to mean anything; ``None`` while it is not."""
        stale_ns = self.rule.stale_ns
        if stale_ns is None or found.at_ns is None or now_ns - found.at_ns <= stale_ns:
            return None
        return found.at_ns + stale_ns


class Progress(Record):
    """Shows that something goes on: stamped by the program, late when the stamps stay away.

    Existence proves nothing: a consumer can be alive and consume nothing. Stamp where a piece of
    work is *done*, and say :meth:`idle` where there is none to do::

        with progress.idle():
            item = queue.get()
        handle(item)
        progress.stamp()

    One for each worker: a stamp of one thread would excuse another. ``stamp`` and ``idle`` may be
    called from any thread; they take no lock and never wait.

    Args:
        rule: How it is judged; ``stale_ns`` is the longest time between two stamps.
        now: Reads the monotonic clock.
    """

    __slots__ = ("_at_ns", "_now", "_parked")

    def __init__(self, rule: Rule, now: Callable[[], int]) -> None:
        super().__init__(rule, now())
        self._now = now
        self._at_ns = now()
        self._parked = False

    def __repr__(self) -> str:
        """Return name and limit."""
        parked = " idle" if self._parked else ""
        return (
            f"<Progress {self.rule.name!r} within {(self.rule.stale_ns or 0) / _NS:g} s{parked}>"
        )

    @property
    def name(self) -> str:
        """Its name."""
        return self.rule.name

    def stamp(self) -> None:
        """Something was done, just now."""
        self._at_ns = self._now()
        self._parked = False

    def idle(self) -> "Progress":
        """There is nothing to do until the next stamp, or until the end of a ``with`` block."""
        self._parked = True
        return self

    def __enter__(self) -> "Progress":
        """Go on being idle, or working."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stamp: whatever came, the wait is over."""
        self.stamp()

    def begin(self, now: Callable[[], int]) -> None:
        """Count from now, on this clock."""
        self._now = now
        self._at_ns = now()
        self.told = (_UNKNOWN, now())

    def result(self, now_ns: int) -> CheckResult:
        """Return whether it goes on; safe from any thread."""
        rule = self.rule
        parked, at_ns = self._parked, self._at_ns  # in this order: a stamp sets them in the other
        status, detail, since_ns = _OK, "", self.told[1]
        waited_ns = now_ns - at_ns
        limit_ns = rule.stale_ns or 0
        if parked:
            detail = "idle"
        elif waited_ns > limit_ns:
            status, since_ns = _FAILED, at_ns + limit_ns
            detail = f"no progress for {waited_ns / _NS:.1f} s (within {limit_ns / _NS:g} s)"
        elif self.told[0] is not _OK:
            since_ns = at_ns
        return CheckResult(
            rule.name, status, detail, rule.critical, max(waited_ns, 0) / _NS,
            max(now_ns - since_ns, 0) / _NS, None, rule.groups, "progress",
        )  # fmt: skip
