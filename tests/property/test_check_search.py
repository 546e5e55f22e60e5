"""The search alone, without the exact rules of the models, finds what a naive judge finds."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.check import MODELS, Model, check, history_of, parse_lines
from outlast.testing.histories import plant, simulate
from tests.support.check_brute import has_order, small_history

pytestmark = pytest.mark.timeout(120)

SEARCHED = ("register", "kv", "set", "counter", "queue", "append")


def without_rules(name: str) -> Model:
    """The model with nothing that decides before the search."""
    return type("Plain", (MODELS[name],), {"decide": lambda self, key, part: None})()


@pytest.mark.parametrize("name", SEARCHED)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_search_alone_gives_the_verdict_of_the_naive_judge(name, data):
    lines = small_history(name, lambda bound: data.draw(st.integers(0, bound - 1)), 6)
    result = check(parse_lines(lines), without_rules(name))
    assert result.verdict == ("valid" if has_order(name, lines) else "invalid"), lines


@pytest.mark.parametrize("name", ["register", "kv", "counter", "append"])
def test_rules_and_search_agree_on_histories_too_long_for_a_naive_judge(name):
    for seed in range(8):
        below = Random(seed).randrange
        events = simulate(
            name,
            60,
            clients=2 + below(3),
            keys=2,
            seed=seed,
            info_share=below(2) / 20,
            distinct=seed % 4 != 0,
        )
        told = [("valid", events)]
        if seed % 4:
            told.append(("invalid", plant(events, seed)))
        for right, history in told:
            for model in (name, without_rules(name)):
                result = check(history_of(history), model, seconds=10)
                assert result.verdict == right, f"{name}, seed {seed}, {model}: {result}"
