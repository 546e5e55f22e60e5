"""Which faults strike when: all from the seed, and each step by itself."""

from collections import Counter
from itertools import islice, pairwise, takewhile

import pytest

from outlast.kernel import ConfigError, Fault, Prng
from outlast.sim.core.plan import (
    FAULT_KINDS,
    Plan,
    cuts_of,
    kind_of,
    link_weather,
    log_between,
    read_faults,
    victims_of,
)

MS = 1_000_000
HOSTS = ("a", "b", "c", "d", "e")
ASKED = read_faults("crash,partition:halves,link:slow,pause")


def plan(seed: int, length_ns: int = 100 * MS) -> Plan:
    return Plan(ASKED, seed, length_ns=length_ns)


def test_every_fault_can_be_asked_for_by_its_name() -> None:
    for kind in FAULT_KINDS:
        (fault,) = read_faults([kind.name])
        assert kind_of(fault) is kind
        assert fault.target == "one"


@pytest.mark.parametrize("name", ["crsh", "crash:hard", "partition", "disk:fulll", "link:slow:x"])
def test_an_unknown_fault_is_refused_in_one_line_that_says_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_faults([name])
    assert name.partition("@")[0] in str(caught.value)
    assert "partition:halves" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConfigError, match=r"did you mean disk:full\?"):
        read_faults(["disk:fulll"])


def test_faults_asked_for_twice_are_taken_once() -> None:
    assert read_faults(["crash", "crash@one,pause"]) == read_faults("crash,pause")


def test_a_seed_always_gives_the_same_plan() -> None:
    for seed in range(50):
        one, other = plan(seed), plan(seed)
        assert one.describe() == other.describe()
        assert list(islice(one.steps(), 40)) == list(islice(other.steps(), 40))


def test_steps_are_numbered_and_time_goes_on() -> None:
    for seed in range(50):
        steps = list(islice(plan(seed).steps(), 100))
        assert [step.index for step in steps] == list(range(len(steps)))
        assert all(one.at_ns < other.at_ns for one, other in pairwise(steps))
        assert all(step.lasts_ns > 0 for step in steps)


def test_a_step_does_not_depend_on_how_many_were_drawn_before_it() -> None:
    """Each has a generator of its own: what an earlier one draws leaves it as it is."""
    whole = list(islice(plan(3).steps(), 30))
    again = plan(3)
    for step, kept in zip(again.steps(), whole, strict=False):
        Prng(step.draw).bytes(step.index * 8)
        assert step == kept
        if step.index == 29:
            break


def test_some_runs_have_no_faults_and_most_leave_some_out() -> None:
    chosen = Counter(len(plan(seed).chosen) for seed in range(800))
    assert 20 < chosen[0] < 100
    assert set(chosen) == {0, 1, 2, 3, 4}
    seen = Counter(fault for seed in range(800) for fault in plan(seed).chosen)
    assert all(300 < seen[fault] < 500 for fault in ASKED)


def test_no_faults_give_no_steps() -> None:
    assert list(Plan((), 1, length_ns=MS).steps()) == []


def strikes(seed: int, length_ns: int, within_ns: int) -> int:
    steps = plan(seed, length_ns).steps()
    return sum(1 for _ in takewhile(lambda step: step.at_ns < within_ns, steps))


@pytest.mark.parametrize("length_ns", [MS, 50 * MS, 10_000 * MS, 600_000 * MS])
def test_the_pace_follows_the_length_of_the_test(length_ns: int) -> None:
    """A run that has faults is hit before the test ends, and not by hundreds of them."""
    hits = [strikes(seed, length_ns, length_ns) for seed in range(40) if plan(seed).chosen]
    assert min(hits) >= 1
    assert max(hits) < 200


def test_a_test_that_takes_much_longer_than_thought_is_not_hit_all_the_time() -> None:
    assert all(strikes(seed, MS, 600_000 * MS) < 400 for seed in range(10))


