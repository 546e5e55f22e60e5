"""Supervised tasks and threads in virtual time: order, trees, progress, what cannot be stopped."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from outlast import sim
from outlast.detect import (
    Child,
    ChildAbandoned,
    ChildExited,
    ChildReady,
    ChildRestarting,
    ChildStarted,
    ChildStopped,
    ChildStuck,
    CrashLoop,
    Ending,
    Grace,
    Health,
    Ready,
    RestartBackoff,
    Status,
    Stop,
    Supervisor,
    SupervisorEscalated,
    checks,
    progress_stamp,
)
from outlast.kernel import ConfigError, Event, UnavailableError, current_world
from outlast.kernel.registry import watched

QUICK = RestartBackoff(base=0.5, cap=8.0, jitter=0)


class Story:
    """What happened, with the virtual second of each event."""

    def __init__(self) -> None:
        self.world = current_world()
        self.begun = self.world.clock.monotonic_ns()
        self.events: list[tuple[float, Event]] = []
        self.calls: list[str] = []
        self.world.events.subscribe(self._hear)  # type: ignore[attr-defined]

    @property
    def now(self) -> float:
        return round((self.world.clock.monotonic_ns() - self.begun) / 1e9, 2)

    def _hear(self, event: Event) -> None:
        self.events.append((self.now, event))

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def names(self, kind: type[Event]) -> list[str]:
        return [event.child for event in self.of(kind)]

    def at(self, kind: type[Event]) -> list[float]:
        return [at for at, event in self.events if isinstance(event, kind)]

    async def wait(self) -> None:
        """A child that only waits."""
        await asyncio.Event().wait()

    async def crash(self) -> None:
        raise ValueError("no")

    def fails_after(self, seconds: float) -> Callable[[], Any]:
        async def child() -> None:
            await asyncio.sleep(seconds)
            raise ValueError("late")

        return child


def told(story: Callable[[Story], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(Story())

    sim.run(main, seed=3)


def test_children_start_in_order_and_stop_in_reverse() -> None:
    async def story(s: Story) -> None:
        children = [Child.task(name, s.wait) for name in "abc"]
        async with Supervisor(*children) as supervisor:
            assert supervisor.state == "running"
            assert [child.state for child in supervisor.children] == ["running"] * 3
        assert s.names(ChildStarted) == ["a", "b", "c"]
        assert s.names(ChildStopped) == ["c", "b", "a"]
        assert not any(event.forced for event in s.of(ChildStopped))
        assert supervisor.state == "ended"
        assert supervisor.ending == Ending("stopped")

    told(story)


def test_the_next_child_starts_when_the_one_before_is_ready() -> None:
    async def story(s: Story) -> None:
        ready: list[bool] = []

        async def warm() -> None:
            await asyncio.sleep(2)
            ready.append(True)
            await s.wait()

        first = Child.task("a", warm, ready=lambda: bool(ready))
        async with Supervisor(first, Child.task("b", s.wait)):
            assert s.at(ChildStarted)[0] == 0
            assert 2 <= s.at(ChildStarted)[1] < 2.1
            assert s.names(ChildReady) == ["a", "b"]

    told(story)


def test_a_port_and_a_stamp_and_a_check_say_that_a_child_is_ready() -> None:
    async def story(s: Story) -> None:
        async def serve() -> None:
            await asyncio.sleep(1)
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 8080)
            async with server:
                await s.wait()

        async def stamp() -> None:
            await asyncio.sleep(3)
            progress_stamp()
            await s.wait()

        tcp = checks.tcp("127.0.0.1:8080")
        children = (
            Child.task("port", serve, ready=8080),
            Child.task("check", s.wait, ready=tcp),
            Child.task("stamp", stamp, ready=Ready.stamp()),
        )
        async with Supervisor(*children):
            after = [round(event.after, 1) for event in s.of(ChildReady)]
            assert after == [1.0, 0.0, 3.0]

    told(story)


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (True, True), (None, True), (Status.OK, True), ((Status.DEGRADED, "cold"), True),
        (False, False), (Status.FAILED, False), ((False, "no"), False), (Status.UNKNOWN, False),
    ],
)  # fmt: skip
def test_what_says_that_a_child_is_ready(answer: object, ready: bool) -> None:
    async def story(s: Story) -> None:
        child = Child.task(
            "a", s.wait, ready=lambda: answer, start_timeout=1.0, restart="temporary"
        )
        supervisor = Supervisor(child)
        await supervisor.start()
        assert supervisor.child("a").state == ("running" if ready else "done")
        await supervisor.stop()

    told(story)


def test_a_child_that_does_not_get_ready_is_ended_and_started_again() -> None:
    async def story(s: Story) -> None:
        def no() -> bool:
            raise OSError

        supervisor = Supervisor(
            Child.task("a", s.wait, ready=no, start_timeout=3), intensity=1, on_limit="stop",
            backoff=QUICK,
        )  # fmt: skip
        with pytest.raises(UnavailableError, match="2 restarts within 60 s, the last of a"):
            await supervisor.start()
        assert s.at(ChildExited) == [3.0, 6.0]
        assert s.of(ChildExited)[0].reason == "not ready within 3 s; cancelled"
        assert supervisor.ending is not None
        assert supervisor.ending.failed

    told(story)


def test_a_crash_is_followed_by_a_restart_at_once_and_then_by_longer_waits() -> None:
    async def story(s: Story) -> None:
        async with Supervisor(Child.task("a", s.crash), backoff=QUICK) as supervisor:
            await asyncio.sleep(60)
            assert s.at(ChildStarted)[:9] == [0, 0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5, 31.5]
            assert supervisor.child("a").looping
            assert supervisor.child("a").last_exit == "raised ValueError: no"
            assert s.of(CrashLoop)[0].reason == "raised ValueError: no"
            assert s.of(ChildExited)[0].lines[-1] == "ValueError: no"

    told(story)


def test_a_crash_loop_is_shown_by_health_until_the_child_has_been_up_for_long_enough() -> None:
    async def story(s: Story) -> None:
        bad = [True]

        async def child() -> None:
            if bad:
                raise ValueError
            await s.wait()

        health = Health(world=s.world)
        tree = Supervisor(
            Supervisor(Child.task("a", child), name="inner", on_limit="slow", backoff=QUICK),
            name="app", health=health,
        )  # fmt: skip
        async with tree:
            await asyncio.sleep(20)
            (found,) = health.read("readiness").results
            assert found.name == "supervisor app"
            assert found.status is Status.DEGRADED
            assert found.detail == "inner/a is in a crash loop (raised ValueError)"
            assert health.read("readiness").passing
            bad.clear()
            await asyncio.sleep(12)
            assert health.read("readiness").status is Status.DEGRADED
            await asyncio.sleep(5)
            assert health.read("readiness").status is Status.OK

    told(story)


def test_one_for_all_starts_everybody_anew_in_order() -> None:
    async def story(s: Story) -> None:
        children = [
            Child.task("a", s.wait), Child.task("b", s.fails_after(5)), Child.task("c", s.wait)
        ]  # fmt: skip
        async with Supervisor(*children, strategy="one_for_all"):
            await asyncio.sleep(6)
            assert s.names(ChildStarted) == ["a", "b", "c", "a", "b", "c"]
            assert s.names(ChildStopped) == ["c", "a"]

    told(story)


def test_rest_for_one_leaves_those_before_alone() -> None:
    async def story(s: Story) -> None:
        children = [
            Child.task("a", s.wait), Child.task("b", s.fails_after(5)), Child.task("c", s.wait)
        ]  # fmt: skip
        async with Supervisor(*children, strategy="rest_for_one"):
            await asyncio.sleep(6)
            assert s.names(ChildStarted) == ["a", "b", "c", "b", "c"]

    told(story)


def test_a_supervisor_inside_that_does_not_get_on_top_of_it_is_started_anew_as_a_whole() -> None:
    async def story(s: Story) -> None:
        inner = Supervisor(
            Child.task("x", s.wait), Child.task("y", s.fails_after(1)),
            name="inner", intensity=1, backoff=QUICK,
        )  # fmt: skip
        async with Supervisor(Child.task("a", s.wait), inner, name="app") as supervisor:
            await asyncio.sleep(2.5)
            assert s.names(ChildStarted)[:6] == [
                "a", "inner", "inner/x", "inner/y", "inner/y", "inner",
            ]  # fmt: skip
            (escalated,) = s.of(SupervisorEscalated)
            assert (escalated.supervisor, escalated.parent) == ("inner", "app")
            assert s.names(ChildRestarting) == ["inner/y", "inner"]
            assert supervisor.child("inner").restarts == 1
            assert supervisor.child("inner/y").state == "running"
            assert "2 restarts within 60 s" in supervisor.child("inner").last_exit
            assert await checks.supervisor(supervisor)() == (
                Status.OK, "4 children, none in a crash loop",
            )  # fmt: skip

    told(story)


def test_a_supervisor_inside_that_stops_for_good_is_not_started_again() -> None:
    async def story(s: Story) -> None:
        inner = Supervisor(Child.task("x", s.crash), name="inner", intensity=0, on_limit="stop")
        async with Supervisor(inner, Child.task("a", s.wait)) as supervisor:
            ending = await supervisor.ended()
            assert ending.failed
            assert supervisor.child("inner").state == "crash-loop"
            assert supervisor.child("a").state == "running"
            supervisor.restart("inner")
            await asyncio.sleep(1)
            assert s.names(ChildStarted).count("inner") == 2

    told(story)


def test_the_end_of_a_significant_child_ends_the_supervisor() -> None:
    async def story(s: Story) -> None:
        async def job() -> None:
            await asyncio.sleep(4)

        supervisor = Supervisor(
            Child.task("a", s.wait),
            Child.task("job", job, restart="transient", significant=True),
            auto_shutdown="any_significant",
        )
        await supervisor.start()
        assert await supervisor.ended() == Ending("job has ended: returned")
        assert s.now == 4
        assert supervisor.child("a").state == "stopped"

    told(story)


def test_a_tree_whose_children_have_all_done_their_work_has_ended() -> None:
    async def story(s: Story) -> None:
        async def job() -> None:
            await asyncio.sleep(1)

        inner = Supervisor(
            Child.task("job", job, restart="transient"), name="inner", restart="transient"
        )
        supervisor = Supervisor(inner, Child.task("once", job, restart="temporary"))
        await supervisor.start()
        assert await supervisor.ended() == Ending("all children have done their work")
        assert supervisor.child("inner/job").state == "done"

    told(story)


def test_a_task_without_progress_is_cancelled_and_started_again() -> None:
    async def story(s: Story) -> None:
        async def child() -> None:
            for _ in range(5):
                progress_stamp()
                await asyncio.sleep(1)
            await s.wait()

        async with Supervisor(Child.task("a", child, progress=2.0), backoff=QUICK):
            await asyncio.sleep(8)
            (stuck,) = s.of(ChildStuck)
            assert stuck.child == "a"
            assert 2.0 <= stuck.seconds <= 2.25
            assert "await s.wait()" in stuck.stack
            assert 6.0 <= s.at(ChildStuck)[0] <= 6.5
            assert s.names(ChildStarted) == ["a", "a"]
            assert s.of(ChildExited)[0].reason.startswith("no progress for 2.")

    told(story)


def test_a_child_has_the_time_of_a_start_for_its_first_stamp() -> None:
    async def story(s: Story) -> None:
        child = Child.task("a", s.wait, progress=1.0, start_timeout=10)
        async with Supervisor(child):
            await asyncio.sleep(9.9)
            assert not s.of(ChildStuck)
            await asyncio.sleep(0.5)
            assert s.of(ChildStuck)

    told(story)


def test_a_task_that_ignores_its_cancellation_is_abandoned_and_not_started_twice() -> None:
    async def story(s: Story) -> None:
        runs: list[int] = []

        async def deaf() -> None:
            runs.append(1)
            end = s.now + 20
            while s.now < end:
                try:
                    await asyncio.sleep(end - s.now)
                except asyncio.CancelledError:
                    continue
            runs.pop()

        supervisor = Supervisor(
            Child.task("deaf", deaf, stop=1.0), Child.task("b", s.fails_after(2)),
            strategy="one_for_all",
        )  # fmt: skip
        await supervisor.start()
        await asyncio.sleep(10)
        (abandoned,) = s.of(ChildAbandoned)
        assert abandoned.child == "deaf"
        assert supervisor.child("deaf").state == "stuck"
        assert runs == [1]
        await asyncio.sleep(12)
        assert supervisor.child("deaf").state == "running"
        assert len(runs) == 1
        begun = s.now
        await supervisor.stop()
        assert s.now - begun < 3

    told(story)


def test_a_thread_that_is_called_again_and_again_runs_in_virtual_time() -> None:
    async def story(s: Story) -> None:
        def poll() -> None:
            s.calls.append(f"{s.now:.0f}")
            progress_stamp()

        async with Supervisor(Child.thread("poller", poll, every=10.0, progress=15.0)):
            await asyncio.sleep(45)
        assert s.calls == ["0", "10", "20", "30", "40"]
        assert s.of(ChildExited)[0].reason == "returned"

    told(story)


def test_an_exception_on_a_thread_is_a_failure() -> None:
    async def story(s: Story) -> None:
        def poll() -> None:
            raise KeyError("x")

        async with Supervisor(Child.thread("poller", poll, every=1), backoff=QUICK):
            await asyncio.sleep(0.1)
            assert s.of(ChildExited)[0].reason == "raised KeyError: 'x'"
            assert s.of(ChildExited)[0].lines[-1] == "KeyError: 'x'"

    told(story)


def test_a_simulated_thread_runs_from_start_to_end_in_one_step() -> None:
    async def story(s: Story) -> None:
        def once(stop: Stop) -> None:
            assert not stop.wait(5)
            s.calls.append("done")

        supervisor = Supervisor(Child.thread("job", once, restart="transient"))
        await supervisor.start()
        await supervisor.ended()
        assert s.calls == ["done"]
        assert 5 <= s.now < 5.1

    told(story)


def test_a_simulated_thread_that_waits_for_ever_is_told_what_to_do_instead() -> None:
    async def story(s: Story) -> None:
        def loop(stop: Stop) -> None:
            while not stop.wait(0.001):
                pass

        supervisor = Supervisor(Child.thread("poller", loop, restart="temporary"))
        await supervisor.start()
        await supervisor.ended()
        assert "every=SECONDS" in s.of(ChildExited)[0].reason

    told(story)


def test_processes_are_refused_in_simulated_time() -> None:
    async def story(s: Story) -> None:
        supervisor = Supervisor(Child.command("a", ["true"]))
        with pytest.raises(ConfigError, match="processes need the real machine"):
            await supervisor.start()

    told(story)


def test_cancelling_the_start_stops_what_was_started() -> None:
    async def story(s: Story) -> None:
        slow = Child.task("b", s.wait, ready=lambda: False)
        supervisor = Supervisor(Child.task("a", s.wait), slow, Child.task("c", s.wait))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await supervisor.start()
        assert s.names(ChildStopped) == ["b", "a"]
        assert supervisor.child("c").state == "new"
        assert supervisor.state == "ended"

    told(story)


def test_stopping_during_the_start_tells_whoever_waits_for_it() -> None:
    async def story(s: Story) -> None:
        supervisor = Supervisor(Child.task("a", s.wait, ready=lambda: False))
        start = asyncio.create_task(supervisor.start())
        await asyncio.sleep(1)
        await supervisor.stop()
        with pytest.raises(UnavailableError, match="stopped"):
            await start

    told(story)


def test_stopping_at_once_after_the_start_begins_runs_nothing() -> None:
    async def story(s: Story) -> None:
        supervisor = Supervisor(Child.task("a", s.wait))
        start = asyncio.create_task(supervisor.start())
        await asyncio.sleep(0)
        await supervisor.stop()
        await asyncio.gather(start, return_exceptions=True)
        assert not s.of(ChildStarted)
        assert not s.of(ChildStopped)

    told(story)


def test_it_can_be_started_again_after_its_end_and_a_second_start_changes_nothing() -> None:
    async def story(s: Story) -> None:
        supervisor = Supervisor(Child.task("a", s.wait))
        await supervisor.stop()
        for _ in range(2):
            await supervisor.start()
            await supervisor.start()
            await supervisor.stop()
        assert len(s.of(ChildStarted)) == 2
        assert supervisor.child("a").restarts == 1

    told(story)


def test_a_cancelled_stop_kills_what_is_left() -> None:
    async def story(s: Story) -> None:
        ended = []

        async def slow() -> None:
            try:
                await s.wait()
            finally:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    ended.append(s.now)

        supervisor = Supervisor(Child.task("a", slow, stop=1000.0))
        await supervisor.start()
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await supervisor.stop()
        await asyncio.sleep(0.1)
        assert ended == [6.0]

    told(story)


def test_the_tree_is_shown_as_text_and_values() -> None:
    async def story(s: Story) -> None:
        inner = Supervisor(Child.task("x", s.wait), Child.task("y", s.wait), name="inner")
        tree = Supervisor(Child.task("a", s.fails_after(1)), inner, Child.task("z", s.wait),
                          name="app")  # fmt: skip
        assert tree.state == "new"
        assert tree in watched()
        async with tree:
            await asyncio.sleep(1.5)
            assert str(tree) == (
                "app one_for_one running\n"
                "├─ a task running 1 restarts (raised ValueError: late)\n"
                "├─ inner supervisor running\n"
                "│  ├─ x task running\n"
                "│  └─ y task running\n"
                "└─ z task running"
            )
            assert "<Supervisor app [<Child a running pid=None restarts=1>" in repr(tree)
            found = tree.snapshot()["children"][1]["children"][0]
            assert (found["name"], found["state"], found["kind"]) == ("x", "running", "task")
            assert tree.describe()["children"] == ["a", "inner", "z"]
        assert tree.snapshot()["ending"] == "stopped"

    told(story)


def test_what_belongs_to_a_tree_is_not_started_alone() -> None:
    async def story(s: Story) -> None:
        inner = Supervisor(Child.task("x", s.wait), name="inner")
        outer = Supervisor(inner)
        with pytest.raises(ConfigError, match="the outermost one"):
            await inner.start()
        with pytest.raises(ConfigError, match="has a parent"):
            Supervisor(inner)
        with pytest.raises(ConfigError, match="is not supervised here"):
            outer.child("inner/nobody")
        outer.restart("inner/x")  # it was never started
        assert outer.child("inner/x").state == "new"

    told(story)


async def nothing() -> None: ...


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Supervisor(), "no children"),
        (lambda: Supervisor("a"), "is no child"),  # type: ignore[arg-type]
        (lambda: Supervisor(Supervisor(Child.task("a", nothing))), "is named ''"),
        (lambda: Child.task("a/b", nothing), "has no '/'"),
        (lambda: Child.task("a", nothing, progress=0), "progress is 0"),
        (lambda: Child.task("a", nothing, start_timeout=-1), "start_timeout is -1"),
        (lambda: Child.task("a", nothing, ready="up"), "a task has no output"),
        (lambda: Child.task("a", nothing, ready=Ready.port(0)), "port is 0"),
        (lambda: Child.thread("a", print, every=0.0), "every is 0"),
        (lambda: Child.command("a", "ls -l"), "a list of program and arguments"),
        (lambda: Child.process("a", lambda: None), "cannot be imported by name"),
        (lambda: Ready.line(""), "text is ''"),
        (lambda: Grace(-1), "seconds is -1"),
        (lambda: Child.task("a", nothing, restart="always"), "restart is 'always'"),
    ],
)
def test_settings_are_checked(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_child_can_be_made_again_under_another_name() -> None:
    one = Child.task("a", nothing, stop=Grace(3))
    assert one.renamed("b").name == "b"
    assert one.renamed("b").grace == Grace(3)


def test_a_child_of_a_supervisor_that_has_ended_is_started_with_all_of_it() -> None:
    async def story(s: Story) -> None:
        bad = [True]

        async def child() -> None:
            if bad:
                raise ValueError
            await s.wait()

        inner = Supervisor(
            Child.task("x", child), Child.task("y", s.wait), name="inner", intensity=0,
            on_limit="stop",
        )  # fmt: skip
        supervisor = Supervisor(inner, Child.task("a", s.wait))
        await supervisor.start()
        await supervisor.ended()
        bad.clear()
        supervisor.restart("inner/y")
        await asyncio.sleep(1)
        assert [one.state for one in inner.children] == ["running"] * 2
        supervisor.restart("a")
        supervisor.restart("inner/y")
        await supervisor.stop()
        assert [one.state for one in inner.children] == ["stopped"] * 2
        supervisor.restart("inner/y")
        await asyncio.sleep(1)
        assert inner.child("x").state == "running"
        await supervisor.stop()
        assert inner.state == "ended"

    told(story)


def test_nothing_is_started_by_hand_while_all_are_being_stopped() -> None:
    async def story(s: Story) -> None:
        async def once() -> None: ...

        async def slow() -> None:
            try:
                await s.wait()
            finally:
                await asyncio.sleep(1)

        supervisor = Supervisor(
            Child.task("once", once, restart="temporary"), Child.task("slow", slow)
        )
        await supervisor.start()
        await asyncio.sleep(1)
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0.5)
        assert supervisor.state == "stopping"
        supervisor.restart("once")
        await stopping
        assert s.names(ChildStarted) == ["once", "slow"]

    told(story)
