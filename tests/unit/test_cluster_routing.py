"""Which node a client talks to."""

from outlast.cluster.core.routing import Routing, SeatView

SEATS = [SeatView("n1", "h1:1"), SeatView("n2", "h2:1"), SeatView("n3", "h3:1")]


def known(term: int = 3, leader: str = "n1") -> Routing:
    routing = Routing(("h1:1", "h2:1"))
    routing.learn(term, leader, SEATS)
    return routing


def test_without_a_view_the_seeds_are_asked():
    routing = Routing(("h1:1", "h2:1"))
    assert routing.looking
    assert routing.ask() == ["h1:1", "h2:1"]


def test_a_view_names_the_leader_and_members_that_were_no_seeds():
    routing = known()
    assert not routing.looking
    assert routing.address_of("n3") == "h3:1"
    assert routing.ask() == ["h1:1", "h2:1", "h3:1"]


def test_an_older_term_is_ignored():
    routing = known(term=3)
    assert not routing.learn(2, "n2", SEATS)
    assert routing.leader == "n1"


def test_a_newer_term_replaces_the_leader():
    routing = known(term=3)
    assert routing.learn(4, "n2", SEATS)
    assert routing.leader == "n2"


def test_within_a_term_a_named_leader_beats_an_unknown_one_and_is_not_forgotten():
    routing = known(term=3, leader="")
    assert routing.looking
    assert routing.learn(3, "n2", SEATS)
    assert not routing.learn(3, "", SEATS)
    assert routing.leader == "n2"


def test_a_doubted_leader_is_still_the_leader_but_others_are_asked_first():
    routing = known()
    assert routing.doubt("n1")
    assert routing.looking
    assert routing.leader == "n1"
    assert routing.ask()[-1] == "h1:1"
    routing.trust("n1")
    assert not routing.looking


def test_doubt_about_a_follower_changes_nothing():
    routing = known()
    assert not routing.doubt("n2")
    assert not routing.looking


def test_a_new_leader_ends_the_doubt():
    routing = known()
    routing.doubt("n1")
    routing.learn(4, "n3", SEATS)
    assert not routing.looking


def test_the_same_leader_of_a_newer_term_ends_the_doubt():
    routing = known()
    routing.doubt("n1")
    assert routing.learn(5, "n1", SEATS)
    assert not routing.looking


def test_a_redirect_moves_to_the_hint():
    routing = known()
    routing.redirected("n1", "n2")
    assert routing.leader == "n2"
    assert not routing.looking


def test_a_redirect_without_a_hint_leaves_no_leader():
    routing = known()
    routing.redirected("n1", "")
    assert routing.leader == ""
    assert routing.looking


def test_a_late_redirect_of_a_former_leader_does_not_unseat_the_new_one():
    routing = known()
    routing.learn(4, "n2", SEATS)
    routing.redirected("n1", "n3")
    assert routing.leader == "n2"


def test_routes_override_what_views_say():
    routing = Routing(("h1:1",), {"n1": "127.0.0.1:9"})
    routing.learn(1, "n1", SEATS)
    assert routing.address_of("n1") == "127.0.0.1:9"
    assert "h1:1" not in routing.ask()
