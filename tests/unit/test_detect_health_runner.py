"""How checks are run: once at a time, each at its pace, on few threads. In virtual time."""

import asyncio
import time
from itertools import pairwise

import pytest

from outlast.detect import (
    Health,
    HealthThreadsUsedUp,
    Status,
)
from outlast.kernel import ConfigError
from tests.support.health_story import (
    DEGRADED,
    FAILED,
    OK,
    UNKNOWN,
    changes,
    listen,
    status,
    story,
)

# --- pace --------------------------------------------------------------------------------------


def test_all_begin_at_once_and_do_not_stay_together() -> None:
    async def main() -> None:
        begun = time.monotonic()
        runs: dict[str, list[float]] = {f"c{number}": [] for number in range(5)}
        health = Health()
        for name, times in runs.items():

            async def check(times: list[float] = times) -> None:
                times.append(time.monotonic() - begun)

            health.add(name, check, every=10.0)
        async with health:
            await asyncio.sleep(35)
        assert all(times[0] == 0.0 for times in runs.values())
        second = [times[1] for times in runs.values()]
        assert len(set(second)) == 5
        assert all(6.0 <= one <= 10.0 for one in second)
        assert all(times[2] - times[1] == pytest.approx(10) for times in runs.values())

    story(main)


def test_the_pace_counts_from_the_end_of_a_run() -> None:
    async def main() -> None:
        begun = time.monotonic()
        ends: list[float] = []

        async def slow() -> None:
            await asyncio.sleep(3)
            ends.append(time.monotonic() - begun)

        health = Health()
        health.add("slow", slow, every=10.0, timeout=5.0)
        async with health:
            await asyncio.sleep(60)
        gaps = [b - a for a, b in pairwise(ends[1:])]
        assert gaps
        assert all(gap == pytest.approx(13) for gap in gaps)

    story(main)


def test_checks_come_and_go_while_it_runs() -> None:
    async def main() -> None:
        ran: list[str] = []
        health = Health()

        async def check() -> None:
            ran.append("x")

        async with health:
            await asyncio.sleep(10)
            health.add("x", check, every=1.0)
            await asyncio.sleep(0.01)
            assert ran == ["x"]
            health.forget("x")
            health.forget("x")
            await asyncio.sleep(10)
            assert ran == ["x"]
            assert health.read("readiness").results == ()
            health.add("x", check)
            await asyncio.sleep(0.01)
            assert ran == ["x", "x"]

    story(main)


def test_checks_are_run_once_at_a_time_by_one_runner() -> None:
    async def main() -> None:
        health = Health(name="svc")
        async with health:
            await asyncio.sleep(0)
            with pytest.raises(ConfigError, match="run already"):
                await health.run()
            with pytest.raises(ConfigError, match="run already"):
                health.start()
        async with health:
            await asyncio.sleep(0)

    story(main)


# --- hanging -----------------------------------------------------------------------------------


def test_a_plain_check_that_hangs_is_not_started_again_before_it_returned() -> None:
    async def main() -> None:
        calls: list[float] = []

        def check() -> None:
            calls.append(time.monotonic())
            time.sleep(7.5 if len(calls) == 1 else 0)

        health = Health()
        heard = listen()
        health.add("slow", check, timeout=1.0, every=1.0)
        async with health:
            await asyncio.sleep(7)
            assert len(calls) == 1
            assert health.status()["threads"] == 1
            result = health.read("readiness").results[0]
            assert (result.status, result.detail) == (FAILED, "no answer within 1.0 s")
            assert result.took is not None
            assert result.took > 1.0
            await asyncio.sleep(3)
            assert len(calls) > 1
            assert health.read("readiness").passing
        assert changes(heard) == [("slow", "failed"), ("slow", "ok")]

    story(main)


@pytest.mark.parametrize("seconds", [1.5, 2.5])
def test_an_answer_that_comes_too_late_does_not_count(seconds: float) -> None:
    async def main() -> None:
        health = Health()
        heard = listen()
        health.add("slow", lambda: time.sleep(seconds), timeout=1.0, every=1.0)
        async with health:
            await asyncio.sleep(30)
        assert changes(heard) == [("slow", "failed")]

    story(main)


def test_a_coroutine_that_hangs_is_cancelled_and_tried_again() -> None:
    async def main() -> None:
        begun, ended = [0], [0]

        async def check() -> None:
            begun[0] += 1
            try:
                await asyncio.sleep(1000)
            finally:
                ended[0] += 1

        health = Health()
        health.add("x", check, timeout=1.0, every=1.0)
        async with health:
            await asyncio.sleep(9)
            assert begun[0] > 3
            assert begun[0] - ended[0] <= 1
        await asyncio.sleep(0)
        assert begun == ended

    story(main)


