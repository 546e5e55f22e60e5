"""Mutants of pools: who takes a call, who is ejected, who comes back, what is repeated."""

from functools import partial

from tools.mutants.table import mutant

_CORE = "pool/core/pool.py"
_MEMBER = "pool/core/member.py"
_BALANCE = "pool/core/balance.py"
_OUTLIER = "pool/core/outlier.py"
_BLAME = "pool/core/blame.py"
_FAILOVER = "pool/failover.py"
_POOL = "pool/pool.py"

_ENVOY = "Envoy, outlier detection"

_choose = partial(
    mutant, level="detect", tests=("unit/test_pool_core*.py",), section="pool (ours), choosing"
)
_eject = partial(
    mutant, level="detect", tests=("unit/test_pool_core*.py", "property/test_pool_promises.py"),
    section=_ENVOY,
)  # fmt: skip
_call = partial(
    mutant, level="detect", section="pool (ours), failover",
    tests=("unit/test_pool_calls.py", "unit/test_pool_blame.py", "unit/test_pool_planted.py"),
)  # fmt: skip

CHOOSING = (
    _choose(
        "pool-tries-the-same-again", _CORE,
        "rest = [member for member in table.members if member.address not in tried]",
        "rest = list(table.members)",
        breaks="An attempt goes where the call has not been", faults="an instance that fails",
        section="pool (ours), failover",
    ),
    _choose(
        "pool-takes-the-worse-of-two", _BALANCE,
        "load(second, now_ns) < load(first, now_ns)", "load(second, now_ns) > load(first, now_ns)",
        breaks="Of two the one with less load is taken", faults="a slow instance",
        section="Mitzenmacher 2001",
    ),
    _choose(
        "pool-turns-are-not-smooth", _BALANCE,
        "best.credit -= total", "best.credit = 0.0",
        breaks="Turns follow the weights, interleaved", faults="none",
        section="nginx, round robin",
    ),
    _choose(
        "pool-load-without-weight", _MEMBER,
        "return (self.in_flight + self.owed(now_ns)) / self.share",
        "return self.in_flight + self.owed(now_ns)",
        breaks="Load is calls in flight for the weight", faults="none",
    ),
    _choose(
        "pool-quick-failure-is-no-load", _MEMBER,
        "        self.owe(now_ns)\n        self.window.add(False, now_ns)",
        "        self.window.add(False, now_ns)",
        breaks="An instance that fails at once does not draw ever more calls",
        faults="refused connections",
    ),
    _choose(
        "pool-quick-failure-is-quick", _MEMBER,
        "        elif only_up:\n            return\n", "",
        breaks="A quick failure is no low latency", faults="refused connections",
    ),
    _choose(
        "pool-peak-is-averaged", _MEMBER,
        "if latency_ns >= before:", "if not self.measured:",
        breaks="A peak of latency is noticed at once", faults="a slow instance",
        section="Finagle, peak EWMA",
    ),
    _choose(
        "pool-unmeasured-is-free", _MEMBER,
        "return waiting * 1e18", "return 0.0",
        breaks="An instance that has not answered yet is asked once, and then waited for",
        faults="an instance that hangs from the start", section="Finagle, peak EWMA",
    ),
    _choose(
        "pool-zone-is-crushed", _CORE,
        "return near if near and len(near) >= self.rules.panic * there else usable",
        "return near if near else usable",
        breaks="A zone with few instances left is not given all the calls",
        faults="most of a zone fails", section="Envoy, zone aware routing",
    ),
    _choose(
        "pool-suspected-are-asked", _CORE,
        "member.avoid = address in found.avoid", "member.avoid = False",
        breaks="A suspected instance gets calls only when others are few",
        faults="a suspected member", section="pool (ours), membership",
    ),
)  # fmt: skip

