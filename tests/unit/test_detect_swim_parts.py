"""The small parts of the membership core: deadlines, gossip, the ring, suspicion, self-doubt."""

from dataclasses import replace

import pytest

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.agenda import NEVER, Agenda
from outlast.detect.core.swim.gossip import GossipQueue
from outlast.detect.core.swim.peer import Peer
from outlast.detect.core.swim.ring import Ring
from outlast.detect.core.swim.selfview import SelfView
from outlast.detect.core.swim.settings import SwimSettings, ns
from outlast.detect.core.swim.suspicion import Suspicion, spread_ns
from outlast.kernel import ConfigError, Prng

S = 1_000_000_000
LAN = SwimSettings.lan()


def word(by: str, refused: bool = False, observers: int = 0) -> wire.Accusation:
    return wire.Accusation(by, refused, 1000, 3, 3, observers, 0)


class TestAgenda:
    def test_gives_the_earliest_first(self) -> None:
        agenda = Agenda()
        agenda.set(("b", ""), 20)
        agenda.set(("a", ""), 10)
        assert agenda.next_ns() == 10
        assert agenda.pop_due(9) is None
        assert [agenda.pop_due(30), agenda.pop_due(30)] == [("a", ""), ("b", "")]
        assert agenda.next_ns() == NEVER

    def test_setting_a_key_again_moves_it_both_ways(self) -> None:
        agenda = Agenda()
        agenda.set(("a", ""), 10)
        agenda.set(("a", ""), 20)
        assert agenda.pop_due(10) is None
        agenda.set(("a", ""), 5)
        assert agenda.pop_due(5) == ("a", "")
        assert agenda.pop_due(99) is None

    def test_a_cancelled_key_is_never_due(self) -> None:
        agenda = Agenda()
        agenda.set(("a", ""), 10)
        agenda.cancel(("a", ""))
        assert agenda.next_ns() == NEVER
        assert len(agenda) == 0

    def test_moving_a_key_for_ever_keeps_it_small(self) -> None:
        agenda = Agenda()
        for when in range(10_000):
            agenda.set(("a", ""), when)
        assert len(agenda._heap) < 100
        assert agenda.next_ns() == 9_999


class TestGossipQueue:
    def test_what_was_sent_least_goes_first(self) -> None:
        queue = GossipQueue()
        queue.put("a", b"a" * 10)
        assert queue.take(10, 4) == [b"a" * 10]
        queue.put("b", b"b" * 10)
        assert queue.take(10, 4) == [b"b" * 10]
        assert queue.take(20, 4) == [b"a" * 10, b"b" * 10]

    def test_each_piece_is_sent_so_many_times_and_not_more(self) -> None:
        queue = GossipQueue()
        queue.put("a", b"a" * 10)
        assert [len(queue.take(100, 3)) for _ in range(5)] == [1, 1, 1, 0, 0]
        assert len(queue) == 0

    def test_newer_news_replace_older_and_begin_again(self) -> None:
        queue = GossipQueue()
        queue.put("a", b"old-old-old")
        queue.take(100, 2)
        queue.put("a", b"new-new-new")
        assert [queue.take(100, 2) for _ in range(3)] == [[b"new-new-new"]] * 2 + [[]]

    def test_a_piece_that_does_not_fit_lets_others_pass_and_waits(self) -> None:
        queue = GossipQueue()
        queue.put("big", b"x" * 50)
        queue.put("small", b"y" * 10)
        assert queue.take(20, 4) == [b"y" * 10]
        assert queue.take(60, 4) == [b"x" * 50, b"y" * 10]

    def test_looks_past_a_few_that_do_not_fit_and_no_further(self) -> None:
        queue = GossipQueue()
        for index in range(10):
            queue.put(f"big{index}", b"x" * 50)
        queue.put("small", b"y" * 10)
        assert queue.take(20, 4) == []

    def test_none_waits_behind_newer_ones(self) -> None:
        queue = GossipQueue()
        queue.put("first", b"1" * 10)
        for index in range(5):
            queue.put(f"later{index}", b"2" * 10)
        assert queue.take(10, 4) == [b"1" * 10]

    def test_skips_what_is_in_the_packet_already(self) -> None:
        queue = GossipQueue()
        queue.put("a", b"a" * 10)
        assert queue.take(100, 4, skip=["a"]) == []
        assert len(queue) == 1

    def test_a_packet_has_a_bounded_number_of_pieces(self) -> None:
        queue = GossipQueue()
        for index in range(300):
            queue.put(str(index), b"8" * 8)
        assert len(queue.take(100_000, 4)) == 100


