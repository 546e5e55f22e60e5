"""Parts of the membership driver by themselves: arguments, readers, rates, pauses, answers."""

import asyncio
import json
from typing import Any

import pytest

from outlast import sim
from outlast.detect import EventsMissed, Members, SeedsUnanswered, SwimSettings
from outlast.detect.members_feed import Audience, Seldom
from outlast.detect.members_net import Net
from outlast.detect.members_pause import CLEAN_NS, LATE_NS, PAUSE_NS, OwnPauses
from outlast.detect.members_seal import OVERHEAD_MAX, Purpose, make_seal
from outlast.detect.members_stream import ask
from outlast.detect.members_view import decode_view, encode_view
from outlast.kernel import ConfigError, Event, ProtocolError
from tests.support.members_group import KEY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name is ''; 1 to 64 bytes"),
        ({"name": "x" * 65}, "1 to 64 bytes"),
        ({"name": "a\nb"}, "all printable"),
        ({"bind": "10.0.0.1:7946"}, "without a key only a loopback address"),
        ({"bind": "0.0.0.0:7946", "key": KEY}, "others cannot reach 0.0.0.0; give advertise"),
        ({"bind": "127.0.0.1:port"}, "port 'port' is not a number"),
        ({"seeds": ["a:b:c"]}, "IPv6 address in brackets"),
        ({"key": b"short"}, "must be 32 bytes"),
        ({"profile": "slow"}, "profile is 'slow'; one of lan, fast, wan"),
        ({"join_timeout": 0}, "join_timeout is 0"),
        ({"events_max": 0}, "events_max 0"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Members(arguments.pop("name", "n1"), **arguments)


def test_the_settings_are_those_of_the_profile_and_shown_without_the_key() -> None:
    members = Members("n1", profile="fast", key=KEY, seeds="a:1,b:2, a:1")
    assert members.settings == SwimSettings.fast()
    assert Members("n1", profile=SwimSettings.wan(), on_unreachable=bool).settings.confirm
    told = members.describe()
    assert (told["protection"], told["seeds"]) == ("encrypted", ["a:1", "b:2"])
    assert KEY.hex() not in json.dumps(told)
    assert Members("n1").describe()["protection"] == "none"
    assert Members("n1", key=KEY, encrypt=False).describe()["protection"] == "signed"


def test_metadata_that_are_too_long_stop_the_start() -> None:
    async def main() -> None:
        members = Members("n1", bind="127.0.0.1:7000", metadata={"a": "b" * 600})
        with pytest.raises(ConfigError, match="at most 512"):
            await members.start()
        async with Members("n1", bind="127.0.0.1:7000") as other:
            with pytest.raises(ConfigError, match="at most 512"):
                other.set_metadata({"a": "b" * 600})

    sim.run(main)


# --- readers -------------------------------------------------------------------------------------


def an_event(number: int) -> Event:
    return SeedsUnanswered(seeds=(), after=float(number))


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def main() -> None:
        audience = Audience("n1", 3)
        feed = audience.feed()
        for number in range(5):
            audience.tell(an_event(number))
        assert await anext(feed) == EventsMissed(node="n1", count=2)
        assert [await anext(feed) for _ in range(3)] == [an_event(n) for n in (2, 3, 4)]
        audience.tell(an_event(5))
        assert await anext(feed) == an_event(5)

    sim.run(main)


def test_a_reader_waits_and_ends_after_what_was_there() -> None:
    async def main() -> None:
        audience = Audience("n1", 3)
        feed = audience.feed()
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(1)
        audience.tell(an_event(1))
        assert await waiting == an_event(1)
        cancelled = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        audience.tell(an_event(2))
        audience.end()
        assert [event async for event in feed] == [an_event(2)]

    sim.run(main)


def test_a_reader_that_nobody_holds_is_forgotten() -> None:
    audience = Audience("n1", 3)
    feeds = [audience.feed() for _ in range(5)]
    del feeds
    assert not audience._feeds


# --- rates ---------------------------------------------------------------------------------------


def test_one_kind_is_told_seldom_and_with_its_number() -> None:
    seldom = Seldom(100)
    assert [seldom.note("a", at) for at in (0, 10, 99, 100, 150, 300)] == [1, 0, 0, 3, 0, 2]
    assert seldom.note("b", 20) == 1


def test_kinds_without_number_share_one_count() -> None:
    seldom = Seldom(100, kinds_max=2)
    assert [seldom.note(kind, 0) for kind in "abcdc"] == [1, 1, 1, 0, 0]
    assert seldom.note("e", 100) == 3


# --- own pauses ----------------------------------------------------------------------------------


def test_a_pause_of_its_own_forbids_to_accuse_for_a_while() -> None:
    pauses = OwnPauses()
    pauses.timer(PAUSE_NS - 1, 1)
    assert pauses.may_accuse(1)
    pauses.timer(PAUSE_NS, 10)
    assert not pauses.may_accuse(10 + CLEAN_NS - 1)
    assert pauses.may_accuse(10 + CLEAN_NS)


def test_the_score_follows_lateness_and_falls_again() -> None:
    pauses = OwnPauses()
    pauses.timer(LATE_NS, 0)
    assert pauses.score == 0
    pauses.timer(400_000_000, 0)
    assert pauses.score == 0.4
    pauses.timer(0, 0)
    assert pauses.score == pytest.approx(0.3)
    pauses.timer(9_000_000_000, 0)
    assert pauses.score == 1


# --- the network ---------------------------------------------------------------------------------


class Hearing:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.answer: bytes | None = b"answer"

    def packet(self, data: bytes, source: str) -> None:
        self.told.append(("packet", data))

    async def question(self, purpose: Purpose, data: bytes, source: str) -> bytes | None:
        self.told.append(("question", data))
        return self.answer

    def answered(self, target: str, data: bytes) -> None:
        self.told.append(("answered", target, data))

    def failed(self, target: str, *, refused: bool) -> None:
        self.told.append(("failed", target, refused))

    def rejected(self, source: str, reason: str) -> None:
        self.told.append(("rejected", reason))


def on_a_net(story: Any) -> None:
    async def main() -> None:
        hearing = Hearing()
        net = Net(sim.current_world(), make_seal([KEY]), hearing, stream_timeout=2.0)
        await net.open("127.0.0.1", 0)
        try:
            await story(net, hearing, f"127.0.0.1:{net.port}")
        finally:
            await net.close()

    sim.run(main)


def test_a_datagram_and_a_question_arrive_on_one_port() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        net.send(own, b"news")
        net.ask(own, b"question")
        await asyncio.sleep(0.5)
        told = [("packet", b"news"), ("question", b"question"), ("answered", own, b"answer")]
        assert hearing.told == told
        assert net.sent_packets == net.received_packets == 1
        assert net.sent_bytes == net.received_bytes == 4 + OVERHEAD_MAX

    on_a_net(story)


def test_a_port_on_which_nobody_listens_is_told_apart_from_silence() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        sim.current().add_host("off")
        sim.current().network.way("test", "off").cut = True
        off = sim.current().hosts["off"].address
        net.ask("127.0.0.1:9", b"x")
        net.ask(f"{off}:9", b"x")
        await asyncio.sleep(3)
        assert hearing.told == [
            ("failed", "127.0.0.1:9", True),
            ("failed", f"{off}:9", False),
        ]

    on_a_net(story)


def test_a_question_without_an_answer_has_failed() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        hearing.answer = None
        net.ask(own, b"x")
        await asyncio.sleep(0.5)
        assert hearing.told == [("question", b"x"), ("failed", own, False)]

    on_a_net(story)


def test_only_numbers_are_dialled_and_names_are_never_looked_up() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        for target in ("test:7946", "127.0.0.1", "127.0.0.1:0", "nonsense", ""):
            net.send(target, b"x")
            net.send(target, b"x")
        assert (net.dropped, net.sent_packets) == (10, 0)
        net.ask("test:7946", b"x")
        await asyncio.sleep(0.1)
        assert hearing.told == [("failed", "test:7946", False)]

    on_a_net(story)


def test_questions_under_way_are_bounded() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        for _ in range(50):
            net.ask(own, b"x")
        await asyncio.sleep(3)
        ends = [told[0] for told in hearing.told if told[0] in {"answered", "failed"}]
        assert sorted(ends) == ["answered"] * 32 + ["failed"] * 18

    on_a_net(story)


def test_a_question_that_is_too_long_is_not_sent() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        net.ask(own, bytes((1 << 20) + 1))
        net.ask(own, bytes(1 << 20))
        await asyncio.sleep(2)
        assert ("failed", own, False) in hearing.told
        assert ("answered", own, b"answer") in hearing.told

    on_a_net(story)


def test_an_answer_under_another_key_is_none() -> None:
    async def main() -> None:
        async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(4)
            message = make_seal([b"x" * 32]).close(Purpose.EXCHANGE_ANSWER, b"lies")
            writer.write(len(message).to_bytes(4, "big") + message)
            writer.close()

        server = await asyncio.start_server(lie, "127.0.0.1", 9)
        with pytest.raises(ProtocolError, match="unknown key"):
            await ask("127.0.0.1", 9, make_seal([KEY]), Purpose.EXCHANGE, b"x", timeout=1.0)
        hearing = Hearing()
        net = Net(sim.current_world(), make_seal([KEY]), hearing, stream_timeout=2.0)
        await net.open("127.0.0.1", 0)
        net.ask("127.0.0.1:9", b"x")
        await asyncio.sleep(1)
        assert hearing.told == [("rejected", "unknown key"), ("failed", "127.0.0.1:9", False)]
        await net.close()
        server.close()

    sim.run(main)


def test_a_closed_net_sends_nothing_and_tells_nothing() -> None:
    async def story(net: Net, hearing: Hearing, own: str) -> None:
        net.ask(own, b"x")
        net.ask("127.0.0.1:9", b"x")
        await net.close()
        net.send(own, b"x")
        net.ask(own, b"x")
        await asyncio.sleep(1)
        assert [told for told in hearing.told if told[0] != "question"] == []

    on_a_net(story)


# --- the view ------------------------------------------------------------------------------------


ROW: dict[str, Any] = {
    "name": "n1", "address": "127.0.0.1:1", "incarnation": 0, "state": "alive", "metadata": {},
    "accusers": [], "seconds": 1.0, "rtt_ms": None,
}  # fmt: skip


def test_a_view_is_read_as_it_was_written() -> None:
    assert decode_view(encode_view("n1", [ROW])) == {"schema": 1, "name": "n1", "members": [ROW]}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b'{"schema": 2}', b'{"schema": 1, "name": 1, "members": []}',
        b'{"schema": 1, "name": "n1", "members": {}}', b"[" * 100_000, b"\xff",
        json.dumps({"schema": 1, "name": "n1", "members": [1]}).encode(),
        json.dumps({"schema": 1, "name": "n1", "members": [{**ROW, "seconds": "x"}]}).encode(),
        json.dumps({"schema": 1, "name": "n1", "members": [{"name": "n1"}]}).encode(),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="the answer"):
        decode_view(data)
