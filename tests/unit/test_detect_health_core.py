"""How findings become statuses, and statuses verdicts."""

import dataclasses
from typing import Any

import pytest

from outlast.detect.core.health import (
    CheckResult,
    Group,
    Status,
    one_line,
    read_finding,
    verdict,
    worst,
)
from outlast.detect.core.health_record import Change, Hysteresis, Progress, Record, Rule
from outlast.kernel import ConfigError

NS = 1_000_000_000
OK, DEGRADED, UNKNOWN, FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
LETTERS = {"o": OK, "d": DEGRADED, "u": UNKNOWN, "f": FAILED}


def shown(findings: str, **settings: int) -> str:
    """The status shown after each finding, by its first letter."""
    hysteresis = Hysteresis(**settings)
    return "".join(hysteresis.note(LETTERS[one]).value[0] for one in findings)


# --- hysteresis --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "settings", "expected"),
    [
        ("ofodf", {}, "ofodf"),
        ("offfof", {"fail_after": 3}, "ooofoo"),
        ("offoff", {"fail_after": 3}, "oooooo"),
        ("offdf", {"fail_after": 3}, "ooodd"),
        ("offdfff", {"fail_after": 3}, "ooodddf"),
        ("odfdof", {"fail_after": 2}, "ooddoo"),
        ("offfoo", {"fail_after": 3, "pass_after": 2}, "oooffo"),
        ("foo", {"pass_after": 2}, "ffo"),
        ("fdo", {"pass_after": 2}, "ffd"),
        ("fdoo", {"pass_after": 2}, "ffdo"),
        ("ofofof", {"pass_after": 2}, "offfff"),
    ],
)
def test_so_many_findings_in_a_row_prove_a_status(
    findings: str, settings: dict[str, int], expected: str
) -> None:
    assert shown(findings, **settings) == expected


def test_the_first_good_finding_counts_at_once_and_the_first_bad_one_does_not() -> None:
    assert shown("o", fail_after=3, pass_after=3) == "o"
    assert shown("d", fail_after=3, pass_after=3) == "d"
    assert shown("fff", fail_after=3) == "uuf"
    assert shown("ffo", fail_after=3, pass_after=3) == "uuo"


def test_not_having_looked_makes_nothing_better() -> None:
    assert shown("fuuu") == "ffff"
    assert shown("ouo") == "ouo"
    assert shown("fuoo", pass_after=2) == "fffo"
    assert shown("ouuo", fail_after=2, pass_after=2) == "oouo"


def test_findings_that_do_not_show_yet_are_told() -> None:
    record = Record(Rule("db", fail_after=3, pass_after=2), 0)
    record.note(OK, "fine", NS)
    record.note(FAILED, "refused", 2 * NS)
    result = record.result(2 * NS)
    assert (result.status, result.detail) == (OK, "1 of 3 in a row failed: refused")
    record.note(FAILED, "", 3 * NS)
    assert record.result(3 * NS).detail == "2 of 3 in a row failed"
    record.note(FAILED, "refused", 4 * NS)
    assert record.result(4 * NS).detail == "refused"
    record.note(OK, "", 5 * NS)
    assert record.result(5 * NS).detail == "1 of 2 in a row ok"


# --- records -----------------------------------------------------------------------------------


def record(**settings: Any) -> Record:
    return Record(Rule("db", stale_ns=4 * NS, **settings), 0)


def test_nothing_is_known_before_the_first_finding() -> None:
    result = record().result(7 * NS)
    assert (result.status, result.age, result.since, result.took) == (UNKNOWN, None, 7.0, None)
    assert result.detail == "not checked yet"
    assert Record(Rule("x", kind="report"), 0).result(0).detail == "not reported yet"


