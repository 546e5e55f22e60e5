"""Many nodes share one breaker: drawn stories with ill nodes, crashes, cuts and skewed clocks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.protect.events import StoreLost, StoreRegained
from tests.support.store_fleet import FleetLab, FleetNodeLab

seeds = st.integers(0, 1 << 32)


def fleet(seed: int, size: int = 5, *, bad: int = 0, probes: int = 1) -> FleetLab:
    lab = FleetLab(seed, probes=probes)
    for number in range(size):
        lab.add(f"n{number}", bad=number < bad, skew=lab.prng.between(-90, 90))
    return lab


def all_closed(lab: FleetLab) -> bool:
    return lab.state() == "closed" and all(node.state == "CLOSED" for node in lab.nodes)


@given(seeds)
@settings(deadline=None, max_examples=12)
def test_one_bad_node_opens_alone(seed: int) -> None:
    lab = fleet(seed, bad=1)
    opened: list[FleetNodeLab] = []
    bad, *good = lab.nodes
    was_open: list[bool] = []

    def look() -> None:
        opened.extend(node for node in good if node.state != "CLOSED")
        was_open.append(bad.state != "CLOSED")

    lab.run(12_000, look)
    assert not opened
    assert any(was_open)


@given(seeds)
@settings(deadline=None, max_examples=12)
def test_all_open_when_the_service_is_down_and_close_when_it_is_back(seed: int) -> None:
    lab = fleet(seed, size=6)
    lab.run(2_000)
    lab.down = True
    lab.run(3_000)
    assert all(node.state != "CLOSED" for node in lab.nodes)
    lab.run(7_000)
    lab.down = False
    lab.run(10_000)
    assert all_closed(lab)
    assert lab.most_live == 1


@given(seeds)
@settings(deadline=None, max_examples=10)
def test_a_node_opens_by_what_the_others_saw(seed: int) -> None:
    lab = fleet(seed, size=4)
    lab.run(2_000)
    idle = lab.nodes[0]
    idle.call = lambda: None  # type: ignore[method-assign]
    lab.down = True
    lab.run(2_500)
    assert idle.state != "CLOSED"
    assert not idle.open_permits


@given(seeds)
@settings(deadline=None, max_examples=10)
def test_a_bad_node_cannot_hold_the_fleet_open(seed: int) -> None:
    lab = fleet(seed, size=4, bad=1)
    lab.run(2_000)
    lab.down = True
    lab.run(4_000)
    lab.down = False
    lab.run(16_000)
    assert lab.state() == "closed"
    assert all(node.state == "CLOSED" for node in lab.nodes[1:])


@given(seeds, st.integers(1, 3))
@settings(deadline=None, max_examples=12)
def test_the_fleet_recovers_from_drawn_faults(seed: int, probes: int) -> None:
    lab = fleet(seed, probes=probes)
    prng, born = lab.prng, 100

    def strike() -> None:
        nonlocal born
        if prng.chance(1, 40):
            lab.down = not lab.down
        if lab.nodes and prng.chance(1, 30):
            node = prng.choice(lab.nodes)
            node.cut = not node.cut
        holders = [node for node in lab.nodes if node.state == "HALF_OPEN" and node.open_permits]
        if holders and prng.chance(1, 3):  # with a probe in its hands
            prng.choice(holders).crash()
            born += 1
            lab.add(f"n{born}", skew=prng.between(-90, 90))
        if prng.chance(1, 60):
            node = prng.choice(lab.nodes)
            node.frozen = not node.frozen

    lab.run(20_000, strike)
    lab.down = False
    for node in lab.nodes:
        node.cut = node.frozen = False
    lab.run(40_000)
    assert all_closed(lab)
    assert lab.most_live <= probes


@given(seeds)
@settings(deadline=None, max_examples=10)
def test_a_fleet_without_its_store_breaks_and_mends_locally_and_says_so_once(seed: int) -> None:
    lab = fleet(seed, size=3)
    lab.run(2_000)
    for node in lab.nodes:
        node.cut = True
    lab.down = True
    lab.run(4_000)
    assert all(node.state != "CLOSED" for node in lab.nodes)
    lab.down = False
    lab.run(12_000)
    assert all(node.state == "CLOSED" for node in lab.nodes)
    for node in lab.nodes:
        node.cut = False
    lab.run(12_000)
    for node in lab.nodes:
        kinds = [type(event) for event in node.events]
        assert kinds.count(StoreLost) == kinds.count(StoreRegained) == 1
    assert all_closed(lab)


@given(seeds)
@settings(deadline=None, max_examples=8)
def test_a_store_that_lost_everything_is_followed_again(seed: int) -> None:
    lab = fleet(seed, size=4)
    lab.run(2_000)
    lab.down = True
    lab.run(4_000)
    lab.data._values.clear()
    lab.store_ahead_ms -= 500_000  # and its clock went back, too
    lab.down = False
    lab.run(14_000)
    assert all_closed(lab)
    lab.down = True
    lab.run(5_000)
    assert lab.state() != "closed"
    assert all(node.state != "CLOSED" for node in lab.nodes)


@given(seeds)
@settings(deadline=None, max_examples=5)
def test_a_story_is_repeatable(seed: int) -> None:
    def story() -> list[str]:
        lab = fleet(seed)
        said: list[str] = []

        def look() -> None:
            lab.down = lab.down ^ lab.prng.chance(1, 30)
            said.append(lab.state() + "".join(node.state[0] for node in lab.nodes))

        lab.run(5_000, look)
        return said

    assert story() == story()