class TestRing:
    def peers(self, count: int) -> list[Peer]:
        return [Peer(f"n{i}", f"h{i}:1", 0, i) for i in range(count)]

    def test_everybody_comes_once_each_time_round(self) -> None:
        ring, peers = Ring(Prng(1)), self.peers(9)
        for peer in peers:
            ring.add(peer)
            ring.add(peer)
        rounds = [[ring.next() for _ in peers] for _ in range(3)]
        for one in rounds:
            assert {peer.name for peer in one if peer} == {peer.name for peer in peers}
        assert rounds[0] != rounds[1]

    def test_removed_members_are_left_out_and_may_return(self) -> None:
        ring, peers = Ring(Prng(1)), self.peers(2)
        for peer in peers:
            ring.add(peer)
        peers[0].state = peers[0].state.__class__.DEAD
        assert {ring.next() for _ in range(4)} == {peers[1]}
        peers[1].state = peers[1].state.__class__.LEFT
        assert ring.next() is None
        peers[0].state = peers[0].state.__class__.ALIVE
        ring.add(peers[0])
        assert ring.next() is peers[0]

    def test_a_sample_has_different_members_and_not_the_one_in_question(self) -> None:
        ring, peers = Ring(Prng(1)), self.peers(30)
        for peer in peers:
            ring.add(peer)
        peers[1].suspicion = Suspicion(0)
        for _ in range(50):
            found = ring.sample(3, peers[0], alive=True)
            assert len(set(found)) == 3
            assert not {peers[0], peers[1]} & set(found)

    def test_a_sample_of_few_is_all_of_them(self) -> None:
        ring, peers = Ring(Prng(1)), self.peers(3)
        for peer in peers:
            ring.add(peer)
        assert set(ring.sample(3)) == set(peers)
        assert set(ring.sample(3, peers[0])) == set(peers[1:])


class TestSuspicion:
    def due(self, suspicion: Suspicion, others: int, settings: SwimSettings = LAN) -> float:
        return suspicion.deadline_ns(settings, others, 0, 0) / S

    def test_one_accuser_of_many_gives_the_longest_time(self) -> None:
        suspicion = Suspicion(0)
        suspicion.add(word("a"))
        assert self.due(suspicion, 10) == pytest.approx(3.3 * 6)

    def test_time_falls_with_the_logarithm_of_further_accusers(self) -> None:
        suspicion = Suspicion(0)
        times = []
        for name in "abcde":
            suspicion.add(word(name))
            times.append(self.due(suspicion, 10))
        # log(2) / log(4) is a half: the first confirmation takes half of what can go.
        assert times == pytest.approx([19.8, 11.55, 6.7238, 3.3, 3.3], abs=1e-3)

    def test_no_more_confirmations_are_waited_for_than_members_could_give(self) -> None:
        suspicion = Suspicion(0)
        suspicion.add(word("a"))
        assert self.due(suspicion, 0) == pytest.approx(3.3)
        suspicion.add(word("b"))
        assert self.due(suspicion, 1) == pytest.approx(3.3)

    def test_the_same_accuser_counts_once(self) -> None:
        suspicion = Suspicion(0)
        assert suspicion.add(word("a"))
        assert not suspicion.add(word("a"))
        assert suspicion.add(word("a", refused=True))
        assert not suspicion.add(word("a"))

    def test_two_observers_of_a_refusing_port_make_it_short(self) -> None:
        suspicion = Suspicion(0)
        suspicion.add(word("a", refused=True, observers=1))
        assert self.due(suspicion, 10) > 3
        suspicion.add(word("b", refused=True, observers=1))
        assert suspicion.deadline_ns(LAN, 10, 0, 2 * S) == 2 * S + ns(0.4)
        assert suspicion.deadline_ns(LAN, 10, 0, 3 * S) == 2 * S + ns(0.4)

    def test_one_observer_and_those_that_it_asked_are_several(self) -> None:
        suspicion = Suspicion(0)
        suspicion.add(word("a", refused=True, observers=2))
        assert self.due(suspicion, 10) == pytest.approx(0.4)

    def test_one_observer_is_enough_where_nobody_else_is_left(self) -> None:
        suspicion = Suspicion(0)
        suspicion.add(word("a", refused=True, observers=1))
        assert self.due(suspicion, 0) == pytest.approx(0.4)

    def test_plain_swim_knows_one_time(self) -> None:
        suspicion = Suspicion(S)
        suspicion.add(word("a", refused=True, observers=3))
        assert self.due(suspicion, 10, SwimSettings.plain()) == pytest.approx(4.3)

    def test_accusers_are_bounded_and_a_few_are_passed_on_refusals_first(self) -> None:
        suspicion = Suspicion(0)
        for index in range(20):
            suspicion.add(word(f"n{index}", refused=index == 6))
        assert len(suspicion.accusations) == 8
        assert [one.by for one in suspicion.sent()] == ["n6", "n0", "n1", "n2"]

    def test_spread_grows_by_a_round_per_doubling(self) -> None:
        assert spread_ns(LAN, 15) == 4 * ns(0.1)
        assert spread_ns(LAN, 127) == 7 * ns(0.1)


