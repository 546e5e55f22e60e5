"""Mutants of suspicion: detectors, the list of who is watched, and an observer's own health."""

from functools import partial

from tools.mutants.table import mutant

_PHI = "detect/core/phi.py"
_LEARNING = "detect/core/learning.py"
_DETECTOR = "detect/core/detector.py"
_CHEN = "detect/core/chen.py"
_QUANTILE = "detect/core/quantile.py"
_RING = "detect/core/ring.py"
_GOAL = "detect/core/goal.py"
_WATCHLIST = "detect/core/heartbeat.py"
_SELF = "detect/core/local_health.py"
_PATIENCE = "log/engines/raft/core/patience.py"
_ELECTION = "log/engines/raft/core/election.py"

_DETECTORS = (
    "unit/test_detect_detectors.py", "property/test_detect_detectors.py",
    "unit/test_detect_planted.py",
)  # fmt: skip
_HAYASHIBARA = "Hayashibara et al. 2004"
_CHEN_TOUEG = "Chen et al. 2002, section 6"

_phi = partial(mutant, level="detect", tests=_DETECTORS, section=_HAYASHIBARA)
_learn = partial(mutant, level="detect", tests=_DETECTORS, section="learning (ours)")
_chen = partial(mutant, level="detect", tests=_DETECTORS, section=_CHEN_TOUEG)
_goal = partial(
    mutant, level="detect", tests=("unit/test_detect_detectors_goal.py",),
    section="Chen et al. 2002, section 5",
)  # fmt: skip
_watch = partial(
    mutant, level="detect", tests=("unit/test_detect_heartbeat.py",), section="watchlist (ours)"
)
_self = partial(
    mutant, level="detect", tests=("unit/test_detect_local_health.py",),
    section="local health (ours, after Lifeguard)",
)  # fmt: skip
_raft = partial(
    mutant, level="detect", section="patience (ours)",
    tests=("unit/test_raft_accrual.py", "unit/test_detect_planted.py"),
)  # fmt: skip

