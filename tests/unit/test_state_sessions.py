"""Sessions and keys: a repeat is recognised, and every other case is told honestly."""

import pytest

from outlast.kernel import (
    BarredError,
    ConfigError,
    IndefiniteError,
    KeyReusedError,
    ProtocolError,
    ReplyLostError,
    SessionExpiredError,
    happened,
)
from outlast.state.core.limits import Limits
from outlast.state.core.operation import Close, KeepAlive, Register, Resolve
from outlast.state.core.reply import DEFINITE, INDEFINITE, OK
from tests.support.state_system import Driver, error_of


def test_a_session_is_the_index_of_its_register_entry() -> None:
    driver = Driver()
    driver.tick()
    assert driver.operate(Register()) == 2
    assert driver.operate(Register()) == 3


def test_a_repeat_gets_the_recorded_reply_and_is_not_executed() -> None:
    driver = Driver()
    session = driver.operate(Register())
    first = driver.call(session, 1)
    again = driver.call(session, 1)
    assert (first.status, first.body, first.index) == (again.status, again.body, again.index)
    assert again.digest == first.digest != b""
    assert driver.machine.counts == {b"a": 1}


def test_an_error_of_the_command_is_recorded_like_a_result() -> None:
    driver = Driver()
    session = driver.operate(Register())
    first = driver.call(session, 1, name="raise")
    again = driver.call(session, 1, name="raise")
    assert first.status == again.status == 1
    assert driver.machine.counts == {b"a": 1}


def test_requests_may_overtake_each_other_within_the_window() -> None:
    driver = Driver()
    session = driver.operate(Register())
    for seq in (256, 3, 1, 200, 2):
        assert driver.call(session, seq, b"%d" % seq).status == OK
    for seq in (1, 2, 3, 200, 256):
        driver.call(session, seq, b"%d" % seq)
    assert set(driver.machine.counts.values()) == {1}


def test_the_window_begins_at_ack_below_exactly() -> None:
    driver = Driver()
    session = driver.operate(Register())
    assert isinstance(error_of(driver.call(session, 257)), ProtocolError)
    assert driver.machine.counts == {}
    driver.call(session, 1, b"one")
    driver.call(session, 2, b"two")
    assert driver.call(session, 257, ack=2).status == OK
    # 2 is not acknowledged: its reply is still there; 1 is, and nothing is claimed about it.
    assert driver.call(session, 2, b"two", ack=2).status == OK
    told = error_of(driver.call(session, 1, b"one"))
    assert isinstance(told, IndefiniteError)
    assert happened(told) == "maybe"
    assert driver.machine.counts == {b"one": 1, b"two": 1, b"a": 1}


def test_a_request_cannot_acknowledge_itself_or_later_ones() -> None:
    driver = Driver()
    session = driver.operate(Register())
    assert driver.call(session, 5, ack=1 << 40).status == OK
    assert driver.call(session, 5, ack=1 << 40).status == OK
    assert driver.machine.counts == {b"a": 1}


@pytest.mark.parametrize(("args", "name"), [(b"b", "add"), (b"a", "other")])
def test_other_content_under_the_same_number_is_refused(args: bytes, name: str) -> None:
    driver = Driver()
    session = driver.operate(Register())
    driver.call(session, 1)
    kept = driver.call(session, 1, args, name=name)
    assert kept.status == DEFINITE
    assert isinstance(error_of(kept), KeyReusedError)
    assert driver.machine.counts == {b"a": 1}


def test_an_unknown_session_is_refused_and_not_registered_again() -> None:
    driver = Driver()
    for _ in range(2):
        kept = driver.call(77, 1)
        assert kept.status == DEFINITE
        assert isinstance(error_of(kept), SessionExpiredError)
    assert driver.machine.counts == {}
    assert len(driver.system.sessions) == 0


def test_resolve_returns_the_reply_or_bars_the_request_for_ever() -> None:
    driver = Driver()
    session = driver.operate(Register())
    ran = driver.call(session, 1)
    assert driver.operate(Resolve(session, 1)) == [1, ran.index]
    with pytest.raises(BarredError, match="request 2 was barred"):
        driver.operate(Resolve(session, 2))
    late = driver.call(session, 2, b"late")
    assert late.status == DEFINITE
    assert isinstance(error_of(late), BarredError)
    assert driver.machine.counts == {b"a": 1}
    with pytest.raises(SessionExpiredError):
        driver.operate(Resolve(99, 1))


