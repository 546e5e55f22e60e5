"""Whatever is asked for: a change of settings happens as a whole or not at all."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import ConfigError, registry
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.core.settings import (
    KEYS,
    gather,
    match_variable,
    read_mapping,
    variable_of,
)
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry
from outlast.protect.settings import configure, forget_settings, kept_settings, paths_of

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 50),
    st.integers(-1_000, 90_000).map(lambda ms: ms / 1000),
    st.sampled_from(["x", "5"]),
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "timeout": VALUES,
        "retry": st.dictionaries(st.sampled_from(["attempts", "base", "cap", "jiter"]), VALUES),
        "breaker": st.dictionaries(
            st.sampled_from(["failure_threshold", "recovery_timeout", "window"]), VALUES
        ),
        "limit": st.dictionaries(st.sampled_from(["max_concurrent", "queue"]), VALUES),
    },
)


def make(name: str, limit: Bulkhead) -> Policy:
    return Policy(
        name, timeout=5.0, retry=Retry(on=OSError), breaker=CircuitBreaker(5), limit=limit
    )


def attempt(given: dict[str, Any]) -> str | None:
    try:
        configure(given)
    except ConfigError as error:
        return str(error)
    return None


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b", "later"]), PARTS))
def test_all_or_none(given: dict[str, Any]) -> None:
    live = dict(registry._live)
    registry._live.clear()
    forget_settings()
    try:
        shared = Bulkhead(20)
        policies = [make("a", shared), make("b", shared)]
        before = [policy.describe() for policy in policies]
        said = attempt(given)
        if said is not None:
            assert "policies." in said
            assert [policy.describe() for policy in policies] == before
            assert kept_settings() == {}
            return
        for policy in policies:
            described = policy.describe()
            for setting in read_mapping({policy.name: given.get(policy.name, {})}, ""):
                at: Any = described
                for step in setting.path[:-1]:
                    at = at[step]
                value = at.get(setting.path[-1])
                wanted = setting.value
                assert value == wanted or setting.path == ("timeout",) or wanted in ({}, None)
    finally:
        forget_settings()
        registry._live.clear()
        registry._live.update(live)


NAMES = st.text(st.sampled_from("ab-_ .1"), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(NAMES)
def test_the_variable_of_each_setting_means_that_setting(name: str) -> None:
    paths = paths_of(make("", Bulkhead(3)))
    for path in paths:
        found = match_variable(variable_of(name, path), "1", {name: paths})
        assert found is not None
        assert (found.policy, found.path) == (name, path)


TABLES = st.dictionaries(
    st.sampled_from([key for key in KEYS if not key.endswith("timeout")]),
    st.dictionaries(st.sampled_from("abc"), st.integers(), min_size=1),
)


@settings(deadline=None, max_examples=100)
@given(TABLES)
def test_gathering_what_was_read_gives_the_same_table(table: dict[str, dict[str, int]]) -> None:
    found = gather(read_mapping({"x": table}, ""))
    plain = {key: {k: one.value for k, one in below.items()} for key, below in found.items()}
    assert plain == table
