"""Claims of the Raft paper (8) and thesis (6.3) about clients' sessions, one by one."""

import msgspec

from outlast.kernel import SessionExpiredError
from outlast.state.core.envelope import encode_command
from outlast.state.core.operation import Close, Register
from outlast.state.core.reply import OK
from tests.support.state_system import Driver, error_of


def test_two_copies_in_one_entry_are_executed_once() -> None:
    """A command that reached the log twice within one entry is executed once, and both copies
    get the same reply (paper 8, thesis 6.3).
    """
    driver = Driver()
    session = driver.operate(Register())
    body = encode_command(session, 1, 1, "add", b"a")
    first, second = driver.commands(body, body)
    assert driver.machine.counts == {b"a": 1}
    assert (first.status, first.body, first.index) == (second.status, second.body, second.index)


def test_a_repeat_is_answered_as_of_the_first_execution() -> None:
    """A repeat gets the reply of the first execution although others changed the state since
    (paper 8, thesis 6.3).
    """
    driver = Driver()
    mine, other = driver.operate(Register()), driver.operate(Register())
    first = driver.call(mine, 1)
    for seq in range(1, 6):
        driver.call(other, seq)
    again = driver.call(mine, 1)
    assert msgspec.msgpack.decode(again.body) == msgspec.msgpack.decode(first.body)
    assert msgspec.msgpack.decode(first.body)[0] == 1
    assert driver.machine.counts == {b"a": 6}


def test_every_replica_leaves_out_the_same_copies() -> None:
    """Replicas that read the same log execute the same copies and give the same replies, one
    that was restored from a snapshot in between as well (thesis 6.3).
    """
    one = Driver()
    session = one.operate(Register())
    one.call(session, 1, b"x")
    one.call(session, 2, b"y")
    other = one.restored()
    for driver in (one, other):
        for seq, args in ((2, b"y"), (1, b"x"), (3, b"z"), (3, b"z")):
            driver.call(session, seq, args)
    assert one.machine.counts == other.machine.counts == {b"x": 1, b"y": 1, b"z": 1}
    assert one.system.digest == other.system.digest


def test_clients_do_not_share_their_numbers() -> None:
    """The same number in two sessions means two commands (thesis 6.3)."""
    driver = Driver()
    for session in (driver.operate(Register()), driver.operate(Register())):
        assert driver.call(session, 1).status == OK
    assert driver.machine.counts == {b"a": 2}


def test_an_id_is_never_given_twice() -> None:
    """A session that ended leaves its id to nobody, so that a late copy of its requests is not
    taken for another client's (thesis 6.3).
    """
    driver = Driver()
    first = driver.operate(Register())
    driver.call(first, 1)
    driver.operate(Close(first))
    second = driver.restored().operate(Register())
    assert second > first
    late = driver.call(first, 2, b"late")
    assert isinstance(error_of(late), SessionExpiredError)
    assert driver.machine.counts == {b"a": 1}


def test_a_kept_reply_goes_once_the_client_has_it() -> None:
    """A reply is kept until the client says that it has it, and no longer (thesis 6.3)."""
    driver = Driver()
    session = driver.operate(Register())
    for seq in range(1, 11):
        driver.call(session, seq, b"%d" % seq, ack=1)
    row = driver.system.sessions.get(session)
    assert row is not None
    assert list(row.replies) == list(range(1, 11))
    driver.call(session, 11, b"11", ack=9)
    assert list(row.replies) == [9, 10, 11]
