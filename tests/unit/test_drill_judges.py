"""The exact judges of a drill: ids of transfers, values of a set, terms and votes."""

from typing import Any

import pytest

from outlast.drill.core.detection import sign, who_leads
from outlast.drill.core.losses import set_losses
from outlast.drill.core.transfers import judge_transfers
from outlast.drill.core.witness import Spans, Witness
from outlast.kernel import HistoryEvent

ACCOUNTS = {"a": 100, "b": 100}


def transfer(identity: str, kind: str, amount: int = 10) -> list[HistoryEvent]:
    value = {"from": "a", "to": "b", "amount": amount, "id": identity}
    return [
        HistoryEvent(1, "invoke", "transfer", value),
        *([] if kind == "open" else [HistoryEvent(1, kind, "transfer", value)]),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(
    ("kind", "count", "field", "words"),
    [
        ("ok", 1, "", ""),
        ("ok", 0, "lost", "1 transfer acknowledged and not there: t1"),
        ("ok", 2, "doubled", "1 transfer applied more than once: t1"),
        ("info", 0, "", ""),
        ("info", 1, "", ""),
        ("open", 1, "", ""),
        ("fail", 0, "", ""),
        ("fail", 1, "refused_applied", "refused and applied all the same"),
    ],
)
def test_each_transfer_is_there_as_often_as_its_client_may_believe(
    kind: str, count: int, field: str, words: str
) -> None:
    balances = {"a": 100 - 10 * count, "b": 100 + 10 * count}
    found = judge_transfers(transfer("t1", kind), ACCOUNTS, balances, {"t1": count})
    assert bool(found.problems) is bool(words)
    assert words in "; ".join(found.problems)
    if field:
        assert getattr(found, field) == 1


def test_money_out_of_nothing_and_balances_that_nothing_explains_are_named() -> None:
    found = judge_transfers(transfer("t1", "ok"), ACCOUNTS, {"a": 95, "b": 110}, {"t1": 1})
    assert "200 was paid in and 205 is there" in found.problems
    assert any("balances that no set of transfers gives: a" in p for p in found.problems)
    found = judge_transfers([], ACCOUNTS, ACCOUNTS, {"t9": 1})
    assert any("never asked for: t9" in problem for problem in found.problems)


def reads(*values: list[int]) -> list[HistoryEvent]:
    adds = [HistoryEvent(1, "ok", "add", n, time=n) for n in (1, 2, 3)]
    adds.append(HistoryEvent(1, "info", "add", 4, time=4))
    return [*adds, *(HistoryEvent(2, "ok", "read", v, time=100) for v in values)]


def test_lost_and_doubled_values_are_counted_in_the_worst_final_read() -> None:
    assert set_losses(reads([1, 2, 3], [3, 2, 1, 4]), 50) == (0, 0)
    assert set_losses(reads([1, 2, 3], [1]), 50) == (2, 0)
    assert set_losses(reads([1, 2, 2, 3, 3]), 50) == (0, 2)
    assert set_losses(reads([1]), 101) is None


def status(node: str, term: int, role: str = "follower", vote: str = "") -> dict[str, Any]:
    leads = int(role == "leader")
    return {
        "node": node, "term": term, "role": role, "leading": leads, "voted_term": term,
        "voted_for": vote,
    }  # fmt: skip


def test_a_quiet_election_is_no_problem() -> None:
    witness = Witness()
    for facts in (
        status("n1", 1, "leader", "n1"), status("n2", 1, "follower", "n1"),
        status("n2", 2, "candidate", "n2"), status("n1", 2, "follower", "n2"),
        status("n2", 2, "leader", "n2"), status("n1", 2, "follower", "n2"),
    ):  # fmt: skip
        witness.observe(facts)
    assert witness.problems == []
    assert witness.observations == 6


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (status("n1", 3), status("n1", 2), "n1 went back from term 3 to term 2"),
        (
            status("n1", 3, vote="n2"), status("n1", 3, vote="n3"),
            "n1 voted for n2 in term 3, and later for n3",
        ),
        (
            status("n1", 3, vote="n2"), status("n1", 3, vote=""),
            "n1 voted for n2 in term 3, and later for nobody",
        ),
        (status("n1", 3, "leader"), status("n2", 3, "leader"), "n1 and n2 both led in term 3"),
    ],
)  # fmt: skip
def test_what_may_never_be_seen_is_named(
    first: dict[str, Any], then: dict[str, Any], words: str
) -> None:
    witness = Witness()
    witness.observe(first)
    witness.observe(then)
    assert witness.problems == [words]


def test_a_node_readmitted_under_a_new_incarnation_starts_its_terms_anew() -> None:
    witness = Witness()
    witness.observe({**status("n1", 9, vote="n1"), "replica": "n1.1"})
    witness.observe({**status("n1", 2), "replica": "n1.3"})
    assert witness.problems == []


def test_spans_join_equal_samples() -> None:
    spans = Spans()
    for at, state in ((0, "leader"), (1, "leader"), (2, "down"), (3, "follower")):
        spans.sample("n1", state, at * 1_000_000_000)  # type: ignore[arg-type]
    found = [(s.start, s.end, s.state) for s in spans.finish(5_000_000_000)]
    assert found == [(0, 2, "leader"), (2, 3, "down"), (3, 5, "follower")]


def test_the_first_sign_of_a_fault_comes_from_a_node_that_was_not_hit() -> None:
    calm = {"node": "n2", "term": 4, "leader": "n1", "members": []}
    assert sign({"n1": None, "n2": calm}, ("n1",), "n1", 4) == ""
    assert sign({"n2": {**calm, "term": 5}}, ("n1",), "n1", 4) == "n2 moved to term 5"
    assert "no longer follows n1" in sign(
        {"n2": {**calm, "leader": ""}, "n1": None}, ("n1",), "n1", 4
    )
    members = [{"node": "n3", "reachable": False}]
    assert "n2 reports n3 unreachable" in sign(
        {"n2": {**calm, "members": members}}, ("n3",), "n1", 4
    )
    assert sign({"n1": {**calm, "term": 9}, "n2": calm}, ("n1",), "n1", 4) == ""


def test_the_leader_of_the_highest_term_leads() -> None:
    rows = {"n1": status("n1", 3, "leader"), "n2": status("n2", 4, "leader"), "n3": None}
    assert who_leads(rows) == ("n2", 4)
    assert who_leads({"n1": status("n1", 7), "n2": None}) == ("", 7)