def test_a_reply_that_was_too_large_to_keep_is_told_as_lost_and_not_run_again() -> None:
    driver = Driver(limits=Limits(session_reply_bytes_max=10))
    session = driver.operate(Register())
    driver.machine.execute = lambda *_: (OK, b"x" * 9)  # type: ignore[method-assign]
    first = driver.call(session, 1)
    driver.call(session, 2)
    lost = driver.call(session, 1)
    assert lost.status == INDEFINITE
    assert isinstance(error_of(lost), ReplyLostError)
    assert happened(error_of(lost)) == "yes"
    assert driver.call(session, 2).body == b"x" * 9
    driver.machine.execute = lambda *_: (OK, b"y" * 50)  # type: ignore[method-assign]
    assert driver.call(session, 3).body == b"y" * 50, "the first caller still gets it"
    assert isinstance(error_of(driver.call(session, 3)), ReplyLostError)
    assert first.body == b"x" * 9


def test_replies_of_all_sessions_are_bounded_together() -> None:
    driver = Driver(limits=Limits(reply_bytes_max=100))
    driver.machine.execute = lambda *_: (OK, b"x" * 30)  # type: ignore[method-assign]
    sessions = [driver.operate(Register()) for _ in range(4)]
    for session in sessions:
        driver.call(session, 1)
    assert driver.system.sessions.reply_bytes <= 100
    assert isinstance(error_of(driver.call(sessions[0], 1)), ReplyLostError)
    assert driver.call(sessions[3], 1).body == b"x" * 30


def test_the_least_recently_used_session_is_evicted_alike_after_a_restore() -> None:
    driver = Driver(limits=Limits(sessions_max=3))
    first, second, third = (driver.operate(Register()) for _ in range(3))
    driver.call(first, 1)
    for one in (driver, driver.restored()):
        one.operate(Register())
        assert isinstance(error_of(one.call(second, 1)), SessionExpiredError)
        assert one.call(first, 2, b"b").status == OK
        assert one.call(third, 1, b"c").status == OK


def test_sessions_expire_by_log_time_and_only_at_a_tick() -> None:
    driver = Driver()
    driver.take_system()
    session = driver.operate(Register(ttl_ns=100))
    other = driver.operate(Register(ttl_ns=100))
    driver.now_ns = 90
    assert driver.operate(KeepAlive([other, 999])) == [other]
    driver.now_ns = 150
    assert driver.call(session, 1).status == OK, "not yet: no tick has been applied"
    driver.now_ns = 200
    assert driver.tick().expired == [other]
    driver.now_ns = 250
    assert driver.tick().expired == [session]
    assert isinstance(error_of(driver.call(session, 2)), SessionExpiredError)


def test_a_session_can_be_closed() -> None:
    driver = Driver()
    session = driver.operate(Register())
    assert driver.operate(Close(session)) is True
    assert driver.operate(Close(session)) is False
    assert isinstance(error_of(driver.call(session, 1)), SessionExpiredError)


def test_an_idempotency_key_is_recognised_across_sessions_and_restores() -> None:
    driver = Driver()
    first, second = driver.operate(Register()), driver.operate(Register())
    ran = driver.call(first, 1, key="order-17")
    for one in (driver, driver.restored()):
        again = one.call(second, 1, key="order-17")
        assert (again.status, again.body, again.index) == (OK, ran.body, ran.index)
        assert one.machine.counts == {b"a": 1}
        reused = error_of(one.call(second, 2, b"b", key="order-17"))
        assert isinstance(reused, KeyReusedError)


def test_a_refusal_under_a_key_is_final_for_its_request() -> None:
    driver = Driver()
    driver.take_system()
    session = driver.operate(Register(driver.system.limits.session_ttl_max_ns))
    driver.call(session, 1, key="k")
    assert isinstance(error_of(driver.call(session, 2, b"b", key="k")), KeyReusedError)
    driver.now_ns = driver.system.limits.key_ttl_ns
    driver.tick()
    assert len(driver.system.keys) == 0
    # The key is free again, but the client was told that request 2 never ran: it stays so.
    assert isinstance(error_of(driver.call(session, 2, b"b", key="k")), KeyReusedError)
    assert driver.machine.counts == {b"a": 1}


def test_keys_are_bounded_and_checked() -> None:
    driver = Driver(limits=Limits(keys_max=2))
    session = driver.operate(Register())
    for seq, key in enumerate(["one", "two", "three"], 1):
        driver.call(session, seq, key=key)
    assert [row.key for row in driver.system.keys.rows()] == ["two", "three"]
    assert isinstance(error_of(driver.call(session, 4, key="k" * 256)), ConfigError)


def test_a_restored_table_is_the_same_table() -> None:
    driver = Driver()
    sessions = [driver.operate(Register()) for _ in range(5)]
    for n, session in enumerate(sessions * 3):
        driver.call(session, n // 5 + 1, b"%d" % n, key=f"k{n}" if n % 4 else "")
    other = driver.restored()
    assert other.system.dump() == driver.system.dump()
    driver.call(sessions[0], 9, b"after")
    other.call(sessions[0], 9, b"after")
    assert other.system.digest == driver.system.digest
    assert other.system.dump() == driver.system.dump()
