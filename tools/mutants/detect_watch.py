"""Mutants of watchdogs, and of who starts children again."""

from functools import partial

from tools.mutants.table import mutant

_LADDER = "detect/core/ladder.py"
_TREND = "detect/core/trend.py"
_WAITS = "detect/core/waits.py"
_STUCK = "detect/core/stuck.py"
_GUARD = "detect/core/guard_rules.py"
_RESOURCE = "detect/core/resource.py"
_SUPERVISOR = "detect/core/supervisor.py"
_SUPERVISION = "detect/core/supervision.py"
_BACKOFF = "detect/core/restarting.py"
_PROGRESS = "detect/core/child_progress.py"

_core = partial(
    mutant, level="detect", section="watchdog (ours)",
    tests=("unit/test_detect_watchdog_core.py", "property/test_detect_watchdog.py"),
)  # fmt: skip
_waits = partial(
    mutant, level="detect", tests=("unit/test_detect_watchdog_waits.py",),
    section="watched locks (ours)",
)  # fmt: skip
_guard = partial(
    mutant, level="detect", tests=("unit/test_detect_watchdog_guard.py",),
    section="process guard (ours)",
)  # fmt: skip
_restart = partial(
    mutant, level="detect", tests=("unit/test_supervisor_*.py",), section="Erlang/OTP supervisor"
)
_tree = partial(
    mutant, level="detect", section="Erlang/OTP supervisor",
    tests=("unit/test_detect_supervision_core.py", "property/test_detect_supervision.py"),
)  # fmt: skip

WATCHDOGS = (
    _core(
        "ladder-flicker-begins-anew", _LADDER,
        "        if now_ns - self._gone_ns < round(self.ladder.calm * _NS):\n"
        "            return ()\n", "",
        breaks="A condition that flickers is one condition", faults="trouble that comes and goes",
    ),
    _core(
        "ladder-repeats-its-actions", _LADDER,
        "first = self._done", "first = 0",
        breaks="Each action is done once for a condition", faults="trouble that lasts",
    ),
    _core(
        "trend-any-slope-is-growth", _TREND,
        "if slope is None or slope <= 0 or fast.rising() < _RISING_FAST:",
        "if slope is None or slope <= 0:",
        breaks="A few jumps are no steady growth", faults="a sawtooth",
    ),
    _core(
        "trend-keeps-the-highest", _TREND,
        "self._low = min(self._low, value)", "self._low = max(self._low, value)",
        breaks="Slow growth is seen by what is left after each collection",
        faults="garbage between collections",
    ),
    _core(
        "trend-believes-one-look", _TREND,
        "return found if before else None", "return found",
        breaks="Growth is told only once two looks agree", faults="one odd sample",
    ),
    _core(
        "stuck-forgets-the-mark", _STUCK,
        "known is not None and known[0] == mark", "known is not None",
        breaks="Who moves is not stuck", faults="a thread that works slowly",
    ),
    _core(
        "resource-near-is-the-end", _RESOURCE,
        "value >= end * self.rules.share", "value >= end",
        breaks="A limit is near before it is reached", faults="a leak",
    ),
    _waits(
        "waits-go-to-the-owner-only", _WAITS,
        "return lock.carrier", "return owner",
        breaks="Who waits for a task waits for the thread that carries it",
        faults="a lock taken by a task whose thread is blocked",
    ),
    _waits(
        "waits-never-end", _WAITS,
        "self._waits.pop(who, None)", "pass",
        breaks="Who has got its lock waits no longer", faults="locks taken one after the other",
    ),
    _guard(
        "guard-late-itself-forgives-nothing", _GUARD,
        "self._forgiven_ns = now_ns", "pass",
        breaks="A guard that was late itself accuses nobody of that time",
        faults="a machine that stands still",
    ),
    _guard(
        "guard-stopped-is-frozen", _GUARD,
        'kind = "stopped" if stopped else "frozen" if frozen else "stalled"',
        'kind = "frozen" if frozen else "stalled"',
        breaks="A stopped process is told from a frozen one", faults="SIGSTOP",
    ),
)  # fmt: skip

RESTARTS = (
    _restart(
        "restart-one-too-few", _SUPERVISOR,
        "if count > policy.intensity:", "if count >= policy.intensity:",
        breaks="So many restarts as are allowed are made", faults="crashes",
    ),
    _restart(
        "restart-counts-for-ever", _SUPERVISOR,
        "while self._restarts and self._restarts[0] <= now_ns - period_ns:",
        "while self._restarts and self._restarts[0] < 0:",
        breaks="Restarts outside the period do not count", faults="a crash a day",
    ),
    _restart(
        "restart-of-what-has-done-its-work", _SUPERVISOR,
        'policy.restart == "transient" and code == 0', 'policy.restart == "temporary"',
        breaks="A transient child that ended by itself stays down", faults="none",
    ),
    _restart(
        "restart-waits-without-a-cap", _SUPERVISOR,
        "ceiling_ns = min(cap_ns, round(policy.base * _NS) << min(count - 1, 64))",
        "ceiling_ns = round(policy.base * _NS) << min(count - 1, 64)",
        breaks="No wait is longer than the cap", faults="many crashes",
        section="supervisor (ours), waits",
    ),
    _restart(
        "restart-begins-at-twice-the-base", _SUPERVISOR,
        "<< min(count - 1, 64)", "<< min(count, 64)",
        breaks="The first wait is the base at most", faults="one crash",
        section="supervisor (ours), waits",
    ),
    _restart(
        "restart-final-code-is-tried-again", _SUPERVISOR,
        "if code in policy.final:", "if code < 0 and code in policy.final:",
        breaks="An exit that says that another start would end the same is believed",
        faults="a wrong configuration", section="supervisor (ours), final codes",
    ),
    _restart(
        "restart-slow-gives-up", _SUPERVISOR,
        "return InCrashLoop(count, cap_ns if policy.slow else None)",
        "return InCrashLoop(count, None)",
        breaks="A slow policy goes on at the cap", faults="a crash loop",
        section="supervisor (ours), slow",
    ),
    _restart(
        "restart-repair-is-not-believed", _SUPERVISOR,
        "        self._restarts.clear()", "        return",
        breaks="After a repair counting begins afresh", faults="a crash loop, and an operator",
    ),
)  # fmt: skip

