"""Mutants of what calls share: budget, rates, permits, caches, keys, votes, the fleet's view."""

from functools import partial

from tools.mutants.table import mutant

_plant = partial(mutant, level="protect")
_BUDGET = "protect/core/budget.py"
_RATE = "protect/core/rate.py"
_PERMITS = "protect/permits.py"
_LIMIT = "protect/core/adaptive.py"
_PERCENTILE = "protect/core/percentile.py"
_CACHE = "protect/core/cache.py"
_RECORDS = "protect/core/idempotency.py"
_VOTE = "protect/core/vote.py"
_FLEET = "protect/core/fleet.py"
_NODE = "protect/core/fleet_node.py"

_BUDGET_TESTS = ("unit/test_protect_budget*.py", "property/test_protect_rate_bounds.py")
_RATE_TESTS = ("unit/test_protect_rate*.py", "property/test_protect_rate_bounds.py")
_LIMIT_TESTS = ("unit/test_protect_limits*.py", "property/test_protect_limits*.py")
_CACHE_TESTS = (
    "unit/test_protect_cache.py", "property/test_protect_percentile.py",
    "unit/test_protect_planted.py",
)  # fmt: skip
_RECORD_TESTS = ("unit/test_protect_idempot*.py", "property/test_protect_idempotency.py")
_FLEET_TESTS = (
    "unit/test_protect_fleet.py", "unit/test_protect_shared.py",
    "property/test_protect_fleet_sim.py", "unit/test_protect_planted.py",
)  # fmt: skip

ALLOWANCES = (
    _plant(
        "budget-grants-forgotten", _BUDGET,
        "            span.grants += 1\n            self.grants += 1\n",
        "            span.grants += 1\n",
        breaks="What was granted in the window counts against it",
        section="Finagle, retry budgets", faults="an outage", tests=_BUDGET_TESTS,
        black_box=True,
    ),
    _plant(
        "budget-calls-never-age", _BUDGET,
        "            self.calls -= gone.calls\n", "",
        breaks="Only calls of the window earn extra attempts", section="budget (ours)",
        faults="an outage after much traffic", tests=_BUDGET_TESTS,
    ),
    _plant(
        "budget-first-span-counts-whole", _BUDGET,
        "        if outside_ns > 0:\n", "        if outside_ns > self.window_ns:\n",
        breaks="Of calls that came evenly only those within the window count",
        section="budget (ours)", faults="an outage after much traffic", tests=_BUDGET_TESTS,
    ),
    _plant(
        "bucket-one-call-too-deep", _RATE,
        "ahead = after - self._depth - now", "ahead = after - self._depth - self._interval - now",
        breaks="No more than burst calls start at once", section="ITU-T I.371",
        faults="bursts", tests=_RATE_TESTS, black_box=True,
    ),
    _plant(
        "bucket-charges-the-refused", _RATE,
        "            if wait_ns > max_wait_ns:\n                return -wait_ns\n"
        "            self._tat = after\n",
        "            self._tat = after\n"
        "            if wait_ns > max_wait_ns:\n                return -wait_ns\n",
        breaks="A call that is refused takes no slot", section="ITU-T I.371",
        faults="bursts", tests=_RATE_TESTS,
    ),
    _plant(
        "bucket-takes-back-from-the-middle", _RATE,
        "            if -(-(self._tat - self._depth) // self._unit) != due_ns:\n"
        "                return False\n"
        "            self._tat",
        "            self._tat",
        breaks="Only the newest slot can be given back", section="rate (ours)",
        faults="cancelled waits", tests=_RATE_TESTS,
    ),
    _plant(
        "window-log-one-start-too-many", _RATE,
        "last = len(starts) + cost - 1 - limit", "last = len(starts) + cost - 2 - limit",
        breaks="No window holds more starts than the limit", section="rate (ours)",
        faults="bursts", tests=_RATE_TESTS, black_box=True,
    ),
    _plant(
        "rate-cut-by-each-answer", _RATE,
        "        if began_ns < self._cut_at_ns:\n            return False\n", "",
        breaks="One overload cuts the rate once", section="Chiu and Jain, 1989",
        faults="many throttled answers at once", tests=_RATE_TESTS,
    ),
)  # fmt: skip

