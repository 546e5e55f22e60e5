"""What a program says of itself, what is told of it, and how health is set up."""

import asyncio

import pytest

from outlast.detect import (
    Health,
    HealthChanged,
    HealthDraining,
)
from outlast.kernel import ConfigError
from outlast.kernel.registry import watched
from outlast.observe import live
from outlast.protect.overview import overview
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

# --- reports, progress, events -----------------------------------------------------------------


def test_a_report_is_what_the_program_says_and_grows_old() -> None:
    async def main() -> None:
        health = Health()
        heard = listen()
        health.report("broker", OK, "connected", groups="liveness", within=10.0)
        assert health.read("readiness").results == ()
        async with health:
            await asyncio.sleep(9)
            assert status(health, "broker") is OK
            health.report("broker", DEGRADED, "one of\nthree", critical=False)
            result = health.read("liveness").results[0]
            assert (result.status, result.detail) == (DEGRADED, "one of three")
            assert (result.kind, result.critical) == ("report", False)
            await asyncio.sleep(11)
            assert status(health, "broker") is UNKNOWN
            assert health.read("liveness").passing
        assert changes(heard) == [
            ("broker", "ok"), ("broker", "degraded"), ("broker", "unknown"),
        ]  # fmt: skip

    story(main)


def test_a_report_cannot_take_the_name_of_a_check() -> None:
    async def main() -> None:
        health = Health()
        health.add("db", lambda: True)
        with pytest.raises(ConfigError, match="name is that of a check"):
            health.report("db", OK)
        with pytest.raises(ConfigError, match="within is"):
            health.report("x", OK, within=0)
        with pytest.raises(ConfigError, match="taken"):
            health.progress("db", within=1.0)
        health.report("flag", OK)
        with pytest.raises(ConfigError, match="taken"):
            health.add("flag", lambda: True)

    story(main)


def test_late_progress_fails_liveness_and_is_told() -> None:
    async def main() -> None:
        health = Health(name="svc")
        heard = listen()
        consumer = health.progress("consumer", within=5.0)
        await asyncio.sleep(100)  # nothing counts before it runs
        async with health:
            for _ in range(4):
                await asyncio.sleep(4)
                consumer.stamp()
            assert health.read("liveness").passing
            await asyncio.sleep(6)
            assert not health.read("liveness").passing
            consumer.stamp()
            assert health.read("liveness").passing
            await asyncio.sleep(1)
        late = [one for one in heard if isinstance(one, HealthChanged)]
        assert changes(heard) == [("consumer", s) for s in ("ok", "failed", "ok")]
        assert late[1].detail.startswith("no progress for 5.")
        assert (late[1].level, late[1].health) == ("warning", "svc")
        assert late[1].since == pytest.approx(21, abs=1)

    story(main)


def test_an_event_tells_what_a_run_took_and_how_long_the_status_had_lasted() -> None:
    async def main() -> None:
        health = Health(name="svc")
        heard = listen()
        good = [True]

        async def check() -> bool:
            await asyncio.sleep(0.25)
            return good[0]

        health.add("x", check)
        await health.refresh()
        await asyncio.sleep(2)
        good[0] = False
        await health.refresh()
        last = heard[-1]
        assert isinstance(last, HealthChanged)
        assert last.took == pytest.approx(0.25)
        assert last.since == pytest.approx(2.25)

    story(main)


def test_flapping_findings_are_no_events() -> None:
    async def main() -> None:
        health = Health()
        heard = listen()
        found = [True]

        async def check() -> bool:
            found.append(not found[-1])
            return found[-1]

        health.add("x", check, every=0.1, fail_after=2)
        async with health:
            await asyncio.sleep(60)
        assert changes(heard) == [("x", "ok")]

    story(main)


def test_startup_passes_even_if_nobody_looked_at_the_right_moment() -> None:
    async def main() -> None:
        health = Health()
        health.report("boot", OK, groups="startup")
        health.report("boot", FAILED)
        assert health.read("startup").passing

    story(main)