class TestSelfView:
    def test_score_stays_within_its_bounds(self) -> None:
        view = SelfView(LAN)
        view.adjust(-3)
        assert view.multiplier == 1
        view.adjust(50)
        assert view.multiplier == 9

    def test_plain_swim_has_no_score(self) -> None:
        view = SelfView(SwimSettings.plain())
        view.adjust(5)
        assert view.multiplier == 1

    @pytest.mark.parametrize(
        ("score", "multiplier"),
        [(0.0, 1), (0.5, 5), (1.0, 9), (7.0, 9), (-1.0, 1), (float("nan"), 9)],
    )
    def test_what_was_measured_is_a_floor(self, score: float, multiplier: int) -> None:
        view = SelfView(LAN)
        view.measured(score)
        assert view.multiplier == multiplier

    def test_who_hears_nobody_of_several_convicts_nobody(self) -> None:
        view = SelfView(LAN)
        assert view.wait_ns(S, peers=3) == view.clean_ns  # a second is not quiet yet
        assert view.wait_ns(2 * S, peers=3) > 2 * S

    def test_with_one_peer_there_is_no_telling_who_is_cut_off(self) -> None:
        assert SelfView(LAN).wait_ns(5 * S, peers=1) <= 5 * S

    def test_who_stays_alone_for_long_convicts_after_all(self) -> None:
        assert SelfView(LAN).wait_ns(60 * S, peers=3) <= 60 * S

    def test_who_hears_again_after_a_while_needs_clean_time(self) -> None:
        view = SelfView(LAN)
        view.heard(10 * S)
        assert view.wait_ns(10 * S, peers=3) == 10 * S + ns(1.5)
        view.heard(11 * S)
        assert view.clean_ns == 10 * S + ns(1.5)

    def test_without_permission_nobody_is_convicted_and_then_after_clean_time(self) -> None:
        view = SelfView(LAN)
        view.allow(False, 0)
        assert view.wait_ns(S, peers=1) > S
        view.allow(True, S)
        assert view.wait_ns(S, peers=1) == S + ns(1.5)
        view.allow(True, 2 * S)
        assert view.clean_ns == S + ns(1.5)

    def test_plain_swim_does_not_doubt_itself(self) -> None:
        view = SelfView(SwimSettings.plain())
        assert view.wait_ns(30 * S, peers=9) == 30 * S


class TestSettings:
    @pytest.mark.parametrize("name", ["lan", "fast", "wan", "plain"])
    def test_profiles_are_valid_and_take_changes(self, name: str) -> None:
        made = getattr(SwimSettings, name)(confirm=True)
        assert made.confirm
        assert replace(made, confirm=False) == getattr(SwimSettings, name)()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"probe_interval": 0.0}, "probe_interval is 0.0; a number of seconds above 0"),
            ({"silence": float("nan")}, "silence is nan"),
            ({"silence_factor": -1.0}, "silence_factor is -1.0; 1 or more"),
            ({"silence_factor": 0.5}, "silence_factor is 0.5; 1 or more"),
            ({"indirect": 17}, "indirect is 17; 0 to 16"),
            ({"packet_bytes_max": 9000}, "packet_bytes_max is 9000; 1100 to 1200"),
            ({"silence": 0.1}, r"silence \(0.1 s\) is below probe_interval \(0.3 s\)"),
            ({"dead_keep": 1.0}, r"dead_keep \(1.0 s\) is below dead_gossip \(30.0 s\)"),
        ],
    )
    def test_values_out_of_range_are_refused_by_name(
        self, change: dict[str, float], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            SwimSettings.lan(**change)


class TestPeer:
    def test_round_trips_are_smoothed(self) -> None:
        peer = Peer("a", "h:1", 0, 1)
        peer.measured(80)
        assert (peer.srtt_ns, peer.rttvar_ns) == (80, 40)
        peer.measured(160)
        assert (peer.srtt_ns, peer.rttvar_ns) == (90, 50)
        assert peer.member().rtt_ns == 90
