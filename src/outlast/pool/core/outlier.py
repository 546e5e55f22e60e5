"""Which instances stand out from their pool: by failures, by success rate, by latency.

Each rule compares what an instance did lately with a limit, and tells both. Who is ejected, and
whether another one may be, is decided by :class:`~outlast.pool.core.pool.PoolCore`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from outlast.pool.core.member import NS, Member
from outlast.pool.core.settings import Mad, Outlier

_SAME: Final = 1.4826
"""By which a median absolute deviation estimates a standard deviation, for a normal one."""

_HOSTS_RATE: Final = 5
_HOSTS_LATENCY: Final = 3


class Finding(NamedTuple):
    """One instance stands out: ``value`` of what ``why`` names has met ``limit``."""

    member: Member
    why: str
    value: float
    limit: float
    excess: float
    """How far, in limits: the worst is ejected first."""


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number the mean of the two in the middle.

    >>> median([3, 1, 2]), median([4, 1, 2, 3])
    (2.0, 2.5)
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return (ordered[half - 1] + ordered[half]) / 2


def findings(members: Sequence[Member], rules: Outlier, now_ns: int) -> list[Finding]:
    """Return who stands out among ``members``, the worst first; each once."""
    asked = []
    for member in members:
        member.window.turn(now_ns)
        if member.window.total >= rules.min_requests:
            asked.append(member)
    found = [*_failing(asked, rules), *_below(asked, rules)]
    if rules.latency is not None:
        window_ns = round(rules.window * NS)
        found += _slow(asked, rules.latency, now_ns, window_ns, rules.min_requests)
    worst: dict[str, Finding] = {}
    for one in sorted(found, key=lambda one: -one.excess):
        worst.setdefault(one.member.address, one)
    return list(worst.values())


def _failing(asked: Sequence[Member], rules: Outlier) -> list[Finding]:
    limit = rules.failure
    if limit is None:
        return []
    shares = ((member, member.window.bad / member.window.total) for member in asked)
    return [
        Finding(member, "failure rate", share, limit, share / limit)
        for member, share in shares
        if share >= limit
    ]


def _below(asked: Sequence[Member], rules: Outlier) -> list[Finding]:
    """Find success rates below mean - deviations * sd (Envoy, "success rate")."""
    if rules.success_rate is None or len(asked) < _HOSTS_RATE:
        return []
    rates = [member.window.good / member.window.total for member in asked]
    mean = sum(rates) / len(rates)
    spread = (sum((rate - mean) ** 2 for rate in rates) / len(rates)) ** 0.5
    limit = mean - rules.success_rate * spread
    return [
        Finding(member, "success rate", rate, limit, (mean - rate) / (mean - limit))
        for member, rate in zip(asked, rates, strict=True)
        if rate < limit
    ]


def _slow(
    asked: Sequence[Member], rule: Mad, now_ns: int, window_ns: int, least: int
) -> list[Finding]:
    """Find medians of latency far above the median of them all."""
    known: list[tuple[Member, int]] = []
    for member in asked:
        own = member.median_ns(now_ns, window_ns)
        if own is not None and len(member.latencies) >= min(least, member.latencies.maxlen or 0):
            known.append((member, own))
    if len(known) < _HOSTS_LATENCY:
        return []
    middle = median([own for _, own in known])
    deviation = _SAME * median([abs(own - middle) for _, own in known])
    limit = max(
        middle + rule.deviations * deviation, middle * rule.times, middle + rule.floor * NS
    )
    return [
        Finding(member, "latency", own / NS, limit / NS, own / limit)
        for member, own in known
        if own > limit
    ]