LIMITS = (
    _plant(
        "permit-lost-with-its-waiter", _PERMITS,
        "                free.append(waiter.permit)\n                waiter.permit = 0\n",
        "                waiter.permit = 0\n",
        breaks="A waiter that goes away passes on the permit that it was just handed",
        section="permits (ours)", faults="cancelled waiters", tests=_LIMIT_TESTS,
        black_box=True,
    ),
    _plant(
        "permits-newest-waiter-first", _PERMITS,
        "waiter = next(iter(self._levels[best]))", "waiter = next(reversed(self._levels[best]))",
        breaks="Callers of one priority get permits in the order of their arrival",
        section="permits (ours)", faults="a queue", tests=_LIMIT_TESTS,
    ),
    _plant(
        "permits-least-important-first", _PERMITS,
        "best = max(self._levels, default=NORMAL - 1)",
        "best = min(self._levels, default=NORMAL - 1)",
        breaks="Callers of higher priority get permits first", section="permits (ours)",
        faults="a queue", tests=_LIMIT_TESTS,
    ),
    _plant(
        "permits-never-withdrawn", _PERMITS,
        "                self._debt -= 1\n                continue\n",
        "                self._debt -= 1\n",
        breaks="A limit that was made smaller is smaller once calls have ended",
        section="permits (ours)", faults="a limit that shrinks under load", tests=_LIMIT_TESTS,
    ),
    _plant(
        "permits-of-before-a-fork-come-back", _PERMITS,
        "        self._strays = held\n", "        self._strays = 0\n",
        breaks="What the forking thread held is no permit of the child", section="permits (ours)",
        faults="a fork while calls run", tests=_LIMIT_TESTS,
    ),
    _plant(
        "permits-gone-waiter-stays-linked", _PERMITS,
        "            if waiter.linked:\n                self._unlink_locked(waiter)\n"
        "            elif waiter.permit:\n",
        "            if waiter.permit:\n",
        breaks="A waiter that goes away leaves the queue at once", section="permits (ours)",
        faults="cancelled waiters", tests=_LIMIT_TESTS, black_box=True,
    ),
    _plant(
        "limit-cut-by-each-failure", _LIMIT,
        "            if now_ns - rtt_ns >= self._since_ns:\n", "            if True:\n",
        breaks="One overload cuts the limit once", section="Chiu and Jain, 1989",
        faults="many failures at once", tests=_LIMIT_TESTS,
    ),
    _plant(
        "limit-grows-unused", _LIMIT,
        "        elif ok and in_flight * 2 >= self.limit:\n", "        elif ok:\n",
        breaks="A limit that is not used proves nothing and does not grow",
        section="adaptive (ours)", faults="little load", tests=_LIMIT_TESTS,
    ),
    _plant(
        "limit-below-its-floor", _LIMIT,
        "return float(min(max(limit, self._low), self._high))",
        "return float(min(max(limit, 1), self._high))",
        breaks="The limit never falls below its minimum", section="adaptive (ours)",
        faults="a service that becomes slow", tests=_LIMIT_TESTS,
    ),
    _plant(
        "percentile-rounded-down", _PERCENTILE,
        "rank = -(-total * self.ppm // _PPM)", "rank = total * self.ppm // _PPM",
        breaks="The answer is at least the exact percentile", section="nearest rank",
        faults="few samples", tests=("property/test_protect_percentile.py",),
    ),
    _plant(
        "percentile-remembers-too-long", _PERCENTILE,
        "            self._before, self._kept_before = {}, 0\n",
        "            self._before, self._kept_before = self._now, self._kept_now\n",
        breaks="Latencies of more than two windows ago are forgotten",
        section="percentile (ours)", faults="a pause",
        tests=("property/test_protect_percentile.py",),
    ),
)  # fmt: skip

