"""The rules of incarnations, one by one."""

import pytest

from outlast.detect.core.swim import wire
from outlast.detect.membership_events import (
    MemberAlive,
    MemberDead,
    MemberJoined,
    MemberRejoined,
    MemberUpdated,
    NameConflict,
    SuspicionRefuted,
)
from tests.support.swim_bench import MS, Bench, accused, entry


class TestAlive:
    def test_news_that_are_not_newer_change_nothing(self) -> None:
        bench = Bench("b")
        bench.news(bench.alive("b", 1, metadata={"k": "v"}), bench.alive("b", 0))
        assert bench.events == []
        assert bench.state("b") == ("alive", 1)

    def test_a_higher_incarnation_brings_new_metadata(self) -> None:
        bench = Bench("b")
        bench.news(bench.alive("b", 2, metadata={"k": "v"}))
        assert bench.kinds() == [MemberUpdated]

    def test_a_member_that_moves_keeps_its_session_and_is_updated(self) -> None:
        bench = Bench("b")
        bench.news(bench.alive("b", 2, address="c:9"))
        assert bench.kinds() == [MemberUpdated]
        assert bench.node.member("b").address == "c:9"  # type: ignore[union-attr]

    def test_another_session_at_the_same_address_is_a_restart(self) -> None:
        bench = Bench("b")
        bench.news(bench.alive("b", 2, session=8))
        assert bench.kinds() == [MemberRejoined]

    def test_another_session_at_another_address_is_a_conflict_told_now_and_then(self) -> None:
        bench = Bench("b")
        for _ in range(3):
            bench.news(bench.alive("b", 2, session=8, address="c:9"))
        bench.news(bench.alive("b", 1, session=8, address="c:9"))
        assert bench.kinds() == [NameConflict]
        assert bench.state("b") == ("alive", 1)

    def test_once_dead_the_name_may_be_taken_elsewhere(self) -> None:
        bench = Bench("b", guard=False)
        bench.news(wire.DeadNews("b", 1, accused("c", "d")))
        bench.news(bench.alive("b", 2, session=8, address="c:9"))
        assert bench.kinds() == [MemberDead, MemberRejoined]

    def test_the_dead_come_back_with_a_higher_incarnation_only(self) -> None:
        bench = Bench("b", guard=False)
        bench.news(wire.DeadNews("b", 1, accused("c", "d")), bench.alive("b", 1))
        assert bench.state("b") == ("dead", 1)
        bench.news(bench.alive("b", 2))
        assert bench.kinds() == [MemberDead, MemberAlive]

    def test_an_unknown_accused_is_ignored(self) -> None:
        bench = Bench()
        bench.news(
            wire.SuspectNews("z", 1, accused("c")),
            wire.DeadNews("z", 1, accused("c")),
            wire.LeftNews("z", 1),
        )
        assert bench.node.member("z") is None


class TestSuspect:
    def test_an_older_accusation_is_ignored(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("b", 0, accused("c")))
        assert bench.state("b") == ("alive", 1)

    def test_each_accuser_is_told_once(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("b", 1, accused("c")))
        bench.news(wire.SuspectNews("b", 1, accused("c", "d")))
        bench.news(wire.SuspectNews("b", 1, accused("d")))
        assert [event.by for event in bench.events] == ["c", "d"]  # type: ignore[attr-defined]
        assert bench.node.member("b").accusers == ("c", "d")  # type: ignore[union-attr]

    def test_an_objection_ends_it_and_names_who_was_wrong(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("b", 1, accused("c", "d")))
        bench.now_ns += 50 * MS
        bench.news(bench.alive("b", 2))
        refuted = bench.events[-1]
        assert isinstance(refuted, SuspicionRefuted)
        assert refuted.accusers == ("c", "d")
        assert refuted.after == pytest.approx(0.05)

    def test_a_newer_accusation_begins_anew(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("b", 1, accused("c")))
        bench.news(wire.SuspectNews("b", 3, accused("d")))
        assert bench.state("b") == ("suspect", 3)
        assert bench.node.member("b").accusers == ("d",)  # type: ignore[union-attr]

    def test_the_dead_are_not_suspected(self) -> None:
        bench = Bench("b", guard=False)
        bench.news(wire.DeadNews("b", 1, accused("c")), wire.SuspectNews("b", 2, accused("d")))
        assert bench.state("b") == ("dead", 1)

    def test_more_accusers_than_needed_are_not_passed_on(self) -> None:
        bench = Bench("b", "p", "q", "r", "s")
        for by in ("c", "d", "e", "f"):
            bench.news(wire.SuspectNews("b", 1, accused(by)))
        bench.node._context.queue.drop("b")
        bench.news(wire.SuspectNews("b", 1, accused("g")))
        assert "b" not in bench.node._context.queue._level_of


