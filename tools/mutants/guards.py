"""Mutants of what guards a call: breaker, retry, limits of time, hedge, and their frames."""

from functools import partial

from tools.mutants.table import mutant

_plant = partial(mutant, level="protect")
_BREAKER = "protect/core/breaker.py"
_RULES = "protect/core/breaker_rules.py"
_WINDOW = "protect/core/window.py"
_RETRY = "protect/core/retry.py"
_STORY = "protect/story.py"
_WATCH = "protect/watch.py"
_HEDGE = "protect/core/hedge.py"
_RACE = "protect/hedge_async.py"

_BREAKER_TESTS = (
    "unit/test_protect_breaker*.py", "unit/test_protect_window*.py",
    "unit/test_protect_probes*.py", "property/test_protect_breaker*.py",
    "unit/test_protect_planted.py",
)  # fmt: skip
_RETRY_TESTS = (
    "unit/test_protect_retry*.py", "unit/test_protect_probes*.py",
    "property/test_protect_frames*.py", "unit/test_protect_watch*.py",
    "unit/test_protect_fleet_found.py", "unit/test_protect_planted.py",
)  # fmt: skip
_HEDGE_TESTS = (
    "unit/test_protect_hedge*.py",
    "unit/test_protect_fleet_found.py",
    "unit/test_protect_planted.py",
)

BREAKER = (
    _plant(
        "breaker-opens-one-late", _BREAKER,
        "self._failures >= rules.threshold", "self._failures > rules.threshold",
        breaks="A breaker opens with the failure that reaches the threshold",
        section="Release It!, chapter 5", faults="failures one after another",
        tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-success-forgives-nothing", _BREAKER,
        "self._failures = 1 if good else self._failures + 1",
        "self._failures = self._failures + 1",
        breaks="Only failures one after another count towards the threshold",
        section="Release It!, chapter 5", faults="a failure now and then", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-outcome-of-an-older-round-counts", _BREAKER,
        "        if not self._counts(ticket):\n"
        "            return None\n"
        "        good = ticket.fresh()\n"
        "        self._failures = 1",
        "        if self.state != CLOSED:\n"
        "            return None\n"
        "        good = ticket.fresh()\n"
        "        self._failures = 1",
        breaks="A call from before the trip cannot open the breaker again",
        section="breaker (ours), rounds", faults="slow failures", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-probes-not-capped", _BREAKER,
        "if len(live) >= min(rules.probes_concurrent, max(rules.probes - self._good, 1)):",
        "if len(live) >= 1_000:",
        breaks="No more probes than agreed run at a time", section="Release It!, chapter 5",
        faults="many callers at a half-open breaker", tests=_BREAKER_TESTS, black_box=True,
    ),
    _plant(
        "breaker-cancelled-probe-keeps-its-place", _BREAKER,
        "        if isinstance(ticket, Probe) and ticket in self._live:\n"
        "            self._live.remove(ticket)\n",
        "        if isinstance(ticket, Probe) and ticket in self._live:\n"
        "            return\n",
        breaks="A probe that was cancelled tells nothing, and another may probe",
        section="breaker (ours), probes", faults="cancelled callers", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-overdue-probe-counts", _BREAKER,
        "return probe.round is self.round and now_ns < probe.expires_ns",
        "return probe.round is self.round",
        breaks="What a probe says after its time is ignored", section="breaker (ours), probes",
        faults="probes that hang", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-hung-probes-never-expire", _BREAKER,
        "[probe for probe in self._live if probe.expires_ns > now_ns]", "list(self._live)",
        breaks="A probe that hangs cannot keep the breaker half-open",
        section="breaker (ours), probes", faults="probes that hang", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-one-probe-is-enough", _BREAKER,
        "        if self._good < self.rules.probes:\n            return None\n", "",
        breaks="The breaker closes once as many probes succeeded as were asked for",
        section="resilience4j, half-open", faults="a callee that is half well",
        tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-open-time-does-not-grow", _BREAKER,
        "        self._failed_rounds += 1\n        open_ns",
        "        open_ns",
        breaks="Each failed round of probes makes the next wait longer",
        section="breaker (ours), open time", faults="a long outage", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-open-time-without-jitter", _RULES,
        "return prng.between(max(widest // 2, 1), widest)", "return widest",
        breaks="Callers that opened together do not probe together",
        section="Exponential Backoff and Jitter", faults="a long outage", tests=_BREAKER_TESTS,
    ),
    _plant(
        "breaker-rate-of-too-few-calls", _BREAKER,
        "if calls < rules.min_calls:", "if not calls:",
        breaks="A rate of fewer calls than min_calls opens nothing",
        section="resilience4j, minimumNumberOfCalls", faults="the first call fails",
        tests=_BREAKER_TESTS,
    ),
    _plant(
        "window-successes-push-nothing-out", _WINDOW,
        "self._failed = self._failed << number & self._mask",
        "self._failed = self._failed & self._mask",
        breaks="A failure leaves the window after as many calls as it holds",
        section="resilience4j, count window", faults="old failures", tests=_BREAKER_TESTS,
    ),
    _plant(
        "window-keeps-old-buckets", _WINDOW,
        "gone = min(passed, self._number)", "gone = min(passed, 1)",
        breaks="After a silence as long as the window nothing is in it",
        section="resilience4j, time window", faults="a pause between failures",
        tests=_BREAKER_TESTS,
    ),
)  # fmt: skip

