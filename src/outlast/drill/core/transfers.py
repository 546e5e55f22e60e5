"""Judges a bank by the ids of its transfers: each acknowledged one is there, exactly once.

The target records under each id how often a transfer was applied. Beside the sum of the money
that is all one needs to know: an acknowledged id that is missing is a lost write, a count above
one is a repeat that was not recognised, and an id that was surely refused must not be there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from outlast.kernel import HistoryEvent

_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class TransferJudgement:
    """What ids and balances say. ``problems`` is empty when every promise was kept."""

    acknowledged: int
    lost: int
    doubled: int
    refused_applied: int
    money_in: int
    money_found: int
    problems: tuple[str, ...]


def judge_transfers(
    events: Iterable[HistoryEvent],
    accounts: Mapping[str, int],
    balances: Mapping[str, int],
    applied: Mapping[str, int],
) -> TransferJudgement:
    """Compare what clients were told with what is there at the end.

    Args:
        events: The history of the workload.
        accounts: What each account held at first.
        balances: What each holds at the end.
        applied: How often each transfer was applied, by id.
    """
    orders: dict[str, Mapping[str, Any]] = {}
    told: dict[str, str] = {}
    for event in events:
        if event.f == "transfer" and isinstance(event.value, Mapping):
            identity = str(event.value["id"])
            orders[identity] = event.value
            if event.type != "invoke":
                told[identity] = event.type
    acknowledged = [i for i, kind in told.items() if kind == "ok"]
    lost = [i for i in acknowledged if not applied.get(i)]
    doubled = [i for i, count in applied.items() if count > 1]
    refused = [i for i, kind in told.items() if kind == "fail" and applied.get(i)]
    invented = [i for i in applied if i not in orders]
    expected = dict(accounts)
    for identity, count in applied.items():
        order = orders.get(identity)
        if order is not None:
            expected[order["from"]] = expected.get(order["from"], 0) - order["amount"] * count
            expected[order["to"]] = expected.get(order["to"], 0) + order["amount"] * count
    wrong = [name for name in expected if expected[name] != balances.get(name, 0)]
    money_in, found = sum(accounts.values()), sum(balances.values())
    problems = [
        *_problem(lost, "acknowledged and not there"),
        *_problem(doubled, "applied more than once"),
        *_problem(refused, "refused and applied all the same"),
        *_problem(invented, "applied and never asked for"),
    ]
    if wrong and not (lost or doubled or invented):
        problems.append(
            f"balances that no set of transfers gives: {', '.join(wrong[:_NAMED_MAX])}"
        )
    if found != money_in:
        problems.append(f"{money_in} was paid in and {found} is there")
    return TransferJudgement(
        len(acknowledged), len(lost), len(doubled), len(refused), money_in, found, tuple(problems)
    )


def _problem(ids: list[str], what: str) -> list[str]:
    if not ids:
        return []
    more = f" and {len(ids) - _NAMED_MAX} more" if len(ids) > _NAMED_MAX else ""
    plural = "transfer" if len(ids) == 1 else "transfers"
    return [f"{len(ids)} {plural} {what}: {', '.join(ids[:_NAMED_MAX])}{more}"]