class TestDead:
    def test_who_did_not_suspect_takes_it_for_a_suspicion(self) -> None:
        bench = Bench("b", "c", "d")
        bench.news(wire.DeadNews("b", 1, accused("c", "d")))
        assert bench.state("b") == ("suspect", 1)

    def test_one_accuser_is_not_enough_where_others_could_have_noticed(self) -> None:
        bench = Bench("b", "c", "d", "e")
        bench.news(wire.SuspectNews("b", 1, accused("c")), wire.DeadNews("b", 1, accused("c")))
        assert bench.state("b") == ("suspect", 1)
        bench.news(wire.DeadNews("b", 1, accused("c", "d")))
        assert bench.state("b") == ("dead", 1)

    def test_one_accuser_is_enough_with_a_second_observer_of_the_refusal(self) -> None:
        bench = Bench("b", "c", "d", "e")
        words = accused("c", refused=True, observers=2)
        bench.news(wire.SuspectNews("b", 1, words), wire.DeadNews("b", 1, words))
        assert bench.state("b") == ("dead", 1)

    def test_one_accuser_is_enough_where_few_are_left(self) -> None:
        bench = Bench("b", "c")
        bench.news(wire.SuspectNews("b", 1, accused("c")), wire.DeadNews("b", 1, accused("c")))
        assert bench.state("b") == ("dead", 1)

    def test_an_older_removal_is_ignored(self) -> None:
        bench = Bench("b", guard=False)
        bench.news(wire.DeadNews("b", 0, accused("c", "d")))
        assert bench.state("b") == ("alive", 1)

    def test_another_death_shortens_the_wait_for_those_that_are_suspected(self) -> None:
        bench = Bench("b", "c", "d")
        bench.news(wire.SuspectNews("b", 1, accused("d")))
        before = bench.node._context.agenda._when["suspect", "b"]
        for name in ("c", "d"):
            bench.news(
                wire.SuspectNews(name, 1, accused("x", "y")),
                wire.DeadNews(name, 1, accused("x", "y")),
            )
        assert bench.node._context.agenda._when["suspect", "b"] < before


class TestLeft:
    def test_an_older_good_bye_is_ignored_and_a_second_one_not_told(self) -> None:
        bench = Bench("b")
        bench.news(wire.LeftNews("b", 0))
        assert bench.state("b") == ("alive", 1)
        bench.news(wire.LeftNews("b", 1), wire.LeftNews("b", 1))
        assert len(bench.events) == 1

    def test_a_pinger_that_has_left_for_us_is_told(self) -> None:
        bench = Bench("b")
        bench.news(wire.LeftNews("b", 1))
        effects = bench.packet(wire.Ping(5, "b", 1, "a", []), "b:1")
        ack = wire.decode_packet(effects.packets[0].data)
        assert isinstance(ack, wire.Ack)
        assert wire.LeftNews("b", 1) in ack.updates


class TestMyself:
    def test_an_accusation_is_answered_at_once_with_a_higher_incarnation(self) -> None:
        bench = Bench("b")
        news: list[wire.News] = [wire.SuspectNews("a", 0, accused("b"))]
        effects = bench.packet(wire.Ping(5, "b", 1, "a", news), "b:1")
        ack = wire.decode_packet(effects.packets[0].data)
        assert isinstance(ack, wire.Ack)
        assert isinstance(ack.updates[0], wire.AliveNews)
        assert (ack.updates[0].name, ack.updates[0].incarnation) == ("a", 1)

    def test_an_accusation_in_gossip_is_answered_to_who_told_it(self) -> None:
        bench = Bench("b")
        effects = bench.news(wire.DeadNews("a", 4, []))
        assert effects.packets[0].target == "x:1"
        assert bench.node.snapshot()["incarnation"] == 5

    def test_an_old_accusation_is_not_answered(self) -> None:
        bench = Bench("b")
        bench.news(wire.DeadNews("a", 4, []))
        bench.news(wire.SuspectNews("a", 4, accused("b")), wire.LeftNews("a", 3))
        assert bench.node.snapshot()["incarnation"] == 5

    def test_objecting_costs_a_point_of_local_health(self) -> None:
        bench = Bench("b")
        bench.news(wire.SuspectNews("a", 0, accused("b")))
        assert bench.node.snapshot()["score"] == 1

    def test_an_earlier_process_of_this_name_is_outbid(self) -> None:
        bench = Bench("b")
        bench.news(wire.AliveNews("a", "a:1", 9, 12345, {}))
        assert bench.node.snapshot()["incarnation"] == 10
        assert bench.events == []

    def test_own_news_that_come_back_mean_nothing(self) -> None:
        bench = Bench("b")
        session = bench.node._context.session
        bench.news(wire.AliveNews("a", "a:1", 9, session, {}))
        assert bench.node.snapshot()["incarnation"] == 0

    def test_a_namesake_elsewhere_is_told_but_not_fought(self) -> None:
        bench = Bench("b")
        bench.news(wire.AliveNews("a", "z:1", 9, 12345, {}))
        assert bench.kinds() == [NameConflict]
        assert bench.node.snapshot()["incarnation"] == 0

    def test_a_namesake_far_ahead_is_not_followed(self) -> None:
        bench = Bench("b")
        bench.news(wire.AliveNews("a", "a:1", 1 << 40, 12345, {}))
        assert bench.node.snapshot()["incarnation"] == 0