def test_draining_is_for_good_and_told_once() -> None:
    async def main() -> None:
        health = Health(name="svc")
        heard = listen()
        assert not health.draining
        health.drain("SIGTERM\n")
        health.drain("again")
        assert health.draining
        assert health.read("readiness").results[-1].detail == "SIGTERM"
        assert "draining" in repr(health)
        told = [one for one in heard if isinstance(one, HealthDraining)]
        assert [(one.health, one.reason) for one in told] == [("svc", "SIGTERM")]
        async with health:
            await asyncio.sleep(1)
            assert health.draining

    story(main)


# --- settings ----------------------------------------------------------------------------------


def test_a_decorator_adds_a_check_and_leaves_the_function_alone() -> None:
    async def main() -> None:
        health = Health()

        @health.check("db", group="startup", every=5.0)
        async def db() -> bool:
            return True

        @health.check("both", groups=("startup", "readiness"))
        def both() -> bool:
            return True

        assert await db()
        assert both()
        assert [one.name for one in health.read("startup").results] == ["db", "both"]
        with pytest.raises(ConfigError, match="not both"):
            health.check("x", group="startup", groups=("liveness",))

    story(main)


def test_liveness_refuses_what_needs_the_network() -> None:
    async def main() -> None:
        health = Health()
        with pytest.raises(ConfigError, match="even_though"):
            health.add("db", lambda: True, groups=("liveness",), needs_network=True)
        health.add(
            "db", lambda: True, groups="liveness", needs_network=True, even_though="sidecar"
        )
        described = health.describe()["checks"]["db"]
        assert (described["needs_network"], described["even_though"]) == (True, "sidecar")

    story(main)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"every": float("inf")}, "every is inf"),
    ],
)
def test_times_are_numbers(given: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Health().add("x", lambda: True, **given)  # type: ignore[arg-type]


def test_bounds_are_kept() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="max_threads is 0"):
            Health(max_threads=0)
        health = Health(max_checks=1)
        health.report("a", OK)
        with pytest.raises(ConfigError, match="max_checks"):
            health.report("b", OK)
        with pytest.raises(ConfigError, match="one of startup"):
            health.read("ready")  # type: ignore[arg-type]

    story(main)


def test_a_name_lets_it_be_found_with_plain_values() -> None:
    async def main() -> None:
        import json

        health = Health(name="svc-found")
        health.add("db", lambda: (DEGRADED, "slow"))
        health.progress("loop", within=5.0)
        await health.refresh()
        (found,) = [one for one in watched() if getattr(one, "name", "") == "svc-found"]
        state = json.loads(json.dumps(found.snapshot()))
        assert state["groups"]["readiness"] == {"status": "degraded", "passing": True}
        assert state["checks"]["db"]["detail"] == "slow"
        told = json.loads(json.dumps(found.describe()))
        assert told["checks"]["loop"] == {
            "kind": "progress", "groups": ["liveness"], "critical": True, "within": 5.0,
        }  # fmt: skip
        assert told["checks"]["db"]["timeout"] == 1.0
        assert "readiness=degraded" in repr(health)
        health.name = ""

    story(main)


def test_health_is_shown_under_the_name_of_its_public_class() -> None:
    health = Health(name="svc-shown")
    (row,) = [one for one in live() if one["name"] == health.name]
    assert row["kind"] == "Health"
    (row,) = [one for one in overview() if one["name"] == health.name]
    assert row["kind"] == "Health"


def test_another_world_begins_with_nothing_known() -> None:
    health = Health()
    consumer = health.progress("consumer", within=5.0, groups="readiness")
    health.add("db", lambda: True)

    async def first() -> None:
        await asyncio.sleep(1000)
        await health.refresh()
        assert health.read("readiness").passing
        health.report("flag", OK)
        health.drain()

    async def second() -> None:
        task = asyncio.create_task(health.run())
        await asyncio.sleep(0)
        assert status(health, "flag") is UNKNOWN
        assert not health.draining
        await asyncio.sleep(3)
        assert status(health, "db") is OK
        assert status(health, "consumer") is OK
        consumer.stamp()
        await asyncio.sleep(6)
        assert status(health, "consumer") is FAILED
        task.cancel()

    story(first)
    story(second)