TREES = (
    _tree(
        "tree-stops-the-first-first", _SUPERVISION,
        "for index in range(len(self.slots) - 1, -1, -1):", "for index in range(len(self.slots)):",
        breaks="Children stop in the reverse of the order in which they started", faults="none",
    ),
    _tree(
        "tree-stops-all-at-once", _SUPERVISION,
        '        if any(slot.phase == "stopping" for slot in self.slots):\n'
        "            return []\n",
        "",
        breaks="One child is stopped at a time", faults="none",
    ),
    _tree(
        "tree-does-not-wait-for-ready", _SUPERVISION,
        'return all(slot.phase == "up" for slot in self.slots[:index] if slot.owed)',
        "return all(slot.runs for slot in self.slots[:index] if slot.owed)",
        breaks="The next child waits until the one before is ready", faults="a slow start",
        section="supervision (ours), order",
    ),
    _tree(
        "tree-rest-is-all", _SUPERVISION,
        'first = 0 if strategy == "one_for_all" else index', "first = 0",
        breaks="Under rest_for_one those that came before go on", faults="one crash",
    ),
    _tree(
        "tree-older-instance-is-believed", _SUPERVISION,
        'if slot.instance != instance or slot.phase == "down":', 'if slot.phase == "down":',
        breaks="What is said of an older instance is ignored", faults="a late report",
        section="supervision (ours), instances",
    ),
    _tree(
        "tree-counts-those-it-stops", _SUPERVISION,
        "asked = not slot.runs or slot.cycle or not slot.wanted", "asked = not slot.wanted",
        breaks="A child that ends while its group is stopped is not counted",
        faults="one crash of a group", section="supervision (ours)",
    ),
    _tree(
        "tree-one-restart-too-few", _SUPERVISION,
        "if count <= self._rules.intensity:", "if count < self._rules.intensity:",
        breaks="So many restarts as are allowed are made", faults="crashes",
    ),
    _tree(
        "tree-does-not-escalate", _SUPERVISION,
        'failed=True, escalate=self._rules.on_limit == "escalate"', "failed=True, escalate=False",
        breaks="Who cannot help its children lets its parent decide", faults="a crash loop",
    ),
    _tree(
        "tree-forgets-failures-at-once", _SUPERVISION,
        "if was_up and now_ns - slot.up_since_ns >= self._calm_ns(slot):", "if was_up:",
        breaks="Failures are forgotten after a healthy time, and not before",
        faults="a child that is up for a moment", section="supervision (ours), waits",
    ),
    _tree(
        "tree-starts-beside-the-stuck", _SUPERVISION,
        'slot.phase = "stuck"', 'slot.phase = "down"',
        breaks="There is never a second instance of a child", faults="a task that does not end",
        section="supervision (ours), instances",
    ),
    _tree(
        "tree-one-significant-end-will-do", _SUPERVISION,
        'if mode == "any_significant" or all(s.over == "done" for s in others):',
        'if mode == "any_significant" or any(s.over == "done" for s in others):',
        breaks="With all_significant the last of them ends the supervisor", faults="none",
    ),
    _tree(
        "tree-group-without-the-finished", _SUPERVISION,
        'if other.over == "done" and other.rule.restart == "transient" and not other.runs:',
        "if False:",
        breaks="A group begins anew with all that it has", faults="one crash of a group",
    ),
    _tree(
        "tree-failure-without-a-code-is-well", _SUPERVISION,
        "code = exit_.code if exit_.code or exit_.ok else 1", "code = exit_.code",
        breaks="An exception is a failure, though it has no exit code", faults="an exception",
        section="supervision (ours), policies",
    ),
    _tree(
        "tree-crash-loop-is-not-shown", _SUPERVISION,
        "slot.looping = True\n        if self._rules",
        "slot.looping = False\n        if self._rules",
        breaks="A crash loop is shown until the child has been up for long enough",
        faults="a crash loop", section="supervision (ours), looping",
    ),
    _tree(
        "tree-waits-are-lengthened-by-chance", _BACKOFF,
        "return ceiling_ns - prng.between", "return ceiling_ns + prng.between",
        breaks="Chance shortens a wait, and never lengthens it", faults="crashes",
        section="supervision (ours), waits",
    ),
    _tree(
        "tree-first-restart-waits", _BACKOFF,
        "        if restart <= 1:\n            return 0.0\n", "",
        breaks="The first restart is made at once", faults="one crash",
        section="supervision (ours), waits",
    ),
    _tree(
        "tree-watcher-that-was-away-accuses", _PROGRESS,
        "            self._since_ns += late_ns\n", "            pass\n",
        breaks="A watcher that was away accuses nobody of that time", faults="a stop of its own",
        section="supervision (ours), progress", tests=("unit/test_detect_planted.py",),
    ),
    _tree(
        "tree-start-is-as-short-as-a-step", _PROGRESS,
        "(self._limit_ns if count else self._first_ns)", "self._limit_ns",
        breaks="The first stamp has the time of a start", faults="a slow start",
        section="supervision (ours), progress", tests=("unit/test_detect_planted.py",),
    ),
)  # fmt: skip
