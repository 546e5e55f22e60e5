"""How requests reach the leader, over links and a clock that the test moves by hand."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest

import outlast
from outlast import sim
from outlast.cluster.courier import Courier
from outlast.cluster.messages import Kind, Seat, View
from outlast.host import make_world
from outlast.kernel import (
    ConnectionLostError,
    Deadline,
    DeadlineError,
    ElsewhereError,
    OverloadedError,
    TooLateError,
    UnavailableError,
)
from outlast.state import Reply, encode_error_reply, encode_reply

MS = 1_000_000
SEATS = [Seat("n1", "h1:1"), Seat("n2", "h2:1"), Seat("n3", "h3:1")]
OK = Reply(0, 5, b"", b"\x01")

pytestmark = pytest.mark.anyio


class Time:
    """A clock that only the test moves; timers run as it passes them."""

    def __init__(self) -> None:
        self.now = 1_000 * MS
        self._due: list[tuple[int, int, Timer]] = []
        self._number = 0

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now

    def boot_id(self) -> str:
        return ""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> "Timer":
        self._number += 1
        timer = Timer(callback)
        heapq.heappush(self._due, (when_ns, self._number, timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the courier does not sleep here")

    @property
    def armed(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._due)

    def advance(self, ms: float) -> None:
        end = self.now + int(ms * MS)
        while self._due and self._due[0][0] <= end:
            when, _, timer = heapq.heappop(self._due)
            self.now = max(self.now, when)
            if not timer.cancelled:
                timer.callback()
        self.now = end


@dataclass
class Timer:
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(eq=False)
class FakeLink:
    """A link that keeps what is sent."""

    address: str
    node: str
    time: Time
    sent: list[tuple[int, int, bytes]] = field(default_factory=list)
    open: bool = True
    heard_ns: int = 0

    @property
    def connection(self) -> object | None:
        return self if self.open else None

    def send(self, kind: int, stream: int, body: bytes) -> None:
        self.sent.append((kind, stream, body))


class FakeLinks:
    """Dials nothing: the test says which links come up."""

    def __init__(self) -> None:
        self.by_address: dict[str, FakeLink] = {}
        self.wanted: list[str] = []
        self.errors: dict[str, str] = {}

    def to_node(self, node: str) -> FakeLink | None:
        return next((k for k in self.by_address.values() if k.node == node and k.open), None)

    def open_links(self) -> list[FakeLink]:
        return [link for link in self.by_address.values() if link.open]

    def want(self, address: str) -> None:
        if address not in self.by_address or not self.by_address[address].open:
            self.wanted.append(address)

    def drop(self, link: FakeLink) -> None:
        link.open = False
        self.by_address.pop(link.address, None)

    def close(self) -> None:
        pass


class Stage:
    """A courier with the world around it."""

    def __init__(self) -> None:
        self.time = Time()
        clock: Any = self.time
        world = replace(make_world(seed=1), clock=clock, timers=clock)
        self.courier = Courier(world, ["h1:1", "h2:1", "h3:1"])
        self.links = FakeLinks()
        self.courier.links = self.links  # type: ignore[assignment]

    def up(self, number: int, *, term: int, leader: str) -> FakeLink:
        """A link comes up, and the node there tells its view."""
        link = FakeLink(f"h{number}:1", f"n{number}", self.time, heard_ns=self.time.now)
        self.links.by_address[link.address] = link
        self.courier.link_up(link)  # type: ignore[arg-type]
        self.view(link, term=term, leader=leader)
        return link

    def view(self, link: FakeLink, *, term: int, leader: str) -> None:
        body = msgspec.msgpack.encode(View(term, leader, SEATS))
        link.heard_ns = self.time.now
        self.courier.link_frame(link, Kind.VIEW, 0, body)  # type: ignore[arg-type]

    def answer(self, link: FakeLink, stream: int, body: bytes) -> None:
        link.heard_ns = self.time.now
        self.courier.link_frame(link, Kind.REPLY, stream, body)  # type: ignore[arg-type]

    def down(self, link: FakeLink) -> None:
        link.open = False
        self.links.by_address.pop(link.address, None)
        self.courier.link_down(link)  # type: ignore[arg-type]

    async def query_at(self, number: int, ms: float) -> "asyncio.Task[Reply]":
        """Begin a pinned query with ``ms`` milliseconds to live."""
        deadline = Deadline(self.time.now + int(ms * MS))
        task = asyncio.ensure_future(self.courier.query_at(f"h{number}:1", b"query", deadline))
        await asyncio.sleep(0)
        return task

    async def call(self, ms: float, **options: Any) -> "asyncio.Task[Reply]":
        """Begin a request with ``ms`` milliseconds to live."""
        deadline = Deadline(self.time.now + int(ms * MS))
        task = asyncio.ensure_future(
            self.courier.request(Kind.COMMAND, lambda: b"body", deadline, **options)
        )
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_a_request_waits_for_a_leader_and_follows_it(stage: Stage) -> None:
    call = await stage.call(1000)
    assert stage.links.wanted == ["h1:1", "h2:1", "h3:1"]
    follower = stage.up(1, term=3, leader="")
    assert follower.sent == []
    stage.view(follower, term=4, leader="n2")
    assert stage.links.wanted[-1] == "h2:1"
    leader = stage.up(2, term=4, leader="n2")
    [(kind, stream, body)] = leader.sent
    assert (kind, body) == (Kind.COMMAND, b"body")
    stage.answer(leader, stream, encode_reply(OK))
    assert await call == OK
    assert stage.courier.in_flight == 0


async def test_silence_of_the_leader_asks_the_others_and_a_newer_term_takes_over(
    stage: Stage,
) -> None:
    old = stage.up(1, term=4, leader="n1")
    call = await stage.call(5000)
    assert len(old.sent) == 1
    stage.links.wanted.clear()
    stage.time.advance(200)
    assert stage.links.wanted == []
    stage.time.advance(100)
    assert {"h2:1", "h3:1"} <= set(stage.links.wanted)
    assert len(old.sent) == 1, "the one that is silent is still waited for"
    new = stage.up(3, term=5, leader="n3")
    [(_, stream, _)] = new.sent
    stage.answer(new, stream, encode_reply(OK))
    assert await call == OK


async def test_a_leader_that_only_was_slow_is_trusted_again(stage: Stage) -> None:
    leader = stage.up(1, term=4, leader="n1")
    first = await stage.call(5000)
    stage.time.advance(300)
    assert stage.courier.routing.doubted
    stage.answer(leader, leader.sent[0][1], encode_reply(OK))
    assert await first == OK
    assert not stage.courier.routing.doubted
    second = await stage.call(5000)
    assert len(leader.sent) == 2
    stage.answer(leader, leader.sent[1][1], encode_reply(OK))
    assert await second == OK


async def test_two_nodes_that_point_at_each_other_are_not_asked_without_end(
    stage: Stage,
) -> None:
    call = await stage.call(5000)
    sends = 0

    def bounce() -> None:
        """Each node, dialled when it is not there, says that the other one leads."""
        nonlocal sends
        for number, other in ((1, "n2"), (2, "n1")):
            link = stage.links.by_address.get(f"h{number}:1")
            if link is None:
                link = stage.up(number, term=4, leader=other)
            for _, stream, _ in link.sent:
                sends += 1
                stage.answer(link, stream, encode_error_reply(ElsewhereError(hint=other)))
            link.sent.clear()

    for _ in range(200):
        bounce()
    at_once = sends
    assert 2 <= at_once <= 4
    while not call.done():
        stage.time.advance(1)
        bounce()
        await asyncio.sleep(0)
    assert at_once + 3 < sends < 60
    with pytest.raises((UnavailableError, ElsewhereError)) as error:
        await call
    assert error.value.happened == "no", "every attempt was refused"


async def test_refusals_are_repeated_with_growing_waits_and_end_definitely(stage: Stage) -> None:
    leader = stage.up(1, term=4, leader="n1")
    call = await stage.call(4000)
    times = []
    while not call.done():
        _, stream, _ = leader.sent[-1]
        times.append(stage.time.now)
        sent = len(leader.sent)
        stage.answer(leader, stream, encode_error_reply(OverloadedError("full", retry_after=0.1)))
        while len(leader.sent) == sent and not call.done():
            stage.time.advance(1)
            await asyncio.sleep(0)
    gaps = [(b - a) / MS for a, b in pairwise(times)]
    assert min(gaps) >= 100, "as long as was asked"
    assert 5 < len(times) < 40
    with pytest.raises(OverloadedError) as error:
        await call
    assert error.value.happened == "no"


async def test_what_was_sent_and_not_answered_is_indefinite(stage: Stage) -> None:
    stage.up(1, term=4, leader="n1")
    call = await stage.call(400)
    stage.time.advance(400)
    with pytest.raises(DeadlineError) as error:
        await call
    assert error.value.happened == "maybe"


async def test_what_was_never_sent_is_definite_and_says_why(stage: Stage) -> None:
    stage.links.errors["h1:1"] = "connection refused"
    call = await stage.call(400)
    stage.time.advance(400)
    with pytest.raises(UnavailableError, match="h1:1: connection refused") as error:
        await call
    assert error.value.happened == "no"
    with pytest.raises(TooLateError):
        await (await stage.call(0))


async def test_a_lost_link_parks_what_may_be_repeated_and_ends_what_may_not(stage: Stage) -> None:
    leader = stage.up(1, term=4, leader="n1")
    repeated = await stage.call(5000)
    single = await stage.call(5000, repeatable=False)
    stage.down(leader)
    with pytest.raises(ConnectionLostError):
        await single
    new = stage.up(2, term=5, leader="n2")
    [(_, stream, _)] = new.sent
    stage.answer(new, stream, encode_reply(OK))
    assert await repeated == OK


async def test_many_calls_share_one_deadline_timer(stage: Stage) -> None:
    stage.up(1, term=4, leader="n1")
    before = stage.time.armed
    calls = [await stage.call(400 + number) for number in range(50)]
    assert stage.time.armed <= before + 2, "one for deadlines, one that watches the leader"
    stage.time.advance(425)
    await asyncio.sleep(0)
    assert sum(call.done() for call in calls) == 26
    stage.time.advance(30)
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, DeadlineError) for error in ended)


async def test_closing_ends_what_is_under_way(stage: Stage) -> None:
    stage.up(1, term=4, leader="n1")
    call = await stage.call(400)
    stage.courier.close()
    with pytest.raises(ConnectionLostError):
        await call
    with pytest.raises(UnavailableError):
        await (await stage.call(400))


# --- pinned to one node ------------------------------------------------------------------------


async def test_a_pinned_query_goes_to_its_node_alone_whoever_leads(stage: Stage) -> None:
    call = await stage.query_at(1, 1000)
    assert stage.links.wanted == ["h1:1"]
    link = stage.up(1, term=4, leader="n2")
    assert stage.links.wanted == ["h1:1"], "nobody dials the leader for it"
    [(kind, stream, body)] = link.sent
    assert (kind, body) == (Kind.QUERY, b"query")
    stage.answer(link, stream, encode_reply(OK))
    assert await call == OK
    again = await stage.query_at(1, 1000)
    stage.answer(link, link.sent[1][1], encode_reply(OK))
    assert await again == OK
    assert stage.links.wanted == ["h1:1"], "the connection stays"
    assert stage.courier.in_flight == 0


@pytest.mark.parametrize(
    "error",
    [
        ElsewhereError(hint="n2"),
        UnavailableError("no majority", retry_after=0.01),
        OverloadedError("full", retry_after=0.01),
        DeadlineError("no majority answered in time"),
    ],
)
async def test_a_pinned_query_passes_refusals_on_and_repeats_nothing(
    stage: Stage, error: Exception
) -> None:
    stage.up(2, term=4, leader="n2")
    link = stage.up(1, term=4, leader="n2")
    call = await stage.query_at(1, 5000)
    stage.answer(link, link.sent[0][1], encode_error_reply(error))
    with pytest.raises(type(error)):
        await call
    stage.time.advance(2000)
    assert len(link.sent) == 1
    assert stage.courier.routing.leader == "n2"


async def test_a_pinned_query_to_a_node_that_is_not_there_ends_with_the_first_dial(
    stage: Stage,
) -> None:
    call = await stage.query_at(1, 5000)
    stage.links.errors["h1:1"] = "connection refused"
    stage.down(FakeLink("h1:1", "", stage.time))
    with pytest.raises(UnavailableError, match="h1:1: connection refused") as error:
        await call
    assert error.value.happened == "no"
    assert stage.links.wanted == ["h1:1"]


async def test_a_late_word_of_an_old_link_does_not_end_a_pinned_query(stage: Stage) -> None:
    old = FakeLink("h1:1", "n1", stage.time)
    call = await stage.query_at(1, 5000)
    new = FakeLink("h1:1", "", stage.time, open=False)
    stage.links.by_address["h1:1"] = new
    stage.courier.link_down(old)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not call.done()
    link = stage.up(1, term=4, leader="n1")
    stage.answer(link, link.sent[0][1], encode_reply(OK))
    assert await call == OK


async def test_a_pinned_query_that_is_not_answered_ends_at_its_deadline(stage: Stage) -> None:
    link = stage.up(1, term=4, leader="n1")
    unanswered = await stage.query_at(1, 400)
    unreached = await stage.query_at(2, 400)
    stage.time.advance(400)
    with pytest.raises(DeadlineError):
        await unanswered
    with pytest.raises(UnavailableError, match="h2:1: no answer"):
        await unreached
    assert len(link.sent) == 1
    assert stage.links.wanted == ["h2:1"], "silence made nobody look for another leader"
    with pytest.raises(TooLateError):
        await (await stage.query_at(1, 0))


async def test_a_lost_link_ends_a_pinned_query_and_starts_no_search(stage: Stage) -> None:
    link = stage.up(1, term=4, leader="n1")
    call = await stage.query_at(1, 5000)
    stage.down(link)
    with pytest.raises(ConnectionLostError):
        await call
    assert stage.links.wanted == []


async def test_pinned_links_stay_open_beside_calls_that_follow_the_leader(stage: Stage) -> None:
    pinned = stage.up(1, term=4, leader="n2")
    query = await stage.query_at(1, 5000)
    stage.answer(pinned, pinned.sent[0][1], encode_reply(OK))
    await query
    call = await stage.call(5000)
    leader = stage.up(2, term=4, leader="n2")
    assert pinned.open
    stage.answer(leader, leader.sent[0][1], encode_reply(OK))
    assert await call == OK
    assert len(pinned.sent) == 1


async def test_a_deposed_node_that_answers_a_pinned_query_is_not_trusted_for_it(
    stage: Stage,
) -> None:
    link = stage.up(1, term=4, leader="n1")
    waiting = await stage.call(5000)
    stage.time.advance(300)
    assert stage.courier.routing.doubted
    query = await stage.query_at(1, 1000)
    stage.answer(link, link.sent[1][1], encode_reply(OK))
    assert await query == OK
    assert stage.courier.routing.doubted
    waiting.cancel()


def test_a_node_that_refuses_is_named_whenever_the_deadline_of_a_block_comes() -> None:
    """The block's own error knows nothing of the node: no rest between dials may end in it."""

    async def main() -> None:
        async with outlast.connect(None, "127.0.0.1:1", timeout=60) as client:
            for number in range(40):
                expected = pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1")
                with expected, outlast.deadline(0.1 + 0.0011 * number):
                    await client.status("127.0.0.1:1")

    sim.run(main)
