"""What clients are given to do: the model's operations, in their proportion, from the seed."""

from collections import Counter
from typing import Any

import pytest

from outlast.drill.core.generate import READS, WRITES, Call, Generator
from outlast.kernel import ConfigError, Prng

WEIGHTS: dict[str, dict[str, int]] = {
    "register": {"read": 3, "write": 1},
    "kv": {"get": 4, "put": 2, "append": 1, "delete": 1, "cas": 2},
    "set": {"add": 4, "read": 1},
    "counter": {"add": 2, "read": 1},
    "queue": {"enqueue": 1, "dequeue": 1},
    "bank": {"transfer": 6, "read": 1},
    "append": {"txn": 1},
}


def made(model: str, seed: int = 1, **more: Any) -> Generator:
    """A generator of ``model`` with each of its operations."""
    return Generator(
        model, WEIGHTS[model], Prng(seed), keyed=model == "kv", accounts=("a", "b", "c"), **more
    )


def drawn(generator: Generator, count: int = 2_000, **how: Any) -> list[Call]:
    """So many operations of it."""
    return [generator.next(**how) for _ in range(count)]


@pytest.mark.parametrize("model", WEIGHTS)
def test_equal_seeds_draw_equal_operations_and_others_differ(model: str) -> None:
    assert drawn(made(model), 50) == drawn(made(model), 50)
    assert drawn(made(model), 50) != drawn(made(model, seed=2), 50) or model == "register"


@pytest.mark.parametrize("model", WEIGHTS)
def test_operations_come_in_proportion_to_their_weights(model: str) -> None:
    counts = Counter(call.f for call in drawn(made(model)))
    total = sum(WEIGHTS[model].values())
    assert counts.keys() == WEIGHTS[model].keys()
    for f, weight in WEIGHTS[model].items():
        assert counts[f] / 2_000 == pytest.approx(weight / total, abs=0.05)


@pytest.mark.parametrize("model", WEIGHTS)
def test_a_pinned_client_gets_only_reads_where_there_are_any(model: str) -> None:
    found = {call.f for call in drawn(made(model), 200, reads_only=True)}
    assert found <= (READS[model] or WRITES[model])


def test_reads_invoke_without_a_value_and_writes_carry_what_they_write() -> None:
    for call in drawn(made("kv")):
        assert call.arguments["key"] == call.key
        if call.f in {"get", "delete"}:
            assert call.value is None
            assert set(call.arguments) == {"key"}
        elif call.f == "cas":
            assert call.value == [call.arguments["old"], call.arguments["new"]]
        else:
            assert call.value == call.arguments["value"]


def test_a_key_is_replaced_after_its_share_of_operations_so_that_histories_stay_short() -> None:
    generator = made("kv", key_count=4, operations_per_key=50)
    used = Counter(call.key for call in drawn(generator))
    assert max(used.values()) <= 50
    assert list(used) == generator.keys
    assert len(generator.keys) == pytest.approx(2_000 / 50, abs=4)


def test_comparisons_use_what_was_last_read_or_written() -> None:
    generator = made("kv", key_count=1)
    assert generator.make("cas").arguments["old"] is None
    read = generator.make("get")
    generator.heard(read, "17")
    assert generator.make("cas", read.key).arguments["old"] == "17"
    written = generator.make("put", read.key)
    generator.heard(written, None)
    assert generator.make("cas", read.key).arguments["old"] == written.value


def test_what_is_remembered_for_comparisons_is_bounded() -> None:
    generator = made("kv", operations_per_key=1)
    for _ in range(500):
        generator.heard(generator.make("get"), "x")
    assert len(generator._seen) <= 64


def test_a_transfer_moves_money_between_two_accounts_under_an_id_of_its_own() -> None:
    calls = [call for call in drawn(made("bank")) if call.f == "transfer"]
    for call in calls:
        assert call.value["from"] != call.value["to"]
        assert call.value["from"] == call.arguments["source"]
        assert call.value["to"] == call.arguments["target"]
        assert 1 <= call.value["amount"] <= 5
    assert len({call.value["id"] for call in calls}) == len(calls)


def test_a_transaction_has_one_to_four_operations_that_read_or_append() -> None:
    for call in drawn(made("append"), 300):
        assert 1 <= len(call.value) <= 4
        assert {operation[0] for operation in call.value} <= {"r", "append"}
        assert all(value is None for f, _, value in call.value if f == "r")


@pytest.mark.parametrize(
    ("model", "weights", "accounts", "says"),
    [
        ("registre", {"read": 1}, (), "model 'registre': there are register, kv, set"),
        ("set", {"put": 1}, (), "operation 'put': model set has add, read; name the method so"),
        ("kv", {}, (), r"no operation to run during the drill.*async def append\(…\)"),
        ("bank", {"transfer": 1}, ("a",), "the bank needs at least two accounts"),
    ],
)
def test_what_is_no_workload_is_refused_with_what_would_be(
    model: str, weights: dict[str, int], accounts: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Generator(model, weights, Prng(1), accounts=accounts)