def test_a_result_tells_how_old_it_is_how_long_it_lasts_and_what_it_took() -> None:
    one = record()
    one.note(OK, "a", 1 * NS, took_ns=NS // 4)
    one.note(OK, "b", 3 * NS, took_ns=NS // 2)
    assert one.result(4 * NS) == CheckResult(
        "db", OK, "b", True, 1.0, 3.0, 0.5, ("readiness",), "check"
    )


def test_a_finding_counts_to_the_last_moment_and_then_is_unknown() -> None:
    one = record()
    one.note(OK, "", 1 * NS)
    assert one.result(5 * NS).status is OK
    late = one.result(5 * NS + 1)
    assert (late.status, late.detail) == (UNKNOWN, "last result (ok) is 4 s old")
    assert late.since == pytest.approx(0, abs=1e-6)
    assert one.result(7 * NS).since == 2.0


def test_what_is_never_stale_stays() -> None:
    one = Record(Rule("flag", kind="report"), 0)
    one.note(DEGRADED, "half", 0)
    assert one.result(10**9 * NS).status is DEGRADED


def test_after_a_stale_time_the_status_begins_anew() -> None:
    one = record()
    one.note(OK, "", 1 * NS)
    one.note(OK, "", 9 * NS)
    assert one.result(9 * NS).since == 0.0


def test_a_change_is_told_once() -> None:
    one = record()
    assert one.change(0) is None
    one.note(OK, "", 2 * NS, took_ns=5)
    assert one.change(2 * NS) == Change(UNKNOWN, OK, "", 2 * NS, 5)
    assert one.change(3 * NS) is None
    change = one.change(9 * NS)
    assert change is not None
    assert (change.before, change.after, change.lasted_ns) == (OK, UNKNOWN, 7 * NS)
    assert one.change(10 * NS) is None


# --- progress ----------------------------------------------------------------------------------


class Now:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def progress(now: Now) -> Progress:
    rule = Rule("consumer", kind="progress", groups=("liveness",), stale_ns=30 * NS)
    return Progress(rule, now)


def test_progress_has_failed_once_stamps_stay_away() -> None:
    now = Now()
    one = progress(now)
    now.ns = 10 * NS
    one.stamp()
    assert one.result(40 * NS).status is OK
    late = one.result(40 * NS + 1)
    assert (late.status, late.kind) == (FAILED, "progress")
    assert late.detail == "no progress for 30.0 s (within 30 s)"
    assert one.result(45 * NS).since == 5.0
    now.ns = 50 * NS
    one.stamp()
    assert one.result(51 * NS).status is OK


def test_having_nothing_to_do_is_no_stall() -> None:
    now = Now()
    one = progress(now)
    with one.idle():
        result = one.result(1000 * NS)
        assert (result.status, result.detail) == (OK, "idle")
        assert "idle" in repr(one)
        now.ns = 1000 * NS
    assert one.result(1030 * NS).status is OK
    assert one.result(1031 * NS).status is FAILED


def test_a_stamp_ends_idleness_that_was_not_ended() -> None:
    now = Now()
    one = progress(now)
    one.idle()
    one.stamp()
    assert one.result(31 * NS).status is FAILED
    assert (one.name, repr(one)) == ("consumer", "<Progress 'consumer' within 30 s>")


def test_progress_counts_from_when_it_begins() -> None:
    one = progress(Now())
    later = Now()
    later.ns = 500 * NS
    one.begin(later)
    assert one.result(530 * NS).status is OK
    assert one.result(531 * NS).status is FAILED


def test_progress_that_goes_on_has_the_status_since_it_was_told() -> None:
    now = Now()
    one = progress(now)
    one.change(5 * NS)
    now.ns = 20 * NS
    one.stamp()
    assert one.result(25 * NS).since == 20.0
    assert one.result(25 * NS).age == 5.0


# --- groups ------------------------------------------------------------------------------------


def result(status: Status, critical: bool = True) -> CheckResult:
    return CheckResult("x", status, "", critical, 0.0)


@pytest.mark.parametrize(
    ("group", "status", "passing"),
    [
        ("startup", OK, True), ("startup", DEGRADED, True),
        ("startup", UNKNOWN, False), ("startup", FAILED, False),
        ("liveness", OK, True), ("liveness", DEGRADED, True),
        ("liveness", UNKNOWN, True), ("liveness", FAILED, False),
        ("readiness", OK, True), ("readiness", DEGRADED, True),
        ("readiness", UNKNOWN, False), ("readiness", FAILED, False),
    ],
)  # fmt: skip
def test_what_a_probe_is_answered(group: Group, status: Status, passing: bool) -> None:
    found = verdict(group, (result(OK), result(status)))
    assert (found.status, found.passing) == (status, passing)
    lesser = verdict(group, (result(OK), result(status, critical=False)))
    assert lesser.passing
    assert lesser.status is (OK if status is OK else DEGRADED)


def test_an_empty_group_passes() -> None:
    assert verdict("readiness", ()).passing
    assert worst(()) is OK


def test_startup_stays_passed() -> None:
    found = verdict("startup", (result(FAILED),), started=True)
    assert (found.status, found.passing) == (OK, True)
    assert verdict("startup", (result(DEGRADED),), started=True).status is DEGRADED


def test_draining_concerns_readiness_alone() -> None:
    ready = verdict("readiness", (result(OK),), draining="SIGTERM")
    assert (ready.status, ready.passing) == (FAILED, False)
    assert (ready.results[-1].name, ready.results[-1].detail) == ("draining", "SIGTERM")
    assert verdict("liveness", (result(OK),), draining="SIGTERM").passing


# --- findings and rules ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (None, OK), (True, OK), (False, FAILED), (DEGRADED, DEGRADED),
        ((UNKNOWN, "who knows"), UNKNOWN), (("failed", 3), FAILED),
        (("fine", ""), FAILED), ((OK,), FAILED), (0, FAILED), ("ok", FAILED),
    ],
)  # fmt: skip
def test_what_is_read_from_what_a_check_returns(found: object, status: Status) -> None:
    assert read_finding(found)[0] is status


def test_details_are_one_short_line() -> None:
    assert one_line("a\n b\tc\x1b[31m") == "a b c?[31m"
    assert len(one_line("x" * 5000)) == 300
    assert one_line("x" * 5000).endswith("…")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": ""}, "empty"),
        ({"name": "x" * 121}, "longer than 120"),
        ({"name": "a\nb"}, "not printable"),
        ({"groups": ("ready",)}, "'ready'; one of startup, liveness, readiness"),
        ({"groups": ()}, "give a group"),
        ({"timeout_ns": 0}, "above 0"),
        ({"every_ns": -1}, "above 0"),
        ({"fail_after": 0}, "1 or more"),
        ({"pass_after": 0}, "1 or more"),
        ({"stale_ns": 2 * NS - 1}, "below every"),
        ({"kind": "report", "stale_ns": 0}, "within is 0 s"),
        ({"needs_network": True, "groups": ("liveness",)}, "restart every instance"),
        (
            {"needs_network": True, "groups": ("liveness",), "even_though": " "},
            "even_though=",
        ),
    ],
)
def test_rules_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Rule(**{"name": "x", **given})


def test_a_reason_lets_a_network_check_into_liveness() -> None:
    rule = Rule("x", groups=("liveness",), needs_network=True, even_though="a sidecar of ours")
    assert dataclasses.asdict(rule)["even_though"] == "a sidecar of ours"
    Rule("y", stale_ns=2 * NS)
    Rule("z", kind="report", stale_ns=1)
