"""The system machine: authority, log time, versions, limits, marks, skips, snapshots."""

import pytest

from outlast.kernel import ConfigError, CorruptionError, DataError, DivergedError, FencedError
from outlast.state.core.authority import SYSTEM, epoch_at
from outlast.state.core.envelope import Header, Kind, pack_entry
from outlast.state.core.limits import Limits
from outlast.state.core.operation import (
    AcquireLease,
    Announce,
    Configure,
    Fence,
    Forget,
    KeepAlive,
    MarkBody,
    Raise,
    Register,
    ReleaseLease,
    RenewLease,
    SkipBody,
    TakeEpoch,
    encode_body,
)
from outlast.state.core.system import SystemMachine
from tests.support.state_system import Driver

# --- authority ---------------------------------------------------------------------------------


def test_of_two_that_expect_the_same_epoch_the_first_in_the_log_wins() -> None:
    driver = Driver()
    epoch = driver.operate(TakeEpoch("primary", 0, "n1"))
    assert epoch == 1
    with pytest.raises(FencedError) as caught:
        driver.operate(TakeEpoch("primary", 0, "n2"))
    assert caught.value.epoch == epoch
    later = driver.operate(TakeEpoch("primary", epoch, "n2"))
    assert later == 3 > epoch
    assert driver.restored().system.authority.current("primary") == later


def test_an_epoch_grows_with_the_timeline_before_the_index() -> None:
    assert epoch_at(2, 1) > epoch_at(1, (1 << 48) - 1)
    with pytest.raises(Exception, match="48 bits"):
        epoch_at(0, 1 << 48)


def test_a_fenced_entry_takes_effect_only_under_its_epoch_and_in_its_turn() -> None:
    driver = Driver()
    old = driver.operate(TakeEpoch("primary", 0, "n1"))
    keep = KeepAlive([])
    assert driver.operate(keep, fence=Fence("primary", old, 1)) == []
    with pytest.raises(FencedError, match="entry 1 is not next, 2 is"):
        driver.operate(keep, fence=Fence("primary", old, 1))
    with pytest.raises(FencedError, match="entry 3 is not next"):
        driver.operate(keep, fence=Fence("primary", old, 3))
    new = driver.operate(TakeEpoch("primary", old, "n2"))
    with pytest.raises(FencedError) as caught:
        driver.operate(keep, fence=Fence("primary", old, 2))
    assert caught.value.epoch == new
    assert driver.operate(keep, fence=Fence("primary", new, 1)) == []


def test_a_lease_is_granted_renewed_released_and_fences_by_its_token() -> None:
    driver = Driver()
    driver.take_system()
    _, token, *_ = driver.operate(AcquireLease("nightly", "a", 100))
    assert driver.operate(AcquireLease("nightly", "a", 100))[1] == token, "a repeat by its holder"
    with pytest.raises(FencedError, match="held by 'a'"):
        driver.operate(AcquireLease("nightly", "b", 100))
    driver.now_ns = 90
    assert driver.operate(RenewLease("nightly", token, 100))[3] == 190
    driver.now_ns = 150
    with pytest.raises(FencedError):
        driver.operate(AcquireLease("nightly", "b", 100))
    driver.now_ns = 190
    _, later, *_ = driver.operate(AcquireLease("nightly", "b", 100))
    assert later > token
    with pytest.raises(FencedError):
        driver.operate(RenewLease("nightly", token, 100))
    with pytest.raises(FencedError):
        driver.operate(ReleaseLease("nightly", token))
    assert driver.operate(ReleaseLease("nightly", later)) is None
    assert driver.system.authority.leases == {}


# --- log time ----------------------------------------------------------------------------------


def test_log_time_moves_only_under_the_current_epoch_and_never_back() -> None:
    driver = Driver()
    driver.now_ns = 500
    driver.tick()
    assert driver.system.time.ns == 0, "nobody holds the role: log time stands still"
    old = driver.take_system()
    driver.tick()
    assert driver.system.time.ns == 500
    driver.now_ns = 400
    driver.tick()
    assert driver.system.time.ns == 500
    driver.take_system()
    driver.epoch, driver.now_ns = old, 9_000
    driver.tick()
    assert driver.system.time.ns == 500, "a stamp of an ended epoch is not taken"


def test_a_gap_without_a_holder_lengthens_a_lease() -> None:
    driver = Driver()
    driver.take_system()
    driver.operate(AcquireLease("nightly", "a", 100))
    driver.epoch, driver.now_ns = 0, 10_000
    driver.tick()
    with pytest.raises(FencedError):
        driver.operate(AcquireLease("nightly", "b", 100))


def test_what_commands_see_as_time_never_goes_back() -> None:
    driver = Driver()
    seen = []
    driver.machine.execute = lambda _n, _a, context: (seen.append(context[0]), (0, b"\xc0"))[1]  # type: ignore[method-assign]
    session = driver.operate(Register())
    for seq, now_ns in enumerate([50, 70, 60, 80], 1):
        driver.now_ns = now_ns
        driver.call(session, seq)
    assert seen == [50, 70, 70, 80]


def test_seeds_differ_between_commands_and_are_equal_on_every_replica() -> None:
    runs: list[list[int]] = []
    for _ in range(2):
        driver = Driver()
        seeds: list[int] = []
        runs.append(seeds)
        driver.machine.execute = lambda _n, _a, c, s=seeds: (s.append(c[2]), (0, b""))[1]  # type: ignore[misc]
        session = driver.operate(Register())
        for seq in range(1, 6):
            driver.call(session, seq)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 5


