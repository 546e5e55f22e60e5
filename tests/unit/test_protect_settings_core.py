"""Settings as they stand in files and variables: keys, types, messages."""

from typing import Any, Literal

import pytest

from outlast.kernel import ConfigError
from outlast.protect.core.settings import (
    POLICIES_MAX,
    Setting,
    fits,
    from_text,
    gather,
    key_of,
    leaves,
    match_variable,
    merge,
    near,
    read_mapping,
    rename,
    shown,
    variable_of,
    words_for,
)


def setting(key: str, value: Any = 1, origin: str = "f.toml") -> Setting:
    return Setting("rates", tuple(key.split(".")), value, origin)


def test_a_mapping_becomes_one_setting_for_each_value_below_a_policy() -> None:
    found = read_mapping({"rates": {"timeout": 2, "retry": {"attempts": 3, "base": 0.1}}}, "f")
    assert [(one.key, one.value, one.origin) for one in found] == [
        ("policies.rates.timeout", 2, "f"),
        ("policies.rates.retry.attempts", 3, "f"),
        ("policies.rates.retry.base", 0.1, "f"),
    ]


def test_a_dot_in_a_key_is_a_step_and_a_dot_in_a_name_is_none() -> None:
    (found,) = read_mapping({"rates.eu": {"retry.attempts": 3}}, "")
    assert (found.policy, found.path) == ("rates.eu", ("retry", "attempts"))


def test_a_whole_file_has_its_policies_in_a_table() -> None:
    assert read_mapping({"policies": {"a": {"timeout": 1}}, "serve": {"nodes": 3}}, "") == [
        Setting("a", ("timeout",), 1, "")
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policies": 3}, "f: policies is 3; a table of policies by name would be right"),
        ({"rates": 3}, "f: policies.rates is 3; a table of settings would be right"),
        ({3: {}}, "f: 3 is no name of a policy"),
        ({"": {}}, "f: '' is no name of a policy"),
        ({"rates": {"timeot": 3}}, "f: policies.rates.timeot: no setting 'timeot'; did you mean"),
        ({"rates": {"timeout": {"x": 1}}}, "timeout is a number of seconds and has nothing below"),
        ({"rates": {"retry": 3}}, "policies.rates.retry is 3; a table with settings of the retry"),
        ({str(n): {} for n in range(POLICIES_MAX + 1)}, "f: 10001 policies; at most 10000"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_full_key(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mapping(given, "f")
    assert message in str(caught.value)


def test_an_empty_table_of_a_part_is_a_part_without_settings() -> None:
    (found,) = read_mapping({"rates": {"breaker": {}}}, "")
    assert (found.path, found.value) == (("breaker",), {})


def test_a_mapping_that_is_too_deep_ends_as_a_value() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = {"x": deep}
    ((path, value),) = leaves(deep)
    assert len(path) == 8
    assert isinstance(value, dict)


def test_settings_are_put_together_again_as_they_stood() -> None:
    window = setting("breaker.window.calls", 10)
    attempts, empty = setting("retry.attempts"), setting("retry", {})
    for order in ([empty, attempts, window], [attempts, empty, window]):
        assert gather(order) == {
            "retry": {"attempts": attempts},
            "breaker": {"window": {"calls": window}},
        }
    assert gather([empty]) == {"retry": empty}


def test_a_later_setting_wins_and_a_window_is_replaced_as_a_whole() -> None:
    into: dict[tuple[str, ...], Setting] = {}
    merge(into, [setting("breaker.window.calls", 10), setting("timeout", 1)])
    merge(into, [setting("breaker.window.seconds", 30), setting("breaker.window.buckets", 5)])
    merge(into, [setting("timeout", 2)])
    assert {one.key: one.value for one in into.values()} == {
        "policies.rates.breaker.window.seconds": 30,
        "policies.rates.breaker.window.buckets": 5,
        "policies.rates.timeout": 2,
    }


# --- variables ---------------------------------------------------------------------------------

KNOWN: dict[str, Any] = {
    "rates": [("timeout",), ("retry", "attempts"), ("retry", "retry_after_cap")],
    "rates-eu": [("timeout",)],
    "later": None,
}


@pytest.mark.parametrize(
    ("variable", "policy", "path"),
    [
        ("OUTLAST_POLICIES_RATES_TIMEOUT", "rates", ("timeout",)),
        ("OUTLAST_POLICIES_RATES_RETRY_ATTEMPTS", "rates", ("retry", "attempts")),
        ("OUTLAST_POLICIES_RATES_RETRY_RETRY_AFTER_CAP", "rates", ("retry", "retry_after_cap")),
        ("OUTLAST_POLICIES_RATES_EU_TIMEOUT", "rates-eu", ("timeout",)),
    ],
)
def test_a_variable_names_a_setting(variable: str, policy: str, path: tuple[str, ...]) -> None:
    found = match_variable(variable, "5", KNOWN)
    assert found == Setting(policy, path, "5", variable)


@pytest.mark.parametrize(
    "variable",
    [
        "OUTLAST_POLICIES_OTHER_TIMEOUT",
        "OUTLAST_POLICIES_LATER_RETRY_ATEMPTS",
        "OUTLAST_POLICIES_RATES_US_ATTEMPT_TIMEOUT",
        "OUTLAST_POLICIES_RATES",
    ],
)
def test_a_variable_of_a_policy_that_may_come_later_is_none_yet(variable: str) -> None:
    assert match_variable(variable, "5", KNOWN) is None


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("OUTLAST_POLICIES_RATES_RETRY_ATEMPTS", "did you mean RETRY_ATTEMPTS?"),
        ("OUTLAST_POLICIES_RATES_TIMEOT", "did you mean TIMEOUT?"),
        ("OUTLAST_POLICIES_RATES_HEDGE_X", "there is TIMEOUT, RETRY_ATTEMPTS"),
    ],
)
def test_a_misspelt_variable_of_a_known_policy_is_refused(variable: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="policy 'rates' has no such setting") as caught:
        match_variable(variable, "5", KNOWN)
    assert variable in str(caught.value)
    assert hint in str(caught.value)


def test_a_name_of_a_variable_has_letters_figures_and_underscores() -> None:
    assert variable_of("api.v2 x", ("retry", "base")) == "OUTLAST_POLICIES_API_V2_X_RETRY_BASE"


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("5", int, 5), ("5", float, 5.0), (" 1_000 ", int | None, 1000), ("x y", bool, "x y"),
        ("none", int | None, None), ("", float | None, None), ("yes", bool, True),
        ("OFF", bool, False),
        ("2.5", int | float, 2.5), ("x", int, "x"), ("none", str, "none"), ("1e3", float, 1000.0),
    ],
)  # fmt: skip
def test_text_is_read_as_the_type_that_is_wanted(text: str, wanted: Any, value: Any) -> None:
    found = from_text(text, wanted)
    assert (found, type(found)) == (value, type(value))


