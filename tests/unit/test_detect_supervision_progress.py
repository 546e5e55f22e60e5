"""Stamps of progress: when a child is stuck, and who is not to blame; how stamps are left."""

import os
import threading

import pytest

from outlast.detect import Stop, progress_stamp
from outlast.detect import stop as stamps
from outlast.detect.core.child_progress import ProgressDecider
from outlast.host import make_world
from outlast.host.spawn import memory_file

S = 1_000_000_000


def looks(decider: ProgressDecider, count: int, begin: float, end: float) -> list[int]:
    """Look at a stamp that stays the same, as often as is asked for; what was said."""
    now, said = round(begin * S), []
    while now < end * S:
        now += decider.rest_ns
        silent = decider.look(count, now)
        if silent is not None:
            said.append(silent)
    return said


def test_a_stamp_that_stays_the_same_for_too_long_is_stuck() -> None:
    decider = ProgressDecider(2 * S, 30 * S, 0)
    assert not decider.begun
    assert decider.look(1, S // 4) is None
    assert decider.begun
    assert looks(decider, 1, 0.25, 2.0) == []
    assert looks(decider, 1, 2.0, 2.25) == [2 * S]


def test_every_stamp_begins_anew() -> None:
    decider = ProgressDecider(S, S, 0)
    now = 0
    for count in range(1, 100):
        now += decider.rest_ns
        assert decider.look(count, now) is None


def test_the_first_stamp_may_take_as_long_as_a_start() -> None:
    decider = ProgressDecider(S, 10 * S, 0)
    assert looks(decider, 0, 0, 9.8) == []
    assert looks(decider, 0, 9.875, 10.0) != []


def test_a_watcher_that_was_away_accuses_nobody_of_that_time() -> None:
    decider = ProgressDecider(S, S, 0)
    decider.look(1, decider.rest_ns)
    away = decider.rest_ns + 60 * S
    assert decider.look(1, away) is None
    assert looks(decider, 1, away / S, away / S + 0.7) == []
    assert looks(decider, 1, away / S + 0.75, away / S + 1.25) != []


def test_looks_are_an_eighth_of_the_limit_apart_and_a_quarter_of_a_second_at_most() -> None:
    assert ProgressDecider(S, S, 0).rest_ns == S // 8
    assert ProgressDecider(60 * S, S, 0).rest_ns == S // 4


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(stamps, "_process", [])
    return monkeypatch


def test_a_stamp_outside_of_a_supervised_child_does_nothing(nowhere: pytest.MonkeyPatch) -> None:
    nowhere.delenv(stamps.PROGRESS_VARIABLE, raising=False)
    progress_stamp()


def test_a_process_stamps_into_shared_memory(nowhere: pytest.MonkeyPatch) -> None:
    descriptor = memory_file(stamps.STAMP_BYTES)
    try:
        nowhere.setenv(stamps.PROGRESS_VARIABLE, str(descriptor))
        for _ in range(3):
            progress_stamp()
        assert int.from_bytes(os.pread(descriptor, 8, 0), "little") == 3
    finally:
        os.close(descriptor)


def test_a_descriptor_that_means_something_else_is_left_alone(
    nowhere: pytest.MonkeyPatch,
) -> None:
    descriptor = memory_file(16)
    try:
        nowhere.setenv(stamps.PROGRESS_VARIABLE, str(descriptor))
        progress_stamp()
        assert os.pread(descriptor, 16, 0) == bytes(16)
    finally:
        os.close(descriptor)
    stamps._process.clear()
    progress_stamp()  # it is closed


def test_a_stop_wakes_all_who_wait_and_stays_set() -> None:
    stop = Stop(make_world())
    assert repr(stop) == "<Stop not set>"
    assert not stop.wait(0)
    heard: list[bool] = []
    threads = [threading.Thread(target=lambda: heard.append(stop.wait(10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.set()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert heard == [True] * 3
    assert stop.wait(10)
    assert stop.is_set
