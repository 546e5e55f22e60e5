"""The membership core against naive second versions, and against anything at all."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.agenda import Agenda
from outlast.detect.core.swim.api import (
    AccusationsAllowed,
    Confirmed,
    Leave,
    LocalScore,
    Me,
    MemberState,
    PacketReceived,
    PortRefused,
    SetMetadata,
    Started,
    StreamFailed,
    StreamReceived,
    TimerFired,
)
from outlast.detect.core.swim.gossip import GossipQueue
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.kernel import Prng

S = 1_000_000_000
names = st.sampled_from(["a", "b", "c", "d"])
small = st.integers(0, 4)
accusations = st.lists(
    st.builds(
        wire.Accusation, names, st.booleans(), st.integers(0, 9999), small, small, small, small
    ),
    max_size=4,
)
addresses = st.sampled_from(["a:1", "b:1", "c:1", "d:1"])
metadata = st.dictionaries(st.text(max_size=4), st.text(max_size=9), max_size=2)
news = st.one_of(
    st.builds(wire.AliveNews, names, addresses, small, small, metadata),
    st.builds(wire.SuspectNews, names, small, accusations),
    st.builds(wire.DeadNews, names, small, accusations),
    st.builds(wire.LeftNews, names, small),
)
updates = st.lists(news, max_size=5)
messages = st.one_of(
    st.builds(wire.Ping, small, names, small, names, updates),
    st.builds(wire.Ack, small, names, small, st.booleans(), updates),
    st.builds(wire.PingRequest, small, names, small, names, addresses, updates),
    st.builds(wire.Nack, small, names, small, st.booleans(), updates),
    st.builds(wire.Gossip, names, small, updates),
    st.builds(wire.Leaving, small, names, small),
)
entries = st.lists(
    st.builds(
        wire.Entry, names, addresses, small, small, st.integers(0, 3), metadata, accusations
    ),
    max_size=5,
)
bodies = st.one_of(
    st.builds(wire.Exchange, names, entries),
    st.builds(wire.ExchangeAnswer, names, entries),
    st.builds(wire.StreamPing, small, names, names),
    st.builds(wire.StreamAck, small, names, small),
)
inputs = st.one_of(
    st.builds(PacketReceived, messages.map(wire.encode), addresses),
    st.builds(PacketReceived, st.binary(max_size=40), addresses),
    st.builds(StreamReceived, bodies.map(wire.encode), addresses, st.none() | small),
    st.builds(StreamFailed, addresses),
    st.builds(PortRefused, addresses),
    st.builds(LocalScore, st.floats()),
    st.builds(AccusationsAllowed, st.booleans()),
    st.builds(Confirmed, names, st.booleans()),
    st.builds(SetMetadata, metadata),
    st.just(TimerFired()),
)


@settings(max_examples=150, deadline=None)
@given(messages)
def test_a_message_comes_as_it_was_sent(message: wire.Message) -> None:
    assert wire.decode_packet(wire.encode(message)) == message


@settings(max_examples=150, deadline=None)
@given(bodies)
def test_a_body_comes_as_it_was_sent(body: wire.StreamBody) -> None:
    assert wire.decode_stream(wire.encode(body)) == body


@settings(max_examples=150, deadline=None)
@given(messages, st.data())
def test_a_damaged_packet_is_a_packet_or_a_wire_error(
    message: wire.Message, data: st.DataObject
) -> None:
    raw = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        decoded = wire.decode_packet(cut)
    except wire.WireError:
        return
    assert wire.decode_packet(wire.encode(decoded)) == decoded


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(inputs, st.integers(0, 3 * S)), max_size=40),
    st.sampled_from(
        [SwimSettings.lan(members_max=3), SwimSettings.lan(confirm=True), SwimSettings.plain()]
    ),
    st.booleans(),
)
def test_nothing_that_comes_raises_or_turns_an_incarnation_back(
    story: list[tuple[object, int]], chosen: SwimSettings, leaves: bool
) -> None:
    node = SwimNode(chosen, Me("a", "a:1"), Prng(1))
    now = 0
    node.step(Started(("b:1",)), now)
    seen: dict[str, int] = {}
    for event, later in [*story, *([(Leave(), 0)] if leaves else []), (TimerFired(), 9 * S)]:
        now += later
        effects = node.step(event, now)  # type: ignore[arg-type]
        members = node.members()
        assert len(members) <= chosen.members_max
        assert members[0].name == "a"
        seen = {name: seen[name] for name in seen if node.member(name) is not None}
        for member in members:
            assert member.incarnation >= seen.get(member.name, 0)
            seen[member.name] = member.incarnation
            if member.state is MemberState.ALIVE:
                assert member.accusers == ()
        for packet in effects.packets:
            assert len(packet.data) <= chosen.packet_bytes_max
            wire.decode_packet(packet.data)
        for stream in effects.streams:
            wire.decode_stream(stream.data)
        table = node._table
        states = [peer.state for peer in table.peers.values()]
        assert table.alive == states.count(MemberState.ALIVE)
        gone = states.count(MemberState.DEAD) + states.count(MemberState.LEFT)
        assert table.present == len(states) - gone
        assert set(table.dead) == {
            peer.name for peer in table.peers.values() if peer.state is MemberState.DEAD
        }
        for peer in table.suspects():
            assert ("suspect", peer.name) in node._context.agenda
    assert node.deadline_ns > now or effects.left


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), small, st.integers(0, 50)),
            st.tuples(st.just("cancel"), small, st.just(0)),
            st.tuples(st.just("pop"), small, st.integers(0, 50)),
        ),
        max_size=60,
    )
)
def test_an_agenda_is_a_sorted_table(story: list[tuple[str, int, int]]) -> None:
    agenda, naive = Agenda(), dict[tuple[str, int | str], int]()
    for what, number, when in story:
        key = ("k", number)
        if what == "set":
            agenda.set(key, when)
            naive[key] = when
        elif what == "cancel":
            agenda.cancel(key)
            naive.pop(key, None)
        else:
            popped = agenda.pop_due(when)
            due = min(naive.values(), default=99)
            if popped is None:
                assert due > when
            else:
                assert naive.pop(popped) == due <= when
        assert len(agenda) == len(naive)
        if naive:
            assert agenda.next_ns() == min(naive.values())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), names, st.integers(5, 40)),
            st.tuples(st.just("take"), names, st.integers(0, 100)),
        ),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_gossip_fits_and_no_piece_goes_more_often_than_it_may(
    story: list[tuple[str, str, int]], most: int
) -> None:
    queue, left = GossipQueue(), dict[bytes, int]()
    latest: dict[str, bytes] = {}
    for number, (what, name, size) in enumerate(story):
        if what == "put":
            piece = f"{number:05}".encode().ljust(size, b".")
            left.pop(latest.get(name, b""), None)
            latest[name] = piece
            left[piece] = most
            queue.put(name, piece)
            continue
        taken = queue.take(size, most)
        assert sum(map(len, taken)) <= size
        for piece in taken:
            left[piece] -= 1  # KeyError: it was replaced, or was sent often enough
            if not left[piece]:
                del left[piece]
        assert len(queue) == len(left)
