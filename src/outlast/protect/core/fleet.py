"""What the processes of a fleet know together about one breaker: the rules of the shared record.

A breaker that only its own process sees cannot tell a service that fails from a node that is
ill. So every node *reports* now and then whether its own breaker has tripped. When enough of the
nodes that reported lately agree, the record trips and all of them open. A single ill node never
reaches the quorum and stays open alone.

States of the record: **closed** (each node judges by itself and reports), **open** until an
instant of the store's clock, then **half-open**: a node that wants to probe takes a *lease*. A
lease expires by the store's clock, so that a prober that died frees its slot; what is settled
under an expired lease, or under an earlier epoch, changes nothing. A node whose probe failed has
to let the others go first in the next round: an ill node cannot hold the fleet open either.

The epoch starts at the time of the record's creation in milliseconds and grows by one with each
change of state, so that it also grows when the store lost what it held. Leases as in Gray and
Cheriton (SOSP 1989); the fence is the epoch together with the lease's number.
"""

import json
from typing import Final, Literal, NamedTuple

VERSION: Final = 1
REPORTERS_MAX: Final = 256
LEASES_MAX: Final = 64
RECORD_BYTES_MAX: Final = 65_536
_NUMBER_MAX: Final = 1 << 62
_NAME_MAX: Final = 128
_ROUND_MAX: Final = 20

State = Literal["closed", "open", "half_open"]


class FleetRules(NamedTuple):
    """How a fleet agrees about one breaker. Every node of it should have the same.

    Attributes:
        quorum_permille: Of the nodes that reported lately, how many thousandths must have tripped.
        min_nodes: And how many nodes at least. With 2 or more, no node can trip the others.
        report_ttl_ms: How long a report counts.
        open_ms: How long the fleet stays open the first time; twice as long after each round
            of probes that failed, up to ``open_max_ms``.
        open_max_ms: See there.
        probes: How many probe leases may be out at a time.
        successes: How many probes must succeed before the fleet closes.
    """

    quorum_permille: int = 500
    min_nodes: int = 2
    report_ttl_ms: int = 5_000
    open_ms: int = 60_000
    open_max_ms: int = 600_000
    probes: int = 1
    successes: int = 1


class Lease(NamedTuple):
    """The right to make one probe for the fleet, until ``expires_ms`` of the store's clock."""

    name: str
    node: str
    epoch: int
    token: int
    expires_ms: int


class View(NamedTuple):
    """What a store answered about one breaker.

    Attributes:
        epoch: Grows with each change of state.
        state: ``"half_open"`` is open with ``open_until_ms`` passed.
        open_until_ms: When probes may begin, by the store's clock; 0 if closed.
        now_ms: The store's clock at the answer.
        reporters: How many nodes reported lately.
        bad: How many of them had tripped in this epoch.
    """

    epoch: int
    state: State
    open_until_ms: int
    now_ms: int
    reporters: int
    bad: int

    @property
    def open_left_ms(self) -> int:
        """How long until probes may begin."""
        return max(0, self.open_until_ms - self.now_ms)


