"""Probes step by step: what is sent, what is waited for, and what follows."""

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import (
    MemberState,
    PortRefused,
    StreamFailed,
    TimerFired,
)
from outlast.detect.membership_events import (
    MemberSuspected,
)
from tests.support.swim_bench import MS, Bench, S, accused


class TestProbe:
    def test_no_answer_leads_to_others_and_a_stream_and_then_to_an_accusation(self) -> None:
        bench = Bench("b")
        bench.until(wire.Ping)
        began = bench.now_ns
        asked = bench.timer()
        while not asked.streams:
            asked = bench.timer()
        assert bench.now_ns - began == 200 * MS
        body = wire.decode_stream(asked.streams[0].data)
        assert isinstance(body, wire.StreamPing)
        bench.step(StreamFailed("b:1"))
        assert bench.kinds() == [MemberSuspected]

    def test_an_answer_over_a_stream_is_an_answer(self) -> None:
        bench = Bench("b")
        ping = bench.until(wire.Ping)
        while not bench.timer().streams:
            pass
        bench.body(wire.StreamAck(ping.seq, "b", 1))
        bench.step(StreamFailed("b:1"))
        assert bench.events == []

    def test_an_answer_of_another_name_is_none(self) -> None:
        bench = Bench("b")
        ping = bench.until(wire.Ping)
        bench.packet(wire.Ack(ping.seq, "z", 1, False, []), "b:1")
        bench.body(wire.StreamAck(ping.seq, "z", 1))
        assert len(bench.node._prober) == 1
        bench.packet(wire.Ack(ping.seq, "b", 1, False, []), "b:1")
        assert len(bench.node._prober) == 0

    def test_an_answer_measures_the_round_trip_and_heals_the_score(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("a", 0, accused("b")))
        ping = bench.until(wire.Ping)
        bench.now_ns += 3 * MS
        bench.packet(wire.Ack(ping.seq, "b", 1, False, []), "b:1")
        assert bench.node.member("b").rtt_ns == 3 * MS  # type: ignore[union-attr]
        assert bench.node.snapshot()["score"] == 0

    def test_who_does_not_know_us_is_told_who_we_are(self) -> None:
        bench = Bench("b")
        ping = bench.until(wire.Ping)
        effects = bench.packet(wire.Ack(ping.seq, "b", 1, True, []), "b:1")
        told = wire.decode_packet(effects.packets[0].data)
        assert isinstance(told, wire.Gossip)
        assert isinstance(told.updates[0], wire.AliveNews)
        assert told.updates[0].name == "a"

    def test_missing_nacks_cost_points_and_nacks_none(self) -> None:
        for answers, score in ((True, 0), (False, 2)):
            bench = Bench("b", "c", "d")
            ping = bench.until(wire.Ping)
            requests = []
            while not requests:
                effects = bench.timer()
                messages = [wire.decode_packet(one.data) for one in effects.packets]
                requests = [one for one in messages if isinstance(one, wire.PingRequest)]
            assert len(requests) == 2
            others = sorted({"b", "c", "d"} - {ping.target})
            for name in others if answers else ():
                bench.packet(wire.Nack(ping.seq, name, 1, False, []), f"{name}:1")
            bench.packet(wire.Nack(ping.seq, "z", 1, False, []), "z:1")
            bench.packet(wire.Nack(99, "z", 1, False, []), "z:1")
            bench.step(StreamFailed(f"{ping.target}:1"))
            while not bench.events:
                bench.timer()
            first = bench.events[0]
            assert isinstance(first, MemberSuspected)
            assert first.evidence.nacks == (2 if answers else 0)
            assert first.evidence.score == score

    def test_who_is_asked_says_that_it_got_no_answer(self) -> None:
        bench = Bench("b")
        effects = bench.packet(wire.PingRequest(5, "x", 0, "b", "b:1", []))
        assert effects.packets[0].target == "b:1"
        sent: list[wire.Message] = []
        began = bench.now_ns
        while bench.now_ns - began < 200 * MS:
            sent += [
                wire.decode_packet(one.data)
                for one in bench.timer().packets
                if one.target == "x:1"
            ]
        assert [type(one) for one in sent] == [wire.Nack]

    def test_who_is_asked_passes_an_answer_on(self) -> None:
        for streamed in (False, True):
            bench = Bench("b")
            effects = bench.packet(wire.PingRequest(5, "x", 0, "b", "b:1", []))
            ping = wire.decode_packet(effects.packets[0].data)
            assert isinstance(ping, wire.Ping)
            bench.packet(wire.Ack(ping.seq, "z", 1, False, []), "b:1")  # not who was asked for
            if streamed:
                effects = bench.body(wire.StreamAck(ping.seq, "b", 1))
            else:
                effects = bench.packet(wire.Ack(ping.seq, "b", 1, False, []), "b:1")
            ack = wire.decode_packet(effects.packets[0].data)
            assert isinstance(ack, wire.Ack)
            assert (ack.seq, ack.sender) == (5, "b")
            assert isinstance(ack.updates[0], wire.AliveNews)

    def test_who_is_asked_says_that_the_port_refuses(self) -> None:
        bench = Bench()
        bench.packet(wire.PingRequest(5, "x", 0, "b", "b:1", []))
        effects = bench.step(PortRefused("b:1"))
        nack = wire.decode_packet(effects.packets[0].data)
        assert isinstance(nack, wire.Nack)
        assert nack.refused

    def test_plain_swim_says_nothing(self) -> None:
        bench = Bench("b", nacks=False, refusals=False)
        bench.packet(wire.PingRequest(5, "x", 0, "b", "b:1", []))
        assert bench.step(PortRefused("b:1")).packets == ()
        began = bench.now_ns
        while bench.now_ns - began < 200 * MS:
            assert not [one for one in bench.timer().packets if one.target == "x:1"]

    def test_a_refused_datagram_that_was_no_probe_is_looked_into_once(self) -> None:
        bench = Bench("b", "c")
        bench.now_ns += S // 4
        bench.step(TimerFired())
        bench.node._table.peers["b"].probed_ns = 0
        bench.node._prober.void()
        assert len(bench.step(PortRefused("b:1")).streams) == 1
        bench.node._prober.void()
        assert bench.step(PortRefused("b:1")).streams == ()
        assert bench.step(PortRefused("nobody:1")).streams == ()

    def test_a_suspect_is_asked_once_more_before_it_is_removed(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("b", 1, accused("x")))
        while bench.state("b")[0] == "suspect":
            sent = bench.timer().packets
            pings = [wire.decode_packet(one.data) for one in sent if one.target == "b:1"]
            if any(isinstance(one, wire.Ping) for one in pings):
                last = bench.now_ns
            bench.node._context.view.heard(bench.now_ns)
        assert bench.state("b")[0] == "dead"
        assert bench.now_ns - last <= 300 * MS

    def test_a_stop_of_its_own_accuses_nobody_and_holds_suspicions(self) -> None:
        bench = Bench("b", "c")
        words = accused("x", "y", refused=True, observers=2)
        bench.news(wire.SuspectNews("b", 1, words))
        bench.until(wire.Ping)
        due = bench.node._context.agenda._when["suspect", "b"]
        at = bench.node.deadline_ns
        bench.now_ns = at + 5 * S
        bench.step(TimerFired())
        assert bench.node._context.agenda._when["suspect", "b"] == due + 5 * S
        assert len(bench.node._prober) <= 1
        assert bench.events[-1].by in {"x", "y"}  # type: ignore[attr-defined]

    def test_a_stop_counts_once_however_much_has_waited(self) -> None:
        bench = Bench("b", "c")
        bench.news(wire.SuspectNews("b", 1, accused("x")))
        due = bench.node._context.agenda._when["suspect", "b"]
        bench.now_ns = bench.node.deadline_ns + 5 * S
        for _ in range(4):
            bench.packet(wire.Gossip("c", 1, []))
        assert bench.node._context.agenda._when["suspect", "b"] == due + 5 * S
        assert bench.node.snapshot()["score"] == 1

    def test_who_knows_an_older_incarnation_asks_for_the_newer(self) -> None:
        bench = Bench("b")
        for sender, incarnation, asks in (("b", 1, False), ("b", 2, True), ("z", 0, True)):
            effects = bench.packet(wire.Ping(5, sender, incarnation, "a", []), "b:1")
            ack = wire.decode_packet(effects.packets[0].data)
            assert isinstance(ack, wire.Ack)
            assert ack.unknown is asks

    def test_old_probes_and_questions_that_have_ended_are_not_due(self) -> None:
        bench = Bench("b")
        prober, table = bench.node._prober, bench.node._table
        for call in (prober.late, prober.relay_late, prober.answered):
            call(12345)
        for ask in (table.expire, table.ask, table.forget):
            ask("b")
            ask("nobody")
        assert bench.state("b") == (MemberState.ALIVE.value, 1)

    def test_a_stop_forgets_what_was_asked_for_others(self) -> None:
        bench = Bench("b")
        bench.packet(wire.PingRequest(5, "x", 0, "b", "b:1", []))
        bench.now_ns = bench.node.deadline_ns + S
        bench.step(TimerFired())
        began = bench.now_ns
        while bench.now_ns - began < 300 * MS:
            assert not [one for one in bench.timer().packets if one.target == "x:1"]

    def test_open_probes_are_bounded(self) -> None:
        bench = Bench(*(f"m{n}" for n in range(60)))
        prober = bench.node._prober
        for peer in list(bench.node._table.peers.values())[:40]:
            prober.start(peer)
        before = len(prober)
        prober.tick()
        prober.on_refused("m59:1")
        assert len(prober) == before

    def test_a_removed_member_that_refuses_is_left_alone(self) -> None:
        bench = Bench("b", "c", guard=False)
        bench.news(wire.DeadNews("b", 1, accused("c", "d")))
        bench.events.clear()
        bench.node._prober.start(bench.node._table.peers["b"])
        assert bench.step(PortRefused("b:1")).streams == ()
        bench.node._prober.start(bench.node._table.peers["b"])
        bench.now_ns += 300 * MS
        bench.step(TimerFired())
        assert bench.kinds() == []
