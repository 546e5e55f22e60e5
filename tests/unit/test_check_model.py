"""Models of one's own, limits and names: what a caller of check() meets first."""

import pytest

from outlast.check import DeltaModel, Model, check, history_of
from outlast.check.core.judge import Limits
from outlast.kernel import ConfigError, HistoryEvent


class Latch(Model):
    """A flag that is set once, in the lines that the documentation promises."""

    name, functions, reads = "latch", frozenset({"set", "test"}), frozenset({"test"})

    def init(self, key):
        return False

    def step(self, state, op):
        if op.f == "set":
            return (True,)
        return (state,) if op.output == state else ()


class Stock(DeltaModel):
    """How many of two goods are there, never below zero."""

    name, functions, reads = "stock", frozenset({"move", "look"}), frozenset({"look"})
    bounded = True

    def init(self, key):
        return (1, 0)

    def change(self, op):
        return tuple(op.value)

    def target(self, op):
        return tuple(op.output)

    def fits(self, state):
        return min(state) >= 0


def story(*steps):
    """Events from (process, type, f, value)."""
    return history_of(HistoryEvent(*step) for step in steps)


def test_a_model_in_a_few_lines_is_judged():
    told = [(0, "invoke", "set"), (0, "ok", "set"), (1, "invoke", "test"), (1, "ok", "test", True)]
    assert check(story(*told), Latch()).verdict == "valid"
    told[-1] = (1, "ok", "test", False)
    result = check(story(*told), Latch())
    assert result.verdict == "invalid"
    assert result.counterexample.stuck.f == "test"


def test_a_model_of_sums_with_a_bound_looks_for_an_order_that_keeps_it():
    told = [
        (0, "invoke", "move", [-2, 1]),
        (1, "invoke", "move", [1, 0]),
        (0, "ok", "move", [-2, 1]),
        (1, "ok", "move", [1, 0]),
        (2, "invoke", "look"),
        (2, "ok", "look", [0, 1]),
    ]
    assert check(story(*told), Stock()).verdict == "valid"
    told[1:1] = [(0, "ok", "move", [-2, 1])]
    del told[3]
    assert check(story(*told), Stock()).verdict == "invalid"


def test_an_unknown_function_is_named_with_its_line():
    with pytest.raises(ConfigError, match=r"^history:1: model latch has no 'jump'"):
        check(story((0, "invoke", "jump")), Latch())


def test_an_unknown_model_offers_near_names():
    with pytest.raises(ConfigError, match="unknown model 'registr'; register would be right"):
        check(story(), "registr")


@pytest.mark.parametrize("limit", [{"seconds": 0}, {"seconds": -1}, {"memory_bytes": 10}])
def test_a_limit_out_of_range_is_refused_before_work_begins(limit):
    with pytest.raises(ConfigError, match=next(iter(limit))):
        check(story(), "register", **limit)


def test_an_empty_history_is_valid_and_says_so():
    result = check(story(), "register")
    assert result.verdict == "valid"
    assert "empty" in result.why


def test_an_unknown_verdict_names_the_limit_and_what_would_help():
    # every client overlaps every other one, so that there are 12! orders of the appends
    told = [(n, "invoke", "append", f"{n}.", "x") for n in range(12)]
    told += [(n, "ok", "append", f"{n}.", "x") for n in range(12)]
    told += [(20, "invoke", "get", None, "x"), (20, "ok", "get", "no", "x")]
    # a put nobody saw keeps the cheap rule about beginnings from deciding
    told[:0] = [(n, "invoke", "put", "n", "x") for n in range(30, 40)]
    result = check(story(*told), "kv", seconds=1e-9)
    assert result.verdict == "unknown"
    assert result.exit_code == 3
    assert "time limit" in result.why
    assert "--seconds" in result.why
    assert "10 info" in result.why or "there are 10" in result.why


def test_the_memory_limit_counts_what_the_process_grew_where_the_search_counts_less() -> None:
    grown = [0]
    limits = Limits(10.0, 1 << 20, lambda: 0.0, lambda: grown[0])
    assert limits.over(0) == ""
    grown[0] = (1 << 20) + 1
    assert limits.over(0) == "the memory limit of 1 MiB"
