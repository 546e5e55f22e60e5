"""What a probe is told: pages, parameters, kinds of body, and what is hidden from strangers."""

import json
from typing import Any

import pytest

from outlast.detect.core.health import CheckResult, Group, GroupHealth, Status, verdict
from outlast.detect.core.health_text import Answer, Asked, answer

NS = 1_000_000_000
DB = CheckResult("db", Status.FAILED, "refused by 10.0.0.7", True, 1.5, 60.0, 0.25)
CACHE = CheckResult("cache", Status.FAILED, "cold\nstart", False, 0.5)
QUEUE = CheckResult("queue", Status.OK, "", True, 2.0)
NEW = CheckResult("new", Status.UNKNOWN, "not checked yet", True, None)
LOOP = CheckResult("loop", Status.OK, "", True, 0.1, kind="progress")


def ask(
    path: str,
    *results: CheckResult,
    query: str = "",
    accept: str = "",
    method: str = "GET",
    details: bool = True,
    started: bool = False,
    draining: str = "",
) -> Answer:
    def read(group: Group) -> GroupHealth:
        shown = (LOOP,) if group == "liveness" and LOOP in results else ()
        rest = tuple(result for result in results if result is not LOOP)
        return verdict(
            group,
            shown if group == "liveness" else rest,
            started=started,
            draining=draining,
        )

    given = answer(read, Asked(method, path, query, accept), 1000 * NS, details=details)
    assert given is not None
    return given


def parsed(given: Answer) -> Any:
    return json.loads(given.body)


def text(given: Answer) -> tuple[int, str]:
    return given.status, given.body.decode()


def test_a_passing_group_answers_in_a_word() -> None:
    assert text(ask("/readyz", QUEUE)) == (200, "ok\n")


def test_a_failing_group_says_why_in_lines() -> None:
    assert text(ask("/readyz", QUEUE, DB)) == (
        503, "failed\n[+]queue ok\n[-]db failed: refused by 10.0.0.7\n",
    )  # fmt: skip


def test_verbose_lists_the_checks_of_a_passing_group() -> None:
    expected = (200, "degraded\n[+]queue ok\n[-]cache failed: cold start\n")
    assert text(ask("/readyz", QUEUE, CACHE, query="verbose")) == expected
    assert text(ask("/readyz", QUEUE, CACHE, query="verbose=0")) == (200, "degraded\n")


def test_an_unknown_check_fails_readiness_and_not_liveness() -> None:
    assert text(ask("/readyz", NEW)) == (503, "unknown\n[?]new unknown: not checked yet\n")
    assert ask("/livez", NEW).status == 200


def test_startup_that_has_passed_goes_on_passing() -> None:
    assert ask("/startupz", NEW).status == 503
    assert ask("/startupz", NEW, started=True).status == 200
    assert ask("/startupz", NEW, DB, started=True, query="exclude=new").status == 200
    assert ask("/startupz", NEW, DB, query="exclude=new").status == 503


def test_an_excluded_check_does_not_count_and_is_named() -> None:
    assert text(ask("/readyz", QUEUE, DB, query="exclude=db&verbose")) == (
        200, "ok\n[+]queue ok\n[ ]db excluded: failed\n",
    )  # fmt: skip


def test_excluding_one_of_two_failed_checks_does_not_help() -> None:
    assert ask("/readyz", DB, NEW, query="exclude=db").status == 503
    assert ask("/readyz", DB, NEW, query="exclude=db&exclude=new").status == 200


def test_excluding_what_does_not_exist_is_said() -> None:
    given = ask("/readyz", QUEUE, query="verbose&exclude=d%20b")
    assert text(given) == (200, "ok\n[+]queue ok\nno check 'd b' to exclude\n")


def test_a_drain_is_seen_in_readiness_alone() -> None:
    assert text(ask("/readyz", QUEUE, draining="SIGTERM"))[0] == 503
    assert ask("/livez", QUEUE, draining="SIGTERM").status == 200


def test_excluding_a_check_does_not_undo_a_drain() -> None:
    assert ask("/readyz", DB, draining="SIGTERM", query="exclude=db").status == 503


def test_one_check_has_a_page() -> None:
    assert text(ask("/readyz/queue", QUEUE, DB)) == (200, "ok\n[+]queue ok\n")
    assert ask("/readyz/db", QUEUE, DB).status == 503
    assert ask("/readyz/new", NEW).status == 503
    assert ask("/readyz/loop", LOOP).status == 404
    assert ask("/healthz/loop", LOOP).status == 200


def test_a_check_asked_for_alone_decides_even_if_it_is_not_critical() -> None:
    assert ask("/readyz/cache", CACHE).status == 503


def test_all_groups_at_once_pass_when_each_does() -> None:
    assert ask("/healthz", LOOP, QUEUE).status == 200
    given = ask("/healthz", LOOP, NEW, started=True)
    assert text(given) == (503, "unknown\n[?]new unknown: not checked yet\n[+]loop ok\n")
    assert ask("/healthz", LOOP, NEW, started=True, query="exclude=new").status == 200


