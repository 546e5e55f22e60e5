"""Whether a request may be sent again: the rules."""

import pytest

from outlast.protect.core.repeat import IDEMPOTENT, RETRY_STATUSES, SAFE, fit, why_not


@pytest.mark.parametrize("method", sorted(IDEMPOTENT))
@pytest.mark.parametrize("happened", ["no", "maybe", "yes"])
def test_idempotent_methods_may_be_repeated_whatever_happened(method: str, happened: str) -> None:
    assert why_not(method, promised=False, happened=happened, spent=False) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "PURGE"])
def test_other_methods_may_be_repeated_only_if_nothing_happened(method: str) -> None:
    assert why_not(method, promised=False, happened="no", spent=False) is None
    for happened in ("maybe", "yes"):
        reason = why_not(method, promised=False, happened=happened, spent=False)  # type: ignore[arg-type]
        assert reason is not None
        assert method in reason


def test_a_promise_lets_any_method_be_repeated() -> None:
    assert why_not("POST", promised=True, happened="maybe", spent=False) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_that_is_gone_is_never_sent_again(method: str) -> None:
    for promised in (False, True):
        reason = why_not(method, promised=promised, happened="no", spent=True)
        assert reason == "the body of the request was read and cannot be read again"


def test_safe_methods_are_idempotent_and_delete_and_put_are_not_safe() -> None:
    assert {"DELETE", "PUT"} == IDEMPOTENT - SAFE
    assert SAFE < IDEMPOTENT


def test_the_statuses_are_those_that_ask_for_a_repeat_or_come_from_a_proxy() -> None:
    assert sorted(RETRY_STATUSES) == [429, 502, 503, 504]


def test_no_limit_is_above_what_is_left_and_shorter_ones_stay() -> None:
    limits = {"connect": 5.0, "read": None, "write": 1.0}
    assert fit(limits, 2.0) == {"connect": 2.0, "read": 2.0, "write": 1.0}
    assert fit(limits, 0.0) == {"connect": 0.0, "read": 0.0, "write": 0.0}
    assert fit(limits, None) == limits