DETECTORS = (
    _phi(
        "phi-without-a-floor", _PHI,
        "max(self._floor_ns, self.intervals.deviation())",
        "max(1, self.intervals.deviation())",
        breaks="A deviation of nothing does not make a hiccup a crash",
        faults="beats like a clock's, then a small delay",
    ),
    _phi(
        "phi-without-a-pause", _PHI,
        "self._mean_ns = self.intervals.mean() + self._pause_ns",
        "self._mean_ns = self.intervals.mean()",
        breaks="A stillness of the length that was allowed is no sign of failure",
        faults="a short pause of the sender",
    ),
    _phi(
        "phi-exponential-counts-in-e", _PHI,
        "/ (mean_ns * _LN10)", "/ mean_ns",
        breaks="Suspicion is the decimal logarithm of a chance, in every shape",
        faults="none", section="Hayashibara et al. 2004; Cassandra",
    ),
    _phi(
        "phi-new-pace-forgotten", _PHI,
        "first_ns = self._first_ns if pace_ns is None else pace_ns", "first_ns = self._first_ns",
        breaks="A sender that is slower for good is learnt", faults="ten long intervals",
        section="learning (ours)",
    ),
    _learn(
        "freeze-is-learnt", _LEARNING,
        "self._at(at_ns) >= self._learn_level", "self._at(last_ns) >= self._learn_level",
        breaks="An interval that ended a suspicion is not learnt", faults="a freeze",
        section="learning (ours, after Akka)",
    ),
    _learn(
        "new-pace-is-never-learnt", _LEARNING,
        "if self.odd < NEW_PACE:", "if self.odd:",
        breaks="Ten intervals in a row that ended a suspicion are the new pace",
        faults="a sender that is slower from now on",
    ),
    _learn(
        "odd-intervals-need-not-be-in-a-row", _LEARNING,
        "        self.odd = 0\n        self._add(interval_ns)", "        self._add(interval_ns)",
        breaks="An interval in time begins the count of odd ones anew",
        faults="freezes now and then",
    ),
    _learn(
        "learning-beyond-the-cap", _LEARNING,
        "if silence_ns >= self._cap_ns:", "if silence_ns >= 2 * self._cap_ns:",
        breaks="The cap bounds the detection time whatever was learnt",
        faults="intervals that vary much, then a crash",
    ),
    _learn(
        "repeated-beat-is-news", _DETECTOR,
        "seq <= self.last_seq", "seq < self.last_seq",
        breaks="A beat that was known already puts no deadline off", faults="doubled datagrams",
        section="detector (ours), promises",
    ),
    _learn(
        "backdated-beat-is-news", _DETECTOR,
        "        if last_ns is not None and at_ns < last_ns:\n"
        "            self.stale += 1\n            return\n", "",
        breaks="A beat from before the last one changes nothing", faults="reordered beats",
        section="detector (ours), promises",
    ),
    _learn(
        "expectation-is-learnt", _DETECTOR,
        "last_ns if self.heard else None", "last_ns",
        breaks="The wait for the first beat is no interval between beats", faults="a late start",
        section="detector (ours), promises",
    ),
    _learn(
        "deadline-a-nanosecond-early", _DETECTOR,
        "                low = middle\n        return high",
        "                low = middle\n        return low",
        breaks="At the deadline suspicion has reached the level: no timer wakes for nothing",
        faults="none", section="detector (ours), promises",
    ),
    _learn(
        "squares-of-the-gone-are-kept", _RING,
        "        self.squares -= gone * gone\n", "",
        breaks="The deviation is that of the window, not of all there ever was",
        faults="more beats than the window holds", section="ring (ours)",
    ),
    _learn(
        "quantile-of-the-gone", _QUANTILE,
        "            del ordered[bisect_left(ordered, gone)]", "            pass",
        breaks="The quantile is that of the window", faults="more beats than the window holds",
        section="quantile (ours)",
    ),
    _learn(
        "quantile-rounds-down", _QUANTILE,
        "rank = -int(-self._q * len(ordered) // 1)", "rank = int(self._q * len(ordered))",
        breaks="No more than the given part of the intervals was longer", faults="none",
        section="quantile (ours)",
    ),
    _learn(
        "quantile-mixes-two-paces", _QUANTILE,
        "        self._ordered = []\n        self._quantile_ns = self._interval_ns if pace_ns",
        "        self._quantile_ns = self._interval_ns if pace_ns",
        breaks="With a new pace the intervals of the old one are forgotten",
        faults="a sender that is slower from now on", section="quantile (ours)",
    ),
    _chen(
        "chen-late-beat-puts-off", _CHEN,
        "return self._offsets.mean() + (self._count + 1) * self._interval_ns",
        "return (self.last_ns or 0) + self._interval_ns",
        breaks="A beat that was late does not make the next one late", faults="one delayed beat",
    ),
    _chen(
        "chen-counts-what-came", _CHEN,
        "            self._count = seq\n", "            self._count += 1\n",
        breaks="The number of a beat says when it was sent", faults="lost beats",
    ),
    _chen(
        "chen-follows-any-number", _CHEN,
        "if self.last_seq is None or abs(odd) > _JUMP:", "if self.last_seq is None:",
        breaks="Numbers that leap away from the time are those of another sender",
        faults="a restart that numbers from elsewhere", section="chen (ours)",
    ),
    _chen(
        "chen-mixes-numbered-and-not", _CHEN,
        "if self.last_seq is None or abs(odd) > _JUMP:", "if abs(odd) > _JUMP:",
        breaks="A sender that begins to give numbers begins anew",
        faults="a sender that is upgraded", section="chen (ours)",
    ),
    _chen(
        "chen-expects-in-the-past", _CHEN,
        "zero_ns = max(self.expected_ns(), self.last_ns or 0)", "zero_ns = self.expected_ns()",
        breaks="The next beat is not expected before the last one came",
        faults="a window of stragglers", section="chen (ours)",
    ),
    _chen(
        "bertier-forgets-the-mean-error", _CHEN,
        "error = error_ns - self._delay_ns", "error = error_ns",
        breaks="The margin follows the mean error, and its deviation from that",
        faults="a constant delay", section="Bertier et al. 2002",
    ),
    _chen(
        "bertier-without-a-floor", _CHEN,
        "return max(self._floor_ns, margin)", "return margin",
        breaks="The margin is never below its floor", faults="none",
        section="chen (ours), floor",
    ),
    _goal(
        "goal-forgets-loss", _GOAL,
        "least = self.variance + self.loss * late * late", "least = self.variance",
        breaks="The plan allows for beats that get lost", faults="loss",
    ),
    _goal(
        "goal-delay-is-free", _GOAL,
        "within = detect_within - delay\n", "within = detect_within\n",
        breaks="The delay on the way is part of the detection time", faults="delay",
    ),
    _goal(
        "goal-trace-is-not-tried", _GOAL,
        "if seen.mistakes > max(allowed, 0.0):", "if seen.mistakes > len(trace):",
        breaks="A plan must do on its own trace what it promises", faults="bursts of loss",
        section="goal (ours), traces",
    ),
)  # fmt: skip

