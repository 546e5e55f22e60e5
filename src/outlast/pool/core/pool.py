"""Who gets the next call, and who gets none for a while.

The pool keeps, for each instance, what its calls came to. From that follow three decisions: which
instance takes the next call; when one is ejected, which is given up if too few would be left; and
when it comes back, first by one call as a probe, then little by little. Time and draws are given;
events are collected for the driver.

States of the pool: *calm*, where only usable instances get calls; and *panic*, where so few are
usable that they would be crushed, and all get calls again (Envoy, "panic threshold").
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple

from outlast.kernel import Event, Prng
from outlast.pool import events
from outlast.pool.core.balance import Table, chooser
from outlast.pool.core.blame import Verdict
from outlast.pool.core.instance import Found, Instance
from outlast.pool.core.member import NS, PROBE_NS, Member
from outlast.pool.core.outlier import findings, median
from outlast.pool.core.settings import Outlier, Pick, Ramp

_RAMP_STEP_NS: Final = NS // 10
_NEVER: Final = 1 << 62
_PATIENCE: Final = 2
"""A call that we gave less than so many times the usual time says nothing when it is late."""

DEFAULT: Final = Outlier()


class Rules(NamedTuple):
    """The settings of a pool."""

    pick: Pick
    eject: Outlier | None = DEFAULT
    readmit: Ramp = Ramp(10.0, 0.1)
    panic: float = 0.5
    zone: str = ""
    drain_ns: int = 30 * NS
    fail_after: int = 3
    pass_after: int = 2


class Picked(NamedTuple):
    """An instance that is to take a call."""

    member: Member
    probe: bool
    epoch: int


class PoolCore:
    """Decides for one pool. Not thread-safe: the driver holds a lock for each call.

    Attributes:
        events: What has happened; the driver takes them away.
        panic: Whether so few are usable that all get calls.
        capped: How often an ejection was given up because too few would have been left.
    """

    def __init__(self, name: str, rules: Rules, prng: Prng) -> None:
        self.name = name
        self.rules = rules
        self.events: list[Event] = []
        self.panic = False
        self.capped = 0
        self._prng = prng
        self._choose = chooser(rules.pick, prng)
        self._decay_ns = rules.pick.load.decay * NS
        self._members: dict[str, Member] = {}
        self._table: Table | None = None
        self._half_open: list[Member] = []
        self._dirty = True
        self._due_ns = 0
        self._look_ns = 0
        self._typical_ns = 0.0

    # --- asking ---------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[Member, ...]:
        """All instances, also those that are leaving."""
        return tuple(self._members.values())

    def member(self, address: str) -> Member | None:
        """Return what is known of one instance."""
        return self._members.get(address)

    def pick(self, tried: Collection[str], now_ns: int) -> Picked | None:
        """Return who takes the next call, ``None`` if there is nobody.

        Args:
            tried: Addresses that this call has been to; they are left out while there are others.
            now_ns: Monotonic time.
        """
        if now_ns >= self._due_ns:
            self.tend(now_ns)
        if self._dirty:
            self._arrange(now_ns)
        if self._half_open and not tried:
            probe = self._probe(now_ns)
            if probe is not None:
                return probe
        table = self._table
        if table is None:
            return None
        if tried:
            rest = [member for member in table.members if member.address not in tried]
            if rest and len(rest) < len(table.members):
                table = Table(rest)
        member = self._choose(table, now_ns)
        member.in_flight += 1
        return Picked(member, False, member.epoch)

    def _probe(self, now_ns: int) -> Picked | None:
        """Give a call to an instance whose ejection is over, if none is with it yet."""
        for member in self._half_open:
            begun_ns = member.probe_ns
            free = begun_ns is None or now_ns - begun_ns >= PROBE_NS
            if free and not (member.sick or member.avoid or member.draining):
                member.probe_ns = now_ns
                member.in_flight += 1
                return Picked(member, True, member.epoch)
        return None

    # --- outcomes -------------------------------------------------------------------------------

    def done(self, picked: Picked, verdict: Verdict, elapsed_ns: int, now_ns: int) -> None:
        """A call has ended: take its place back and learn from it.

        A call that was late counts against the instance only if it had twice the time that
        calls take elsewhere in the pool: a deadline of ours that was too short ejects nobody.
        """
        member, probe, epoch = picked
        member.in_flight -= 1
        if probe and member.epoch == epoch:
            member.probe_ns = None
        if member.epoch == epoch and (member.standing == "live" or probe):
            self._learn(member, verdict, elapsed_ns, now_ns, probe)
        elif verdict == "lied" and member.standing == "live":
            self.lied(member, now_ns)
        if member.leave_ns is not None and not member.in_flight:
            self._due_ns = 0
        if now_ns >= self._due_ns:
            self.tend(now_ns)

    def _learn(
        self, member: Member, verdict: Verdict, elapsed_ns: int, now_ns: int, probe: bool
    ) -> None:
        if verdict == "late":
            usual = elapsed_ns >= _PATIENCE * self._typical_ns
            verdict = "failed" if usual else "cut"
        if verdict == "ok":
            member.succeeded(elapsed_ns, now_ns)
            member.observe(elapsed_ns, now_ns, self._decay_ns, only_up=False)
            if probe:
                self._readmit(member, "a probe succeeded", now_ns)
        elif verdict == "busy":
            member.owe(now_ns)
        elif verdict == "cut":
            member.observe(elapsed_ns, now_ns, self._decay_ns, only_up=True)
        elif verdict == "failed":
            member.failed(now_ns)
            member.observe(elapsed_ns, now_ns, self._decay_ns, only_up=True)
            self._judge_streak(member, now_ns, probe)
        elif verdict == "lied":
            member.failed(now_ns)
            if probe:
                self._eject(member, "probe", 1, 1, now_ns)
            else:
                self.lied(member, now_ns)

    def lied(self, member: Member, now_ns: int) -> None:
        """An answer of a live instance was wrong; perhaps found out after the call."""
        rules = self.rules.eject
        member.lies += 1
        if rules is not None and rules.lies and member.lies >= rules.lies:
            self._try_eject(member, "lies", member.lies, rules.lies, now_ns)

    def _judge_streak(self, member: Member, now_ns: int, probe: bool) -> None:
        rules = self.rules.eject
        if probe:
            self._eject(member, "probe", 1, 1, now_ns)
        elif rules is not None and rules.consecutive and member.streak >= rules.consecutive:
            self._try_eject(
                member, "consecutive failures", member.streak, rules.consecutive, now_ns
            )

    # --- ejection and readmission ---------------------------------------------------------------

    def _staying(self) -> list[Member]:
        return [member for member in self._members.values() if not member.draining]

    def _may_eject(self, member: Member) -> bool:
        """Whether the share of ejected instances stays within its bound with one more."""
        rules = self.rules.eject
        if rules is None or member.standing != "live" or member.draining:
            return False
        staying = self._staying()
        out = sum(one.standing != "live" for one in staying) + 1
        left = sum(one.standing == "live" and not one.sick for one in staying)
        left -= not member.sick
        return out <= _share_of(rules.max_ejected, len(staying)) and left >= rules.min_left

    def _try_eject(
        self, member: Member, why: str, value: float, limit: float, now_ns: int
    ) -> bool:
        if not self._may_eject(member):
            self.capped += 1
            return False
        self._eject(member, why, value, limit, now_ns)
        return True

    def _eject(self, member: Member, why: str, value: float, limit: float, now_ns: int) -> None:
        """Give an instance no calls for a time that grows with each ejection."""
        rules = self.rules.eject or DEFAULT
        member.times += 1
        longest_ns = round(min(rules.base * member.times, rules.cap) * NS)
        length_ns = self._prng.between(longest_ns * 4 // 5, longest_ns)
        if member.standing == "live":
            member.ejected_ns = now_ns
        member.standing = "ejected"
        member.until_ns = now_ns + length_ns
        member.why = why
        member.forget()
        self._dirty = True
        self._due_ns = min(self._due_ns, member.until_ns)
        self.events.append(
            events.InstanceEjected(
                name=self.name, endpoint=member.address, why=why, value=value, limit=limit,
                seconds=length_ns / NS, times=member.times,
            )
        )  # fmt: skip

    def _readmit(self, member: Member, why: str, now_ns: int) -> None:
        """Give an instance calls again, few at first."""
        member.standing = "live"
        kept = member.ewma_ns, member.measured, member.ewma_at_ns
        member.forget()
        member.ewma_ns, member.measured, member.ewma_at_ns = kept
        member.good_since_ns = now_ns
        self._begin_ramp(member, now_ns)
        self.events.append(
            events.InstanceReadmitted(
                name=self.name, endpoint=member.address, why=why,
                after=(now_ns - member.ejected_ns) / NS,
            )
        )  # fmt: skip

    def _begin_ramp(self, member: Member, now_ns: int) -> None:
        member.ramp_from_ns = now_ns if self.rules.readmit.seconds else None
        member.share = member.instance.weight
        self._dirty = True

    # --- tending --------------------------------------------------------------------------------

    def tend(self, now_ns: int) -> None:
        """Do what time brings: ends of ejections, looks at shares, ramps, departures."""
        rules = self.rules.eject
        for member in self._members.values():
            if member.standing == "ejected" and now_ns >= member.until_ns:
                member.standing = "half-open"
                member.probe_ns = None
                self._dirty = True
        gone = [
            member.address
            for member in self._members.values()
            if member.leave_ns is not None and (not member.in_flight or now_ns >= member.leave_ns)
        ]
        for address in gone:
            del self._members[address]
            self._dirty = True
        if rules is not None and now_ns >= self._look_ns:
            self._look(rules, now_ns)
            self._look_ns = now_ns + round(rules.every * NS)
        if any(member.ramp_from_ns is not None for member in self._members.values()):
            self._dirty = True
        self._set_due(now_ns)

    def _look(self, rules: Outlier, now_ns: int) -> None:
        """Look at shares and latencies, and let long good order shorten the next ejection."""
        live = [member for member in self._members.values() if member.standing == "live"]
        base_ns = round(rules.base * NS)
        for member in live:
            while member.times and now_ns - member.good_since_ns >= base_ns:
                member.times -= 1
                member.good_since_ns += base_ns
        usable = [member for member in live if not (member.sick or member.draining)]
        known = [member.ewma_ns for member in usable if member.measured]
        self._typical_ns = median(known) if len(known) > 1 else 0.0
        for member, why, value, limit, _ in findings(usable, rules, now_ns):
            self._try_eject(member, why, value, limit, now_ns)

    def _set_due(self, now_ns: int) -> None:
        """Set when :meth:`tend` is next of use."""
        due_ns = self._look_ns if self.rules.eject is not None else _NEVER
        for member in self._members.values():
            if member.standing == "ejected":
                due_ns = min(due_ns, member.until_ns)
            if member.leave_ns is not None:
                due_ns = min(due_ns, member.leave_ns)
            if member.ramp_from_ns is not None:
                due_ns = min(due_ns, now_ns + _RAMP_STEP_NS)
        self._due_ns = max(due_ns, now_ns + 1)

    def _arrange(self, now_ns: int) -> None:
        """Make the table of those that get calls anew."""
        self._dirty = False
        staying = self._staying()
        for member in staying:
            self._set_share(member, now_ns)
        usable = [member for member in staying if member.usable]
        self._half_open = [member for member in staying if member.standing == "half-open"]
        self._set_panic(len(usable), len(staying))
        chosen = staying if self.panic else usable
        if self.rules.zone and not self.panic:
            chosen = self._near(staying, usable)
        self._table = Table(chosen) if chosen else None

    def _near(self, staying: Sequence[Member], usable: list[Member]) -> list[Member]:
        """Return those of our own zone, unless so few of them are left that they are crushed."""
        zone = self.rules.zone
        near = [member for member in usable if member.instance.zone == zone]
        there = sum(member.instance.zone == zone for member in staying)
        return near if near and len(near) >= self.rules.panic * there else usable

    def _set_share(self, member: Member, now_ns: int) -> None:
        weight, begun_ns, ramp = member.instance.weight, member.ramp_from_ns, self.rules.readmit
        member.share = weight
        if begun_ns is None:
            return
        part = (now_ns - begun_ns) / (ramp.seconds * NS) if ramp.seconds else 1.0
        if part >= 1.0:
            member.ramp_from_ns = None
        else:
            member.share = weight * max(ramp.floor, part)
            self._due_ns = min(self._due_ns, now_ns + _RAMP_STEP_NS)

    def _set_panic(self, available: int, total: int) -> None:
        panic = total > 0 and available < self.rules.panic * total
        if panic == self.panic:
            return
        self.panic = panic
        if panic:
            self.events.append(
                events.PoolPanicked(
                    name=self.name, available=available, instances=total,
                    threshold=self.rules.panic,
                )
            )  # fmt: skip
        else:
            told = events.PoolCalmed(name=self.name, available=available, instances=total)
            self.events.append(told)

    # --- who is there ---------------------------------------------------------------------------

    def found(self, found: Found, now_ns: int) -> None:
        """Take the answer of a discovery: who is there, and who is to be avoided."""
        there = {instance.address: instance for instance in found.instances}
        first = not self._members
        joined: list[str] = []
        for address, instance in there.items():
            if self._take(address, instance, now_ns, ramped=not first):
                joined.append(address)
        leaving = []
        for address, member in self._members.items():
            member.avoid = address in found.avoid
            if address not in there and member.leave_ns is None:
                member.leave_ns = now_ns + self.rules.drain_ns
                leaving.append(address)
        self._dirty = True
        if joined or leaving:
            self.events.append(
                events.PoolChanged(
                    name=self.name, joined=tuple(joined), leaving=tuple(leaving),
                    instances=len(there),
                )
            )  # fmt: skip
            self._keep_to_cap(now_ns)
        self.tend(now_ns)

    def _take(self, address: str, instance: Instance, now_ns: int, *, ramped: bool) -> bool:
        """Take an instance in, or its new settings; return whether it was not there."""
        member = self._members.get(address)
        if member is None:
            window_ns = round((self.rules.eject or DEFAULT).window * NS)
            member = self._members[address] = Member(instance, window_ns, now_ns)
        elif member.leave_ns is not None:
            member.leave_ns = None
        else:
            member.instance = instance
            return False
        member.instance = instance
        if ramped:
            self._begin_ramp(member, now_ns)
        return True

    def _keep_to_cap(self, now_ns: int) -> None:
        """Readmit who is ejected beyond the share that may be: the pool has become smaller."""
        rules = self.rules.eject
        if rules is None:
            return
        staying = self._staying()
        out = [member for member in staying if member.standing != "live"]
        most = min(
            _share_of(rules.max_ejected, len(staying)), max(len(staying) - rules.min_left, 0)
        )
        soonest = sorted(out, key=lambda member: member.until_ns)
        for member in soonest[: max(len(out) - most, 0)]:
            self._readmit(member, "the pool has become smaller", now_ns)

    def drain(self, address: str, now_ns: int, *, draining: bool = True) -> bool:
        """Give an instance no new calls, or again; return whether it is there."""
        member = self._members.get(address)
        if member is None:
            return False
        if member.drained_by_hand != draining:
            member.drained_by_hand = draining
            if not draining:
                self._begin_ramp(member, now_ns)
            self._dirty = True
            self._keep_to_cap(now_ns)
        return True

    def checked(self, address: str, reason: str | None, now_ns: int) -> None:
        """Take the outcome of an active check: ``None`` is good, else what was wrong.

        It fails after so many bad ones in a row and passes after so many good ones, so that one
        lost packet changes nothing.
        """
        member = self._members.get(address)
        if member is None:
            return
        if reason is None:
            member.check_fails, member.check_passes = 0, member.check_passes + 1
            if member.sick and member.check_passes >= self.rules.pass_after:
                member.sick = False
                self._begin_ramp(member, now_ns)
                passes = member.check_passes
                self.events.append(
                    events.InstanceCheckPassed(name=self.name, endpoint=address, passes=passes)
                )
            return
        member.check_passes, member.check_fails = 0, member.check_fails + 1
        if not member.sick and member.check_fails >= self.rules.fail_after:
            member.sick = True
            self._dirty = True
            self.events.append(
                events.InstanceCheckFailed(
                    name=self.name, endpoint=address, failures=member.check_fails, reason=reason
                )
            )

    # --- telling --------------------------------------------------------------------------------

    def soonest_ns(self, now_ns: int) -> int | None:
        """Return the time until an ejected instance may be probed, ``None`` if none is ejected."""
        left = [
            member.until_ns - now_ns
            for member in self._members.values()
            if member.standing == "ejected"
        ]
        return max(min(left), 0) if left else None

    def snapshot(self, now_ns: int) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        self.tend(now_ns)
        if self._dirty:
            self._arrange(now_ns)
        state: Literal["panic", "calm"] = "panic" if self.panic else "calm"
        members = self._members.values()
        return {
            "state": state,
            "instances": [member.snapshot(now_ns) for member in members],
            "usable": sum(member.usable for member in members),
            "ejected": sum(member.standing != "live" for member in members),
            "in_flight": sum(member.in_flight for member in members),
            "ejections_given_up": self.capped,
        }


def _share_of(share: float, count: int) -> int:
    """Return a share of a count, rounded down; a product of floats may be a hair too small."""
    return int(share * count + 1e-9)
