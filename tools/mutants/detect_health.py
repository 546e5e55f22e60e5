"""Mutants of health: how checks are judged, how that is served, how a process leaves."""

from functools import partial

from tools.mutants.table import mutant

_RECORD = "detect/core/health_record.py"
_HEALTH = "detect/core/health.py"
_RUNNER = "detect/health_runner.py"
_TEXT = "detect/core/health_text.py"
_SYSTEMD = "detect/core/sd_state.py"
_DRAINING = "detect/core/draining.py"
_FILE = "detect/core/health_file.py"

_CORE = ("unit/test_detect_health_core.py", "property/test_detect_health_model.py")
_PAGES = ("unit/test_detect_health_text.py",)
_DRAIN = ("unit/test_detect_draining.py", "property/test_detect_draining_model.py")

_health = partial(mutant, level="detect", tests=_CORE, section="health (ours)")
_runs = partial(
    mutant, level="detect", tests=("unit/test_detect_health_runner.py",),
    section="health runner (ours)",
)  # fmt: skip
_page = partial(mutant, level="detect", tests=_PAGES, section="health pages (ours)")
_drain = partial(mutant, level="detect", tests=_DRAIN, section="draining (ours)")

HEALTH = (
    _health(
        "health-unknown-takes-any-first-finding", _RECORD,
        "if self.shown is _UNKNOWN and rank < shown:", "if self.shown is _UNKNOWN:",
        breaks="The first good finding ends unknown; a bad one has to be confirmed",
        faults="a check that fails at first",
    ),
    _health(
        "health-unknown-proves-well", _RECORD,
        "proves_good = RANK[_FAILED] if status is _UNKNOWN else rank", "proves_good = rank",
        breaks="Not to know is no proof that a failure is over", faults="a check that cannot tell",
    ),
    _health(
        "health-stale-too-late", _RECORD,
        "now_ns - found.at_ns <= stale_ns", "now_ns - found.at_ns <= 2 * stale_ns",
        breaks="What was found too long ago is unknown", faults="a check that is not run",
    ),
    _health(
        "health-progress-borne-twice", _RECORD,
        "elif waited_ns > limit_ns:", "elif waited_ns > 2 * limit_ns:",
        breaks="Without a stamp within its time there is no progress", faults="a stuck consumer",
    ),
    _health(
        "health-uncritical-check-fails-all", _HEALTH,
        "found = rank if result.critical else max(found, 1)", "found = rank",
        breaks="A check that is not critical degrades, and takes nobody out of rotation",
        faults="a failed cache",
    ),
    _health(
        "health-unknown-does-not-pass-liveness", _HEALTH,
        "return GroupHealth(group, status, status is not _FAILED, results)",
        "return GroupHealth(group, status, status in {_OK, _DEGRADED}, results)",
        breaks="Nobody is killed because nothing is known yet", faults="a slow start",
    ),
    _runs(
        "health-one-thread-too-many", _RUNNER,
        "if len(self._aside) >= self._max_threads:", "if len(self._aside) > self._max_threads:",
        breaks="Checks that hang hold a bounded number of threads", faults="checks that hang",
    ),
    _runs(
        "health-late-answer-counts", _RUNNER,
        "if not flight.late:", "if True:",
        breaks="What a check says after its time is not believed", faults="a slow check",
    ),
)  # fmt: skip

SERVED = (
    _page(
        "page-startup-passes-untried", _TEXT,
        "left, started=found.passing), out", "left, started=True), out",
        breaks="Who leaves a check out is told of the others, started or not",
        faults="an instance that still starts",
    ),
    _page(
        "page-strangers-see-checks", _TEXT,
        "found = _one(read, page, groups, name) if details else None",
        "found = _one(read, page, groups, name)",
        breaks="Without details strangers learn the status alone", faults="a curious stranger",
    ),
    _page(
        "page-strangers-may-leave-checks-out", _TEXT,
        "_parameters(asked.query) if details else (False, ())", "_parameters(asked.query)",
        breaks="Without details nobody asks for a part of the checks", faults="a curious stranger",
    ),
    mutant(
        "systemd-fed-by-nobody", _SYSTEMD,
        "return liveness.passing and any(result.status in _KNOWN for result in liveness.results)",
        "return liveness.passing",
        breaks="The watchdog is not fed when nothing proves life", faults="checks that hang",
        section="sd_notify; systemd (ours)", level="detect",
        tests=("unit/test_detect_systemd.py",),
    ),
    _drain(
        "draining-takes-work-to-the-end", _DRAINING,
        'if self.phase in {"refusing", "ended"}:', 'if self.phase == "ended":',
        breaks="After the delay no new work is taken", faults="late connections",
    ),
    _drain(
        "draining-ends-before-the-delay", _DRAINING,
        "if now_ns < refuse_ns:", "if now_ns < refuse_ns and self.in_flight:",
        breaks="Work is taken for the whole delay, since balancers learn late",
        faults="a balancer that has not noticed",
    ),
    mutant(
        "health-file-from-the-future", _FILE,
        "if not abs(age) * _NS <= within_ns:", "if age * _NS > within_ns:",
        breaks="A file that was not written lately does not pass, in either direction",
        faults="a wall clock that was set", section="health file (ours)", level="detect",
        tests=("unit/test_detect_health_file.py",),
    ),
)  # fmt: skip