WATCHED = (
    _watch(
        "watch-old-beat-is-trusted", _WATCHLIST,
        "if detector.suspicion(at_ns) > 0.0:", "if detector.suspicion(at_ns) > 1e9:",
        breaks="A beat that was known already is no sign of life", faults="a replayed beat",
    ),
    _watch(
        "watch-one-level-at-a-time", _WATCHLIST,
        "                peer.rank = rank\n", "                peer.rank += 1\n",
        breaks="Who is looked at late takes all levels that were due at once",
        faults="a late look",
    ),
    _watch(
        "watch-postponed-is-dropped", _WATCHLIST,
        "                self._push(name, peer, max(retry_ns, now_ns + 1))\n", "",
        breaks="An accusation that is put off is looked at again", faults="an unwell observer",
    ),
    _watch(
        "watch-unfit-evicts", _WATCHLIST,
        "elif may_accuse:", "elif may_accuse or rank == _TOP:",
        breaks="Who is unwell itself accuses nobody, of nothing", faults="an unwell observer",
    ),
    _watch(
        "watch-one-peer-too-many", _WATCHLIST,
        "            if len(self._peers) >= self._peers_max:\n                self.refused += 1",
        "            if len(self._peers) > self._peers_max:\n                self.refused += 1",
        breaks="Peers are bounded, however many beat", faults="beats of strangers",
    ),
    _watch(
        "watch-heap-grows", _WATCHLIST,
        "if len(heap) > 2 * len(self._peers) + 16:", "if len(heap) > 1 << 20:",
        breaks="What is planned is bounded by who is watched", faults="peers that come and go",
    ),
    _watch(
        "watch-sleeps-through-a-nearer-deadline", _WATCHLIST,
        "if due_ns < peer.entry_ns:", "if peer.entry_ns == NEVER:",
        breaks="A deadline that a beat brings nearer is kept",
        faults="a first beat sooner than was expected",
    ),
    _watch(
        "watch-beat-does-not-trust-again", _WATCHLIST,
        "            peer.rank = 0\n        peer.heard_ns = at_ns",
        "        peer.heard_ns = at_ns",
        breaks="The next beat is trust again", faults="a freeze",
    ),
)  # fmt: skip

OURSELVES = (
    _self(
        "self-second-pause-is-forgiven", _SELF,
        "self.clean_from_ns = max(self.clean_from_ns, now_ns + self._clean_ns)",
        "self.clean_from_ns = self.clean_from_ns or now_ns + self._clean_ns",
        breaks="After each pause clean time must pass", faults="two pauses",
    ),
    _self(
        "self-overdue-tick-does-not-count", _SELF,
        "return max(overdue, *self.parts.values()) if self.parts else overdue",
        "return max(self.parts.values(), default=0.0)",
        breaks="A tick that is overdue counts before it comes", faults="a blocked loop",
    ),
    _self(
        "self-no-clean-time-after-an-excuse", _SELF,
        "        self.excuses.remove(reason)\n        self._dirty(now_ns)",
        "        self.excuses.remove(reason)",
        breaks="Who was excused needs clean time before it accuses", faults="an excuse that ends",
    ),
    _self(
        "self-sleep-is-no-pause", _SELF,
        "pause_ns = max(late_ns, asleep_ns)", "pause_ns = late_ns",
        breaks="A machine that slept has heard nobody meanwhile", faults="suspend to memory",
    ),
    _self(
        "self-one-collection-counts-for-ever", _SELF,
        "        self._gc_ns = 0\n        self._readings = readings",
        "        self._readings = readings",
        breaks="A collection counts for the tick after it", faults="one long collection",
    ),
    _self(
        "self-lateness-does-not-fade", _SELF,
        "self._lag_ns / 2)", "self._lag_ns)",
        breaks="One hiccup is forgotten after some ticks in time", faults="one late tick",
    ),
    _self(
        "self-pressure-of-others-silences-us", _SELF,
        '"pressure": PRESSURE_WEIGHT * _share', '"pressure": _share',
        breaks="Pressure of the machine alone stops nobody", faults="a busy neighbour",
    ),
    _self(
        "self-counter-that-fell-counts", _SELF,
        "return max(0, after - before)", "return abs(after - before)",
        breaks="A counter that fell says nothing", faults="another control group",
    ),
    _self(
        "self-asks-again-at-once", _SELF,
        "return max(self.clean_from_ns, now_ns + self._interval_ns)",
        "return self.clean_from_ns",
        breaks="Who may not accuse is asked again later, not at once", faults="an overdue tick",
    ),
)  # fmt: skip

PATIENCE = (
    _raft(
        "patience-without-bounds", _PATIENCE,
        "min(max(learnt_ns, self._least_ns), self._most_ns)", "learnt_ns",
        breaks="Silence is borne between three fifths of the timeout and four times it",
        faults="very regular and very irregular heartbeats",
    ),
    _raft(
        "patience-entries-are-beats", _PATIENCE,
        "now_ns - self._heard_ns < self._thin_ns", "False",
        breaks="Entries that come as they are written say nothing of heartbeats",
        faults="many writes, then none",
    ),
    _raft(
        "patience-learns-beside-leases", _PATIENCE,
        "settings.accrual and not settings.lease_reads", "settings.accrual",
        breaks="A promise not to vote has a length that all know", faults="lease reads",
        section="thesis 6.4.1",
    ),
    _raft(
        "patience-remembers-the-last-leader", _PATIENCE,
        "            self._detector.forget()", "            pass",
        breaks="What was learnt of one leader says nothing of the next", faults="a new leader",
    ),
    _raft(
        "patience-of-a-voter-is-not-learnt", _ELECTION,
        "borne_ns = min(s.timeout_ns, self.patience.silence_ns)", "borne_ns = s.timeout_ns",
        breaks="Who bears no more silence itself helps others to stand", faults="a dead leader",
    ),
)  # fmt: skip