# --- types and words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted", "right"),
    [
        (3, int, True), (3, float, True), (True, int, False), (True, float, False),
        (3.5, int, False), ("3", int, False), (None, int | None, True), (None, int, False),
        (True, bool, True),
        ("full", Literal["full", "none"], True), ("ful", Literal["full", "none"], False),
        (1, bool, False), ("x", str, True),
        (3, int | dict, True),
        ("x", int | dict, False), (int, type[int], True), ("x", "Budget", True),
        ("x", None, False), (None, None, True),
    ],
)  # fmt: skip
def test_only_plain_types_are_judged(value: Any, wanted: Any, right: bool) -> None:
    assert fits(value, wanted) is right


def test_what_would_be_right_is_said_in_words() -> None:
    assert words_for(int | None) == "a whole number or none would be right"
    assert words_for(Literal["full", "none"]) == "full or none would be right"


def test_what_was_meant_is_offered_or_what_there_is() -> None:
    assert near("atempts", ["attempts", "base"]) == "did you mean attempts?"
    assert near("zzz", ["attempts", "base"]) == "there is attempts, base"
    assert near("zzz", [], "no policy") == "there is no policy"


def test_a_long_value_is_cut_in_messages() -> None:
    assert len(shown("x" * 999)) == 60
    assert key_of("a", ("b", "c")) == "policies.a.b.c"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Retry: attempts is 0; 1 or more",
            "f.toml: policies.rates.retry.attempts is 0; 1 or more",
        ),
        ("Retry: attempts: no", "f.toml: policies.rates.retry.attempts: no"),
        ("attempts", "f.toml: policies.rates.retry.attempts"),
        (
            "Backoff: cap is below base",
            "f.toml: policies.rates.retry.base = 1, policies.rates.retry.attempts = 1:"
            " Backoff: cap is below base",
        ),
    ],
)
def test_what_a_part_says_of_its_arguments_is_said_of_the_keys(message: str, said: str) -> None:
    given = [setting("retry.base"), setting("retry.attempts")]
    assert rename(message, "Retry", given) == said


def test_a_message_about_no_setting_at_all_is_still_one() -> None:
    assert rename("Retry: odd", "Retry", []) == "configure: : odd"