@pytest.mark.parametrize("path", ["/", "/readyzz", "/ready", "readyz", "", "//readyz"])
def test_other_paths_are_left_to_others(path: str) -> None:
    assert answer(lambda group: verdict(group, ()), Asked("GET", path), 0) is None


def test_head_tells_the_length_without_the_body() -> None:
    given = ask("/readyz", DB, method="HEAD")
    assert (given.status, given.body) == (503, b"")
    assert int(dict(given.headers)["content-length"]) > 10


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused(method: str) -> None:
    given = ask("/readyz", QUEUE, method=method)
    assert (given.status, dict(given.headers)["allow"]) == (405, "GET, HEAD")


def test_nothing_is_to_be_kept_by_caches() -> None:
    headers = dict(ask("/readyz", QUEUE).headers)
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
        ("application/json", "application/json"),
        ("application/health+json", "application/health+json"),
        ("application/health+json, application/json", "application/health+json"),
        ("application/json;q=0.5, application/health+json", "application/health+json"),
        ("application/json, */*", "application/json"),
        ("*/*, application/json", "application/json"),
        ("application/json;q=0, text/plain;q=0.1", "text/plain"),
        ("application/json;q=x", "text/plain"),
        ("application/json;q=9", "text/plain"),
        ("application/json;version=1", "application/json"),
        ("image/png", "text/plain"),
        ("," * 2000 + "application/json", "text/plain"),
    ],
)
def test_the_kind_of_body_is_negotiated(accept: str, kind: str) -> None:
    given = ask("/readyz", QUEUE, accept=accept)
    assert dict(given.headers)["content-type"].partition(";")[0] == kind


def test_json_has_every_field_of_a_check() -> None:
    value = parsed(
        ask("/readyz", DB, QUEUE, accept="application/json", query="exclude=db&exclude=x")
    )
    assert {key: value[key] for key in ("group", "status", "passing", "unmatched")} == {
        "group": "readiness", "status": "ok", "passing": True, "unmatched": ["x"],
    }  # fmt: skip
    assert [check["name"] for check in value["checks"]] == ["queue"]
    assert value["excluded"] == [
        {
            "name": "db", "status": "failed", "detail": "refused by 10.0.0.7", "critical": True,
            "age": 1.5, "since": 60.0, "took": 0.25, "groups": [], "kind": "check",
        }
    ]  # fmt: skip


def test_the_drafts_format_has_pass_warn_and_fail() -> None:
    accept = "application/health+json"
    assert parsed(ask("/readyz", QUEUE, accept=accept))["status"] == "pass"
    assert parsed(ask("/readyz", QUEUE, CACHE, accept=accept))["status"] == "warn"
    value = parsed(ask("/readyz", QUEUE, DB, accept=accept))
    assert value["status"] == "fail"
    assert value["checks"] == {
        "queue": [
            {"componentType": "component", "status": "pass", "time": "1970-01-01T00:16:38.000Z"}
        ],
        "db": [
            {
                "componentType": "component",
                "status": "fail",
                "time": "1970-01-01T00:16:38.500Z",
                "observedValue": 250.0,
                "observedUnit": "ms",
                "output": "failed: refused by 10.0.0.7",
            }
        ],
    }


def test_an_unknown_check_never_passes_in_the_drafts_format() -> None:
    accept = "application/health+json"
    value = parsed(ask("/readyz", NEW, accept=accept))
    assert value["status"] == "fail"
    assert value["checks"]["new"][0]["status"] == "fail"
    value = parsed(ask("/startupz", NEW, accept=accept, started=True))
    assert value["checks"]["new"][0] == {
        "componentType": "component", "status": "warn", "output": "unknown: not checked yet",
    }  # fmt: skip


def test_without_details_strangers_learn_the_status_alone() -> None:
    assert text(ask("/readyz", DB, query="verbose", details=False)) == (503, "failed\n")
    assert ask("/readyz", DB, query="exclude=db", details=False).status == 503
    assert ask("/readyz/db", DB, details=False).status == 404
    given = ask("/readyz", DB, accept="application/json", details=False)
    assert parsed(given) == {"status": "failed", "passing": False}
    given = ask("/readyz", DB, accept="application/health+json", details=False)
    assert parsed(given) == {"status": "fail"}


def test_what_is_asked_for_is_bounded() -> None:
    query = "&".join(f"exclude=x{number}" for number in range(1000)) + "&exclude=" + "y" * 5000
    value = parsed(ask("/readyz", QUEUE, query=query, accept="application/json"))
    assert len(value["unmatched"]) == 64
    value = parsed(ask("/readyz", QUEUE, query="exclude=" + "y" * 5000, accept="application/json"))
    assert len(value["unmatched"][0]) == 200
