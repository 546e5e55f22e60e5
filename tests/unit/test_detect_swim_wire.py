"""Packets and streams: what is one of ours, and that nothing else is believed."""

import msgspec
import pytest

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import Effects, Me, PacketReceived, Started, StreamReceived
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import PacketDropped
from outlast.kernel import Prng

S = 1_000_000_000


def alive(name: str = "b", **changes: object) -> wire.AliveNews:
    fields = {"address": "b:1", "incarnation": 1, "session": 7, "metadata": {}} | changes
    return wire.AliveNews(name, **fields)  # type: ignore[arg-type]


def node(name: str = "a", **changes: object) -> SwimNode:
    made = SwimNode(SwimSettings.lan(**changes), Me(name, f"{name}:1"), Prng(1))
    made.step(Started(()), 0)
    return made


def give(one: SwimNode, message: wire.Message, now_ns: int = S // 100) -> Effects:
    return one.step(PacketReceived(wire.encode(message), "b:1"), now_ns)


BASE = wire.Ping(1, "b", 0, "a", [alive()])


class TestCodec:
    def test_what_was_sent_is_what_comes(self) -> None:
        for message in (
            BASE,
            wire.Ack(1, "b", 0, True, []),
            wire.PingRequest(1, "b", 0, "a", "a:1", []),
            wire.Nack(1, "b", 0, True, []),
            wire.Gossip("b", 3, [wire.LeftNews("b", 1)]),
            wire.Leaving(1, "b", 4),
        ):
            assert wire.decode_packet(wire.encode(message)) == message

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "unknown version"),
            (b"\x02" + wire.encode(BASE)[1:], "unknown version"),
            (wire.encode(BASE)[:-1], "malformed"),
            (wire.encode(BASE) + b"\x00", "malformed"),
            (b"\x01" + b"\x91" * 1000, "malformed"),
            (b"\x01" + msgspec.msgpack.encode([9, 1, "b", 0]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, 1, "b", 0, "a", [], "more"]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, "1", "b", 0, "a", []]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, -1, "b", 0, "a", []]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, 1, "", 0, "a", []]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, 1, "b" * 65, 0, "a", []]), "malformed"),
            (b"\x01" + msgspec.msgpack.encode([0, 1, "b", 1 << 60, "a", []]), "malformed"),
            (b"\x01\x96\x00\x01\xa1b\x00\xa1a\xdd\xff\xff\xff\xff", "malformed"),
            (b"\x01" + b"\xff" * 1300, "too long"),
        ],
    )
    def test_anything_else_is_dropped_by_reason(self, data: bytes, reason: str) -> None:
        with pytest.raises(wire.WireError, match=reason):
            wire.decode_packet(data)
        one = node()
        effects = one.step(PacketReceived(data, "evil:1"), S)
        assert effects.packets == ()
        assert one.snapshot()["dropped"] == {reason: 1}

    def test_too_many_updates_are_malformed(self) -> None:
        message = wire.Gossip("b", 0, [wire.LeftNews("b", 1)] * 129)
        with pytest.raises(wire.WireError, match="malformed"):
            wire.decode_packet(wire.encode(message))

    def test_a_stream_of_another_kind_is_malformed(self) -> None:
        with pytest.raises(wire.WireError, match="malformed"):
            wire.decode_stream(wire.encode(BASE))
        one = node()
        one.step(StreamReceived(wire.encode(BASE), "evil:1", 5), S)
        assert one.snapshot()["dropped"] == {"malformed": 1}