RETRY = (
    _plant(
        "retry-one-attempt-too-many", _RETRY,
        "if self.attempts is not None and attempt >= self.attempts:",
        "if self.attempts is not None and attempt > self.attempts:",
        breaks="attempts counts the first call", section="retry (ours)",
        faults="calls that fail again and again", tests=_RETRY_TESTS, black_box=True,
    ),
    _plant(
        "retry-waits-past-the-deadline", _RETRY,
        "deadline.passed(now_ns + delay_ns)", "deadline.passed(now_ns)",
        breaks="No wait is begun that the deadline does not allow", section="retry (ours)",
        faults="calls that fail just before their deadline", tests=_RETRY_TESTS,
    ),
    _plant(
        "retry-believes-any-retry-after", _RETRY,
        "min(asked, self.retry_after_cap)", "asked",
        breaks="What a callee asks for is capped", section="RFC 9110, 10.2.3",
        faults="Retry-After of a day", tests=_RETRY_TESTS,
    ),
    _plant(
        "retry-repeats-what-may-have-happened", _RETRY,
        "            if not self.repeat_indefinite:\n", "            if False:\n",
        breaks="A call that may have happened is not repeated unasked",
        section="DESIGN, outcomes", faults="deadlines of inner calls", tests=_RETRY_TESTS,
    ),
    _plant(
        "retry-without-jitter", _RETRY,
        "            return prng.between(0, ceiling)\n", "            return ceiling\n",
        breaks="Callers that failed together do not come back together",
        section="Exponential Backoff and Jitter", faults="an overload", tests=_RETRY_TESTS,
    ),
    _plant(
        "retry-earlier-attempt-forgotten", _STORY,
        "self.uncertain = self.uncertain or happened(error) == \"maybe\"",
        "self.uncertain = happened(error) == \"maybe\"",
        breaks="A call of which an earlier attempt may have happened may have happened",
        section="DESIGN, outcomes", faults="an answer lost, then a refusal", tests=_RETRY_TESTS,
        black_box=True,
    ),
    _plant(
        "watch-swallows-the-callers-cancellation", _WATCH,
        "return left <= self.cancelling and isinstance(error, asyncio.CancelledError)",
        "return isinstance(error, asyncio.CancelledError)",
        breaks="Who cancels a call at the instant of its limit has cancelled it",
        section="asyncio.timeout", faults="cancellation and deadline at once",
        tests=_RETRY_TESTS,
    ),
    _plant(
        "watch-leaves-the-task-cancelled", _WATCH,
        "left = task.uncancel()", "left = task.cancelling() - 1",
        breaks="A limit of time takes its cancellation back", section="asyncio.timeout",
        faults="attempts that hang", tests=_RETRY_TESTS, black_box=True,
    ),
    _plant(
        "watch-forgets-the-next-one", _WATCH,
        "                self._arm(watched.at_ns)\n                return\n",
        "                return\n",
        breaks="Each call has its own end, though one timer serves all",
        section="watch (ours)", faults="attempts that hang side by side", tests=_RETRY_TESTS,
        black_box=True,
    ),
    _plant(
        "hedge-first-error-ends-the-call", _HEDGE,
        "return \"wait\" if self.running else \"end\"", "return \"end\"",
        breaks="A failed attempt does not lose the call while another runs",
        section="The Tail at Scale", faults="a replica that fails", tests=_HEDGE_TESTS,
    ),
    _plant(
        "hedge-doubt-forgotten", _HEDGE,
        "doubt = self.running or any(happened(each) != \"no\" for each in"
        " self._errors.values())",
        "doubt = False",
        breaks="A call of which another attempt may have happened may have happened",
        section="DESIGN, outcomes", faults="one refusal, one answer lost", tests=_HEDGE_TESTS,
    ),
    _plant(
        "hedge-losers-go-on", _RACE,
        "        for task in self.tasks:\n            task.cancel()\n",
        "        self.tasks.clear()\n",
        breaks="Attempts that lost are cancelled, and have ended when the answer is given",
        section="hedge (ours)", faults="slow replicas", tests=_HEDGE_TESTS, black_box=True,
    ),
    _plant(
        "hedge-one-attempt-too-many", _HEDGE,
        "return self.started < self.attempts", "return self.started <= self.attempts",
        breaks="No more attempts are started than were agreed", section="hedge (ours)",
        faults="slow replicas", tests=_HEDGE_TESTS, black_box=True,
    ),
)  # fmt: skip