class FleetRecord:
    """The shared record of one breaker. Not thread-safe: a store changes it in a transaction."""

    __slots__ = ("epoch", "failed", "good", "leases", "opened", "reports", "round", "seq", "until")

    def __init__(self, now_ms: int) -> None:
        self.epoch = max(1, now_ms)
        self.opened = False
        self.until = 0
        self.round = 0
        self.good = 0
        self.seq = 0
        self.reports: dict[str, tuple[bool, int]] = {}
        self.leases: dict[int, tuple[str, int]] = {}
        self.failed: list[str] = []

    # --- questions --------------------------------------------------------------------------

    def view(self, now_ms: int) -> View:
        """Return what is to be told at ``now_ms``."""
        fresh = [bad for bad, expires in self.reports.values() if expires > now_ms]
        state: State = "closed"
        if self.opened:
            state = "open" if now_ms < self.until else "half_open"
        return View(self.epoch, state, self.until, now_ms, len(fresh), sum(fresh))

    def keep_ms(self, now_ms: int, rules: FleetRules) -> int:
        """Return how long the record must be kept without being touched."""
        return max(0, self.until - now_ms) + rules.open_max_ms + 2 * rules.report_ttl_ms

    # --- changes ----------------------------------------------------------------------------

    def report(self, node: str, epoch: int, bad: bool, rules: FleetRules, now_ms: int) -> None:
        """Note what ``node`` says of its own breaker; trip if enough nodes agree.

        Evidence of another epoch than the current one counts as a sign of life only: the node
        has not heard yet what was decided since.
        """
        self._expire(now_ms)
        if node not in self.reports and len(self.reports) >= REPORTERS_MAX:
            del self.reports[min(self.reports, key=lambda name: self.reports[name][1])]
        self.reports[node] = (bad and epoch == self.epoch, now_ms + rules.report_ttl_ms)
        if self.opened:
            return
        agree = sum(tripped for tripped, _ in self.reports.values())
        if agree >= rules.min_nodes and agree * 1000 >= rules.quorum_permille * len(self.reports):
            self._open(rules, now_ms)

    def lease_probe(
        self, name: str, node: str, epoch: int, rules: FleetRules, *, ttl_ms: int, now_ms: int
    ) -> Lease | None:
        """Give ``node`` the right to one probe for ``ttl_ms``, or ``None`` if it is not due."""
        self._expire(now_ms)
        if not self.opened or epoch != self.epoch or now_ms < self.until:
            return None
        if len(self.leases) >= min(rules.probes, LEASES_MAX):
            return None
        waits = node in self.failed and now_ms < self.until + rules.report_ttl_ms
        if waits and any(other not in self.failed for other in self.reports):
            return None
        self.seq += 1
        self.leases[self.seq] = (node, now_ms + ttl_ms)
        return Lease(name, node, self.epoch, self.seq, now_ms + ttl_ms)

    def settle(self, lease: Lease, ok: bool | None, rules: FleetRules, now_ms: int) -> bool:
        """End a probe: ``None`` is inconclusive and only frees the slot.

        Returns:
            Whether the lease still held; otherwise nothing was changed.
        """
        self._expire(now_ms)
        if lease.epoch != self.epoch or self.leases.pop(lease.token, None) is None:
            return False
        if ok:
            self.good += 1
            if self.good >= rules.successes:
                self._close()
        elif ok is not None:
            self.round = min(self.round + 1, _ROUND_MAX)
            if lease.node not in self.failed:
                self.failed = [*self.failed, lease.node][-REPORTERS_MAX:]
            self._open(rules, now_ms)
        return True

    def leave(self, node: str) -> None:
        """Forget what ``node`` reported: it ends."""
        self.reports.pop(node, None)

    def _open(self, rules: FleetRules, now_ms: int) -> None:
        self.epoch += 1
        self.opened = True
        self.until = now_ms + min(rules.open_ms << self.round, rules.open_max_ms)
        self._renew()

    def _close(self) -> None:
        self.epoch += 1
        self.opened = False
        self.until = 0
        self.round = 0
        self.failed = []
        self._renew()

    def _renew(self) -> None:
        self.good = 0
        self.leases = {}
        self.reports = {node: (False, expires) for node, (_, expires) in self.reports.items()}

    def _expire(self, now_ms: int) -> None:
        reports, leases = self.reports, self.leases
        for node in [name for name, (_, expires) in reports.items() if expires <= now_ms]:
            del reports[node]
        for token in [number for number, (_, expires) in leases.items() if expires <= now_ms]:
            del leases[token]

    # --- bytes ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the record as bytes."""
        row = {
            "v": VERSION, "epoch": self.epoch, "opened": self.opened, "until": self.until,
            "round": self.round, "good": self.good, "seq": self.seq, "failed": self.failed,
            "reports": [[node, bad, expires] for node, (bad, expires) in self.reports.items()],
            "leases": [[token, node, end] for token, (node, end) in self.leases.items()],
        }  # fmt: skip
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes | None, now_ms: int) -> "FleetRecord":
        """Return the record that ``data`` holds, or a new one if it holds none of ours.

        What is in a store may have been put there by anybody: anything that does not fit in type
        or size is as good as nothing there, which means closed.
        """
        fresh = cls(now_ms)
        if data is None or len(data) > RECORD_BYTES_MAX:
            return fresh
        try:
            return _filled(cls(now_ms), json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError):
            return fresh


def _filled(record: FleetRecord, row: dict[str, object]) -> FleetRecord:
    if row["v"] != VERSION or not isinstance(row["opened"], bool):
        raise ValueError("not a record of this version")
    record.epoch = max(1, number(row["epoch"]))
    record.opened = row["opened"]
    record.until = number(row["until"])
    record.round = min(number(row["round"]), _ROUND_MAX)
    record.good = number(row["good"])
    record.seq = number(row["seq"])
    record.failed = [_name(node) for node in _listed(row["failed"], REPORTERS_MAX)]
    for node, bad, expires in _listed(row["reports"], REPORTERS_MAX):
        record.reports[_name(node)] = (bad is True, number(expires))
    for token, node, expires in _listed(row["leases"], LEASES_MAX):
        record.leases[number(token)] = (_name(node), number(expires))
    return record


def number(value: object) -> int:
    """Return ``value`` if it is a whole number of a sane size; ``ValueError`` otherwise."""
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise ValueError("not a number of ours")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > _NAME_MAX:
        raise ValueError("not a name of ours")
    return value


def _listed(value: object, most: int) -> list[list[object]]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("not a list of ours")
    return value