EJECTION = (
    _eject(
        "pool-cap-is-reckoned-before", _CORE,
        'out = sum(one.standing != "live" for one in staying) + 1',
        'out = sum(one.standing != "live" for one in staying)',
        breaks="The share of ejected instances stays within its bound with one more",
        faults="several instances fail",
    ),
    _eject(
        "pool-last-one-is-ejected", _CORE,
        " and left >= rules.min_left", "",
        breaks="So many are left, whatever the share", faults="all instances fail",
    ),
    _eject(
        "pool-sick-ones-count-as-left", _CORE,
        'left = sum(one.standing == "live" and not one.sick for one in staying)',
        'left = sum(one.standing == "live" for one in staying)',
        breaks="One that fails its check is not left", faults="failed checks beside failures",
        section="pool (ours)",
    ),
    _eject(
        "pool-does-not-panic", _CORE,
        "panic = total > 0 and available < self.rules.panic * total", "panic = False",
        breaks="Where so few are usable that they would be crushed all get calls",
        faults="most instances fail", section="Envoy, panic threshold",
    ),
    _eject(
        "pool-panics-at-the-threshold", _CORE,
        "available < self.rules.panic * total", "available <= self.rules.panic * total",
        breaks="With exactly the threshold left there is no panic", faults="half of them fail",
        section="Envoy, panic threshold",
    ),
    _eject(
        "pool-good-does-not-end-a-row", _MEMBER,
        "        self.streak = 0\n        self.debt >>= 1", "        self.debt >>= 1",
        breaks="Only failures in a row count as a row", faults="failures now and then",
    ),
    _eject(
        "pool-window-keeps-the-bad", _MEMBER,
        "            self.bad -= self._bad[place]\n", "",
        breaks="Failures older than the window do not count", faults="failures long ago",
    ),
    _eject(
        "pool-two-hosts-make-a-spread", _OUTLIER,
        "len(asked) < _HOSTS_RATE", "len(asked) < 2",
        breaks="Few instances are too few for a spread of success rates",
        faults="one of four fails now and then", tests=("unit/test_pool_planted.py",),
    ),
    _eject(
        "pool-equal-latencies-make-an-outlier", _OUTLIER,
        "middle + rule.deviations * deviation, middle * rule.times, middle + rule.floor * NS",
        "middle + rule.deviations * deviation, middle",
        breaks="Where the others are equal a little slower is no outlier",
        faults="an instance a little slower", section="outliers (ours), latency",
    ),
    _eject(
        "pool-ejections-do-not-lengthen", _CORE,
        "min(rules.base * member.times, rules.cap)", "min(rules.base, rules.cap)",
        breaks="Each ejection is longer than the last one", faults="an instance that stays broken",
    ),
    _eject(
        "pool-ejections-without-a-cap", _CORE,
        "min(rules.base * member.times, rules.cap)", "rules.base * member.times",
        breaks="No ejection is longer than the cap", faults="an instance that stays broken",
    ),
    _eject(
        "pool-one-lie-is-forgiven", _CORE,
        "member.lies >= rules.lies", "member.lies > rules.lies",
        breaks="So many wrong answers as are told eject", faults="a wrong answer",
        section="pool (ours), lies",
    ),
    _eject(
        "pool-short-deadline-ejects", _CORE,
        "usual = elapsed_ns >= _PATIENCE * self._typical_ns", "usual = True",
        breaks="A call that was given too little time ejects nobody",
        faults="a caller with a short deadline", section="pool (ours), blame",
    ),
    _eject(
        "pool-busy-is-failed", _CORE,
        '        elif verdict == "busy":\n            member.owe(now_ns)',
        '        elif verdict == "busy":\n            member.failed(now_ns)\n'
        "            self._judge_streak(member, now_ns, probe)",
        breaks="A busy instance is spared, and not ejected", faults="load",
        section="pool (ours), blame",
    ),
    _eject(
        "pool-shrinks-below-its-share", _CORE,
        "for member in soonest[: max(len(out) - most, 0)]:", "for member in soonest[:0]:",
        breaks="A pool that becomes smaller keeps to its share of ejected instances",
        faults="a deployment while instances fail", section="pool (ours)",
    ),
    _eject(
        "pool-checks-need-not-fail-in-a-row", _CORE,
        "member.check_fails, member.check_passes = 0, member.check_passes + 1",
        "member.check_passes += 1",
        breaks="A check fails after so many bad ones in a row",
        faults="a lost packet now and then",
        section="pool (ours), checks",
    ),
)  # fmt: skip