ANSWERS = (
    _plant(
        "cache-stale-for-ever", _CACHE,
        "return \"stale\" if left_ns + self.stale_ns > 0 else \"gone\"", "return \"stale\"",
        breaks="A value that is older than ttl and stale together is never shown",
        section="RFC 5861", faults="a long outage", tests=_CACHE_TESTS,
    ),
    _plant(
        "cache-one-entry-too-many", _CACHE,
        "len(entries) >= self.max_entries:", "len(entries) > self.max_entries:",
        breaks="No more than max_entries are kept", section="cache (ours)", faults="many keys",
        tests=_CACHE_TESTS,
    ),
    _plant(
        "cache-everybody-refreshes", _CACHE,
        "return self.claimed.setdefault(True, mine) is mine",
        "return self.claimed.setdefault(True, mine) is not None",
        breaks="One caller fetches a value anew, and the others go on with it",
        section="cache (ours)", faults="many callers", tests=_CACHE_TESTS,
    ),
    _plant(
        "key-of-the-dead-stays-taken", _RECORDS,
        "        if flight is not None and now_ns < flight.lease_end_ns:\n",
        "        if flight is not None:\n",
        breaks="The key of a worker that died is free when its lease has run out",
        section="Gray and Cheriton, 1989", faults="a crash", tests=_RECORD_TESTS,
    ),
    _plant(
        "key-of-the-living-taken-over", _RECORDS,
        "            if flight.token != token:\n"
        "                return InFlight(flight.lease_end_ns - now_ns)\n", "",
        breaks="Work under a key is not begun again while it runs",
        section="idempotency (ours)", faults="impatient callers", tests=_RECORD_TESTS,
        black_box=True,
    ),
    _plant(
        "key-lease-not-renewed", _RECORDS,
        "        flight.hold(now_ns, lease_ns)\n", "",
        breaks="Work that goes on keeps its key", section="idempotency (ours)",
        faults="long work", tests=_RECORD_TESTS, black_box=True,
    ),
    _plant(
        "key-outcome-of-the-fenced-kept", _RECORDS,
        "        if flight is None or flight.token != token:\n            kept",
        "        if flight is None:\n            kept",
        breaks="What a worker finishes after it lost its key is not kept",
        section="fencing tokens", faults="a pause longer than the lease", tests=_RECORD_TESTS,
    ),
    _plant(
        "key-answers-any-request", _RECORDS,
        "return MISMATCH if _differ(kept.fingerprint, fingerprint) else Done(kept.outcome)",
        "return Done(kept.outcome)",
        breaks="A key that comes with another request is refused",
        section="HTTP Idempotency-Key, 2.7", faults="a key used twice", tests=_RECORD_TESTS,
    ),
    _plant(
        "key-refusals-kept", "protect/idempotent.py",
        "if not isinstance(error, Exception) or happened(error) == \"no\":",
        "if not isinstance(error, Exception):",
        breaks="A refusal is no outcome: a repeat runs", section="idempotency (ours)",
        faults="an overload", tests=_RECORD_TESTS,
    ),
    _plant(
        "key-done-is-done-again", _RECORDS,
        "            if now_ns < kept.expires_ns:\n", "            if now_ns < 0:\n",
        breaks="Work that was done is not done again", section="HTTP Idempotency-Key",
        faults="answers lost", tests=_RECORD_TESTS, black_box=True,
    ),
    _plant(
        "vote-won-by-too-few", _VOTE,
        "len(party.members) >= self.quorum:", "len(party.members) + 1 >= self.quorum:",
        breaks="An answer wins once a quorum has given it", section="Lamport et al., 1982",
        faults="an instance that lies", tests=("unit/test_protect_vote.py",),
    ),
    _plant(
        "vote-half-is-a-majority", _VOTE,
        "return count // 2 + 1", "return (count + 1) // 2",
        breaks="Half of an even number is no majority", section="Lamport et al., 1982",
        faults="half of the instances lie", tests=("unit/test_protect_vote.py",),
    ),
    _plant(
        "vote-given-up-early", _VOTE,
        "self.open_count < self.quorum", "self.open_count <= self.quorum",
        breaks="A vote is hopeless only when no answer can reach the quorum",
        section="vote (ours)", faults="instances that fail", tests=("unit/test_protect_vote.py",),
    ),
)  # fmt: skip

FLEET = (
    _plant(
        "fleet-one-node-trips-all", _FLEET,
        "agree >= rules.min_nodes and", "agree >= 1 and",
        breaks="A single ill node cannot open the breaker of all", section="fleet (ours)",
        faults="one node cut off", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-lease-of-the-dead-stays", _FLEET,
        "            del leases[token]\n", "            pass\n",
        breaks="A prober that died frees its place when its lease runs out",
        section="Gray and Cheriton, 1989", faults="a crash during a probe", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-probe-of-an-older-epoch-counts", _FLEET,
        "if lease.epoch != self.epoch or self.leases.pop(lease.token, None) is None:",
        "if self.leases.pop(lease.token, None) is None and lease.epoch == self.epoch:",
        breaks="A probe of before the last change changes nothing", section="fencing tokens",
        faults="a slow probe", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-too-many-probes", _FLEET,
        "if len(self.leases) >= min(rules.probes, LEASES_MAX):",
        "if len(self.leases) > min(rules.probes, LEASES_MAX):",
        breaks="The whole fleet makes no more probes at a time than were agreed",
        section="fleet (ours)", faults="many nodes at a half-open breaker", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-ill-node-probes-first", _FLEET,
        "        waits = node in self.failed and now_ms < self.until + rules.report_ttl_ms\n",
        "        waits = False\n",
        breaks="A node whose probe failed lets the others go first", section="fleet (ours)",
        faults="one node cut off from the service", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-evidence-of-an-older-epoch", _FLEET,
        "(bad and epoch == self.epoch, now_ms + rules.report_ttl_ms)",
        "(bad, now_ms + rules.report_ttl_ms)",
        breaks="What a node saw before the last change is no evidence", section="fleet (ours)",
        faults="nodes that come late", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-late-view-followed", _NODE,
        "            if self._back < _BACK_MAX:\n                return None\n", "",
        breaks="A view that is older than what is known is ignored", section="fleet (ours)",
        faults="answers out of order", tests=_FLEET_TESTS,
    ),
    _plant(
        "fleet-short-trip-not-reported", _NODE,
        "bad = self._latched or (is_open and not self.following)",
        "bad = is_open and not self.following",
        breaks="A trip is reported however short it was", section="fleet (ours)",
        faults="a short outage", tests=_FLEET_TESTS,
    ),
)  # fmt: skip
