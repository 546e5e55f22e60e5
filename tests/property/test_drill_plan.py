"""Whatever the faults, the time and the seed: plans keep their rules, and so do operations."""

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outlast.check import check, history_of
from outlast.drill.core.generate import Generator
from outlast.drill.core.schedule import QUIET_END, QUIET_START, least_seconds, plan
from outlast.drill.core.victims import aim, choose
from outlast.inject import CATALOGUE, parse_faults
from outlast.kernel import Fault, HistoryEvent, Prng

NS = 1_000_000_000
BUILT = [row for row in CATALOGUE if row.built]
NAMES = [
    f"{row.name}@{target}" if target else row.name
    for row in BUILT
    for target in ("", *row.targets)
]
SEEDS = st.integers(0, (1 << 63) - 1)


@st.composite
def asked(draw: st.DrawFn) -> tuple[tuple[Fault, ...], float, int]:
    """Some faults, at least the time they need, and a seed."""
    faults = parse_faults(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=12)))
    more = draw(st.floats(0, 2_000, allow_nan=False))
    return faults, least_seconds(len(faults)) + more, draw(SEEDS)


@given(asked())
def test_a_plan_has_every_fault_equally_often_in_slots_that_do_not_overlap(
    given_: tuple[tuple[Fault, ...], float, int],
) -> None:
    faults, seconds, seed = given_
    planned = plan(faults, seconds, seed)
    assert planned == plan(faults, seconds, seed)
    rounds, rest = divmod(len(planned), len(faults))
    assert rounds >= 1
    assert rest == 0
    for number in range(rounds):
        part = planned[number * len(faults) : (number + 1) * len(faults)]
        assert Counter(one.fault for one in part) == Counter(faults)
    assert planned[0].at_ns >= QUIET_START * NS - 1
    for one, following in pairwise(planned):
        slot = following.at_ns - one.at_ns
        assert 0.3 <= one.lasts_ns / slot <= 0.6, "some of the slot is there to recover"
    last = planned[-1]
    assert last.at_ns + last.lasts_ns <= (seconds - QUIET_END) * NS


@given(st.sampled_from(NAMES), st.integers(1, 9), SEEDS, st.booleans())
def test_victims_are_nodes_and_cuts_lie_between_victims_and_others(
    name: str, count: int, draw: int, led: bool
) -> None:
    (fault,) = parse_faults([name])
    nodes = [f"n{number}" for number in range(1, count + 1)]
    leader = nodes[draw % count] if led else ""
    found = aim(fault, nodes, leader, draw)
    assert found == aim(fault, nodes, leader, draw)
    assert found.victims, "a fault hits somebody"
    assert list(found.victims) == [node for node in nodes if node in found.victims]
    for source, target in found.cuts:
        assert {source, target} <= set(nodes)
        assert (source in found.victims) != (target in found.victims)
    if fault.kind != "partition":
        assert not found.cuts
    if fault.kind == "crash" and found.can_serve:
        assert 2 * (count - len(found.victims)) > count


@given(st.sampled_from(["leader", "follower", "one", "minority", "majority", "all"]),
       st.integers(1, 9), SEEDS)  # fmt: skip
def test_a_minority_leaves_a_majority_and_the_leader_is_no_follower(
    target: str, count: int, seed: int
) -> None:
    nodes = [f"n{number}" for number in range(1, count + 1)]
    found = choose(target, nodes, "n1", Prng(seed))
    assert len(set(found)) == len(found) >= 1
    if count > 2 and target == "minority":
        assert 2 * len(found) < count
    if target == "majority":
        assert 2 * len(found) > count
    if count > 1 and target == "follower":
        assert "n1" not in found


UNIQUE: dict[str, dict[str, int]] = {
    "register": {"read": 1, "write": 2},
    "kv": {"get": 1, "put": 2, "append": 1, "cas": 1},
    "set": {"add": 1},
    "queue": {"enqueue": 2, "dequeue": 1},
    "bank": {"transfer": 1},
    "append": {"txn": 1},
}


def written(model: str, call: Any) -> list[Any]:
    """What an operation writes, so that a read can tell it from all others."""
    if call.f in {"read", "get", "dequeue"}:
        return []
    if model == "append":
        return [value for f, _, value in call.value if f == "append"]
    if call.f == "cas":
        return [call.value[1]]
    return [call.value["id"] if model == "bank" else str(call.value).strip()]


@given(st.sampled_from(sorted(UNIQUE)), SEEDS, st.integers(1, 300), st.integers(1, 30))
def test_no_value_is_written_twice(model: str, seed: int, count: int, per_key: int) -> None:
    generator = Generator(
        model, UNIQUE[model], Prng(seed), keyed=model == "kv", operations_per_key=per_key,
        accounts=("a", "b"),
    )  # fmt: skip
    values = [v for _ in range(count) for v in written(model, generator.next())]
    assert len(set(values)) == len(values)


@given(SEEDS, st.integers(2, 6), st.integers(1, 200))
def test_transfers_never_make_or_lose_money_and_a_bank_that_obeys_is_judged_valid(
    seed: int, accounts: int, count: int
) -> None:
    balances = {f"a{n}": 20 for n in range(accounts)}
    first = dict(balances)
    generator = Generator("bank", {"transfer": 3, "read": 1}, Prng(seed), accounts=list(balances))
    events: list[HistoryEvent] = []
    for _ in range(count):
        call = generator.next()
        events.append(HistoryEvent(0, "invoke", call.f, call.value))
        if call.f == "read":
            events.append(HistoryEvent(0, "ok", "read", dict(balances)))
            continue
        source, target, amount = (call.arguments[k] for k in ("source", "target", "amount"))
        assert source != target
        assert amount > 0
        if balances[source] < amount:
            events.append(HistoryEvent(0, "fail", call.f, call.value))
            continue
        balances[source] -= amount
        balances[target] += amount
        events.append(HistoryEvent(0, "ok", call.f, call.value))
    assert sum(balances.values()) == 20 * accounts
    history = history_of(events, {"model": "bank", "accounts": first})
    assert check(history, "bank").verdict == "valid"