def test_a_coroutine_that_ignores_its_cancellation_is_not_started_again() -> None:
    async def main() -> None:
        begun = [0]
        let_go = asyncio.Event()

        async def check() -> None:
            begun[0] += 1
            while begun[0] == 1 and not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        health = Health()
        health.add("x", check, timeout=1.0, every=1.0)
        async with health:
            await asyncio.sleep(9)
            assert begun[0] == 1
            assert status(health, "x") is FAILED
            let_go.set()
            await asyncio.sleep(2)
            assert begun[0] > 1
            assert status(health, "x") is OK

    story(main)


def test_threads_are_bounded_and_what_gets_none_is_unknown() -> None:
    async def main() -> None:
        health = Health(name="svc", max_threads=2)
        heard = listen()
        for number in range(3):
            health.add(f"h{number}", lambda: time.sleep(100), every=1.0)
        async with health:
            await asyncio.sleep(20)
            found = health.read("readiness").results
            assert [one.status for one in found] == [FAILED, FAILED, UNKNOWN]
            assert found[2].detail == "no thread free: 2 checks have not returned (h0, h1)"
            assert health.status()["threads"] == 2
        used_up = [one for one in heard if isinstance(one, HealthThreadsUsedUp)]
        assert [(one.check, one.holders, one.health) for one in used_up] == [
            ("h2", ("h0", "h1"), "svc")
        ]

    story(main)


def test_a_plain_check_may_return_what_is_awaited() -> None:
    async def main() -> None:
        async def later() -> tuple[Status, str]:
            await asyncio.sleep(0.1)
            return DEGRADED, "slow"

        health = Health()
        health.add("x", lambda: later())
        await health.refresh()
        result = health.read("readiness").results[0]
        assert (result.status, result.detail) == (DEGRADED, "slow")
        assert result.took == pytest.approx(0.1, abs=0.01)

    story(main)


# --- refreshing --------------------------------------------------------------------------------


def test_refreshing_joins_a_run_that_is_under_way() -> None:
    async def main() -> None:
        begun = [0]

        async def check() -> None:
            begun[0] += 1
            await asyncio.sleep(0.5)

        health = Health()
        heard = listen()
        health.add("x", check, fail_after=2, every=100.0)
        async with health:
            await asyncio.sleep(0.1)
            await asyncio.gather(health.refresh(), health.refresh())
            assert begun[0] == 1
            await health.refresh()
            assert begun[0] == 2
        assert changes(heard) == [("x", "ok")]

    story(main)


def test_a_run_that_several_wait_for_is_one_finding() -> None:
    async def main() -> None:
        found = [True]

        async def check() -> bool:
            await asyncio.sleep(0.5)
            return found[0]

        health = Health()
        health.add("x", check, fail_after=2, every=100.0)
        await health.refresh()
        found[0] = False
        await asyncio.gather(health.refresh(), health.refresh(), health.refresh())
        result = health.read("readiness").results[0]
        assert (result.status, result.detail) == (OK, "1 of 2 in a row failed")

    story(main)


def test_who_stops_waiting_for_a_refresh_stops_no_check() -> None:
    async def main() -> None:
        ended = [0]

        async def check() -> None:
            await asyncio.sleep(0.5)
            ended[0] += 1

        health = Health()
        health.add("x", check)
        async with health:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(health.refresh(), 0.1)
            await asyncio.sleep(0.5)
            assert ended[0] == 1

    story(main)


@pytest.mark.parametrize("plain", [True, False])
def test_what_goes_wrong_in_a_check_ends_nothing_else(plain: bool) -> None:
    async def main() -> None:
        errors: list[BaseException] = [
            RuntimeError("secret"), StopIteration(), SystemExit(3), ValueError(),
        ]  # fmt: skip
        if not plain:
            errors = [RuntimeError("secret"), asyncio.CancelledError(), TypeError()]

        def check() -> None:
            if errors:
                raise errors.pop(0)

        async def later() -> None:
            check()

        found: list[tuple[str, str]] = []
        health = Health()
        health.add("x", check if plain else later)
        for _ in range(len(errors) + 1):
            await health.refresh()
            result = health.read("readiness").results[0]
            found.append((result.status.value, result.detail))
        if plain:
            assert found == [
                ("failed", "RuntimeError"), ("failed", "StopIteration"),
                ("failed", "not known whether that is over: SystemExit"),
                ("failed", "ValueError"), ("ok", ""),
            ]  # fmt: skip
        else:
            assert found[0] == ("failed", "RuntimeError")
            assert found[1][1].endswith("cancelled")
            assert found[3] == ("ok", "")

    story(main)
