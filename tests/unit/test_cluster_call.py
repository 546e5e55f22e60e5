"""What a client does with an answer."""

import pytest

from outlast.cluster.core.call import Fail, Finish, GoTo, Reopen, WaitAndRepeat, next_step
from outlast.kernel import (
    BarredError,
    CommandTypeError,
    DeadlineError,
    DiskFullError,
    ElsewhereError,
    IndefiniteError,
    KeyReusedError,
    LogFailedError,
    LostError,
    OverloadedError,
    SealedError,
    SessionExpiredError,
    UnavailableError,
)


def after(status, error, *, maybe=False, repeatable=True, applied=True):
    return next_step(status, error, maybe=maybe, repeatable=repeatable, applied=applied)


def test_a_result_and_a_raised_command_both_finish():
    assert after(0, None) == Finish()
    assert after(1, None) == Finish()


def test_a_redirect_goes_to_the_hint():
    assert after(2, ElsewhereError(hint="n2")) == GoTo("n2")
    assert after(2, ElsewhereError()) == GoTo("")


@pytest.mark.parametrize("kind", [OverloadedError, UnavailableError, DiskFullError])
def test_refusals_for_lack_of_room_wait_as_long_as_was_asked(kind):
    error = kind("no", retry_after=0.7)
    assert after(2, error) == WaitAndRepeat(0.7, error)


def test_an_overwritten_entry_is_sent_again_at_once():
    assert isinstance(after(2, LostError()), WaitAndRepeat)


@pytest.mark.parametrize("kind", [CommandTypeError, KeyReusedError])
def test_what_a_repeat_cannot_mend_is_raised(kind):
    error = kind("no")
    assert after(2, error) == Fail(error)


@pytest.mark.parametrize("kind", [DeadlineError, LogFailedError])
def test_an_unknown_outcome_is_repeated_only_where_a_repeat_is_recognised(kind):
    error = kind("unknown")
    assert isinstance(after(3, error), WaitAndRepeat)
    assert after(3, error, repeatable=False) == Fail(error)


def test_an_expired_session_is_reopened_only_if_no_attempt_is_unaccounted_for():
    assert after(2, SessionExpiredError()) == Reopen()
    step = after(2, SessionExpiredError(), maybe=True)
    assert isinstance(step, Fail)
    assert isinstance(step.error, IndefiniteError)


def test_a_refusal_before_the_log_says_nothing_of_an_earlier_attempt():
    sealed = SealedError("sealed", next=b"")
    assert after(2, sealed, applied=False) == Fail(sealed)
    step = after(2, sealed, maybe=True, applied=False)
    assert isinstance(step, Fail)
    assert isinstance(step.error, IndefiniteError)


def test_what_applying_the_log_answered_is_definite_for_every_attempt():
    barred = BarredError("it will never run")
    assert after(2, barred, maybe=True, applied=True) == Fail(barred)