@pytest.mark.parametrize(
    ("target", "count"), [("one", 1), ("minority", 2), ("majority", 3), ("all", 5)]
)
def test_targets_hit_so_many_hosts(target: str, count: int) -> None:
    seen = set()
    for seed in range(60):
        hit = victims_of(Fault("crash", "", target), HOSTS, None, Prng(seed))
        assert len(hit) == count
        assert list(hit) == [host for host in HOSTS if host in hit]
        seen.update(hit)
    assert seen == set(HOSTS)


def test_a_minority_of_one_host_is_that_host() -> None:
    assert victims_of(Fault("crash", "", "minority"), ("a",), None, Prng(1)) == ("a",)


def test_a_host_or_a_role_can_be_the_target() -> None:
    roles = {"a": "follower", "b": "leader", "c": "follower"}
    assert victims_of(Fault("crash", "", "c"), HOSTS, None, Prng(1)) == ("c",)
    assert victims_of(Fault("crash", "", "leader"), HOSTS, roles, Prng(1)) == ("b",)
    follower = {
        victims_of(Fault("crash", "", "follower"), HOSTS, roles, Prng(n)) for n in range(20)
    }
    assert follower == {("a",), ("c",)}
    assert victims_of(Fault("crash", "", "leader"), HOSTS, None, Prng(1)) == ()
    assert victims_of(Fault("crash", "", "nobody"), HOSTS, roles, Prng(1)) == ()


def test_halves_leave_the_victim_on_the_smaller_side() -> None:
    for seed in range(50):
        cuts = cuts_of("halves", "a", HOSTS, Prng(seed))
        assert all((b, a) in cuts for a, b in cuts)
        far = {b for a, b in cuts if a == "a"}
        assert 3 <= len(far) <= 4
        near = set(HOSTS) - far
        assert {(a, b) for a, b in cuts} == {
            pair for a in near for b in far for pair in ((a, b), (b, a))
        }


def test_isolate_cuts_the_victim_from_all_others() -> None:
    cuts = cuts_of("isolate", "b", ("a", "b", "c"), Prng(1))
    assert set(cuts) == {("b", "a"), ("a", "b"), ("b", "c"), ("c", "b")}


def test_one_way_leaves_the_victim_deaf_and_not_mute() -> None:
    assert set(cuts_of("one-way", "b", ("a", "b", "c"), Prng(1))) == {("a", "b"), ("c", "b")}


def test_a_bridge_reaches_both_halves_that_do_not_reach_each_other() -> None:
    for seed in range(20):
        cuts = cuts_of("bridge", "c", HOSTS, Prng(seed))
        assert all("c" not in cut for cut in cuts)
        assert len(cuts) == 8


def test_two_hosts_are_split_by_any_partition() -> None:
    for variant in ("halves", "isolate", "bridge", "flapping"):
        assert set(cuts_of(variant, "a", ("a", "b"), Prng(1))) == {("a", "b"), ("b", "a")}
    assert cuts_of("halves", "a", ("a",), Prng(1)) == ()


def test_draws_between_two_numbers_stay_between_them_and_favour_none_of_the_doublings() -> None:
    prng = Prng(1)
    for low, high in ((1, 1), (1, 2), (3, 10), (5, 6), (1000, 1_000_000), (7, 3)):
        drawn = [log_between(prng, low, high) for _ in range(500)]
        assert low <= min(drawn)
        assert max(drawn) <= max(low, high)
    sizes = Counter(log_between(prng, 1 << 10, 1 << 20).bit_length() for _ in range(5000))
    assert all(sizes[bits] > 300 for bits in range(11, 21))


def test_links_get_as_bad_as_drawn() -> None:
    delays = {dict(link_weather("slow", Prng(seed)))["delay_ns"] for seed in range(50)}
    assert len(delays) == 50
    assert all(MS <= delay <= 2000 * MS for delay in delays)
    assert {name for name, _ in link_weather("loss", Prng(1))} == {
        "loss_ppm", "duplicate_ppm", "reorder_ppm",
    }  # fmt: skip