RETURN = (
    _eject(
        "pool-many-probes-at-once", _CORE,
        "free = begun_ns is None or now_ns - begun_ns >= PROBE_NS", "free = True",
        breaks="An instance comes back by one call as a probe", faults="many callers",
        section="pool (ours), probes",
    ),
    _eject(
        "pool-second-attempt-probes", _CORE,
        "if self._half_open and not tried:", "if self._half_open:",
        breaks="A call that has failed once is no probe", faults="an instance that stays broken",
        section="pool (ours), probes",
    ),
    _eject(
        "pool-probe-that-is-lost-blocks", _CORE,
        "free = begun_ns is None or now_ns - begun_ns >= PROBE_NS", "free = begun_ns is None",
        breaks="A probe that nobody ends is given up", faults="a forgotten endpoint",
        section="pool (ours), probes",
    ),
    _eject(
        "pool-older-life-counts", _CORE,
        'if member.epoch == epoch and (member.standing == "live" or probe):',
        'if member.standing == "live" or probe:',
        breaks="Outcomes of calls from before an ejection do not count after it",
        faults="slow failures", section="pool (ours), epochs",
    ),
    _eject(
        "pool-full-share-at-once", _CORE,
        "member.share = weight * max(ramp.floor, part)", "member.share = weight",
        breaks="A readmitted instance gets its share little by little", faults="a cold cache",
        section="Envoy, slow start",
    ),
    _eject(
        "pool-good-order-is-not-rewarded", _CORE,
        "                member.times -= 1\n", "",
        breaks="Long good order makes the next ejection shorter again", faults="a rare failure",
    ),
    _eject(
        "pool-leaving-waits-for-ever", _CORE,
        "member.leave_ns is not None and (not member.in_flight or now_ns >= member.leave_ns)",
        "member.leave_ns is not None and not member.in_flight",
        breaks="Calls of an instance that leaves are not waited for without end",
        faults="a call that hangs", section="pool (ours), draining",
    ),
)  # fmt: skip

FAILOVER = (
    _call(
        "pool-our-refusal-ejects", _BLAME,
        "    if isinstance(error, RejectedError | ConfigError | InvariantError):\n"
        '        return "ours"',
        "    if isinstance(error, RejectedError | ConfigError | InvariantError):\n"
        '        return "failed"',
        breaks="What we have refused ourselves says nothing of the instance", faults="a bulkhead",
        section="Envoy, local origin errors",
    ),
    _call(
        "pool-our-sockets-eject", _BLAME,
        "    if isinstance(error, OSError) and error.errno in _OURS_ERRNOS:\n"
        '        return "ours"\n',
        "",
        breaks="That we have no sockets left says nothing of the instance", faults="EMFILE",
        section="Envoy, local origin errors",
    ),
    _call(
        "pool-cancelled-call-ejects", _POOL,
        '            return "late"\n        return "cut"',
        '            return "late"\n        return "failed"',
        breaks="A call that its caller cancels says nothing of the instance",
        faults="cancelled callers", section="pool (ours), blame",
    ),
    _call(
        "pool-answer-is-a-failure", _BLAME,
        '    if kind == "answer":\n        return "ok"',
        '    if kind == "answer":\n        return "failed"',
        breaks="An instance that answers by a refusal has answered", faults="a 404",
        section="pool (ours), blame",
    ),
    _call(
        "pool-repeats-what-may-have-happened", _FAILOVER,
        'return idempotent or happened(error) == "no" or is_keyed()', "return True",
        breaks="A call that may have had an effect is not made twice",
        faults="a broken connection",
    ),
    _call(
        "pool-repeats-answers", _FAILOVER,
        '    if classify(error) in {"answer", "permanent"}:\n        return False\n', "",
        breaks="An answer, or a bug, is not asked elsewhere", faults="a 404",
    ),
    _call(
        "pool-key-does-not-help", _FAILOVER,
        'return idempotent or happened(error) == "no" or is_keyed()',
        'return idempotent or happened(error) == "no"',
        breaks="A call with a key goes on elsewhere", faults="a broken connection",
    ),
    _call(
        "pool-failover-without-a-budget", _FAILOVER,
        "budget=Budget(ratio=0.5, floor=5.0)", "budget=Budget(ratio=1.0, floor=5.0)",
        breaks="A storm of failures is not doubled by failing over", faults="all instances fail",
    ),
    _call(
        "pool-lie-is-noted-twice", _POOL,
        '        if member.standing == "live":\n            self._do(lambda core, now_ns: core.l',
        "        if True:\n            self._do(lambda core, now_ns: core.l",
        breaks="What is found out later is held against a live instance alone",
        faults="a wrong answer found out late", section="pool (ours), lies",
    ),
)  # fmt: skip
