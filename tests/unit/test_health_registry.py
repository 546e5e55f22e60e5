"""Health: what each group answers, what is unknown, and what a hung check costs."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx
import pytest
from starlette.applications import Starlette

from outlast.detect import Health, HealthChanged, Status, health_routes
from outlast.host import make_world
from outlast.kernel import ConfigError, Event, World

NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    wall_ns = monotonic_ns


class Timers:
    """Fires a timer when the clock is moved; sleeps until then as well."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiting: list[tuple[int, Callable[[], None]]] = []

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> "Handle":
        entry = (when_ns, callback)
        self.waiting.append(entry)
        return Handle(self, entry)

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        handle = self.call_at(
            self.clock.now_ns + int(seconds * NS),
            lambda: None if done.done() else done.set_result(None),
        )
        try:
            await done
        finally:
            handle.cancel()

    async def advance(self, seconds: float) -> None:
        end = self.clock.now_ns + int(seconds * NS)
        while due := sorted((e for e in self.waiting if e[0] <= end), key=lambda e: e[0]):
            self.waiting.remove(due[0])
            self.clock.now_ns = max(self.clock.now_ns, due[0][0])
            due[0][1]()
            await settle()
        self.clock.now_ns = end
        await settle()


class Handle:
    def __init__(self, timers: Timers, entry: tuple[int, Callable[[], None]]) -> None:
        self.timers, self.entry = timers, entry

    def cancel(self) -> None:
        if self.entry in self.timers.waiting:
            self.timers.waiting.remove(self.entry)


class Inline:
    """Runs offloaded calls at once; a call that is to hang is left pending."""

    def __init__(self) -> None:
        self.calls = 0
        self.hang = False

    def run(self, lane: str, call: Callable[[], object]) -> "asyncio.Future[object]":
        self.calls += 1
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if not self.hang:
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        return future


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.inline = Inline()
        self.events: list[Event] = []
        self.world: World = replace(
            make_world(seed=1), clock=self.clock, timers=self.timers, offload=self.inline
        )  # type: ignore[arg-type]
        self.world.events.subscribe(self.events.append)  # type: ignore[attr-defined]
        self.health = Health(self.world)


def run(story: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await story(Bench())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (None, Status.OK),
        (True, Status.OK),
        (False, Status.FAILED),
        (Status.DEGRADED, Status.DEGRADED),
        ((Status.FAILED, "full"), Status.FAILED),
        ("fine", Status.FAILED),
    ],
)
def test_what_a_check_may_return(finding: object, status: Status) -> None:
    async def story(bench: Bench) -> None:
        async def later() -> object:
            return finding

        bench.health.add("plain", lambda: finding)  # type: ignore[arg-type, return-value]
        bench.health.add("coroutine", later)  # type: ignore[arg-type]
        await bench.health.refresh()
        assert [r.status for r in bench.health.read("readiness").results] == [status] * 2

    run(story)


def test_an_exception_is_a_failure_without_its_text() -> None:
    async def story(bench: Bench) -> None:
        def check() -> bool:
            raise RuntimeError("password=1234")

        bench.health.add("db", check)
        await bench.health.refresh()
        (result,) = bench.health.read("readiness").results
        assert (result.status, result.detail) == (Status.FAILED, "RuntimeError")
        assert [(e.check, e.after) for e in bench.events if isinstance(e, HealthChanged)] == [
            ("db", "failed")
        ]

    run(story)


def test_unknown_is_not_ready_and_not_dead() -> None:
    async def story(bench: Bench) -> None:
        bench.health.add("x", lambda: True, groups=("startup", "liveness", "readiness"))
        found = bench.health.snapshot()
        assert {g: (h.status, h.passing) for g, h in found.items()} == {
            "startup": (Status.UNKNOWN, False),
            "liveness": (Status.UNKNOWN, True),
            "readiness": (Status.UNKNOWN, False),
        }

    run(story)


def test_an_old_result_becomes_unknown() -> None:
    async def story(bench: Bench) -> None:
        bench.health.add("x", lambda: True, every=1.0, timeout=1.0)
        await bench.health.refresh()
        await bench.timers.advance(4.0)
        assert bench.health.read("readiness").passing
        await bench.timers.advance(0.1)
        found = bench.health.read("readiness")
        assert (found.status, found.passing) == (Status.UNKNOWN, False)
        assert "last result (ok) is 4 s old" in found.results[0].detail

    run(story)


def test_groups_answer_for_themselves_and_startup_stays_passed() -> None:
    async def story(bench: Bench) -> None:
        state = {"db": True, "boot": False}
        bench.health.add("db", lambda: state["db"])
        bench.health.add("boot", lambda: state["boot"], groups=("startup",))
        bench.health.add("loop", lambda: True, groups=("liveness",))

        async def passing() -> dict[str, bool]:
            await bench.health.refresh()
            return {g: h.passing for g, h in bench.health.snapshot().items()}

        assert await passing() == {"startup": False, "liveness": True, "readiness": True}
        state["boot"] = True
        assert (await passing())["startup"]
        state.update(boot=False, db=False)
        assert await passing() == {"startup": True, "liveness": True, "readiness": False}

    run(story)


