"""Random lives of a cluster: after every step Raft's promises hold; healed, it makes progress."""

import pytest

from tests.support.raft_storm import storm

KEPT = {
    1: "a stall reported after its write had ended stopped the node from ever standing",
    72: "entries before a final configuration commit by it (the checker was too strict)",
    100: "a voter that left, alone with the final configuration, never stood again",
    194: "a joining voter was not admitted because it did not know its entry's commit",
    369: "pre-votes from voters in an older term were dropped",
    440: "a receiver waited for a newer snapshot from a leader that was gone",
    1396: "entries under way were trimmed, and the loss could not be noticed",
}


@pytest.mark.parametrize("seed", sorted(KEPT))
def test_kept_seed(seed: int) -> None:
    storm(seed)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", range(6))
def test_promises_hold_under_random_faults(block: int) -> None:
    for seed in range(50_000 + 50 * block, 50_000 + 50 * (block + 1)):
        try:
            storm(seed)
        except Exception as error:
            error.add_note(f"repeat with tests.support.raft_storm.storm({seed})")
            raise


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = storm(7), storm(7)
    assert first.steps == second.steps
    assert first.check.committed == second.check.committed
    assert [repr(m) for m in first.sent] == [repr(m) for m in second.sent]


def test_long_lives_hold_too() -> None:
    cluster = storm(123, actions=1500)
    assert len(cluster.check.committed) > 300