class TestExchange:
    def test_the_answer_has_everything_and_what_the_question_brought(self) -> None:
        bench = Bench("b")
        effects = bench.body(wire.Exchange("c", [entry("c", 0)]), request=4)
        stream = effects.streams[0]
        answer = wire.decode_stream(stream.data)
        assert isinstance(answer, wire.ExchangeAnswer)
        assert stream.request == 4
        assert [one.name for one in answer.entries] == ["a", "c", "b"]
        assert bench.kinds() == [MemberJoined]

    def test_the_removed_are_remembered_without_an_event(self) -> None:
        bench = Bench()
        bench.body(wire.Exchange("c", [entry("d", 2), entry("e", 3)]), request=4)
        assert bench.state("d") == ("dead", 1)
        assert bench.state("e") == ("left", 1)
        assert bench.events == []
        bench.news(bench.alive("d", 1))
        assert bench.state("d") == ("dead", 1)

    def test_the_removed_are_not_remembered_beyond_the_bound(self) -> None:
        bench = Bench("b", members_max=2)
        bench.body(wire.Exchange("c", [entry("d", 2)]), request=4)
        assert bench.node.member("d") is None

    def test_who_is_dead_for_others_is_told_and_not_removed(self) -> None:
        bench = Bench("b")
        words = accused("c", "d", "e")
        effects = bench.body(wire.Exchange("c", [entry("b", 2, 3, accusations=words)]), request=4)
        assert bench.state("b") == ("alive", 3)
        assert [packet.target for packet in effects.packets] == ["b:1"]
        told = wire.decode_packet(effects.packets[0].data)
        assert isinstance(told, wire.Gossip)
        assert told.updates == [wire.DeadNews("b", 3, [])]

    def test_who_lives_for_others_is_told_that_it_is_dead_here(self) -> None:
        bench = Bench("b", guard=False)
        bench.news(wire.DeadNews("b", 1, accused("c", "d")))
        effects = bench.body(wire.Exchange("c", [entry("b", 0, 1)]), request=4)
        assert [packet.target for packet in effects.packets] == ["b:1"]
        assert bench.state("b") == ("dead", 1)

    def test_older_removals_are_ignored(self) -> None:
        bench = Bench("b")
        effects = bench.body(wire.Exchange("c", [entry("b", 2, 0)]), request=4)
        assert effects.packets == ()

    def test_good_byes_and_suspicions_are_taken_over(self) -> None:
        bench = Bench("b", "c")
        words = accused("x")
        bench.body(
            wire.Exchange("x", [entry("b", 3), entry("c", 1, accusations=words)]), request=4
        )
        assert bench.state("b") == ("left", 1)
        assert bench.state("c") == ("suspect", 1)

    def test_what_is_said_of_this_process_is_answered(self) -> None:
        bench = Bench()
        session = bench.node._context.session
        bench.body(wire.Exchange("x", [entry("a", 0, session=session)]), request=4)
        assert bench.node.snapshot()["incarnation"] == 0
        bench.body(wire.Exchange("x", [entry("a", 2, session=session)]), request=4)
        assert bench.node.snapshot()["incarnation"] == 2

    def test_what_is_said_of_an_earlier_process_elsewhere_is_no_conflict_if_dead(self) -> None:
        bench = Bench()
        bench.node._table.identity.accepted = False
        bench.body(wire.Exchange("x", [entry("a", 2, 6, address="z:1", session=3)]), request=4)
        assert bench.events == []
        assert bench.node.snapshot()["incarnation"] == 7

    def test_a_body_too_long_has_who_asked_and_as_many_as_fit(self) -> None:
        bench = Bench(members_max=5000)
        many = [
            entry(f"{n:064}", 0, address=f"{n:064}:1", metadata={"k": "v" * 500})
            for n in range(1700)
        ]
        for part in (many[:800], many[800:]):
            bench.body(wire.Exchange("x", part), request=4)
        effects = bench.body(wire.Exchange("c", [entry("c", 0)]), request=4)
        answer = wire.decode_stream(effects.streams[0].data)
        assert isinstance(answer, wire.ExchangeAnswer)
        assert [one.name for one in answer.entries[:2]] == ["a", "c"]
        assert 1300 < len(answer.entries) < 1700