# --- versions ----------------------------------------------------------------------------------


def test_the_version_is_raised_once_every_replica_supports_it() -> None:
    driver = Driver(lambda *a, **k: SystemMachine(*a, supported=2, **k))
    driver.operate(Announce("n1#1", machine_version=2))
    driver.operate(Announce("n2#1", machine_version=1))
    assert driver.system.members.machine_version == 1
    with pytest.raises(ConfigError, match="replica n2#1 supports 1"):
        driver.operate(Raise(2))
    driver.operate(Announce("n2#1", machine_version=2))
    assert driver.system.members.may_raise()
    assert driver.operate(Raise(2)) == [2, 1]
    with pytest.raises(ConfigError, match="active are 2 and 1"):
        driver.operate(Announce("n3#1", machine_version=1))
    assert driver.operate(Forget("n2#1")) is True
    assert list(driver.restored().system.members.rows) == ["n1#1"]


def test_a_program_that_is_too_old_stops_by_name_before_it_applies() -> None:
    driver = Driver()
    driver.version = 2
    before = driver.system.dump()
    with pytest.raises(DataError, match="entry 1: needs machine version 2, the class here is"):
        driver.tick()
    assert driver.system.dump() == before


def test_what_a_newer_outlast_writes_stops_this_one_by_name() -> None:
    driver = Driver()
    with pytest.raises(DataError, match="entry 1: unknown system operation"):
        driver.apply(pack_entry(Header(Kind.SYSTEM, 1), b"\x92\x01\x92\xcd\x03\xe7\x01"))
    with pytest.raises(DataError, match="entry 2: kind CHANGES belongs to passive replication"):
        driver.apply(pack_entry(Header(Kind.CHANGES, 1)))


# --- limits, marks, skips, snapshots -------------------------------------------------------------


def test_limits_are_agreed_through_the_log() -> None:
    driver = Driver()
    driver.operate(Configure(Limits(sessions_max=1)))
    first = driver.operate(Register())
    second = driver.operate(Register())
    assert driver.system.sessions.get(first) is None
    assert driver.system.sessions.get(second) is not None
    assert driver.restored().system.limits == Limits(sessions_max=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"window": 257}, "window is 257"),
        ({"sessions_max": 0}, "sessions_max is 0"),
        ({"session_ttl_ns": 2, "session_ttl_max_ns": 1}, "session_ttl_ns 2 is above"),
    ],
)
def test_limits_that_cannot_work_are_refused(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Limits(**fields)


def test_checkpoints_are_cut_at_indices_that_the_log_decides() -> None:
    cuts = []
    driver = Driver(limits=Limits(checkpoint_entries=5))
    session = driver.operate(Register())
    one = driver
    for seq in range(1, 20):
        if seq == 7:
            one = one.restored()  # a restart in between changes nothing
        kept = one.call(session, seq)
        if one.system.entries_since_cut == 0:
            cuts.append(kept.index)
    assert cuts == [5, 10, 15, 20]


def test_a_mark_cuts_at_once_and_large_entries_cut_early() -> None:
    driver = Driver(limits=Limits(checkpoint_bytes=1000))
    body = encode_body(MarkBody("n1#1", 7, b"d"))
    applied = driver.apply(pack_entry(driver.header(Kind.MARK), body))
    assert applied.cut
    assert applied.mark == MarkBody("n1#1", 7, b"d")
    session = driver.operate(Register())
    driver.call(session, 1, bytes(2000))
    assert driver.system.bytes_since_cut == 0


def test_a_skip_is_fine_here_and_divergence_there() -> None:
    skip = pack_entry(Header(Kind.SKIP, 1), encode_body(SkipBody(2)))
    held, ran = Driver(), Driver()
    for driver in (held, ran):
        driver.operate(Register())
    held.system.skip(2)
    held.index = 2
    ran.call(1, 1)
    held.apply(skip)
    with pytest.raises(DivergedError, match="entry 2 is skipped by agreement"):
        ran.apply(skip)
    assert ran.system.diverged_at == 2


def test_a_snapshot_of_a_newer_format_or_damaged_is_refused() -> None:
    system = Driver().system
    with pytest.raises(DataError, match="cannot be read"):
        system.load(b"\xc1")
    newer = b"\xdc\x00\x0f\x63" + system.dump()[2:]
    with pytest.raises(DataError, match="format 99"):
        system.load(newer)


def test_the_digest_covers_replies_changes_and_order() -> None:
    def digest(*steps: tuple[int, bytes]) -> bytes:
        driver = Driver()
        session = driver.operate(Register())
        for seq, args in steps:
            driver.call(session, seq, args)
        return driver.system.digest

    assert digest((1, b"a"), (2, b"b")) == digest((1, b"a"), (2, b"b"))
    assert digest((1, b"a"), (2, b"b")) != digest((1, b"a"), (2, b"a"))

    driver, other = Driver(), Driver()
    for one, changes in ((driver, b"x"), (other, b"y")):
        header = one.header(Kind.TICK)
        one.system.apply(1, header, b"", lambda changes=changes: changes)
    assert driver.system.digest != other.system.digest


def test_a_damaged_entry_is_named() -> None:
    driver = Driver()
    with pytest.raises(CorruptionError, match="entry 1: the body holds no commands"):
        driver.apply(pack_entry(Header(Kind.COMMANDS, 1, 1), b"\xc1"))


def test_role_system_is_one_of_the_roles() -> None:
    driver = Driver()
    assert driver.take_system() == driver.system.authority.current(SYSTEM)