class TestHostility:
    def test_drops_are_told_once_in_a_while_with_their_number(self) -> None:
        one = node()
        told = [
            event
            for second in range(12)
            for event in one.step(PacketReceived(b"x", "evil:1"), second * S).events
        ]
        drops = [event for event in told if isinstance(event, PacketDropped)]
        assert [event.count for event in drops] == [1, 10]
        assert drops[0].source == "evil:1"

    def test_a_packet_in_our_own_name_is_dropped(self) -> None:
        one = node()
        assert give(one, wire.Ping(1, "a", 0, "a", [])).packets == ()
        one.step(StreamReceived(wire.encode(wire.StreamPing(1, "a", "a")), "x:1", 4), S)
        assert one.snapshot()["dropped"] == {"own name": 2}

    def test_a_ping_for_another_name_is_not_answered(self) -> None:
        one = node()
        assert give(one, wire.Ping(1, "b", 0, "z", [])).packets == ()
        assert one.snapshot()["dropped"] == {"for another name": 1}

    def test_an_incarnation_does_not_jump(self) -> None:
        one = node()
        give(one, BASE)
        far = 1 << 30
        for news in (
            alive(incarnation=far),
            wire.SuspectNews("b", far, [wire.Accusation("c", False, 1)]),
            wire.DeadNews("b", far, [wire.Accusation("c", False, 1)]),
            wire.LeftNews("b", far),
            wire.SuspectNews("a", far, []),
        ):
            give(one, wire.Gossip("c", 0, [news]))
        member = one.member("b")
        assert member is not None
        assert member.incarnation == 1
        assert member.state == "alive"
        assert one.snapshot()["incarnation"] == 0
        assert one.snapshot()["dropped"] == {"incarnation jumps": 5}

    def test_news_too_long_for_a_packet_are_dropped(self) -> None:
        one = node()
        metadata = {"k": "v" * 510}
        give(one, wire.Gossip("b", 0, [alive(metadata=metadata)]))
        give(one, wire.Gossip("b", 0, [alive(name="ä" * 64, address="ö" * 128, session=1)]))
        assert one.snapshot()["dropped"] == {"too long": 1}

    def test_names_that_would_upset_a_terminal_are_dropped(self) -> None:
        one = node()
        give(one, wire.Gossip("x", 0, [alive("b\x1b[2J"), alive("c", address="c\n:1")]))
        buried = wire.Entry("d\x07", "d:1", 1, 7, 2, {}, [])
        one.step(StreamReceived(wire.encode(wire.Exchange("x", [buried])), "x:1", 4), S)
        assert len(one.members()) == 1
        assert one.snapshot()["dropped"] == {"unprintable": 2}

    def test_members_are_bounded(self) -> None:
        one = node(members_max=3)
        for name in ("b", "c", "d"):
            give(one, wire.Gossip("b", 0, [alive(name, address=f"{name}:1")]))
        assert [member.name for member in one.members()] == ["a", "b", "c"]
        assert one.snapshot()["dropped"] == {"too many members": 1}

    def test_the_removed_make_room_for_the_living(self) -> None:
        one = node(members_max=3)
        for news in (alive("b"), alive("c", address="c:1"), wire.LeftNews("b", 1)):
            give(one, wire.Gossip("x", 0, [news]))
        give(one, wire.Gossip("d", 0, [alive("d", address="d:1")]))
        assert [member.name for member in one.members()] == ["a", "c", "d"]

    def test_nobody_accuses_itself_and_the_dead_accuse_nobody(self) -> None:
        one = node()
        news = [alive("b"), alive("c", address="c:1"), wire.LeftNews("c", 1)]
        give(one, wire.Gossip("b", 0, news))
        for by in ("b", "c"):
            accusation = wire.Accusation(by, False, 1)
            give(one, wire.Gossip("x", 0, [wire.SuspectNews("b", 1, [accusation])]))
        member = one.member("b")
        assert member is not None
        assert member.state == "alive"

    def test_bodies_out_of_place_are_dropped(self) -> None:
        one = node()
        one.step(StreamReceived(wire.encode(wire.Exchange("b", [])), "b:1", None), S)
        one.step(StreamReceived(wire.encode(wire.StreamAck(1, "b", 0)), "b:1", 3), S)
        assert one.snapshot()["dropped"] == {"out of place": 2}

    def test_requests_to_probe_others_are_bounded(self) -> None:
        one = node()
        for seq in range(300):
            give(one, wire.PingRequest(seq, "b", 0, "z", "z:1", []))
        assert one.snapshot()["dropped"] == {"too many requests": 44}
