"""Hysteresis against a second version that keeps all findings, and what verdicts never do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.core.health import RANK, RANKED, CheckResult, Status, verdict, worst
from outlast.detect.core.health_record import Hysteresis, Record, Rule

NS = 1_000_000_000
STATUSES = st.sampled_from(RANKED)
GOOD = (Status.OK, Status.DEGRADED)


def naive(findings: list[Status], fail_after: int, pass_after: int) -> list[Status]:
    """Look at the whole past each time."""
    shown = Status.UNKNOWN
    said = []
    for end, status in enumerate(findings, 1):
        last_bad = findings[max(0, end - fail_after) : end]
        last_good = findings[max(0, end - pass_after) : end]
        if shown is Status.UNKNOWN and status in GOOD:
            shown = status
        elif RANK[status] > RANK[shown]:
            mildest = min(last_bad, key=RANK.__getitem__)
            if len(last_bad) == fail_after and RANK[mildest] > RANK[shown]:
                shown = mildest
        elif Status.UNKNOWN not in last_good and len(last_good) == pass_after:
            sternest = max(last_good, key=RANK.__getitem__)
            if RANK[sternest] < RANK[shown]:
                shown = sternest
        said.append(shown)
    return said


@settings(deadline=None, max_examples=300)
@given(st.lists(STATUSES, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_hysteresis_is_what_the_last_findings_prove(
    findings: list[Status], fail_after: int, pass_after: int
) -> None:
    hysteresis = Hysteresis(fail_after, pass_after)
    assert [hysteresis.note(one) for one in findings] == naive(findings, fail_after, pass_after)


@settings(deadline=None)
@given(st.lists(st.tuples(STATUSES, st.integers(0, 5 * NS)), max_size=30), st.integers(1, 3))
def test_what_is_told_is_what_is_shown_and_never_the_same_twice(
    story: list[tuple[Status, int]], fail_after: int
) -> None:
    now_ns = 0
    record = Record(Rule("x", stale_ns=3 * NS, fail_after=fail_after), now_ns)
    told = Status.UNKNOWN
    for status, step_ns in story:
        now_ns += step_ns
        for noted in (False, True):
            if noted:
                record.note(status, "", now_ns)
            change = record.change(now_ns)
            if change is not None:
                assert (change.before, change.before is change.after) == (told, False)
                told = change.after
            result = record.result(now_ns)
            assert result.status is told
            assert result.since >= 0
            assert result.age is None or result.age >= 0


RESULTS = st.lists(
    st.builds(CheckResult, st.just("x"), STATUSES, st.just(""), st.booleans(), st.just(0.0)),
    max_size=6,
).map(tuple)


@settings(deadline=None)
@given(RESULTS, st.booleans(), st.sampled_from(["", "stop"]))
def test_verdicts(results: tuple[CheckResult, ...], started: bool, draining: str) -> None:
    critical = {one.status for one in results if one.critical}
    bad = bool(critical & {Status.FAILED, Status.UNKNOWN})
    live = verdict("liveness", results, started=started, draining=draining)
    ready = verdict("readiness", results, started=started, draining=draining)
    begun = verdict("startup", results, started=started, draining=draining)
    assert live.passing == (Status.FAILED not in critical)
    assert ready.passing == (not bad and not draining)
    assert begun.passing == (started or not bad)
    assert live.passing or not (ready.passing and not draining), "ready, but to be restarted"
    if not critical:
        assert worst(results) in GOOD
