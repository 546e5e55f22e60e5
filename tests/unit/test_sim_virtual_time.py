"""``virtual_time``: waiting costs nothing, and everything is as before when the block ends."""

import asyncio
import datetime
import random
import socket
import threading
import time
import uuid

import pytest

from outlast import testing
from outlast.kernel import ConfigError, EscapeError, current_world
from outlast.testing import virtual_time


def test_sleeping_for_a_year_returns_at_once() -> None:
    real = time.perf_counter()
    with virtual_time() as clock:
        begun = time.monotonic()
        time.sleep(365 * 86_400)
        assert time.monotonic() - begun == pytest.approx(365 * 86_400)
        assert clock.now == pytest.approx(365 * 86_400)
    assert time.perf_counter() - real < 10


def test_wall_clock_and_monotonic_clock_go_on_together_until_one_jumps() -> None:
    with virtual_time() as clock:
        wall, monotonic = datetime.datetime.now(datetime.UTC), time.monotonic()
        clock.advance(60)
        assert datetime.datetime.now(datetime.UTC) - wall == datetime.timedelta(seconds=60)
        clock.jump(-3600)
        assert datetime.datetime.now(datetime.UTC) - wall == datetime.timedelta(seconds=60 - 3600)
        assert time.monotonic() - monotonic == pytest.approx(60)


def test_random_numbers_follow_the_seed() -> None:
    def draw(seed: int) -> tuple[float, uuid.UUID]:
        with virtual_time(seed=seed):
            return random.random(), uuid.uuid4()

    assert draw(3) == draw(3) != draw(4)


def test_outlast_objects_find_the_same_clock() -> None:
    with virtual_time() as clock:
        assert current_world() is clock.world
        begun = current_world().clock.monotonic_ns()
        time.sleep(2)
        assert current_world().clock.monotonic_ns() - begun == 2_000_000_000
    assert current_world() is not clock.world


def test_a_coroutine_is_sent_to_the_simulator() -> None:
    with virtual_time(), pytest.raises(ConfigError, match=r"outlast\.sim\.run"):
        asyncio.Runner().get_loop()
    with asyncio.Runner() as runner:
        assert runner.get_loop() is not None, "afterwards there are loops again"


def test_what_cannot_be_simulated_is_refused() -> None:
    with virtual_time(), pytest.raises(EscapeError, match=r"test_sim_virtual_time\.py"):
        socket.create_connection(("127.0.0.1", 9))


def test_everything_is_real_again_after_an_error() -> None:
    before = (time.time, time.sleep, datetime.datetime.now, random.getstate())
    with pytest.raises(ZeroDivisionError), virtual_time():
        random.randrange(0, 1) / 0
    assert (time.time, time.sleep, datetime.datetime.now, random.getstate()) == before


def test_other_threads_keep_the_real_time() -> None:
    go, seen = threading.Event(), []

    def look() -> None:
        go.wait(5)
        seen.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    real = time.monotonic()
    with virtual_time():
        time.sleep(1_000_000)
        go.set()
        thread.join(5)
    assert seen[0] - real < 60


@pytest.mark.parametrize("wrong", [-1.0, -0.001])
def test_time_does_not_go_back(wrong: float) -> None:
    with virtual_time() as clock, pytest.raises(ConfigError, match="time does not go back"):
        clock.advance(wrong)


def test_it_is_a_name_of_the_room() -> None:
    assert testing.virtual_time is virtual_time
