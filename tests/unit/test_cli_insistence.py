"""Ctrl-C ends a command soon, also if somebody swallows what it raises. Real threads: briefly."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from outlast.cli import EXIT_INTERRUPTED
from outlast.cli.insistence import AGAIN_SECONDS, END_SECONDS, Insistence


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallow() -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was not raised")


def test_two_seconds_are_enough() -> None:
    assert AGAIN_SECONDS + END_SECONDS < 2


def test_what_was_swallowed_is_raised_again() -> None:
    def command() -> None:
        with Insistence(again_seconds=0.05, end_seconds=10):
            swallow()
            time.sleep(15)

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        command()
    assert time.monotonic() - begun < 14, "waiting does not make it deaf"


def test_a_command_that_swallows_everything_is_ended_after_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[object] = []
    ended = threading.Event()

    def leave(code: int) -> None:
        said.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", leave)
    with Insistence(again_seconds=0.02, end_seconds=0.02) as insistence:
        insistence.last_words = lambda: said.append("found 3")
        with suppress(KeyboardInterrupt):  # which may come before this thread is here
            swallow()
            time.sleep(60)
        assert ended.wait(60)
    assert said == ["found 3", EXIT_INTERRUPTED]


def test_last_words_that_fail_do_not_keep_it_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with Insistence(again_seconds=0.02, end_seconds=0.02) as insistence:
        insistence.last_words = lambda: [].pop()
        with suppress(KeyboardInterrupt):  # which may come before this thread is here
            swallow()
            time.sleep(60)
        assert ended.wait(60)


def test_a_command_that_ends_in_time_hears_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with suppress(KeyboardInterrupt), Insistence(again_seconds=0.2, end_seconds=0.2):
        signal.raise_signal(signal.SIGINT)
    assert not ended.wait(0.6)


def test_other_signals_are_nobody_s_business(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    with Insistence(again_seconds=0.02, end_seconds=0.02):
        signal.raise_signal(signal.SIGUSR1)
        assert not ended.wait(0.15)
    signal.signal(signal.SIGUSR1, before)


def test_nothing_is_left_open_behind_the_block() -> None:
    def pipes() -> set[str]:
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(f"{entry.name} {entry.readlink()}")
        return {name for name in found if "pipe:" in name}

    signal.set_wakeup_fd(-1)  # whoever has set one before
    before, threads = pipes(), set(threading.enumerate())  # those of other tests may end
    for _ in range(5):
        with Insistence():
            assert set(threading.enumerate()) <= threads, "a program under test would see it"
    end = time.monotonic() + 15
    while pipes() - before and time.monotonic() < end:
        time.sleep(0.01)
    assert not pipes() - before
    assert signal.set_wakeup_fd(-1) == -1


def test_it_does_nothing_outside_of_the_main_thread() -> None:
    done: list[bool] = []

    def other() -> None:
        with Insistence():
            done.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert done == [True]
