"""Sessions against a naive second version, over any order of requests, repeats and restores."""

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from outlast.kernel import BarredError, KeyReusedError, SessionExpiredError
from outlast.state.core.limits import Limits
from outlast.state.core.operation import Close, Register, Resolve
from tests.support.state_system import Driver, error_of

pytestmark = pytest.mark.timeout(120)

WINDOW = 8


class Sessions(RuleBasedStateMachine):
    """The model remembers everything for ever and looks it up; nothing is trimmed or indexed."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(limits=Limits(window=WINDOW, sessions_max=4))
        self.answers: dict[tuple[int, int], tuple[bytes, Any]] = {}
        self.acked: dict[int, int] = {}
        self.live: list[int] = []
        self.unique = itertools.count()

    def used(self, session: int) -> None:
        self.live.remove(session)
        self.live.append(session)

    @rule(target=sessions)
    def register(self) -> int:
        session: int = self.driver.operate(Register())
        self.live.append(session)
        self.live = self.live[-4:]
        self.acked[session] = 1
        return session

    @rule(session=sessions, offset=st.integers(-3, WINDOW + 1), ack=st.integers(0, WINDOW),
          other=st.booleans())  # fmt: skip
    def request(self, session: int, offset: int, ack: int, other: bool) -> None:
        seq = max(1, self.acked[session] + offset)
        known = self.answers.get((session, seq))
        args = known[0] if known and known[0] and not other else b"%d" % next(self.unique)
        ack_below = self.acked[session] + ack
        kept = self.driver.call(session, seq, args, ack=ack_below)
        told = (kept.status, kept.index, kept.body, kept.digest)
        if session not in self.live:
            assert isinstance(error_of(kept), SessionExpiredError)
            assert args not in self.driver.machine.counts or known
            return
        self.used(session)
        low = self.acked[session] = max(self.acked[session], min(ack_below, seq))
        if seq < low:
            assert kept.status == 3
        elif known is not None and known[1] == "barred":
            assert isinstance(error_of(kept), BarredError)
        elif known is not None and known[0] != args:
            assert isinstance(error_of(kept), KeyReusedError)
        elif known is not None:
            assert told == known[1]
        elif seq >= low + WINDOW:
            assert kept.status == 2
        else:
            assert kept.status == 0
            self.answers[session, seq] = (args, told)

    @rule(session=sessions, offset=st.integers(0, WINDOW - 1))
    def resolve(self, session: int, offset: int) -> None:
        seq = self.acked[session] + offset
        known = self.answers.get((session, seq))
        try:
            self.driver.operate(Resolve(session, seq))
        except SessionExpiredError:
            assert session not in self.live
            return
        except BarredError:
            assert known is None or known[1] == "barred"
            self.answers[session, seq] = (b"", "barred")
        else:
            assert known is not None
            assert known[1] != "barred"
        self.used(session)

    @rule(session=sessions)
    def close(self, session: int) -> None:
        assert self.driver.operate(Close(session)) is (session in self.live)
        if session in self.live:
            self.live.remove(session)

    @rule()
    def restore(self) -> None:
        self.driver = self.driver.restored()

    @invariant()
    def nothing_ran_twice(self) -> None:
        assert set(self.driver.machine.counts.values()) <= {1}

    @invariant()
    def bounded(self) -> None:
        rows = self.driver.system.sessions.rows()
        assert [row.id for row in rows] == self.live
        assert all(len(row.replies) <= WINDOW for row in rows)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