def test_a_check_that_is_not_critical_only_degrades() -> None:
    async def story(bench: Bench) -> None:
        bench.health.add("cache", lambda: False, critical=False)
        await bench.health.refresh()
        found = bench.health.read("readiness")
        assert (found.status, found.passing) == (Status.DEGRADED, True)

    run(story)


def test_draining_fails_readiness_alone() -> None:
    async def story(bench: Bench) -> None:
        bench.health.add("x", lambda: True, groups=("liveness", "readiness"))
        await bench.health.refresh()
        bench.health.drain()
        assert not bench.health.read("readiness").passing
        assert bench.health.read("liveness").passing

    run(story)


def test_a_hung_check_fails_is_started_once_and_recovers() -> None:
    async def story(bench: Bench) -> None:
        bench.inline.hang = True
        bench.health.add("slow", lambda: True, timeout=1.0, every=1.0)
        bench.health.add("good", lambda: True, groups=("liveness",), every=1.0)
        running = asyncio.ensure_future(bench.health.run())
        await settle()
        assert bench.health.read("readiness").status is Status.UNKNOWN
        await bench.timers.advance(9.5)
        (result,) = bench.health.read("readiness").results
        assert (result.status, result.detail) == (Status.FAILED, "no answer within 1.0 s")
        assert bench.inline.calls == 2  # one of each, and no more while they hang
        running.cancel()

    run(story)


def test_checks_run_again_at_their_own_pace_and_late_ones_are_taken_up() -> None:
    async def story(bench: Bench) -> None:
        counts = {"fast": 0, "slow": 0, "late": 0}

        def counting(name: str) -> Callable[[], bool]:
            def check() -> bool:
                counts[name] += 1
                return True

            return check

        bench.health.add("fast", counting("fast"), every=1.0)
        bench.health.add("slow", counting("slow"), every=5.0)
        running = asyncio.ensure_future(bench.health.run())
        await settle()
        assert counts == {"fast": 1, "slow": 1, "late": 0}
        bench.health.add("late", counting("late"), every=100.0)
        await bench.timers.advance(10.5)
        assert counts == {"fast": 11, "slow": 3, "late": 1}
        running.cancel()

    run(story)


def test_a_hung_coroutine_check_is_cancelled() -> None:
    async def story(bench: Bench) -> None:
        ended: list[str] = []

        async def check() -> bool:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append("cancelled")
            return True

        bench.health.add("x", check, timeout=2.0)
        waiting = asyncio.ensure_future(bench.health.refresh())
        await settle()
        await bench.timers.advance(2.0)
        await waiting
        await settle()
        assert ended == ["cancelled"]
        assert bench.health.read("readiness").status is Status.FAILED

    run(story)


def test_a_plain_check_does_not_run_on_the_loop() -> None:
    async def main() -> None:
        where: list[int] = []
        health = Health(make_world(seed=1))
        health.add("x", lambda: where.append(threading.get_ident()))
        await health.refresh()
        assert health.read("readiness").passing
        assert where != [threading.get_ident()]

    asyncio.run(main())


def test_http_answers_from_the_snapshot() -> None:
    async def story(bench: Bench) -> None:
        state = {"db": (Status.OK, "12 ms")}
        bench.health.add("db", lambda: state["db"])
        await bench.health.refresh()
        app = Starlette(routes=health_routes(bench.health))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://n1")
        calls = bench.inline.calls
        answers = {path: await client.get(path) for path in ("/livez", "/readyz", "/startupz")}
        assert {p: (a.status_code, a.text) for p, a in answers.items()} == {
            "/livez": (200, "ok\n"),
            "/readyz": (200, "ok\n"),
            "/startupz": (200, "ok\n"),
        }
        assert (await client.get("/readyz?verbose")).text == "ok\n[+]db ok: 12 ms\n"
        assert (await client.head("/readyz")).status_code == 200
        assert (await client.post("/readyz")).status_code == 405
        state["db"] = (Status.FAILED, "no\nroute")
        await bench.health.refresh()
        bad = await client.get("/readyz")
        assert (bad.status_code, bad.text) == (503, "failed\n[-]db failed: no route\n")
        assert bad.headers["cache-control"] == "no-store"
        assert (await client.get("/livez")).status_code == 200
        assert bench.inline.calls == calls + 1  # probes ran nothing
        await client.aclose()

    run(story)


def test_checks_are_checked() -> None:
    health = Health(make_world(seed=1))
    health.add("x", lambda: True)
    for given, says in (
        ({"name": "x"}, "taken"),
        ({"name": "y", "groups": ("ready",)}, "'ready'; one of startup"),
        ({"name": "y", "groups": ()}, "give a group"),
        ({"name": "y", "every": 0}, "above 0"),
        ({"name": "y", "stale_after": 1.5}, "stale_after"),
    ):
        with pytest.raises(ConfigError, match=says):
            health.add(check=lambda: True, **given)  # type: ignore[arg-type]
