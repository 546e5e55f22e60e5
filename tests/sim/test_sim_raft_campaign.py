"""Random lives of a whole cluster with state and clients: promises hold, and enough happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.log.engines.raft.core.election import Election
from outlast.log.engines.raft.core.reads import Reads
from outlast.state.core.session import SessionRow, SessionTable
from tests.support import raft_campaign
from tests.support.raft_campaign import (
    SOMETIMES,
    Result,
    SeedError,
    Tally,
    campaign,
    main,
    run_seed,
)

ROOT = Path(__file__).parents[2]

KEPT = {
    72: "a learner that had everything was not made a voter while the log was idle",
    23: "a state saved ahead of its own log brought back former members after a power cut",
    350: "a seal not yet committed here stopped the node once a snapshot had passed it",
}


@pytest.mark.parametrize("seed", sorted(KEPT))
def test_kept_seed(seed: int) -> None:
    run_seed(seed)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_promises_hold_and_everything_is_seen_sometimes() -> None:
    tally = campaign(range(60_000, 60_200))
    shares = {name: round(tally.share(name), 1) for name in SOMETIMES}
    assert tally.verdict == "passed", shares


@pytest.mark.timeout(180)
def test_a_black_box_judges_the_same_runs() -> None:
    seeds = range(60_000, 60_010)
    inside = [run_seed(seed).counters for seed in seeds]
    assert [run_seed(seed, black_box=True).counters for seed in seeds] == inside


@pytest.mark.timeout(240)
def test_a_seed_gives_the_same_digest_under_any_hash_seed() -> None:
    digests = [_digests(hash_seed) for hash_seed in ("0", "4711")]
    assert digests[0] == digests[1]
    assert digests[0] == [f"{s} {run_seed(s).digest}" for s in range(60_000, 60_012)]


def _digests(hash_seed: str) -> list[str]:
    command = [
        sys.executable, "-m", "tests.support.raft_campaign", "--digests",
        "--first", "60000", "--seeds", "12",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()[:12]


def test_another_seed_gives_another_digest() -> None:
    assert run_seed(60_001).digest != run_seed(60_002).digest


# --- the runner --------------------------------------------------------------------------------


def test_a_campaign_that_hardly_ever_sees_a_thing_is_void() -> None:
    tally = Tally()
    for seed in range(100):
        seen = dict.fromkeys(SOMETIMES, 1)
        if seed >= 4:
            seen["lease_lost"] = 0
        tally.add(Result(seed, 10, seen, ""))
    assert tally.missing == ["lease_lost"]
    assert tally.verdict == "void"


def test_a_void_campaign_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dull(seed: int, **_: object) -> Result:
        return Result(seed, 10, {}, "")

    monkeypatch.setattr(raft_campaign, "run_seed", dull)
    assert main(["--seeds", "100"]) == 3
    assert "verdict: void" in capsys.readouterr().out


def test_the_first_seed_that_fails_is_named_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Election, "up_to_date", lambda self, request: True)
    assert main(["--seeds", "200"]) == 1
    told = capsys.readouterr().out
    seed = int(told.split("run_seed(")[1].split(")")[0])
    assert f"seed {seed}:" in told
    with pytest.raises(SeedError):
        run_seed(seed)


# --- planted bugs of what only a state and clients can show ------------------------------------


def _forget_replies(patch: pytest.MonkeyPatch) -> None:
    """A snapshot keeps the sessions and loses their recorded replies."""
    original = SessionTable.restore

    def restore(self: SessionTable, rows: list[SessionRow]) -> None:
        bare = [SessionRow(r.id, r.ttl_ns, r.used_ns, r.label, r.ack_below) for r in rows]
        original(self, bare)

    patch.setattr(SessionTable, "restore", restore)


def _run_repeats(patch: pytest.MonkeyPatch) -> None:
    """A repeat that comes through the log runs again."""
    original = SessionTable.admit

    def admit(self: SessionTable, command, print_, now_ns, index):  # type: ignore[no-untyped-def]
        row = self.get(command.session)
        if row is not None and command.seq in row.replies:
            return row
        return original(self, command, print_, now_ns, index)

    patch.setattr(SessionTable, "admit", admit)


def _ignore_drift(patch: pytest.MonkeyPatch) -> None:
    """The lease is as long as the promise, as if all clocks ran alike."""
    original = Reads.__init__

    def init(self: Reads, state) -> None:  # type: ignore[no-untyped-def]
        original(self, state)
        self.lease_ns = state.timeout_ns

    patch.setattr(Reads, "__init__", init)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("black_box", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("plant", [_forget_replies, _run_repeats, _ignore_drift])
def test_planted_bug_is_found(
    plant: object, black_box: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)  # type: ignore[operator]
    with pytest.raises(SeedError):
        campaign(range(200), black_box=black_box)


def test_a_run_that_goes_in_circles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.raft_full.STEPS_MAX", 50)
    with pytest.raises(SeedError, match="no end after 50 steps"):
        run_seed(1)
