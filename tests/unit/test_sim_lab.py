"""The lab: hosts are started, broken and healed, and the run says what became of them."""

import asyncio
import contextlib
import contextvars
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from outlast import check, sim
from outlast.kernel import ConfigError, DeadlineError, current_world
from outlast.sim.core.plan import read_faults
from outlast.sim.running import Options, Outcome, run_case

PORT = 7000


async def echo(port: int = PORT) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)

    server = await asyncio.start_server(connected, None, port)
    await server.serve_forever()


async def ask(host: str, within: float = 1.0, port: int = PORT) -> str:
    """Return what came of asking: an answer, or the name of an error."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(b"hello\n")
                return (await reader.readline()).decode().strip() or "closed"
    except (OSError, TimeoutError) as error:
        return type(error).__name__


async def forever() -> None:
    await asyncio.Event().wait()


def outcome(main: Any, seed: int = 1, **options: Any) -> Outcome:
    options["faults"] = read_faults(options.get("faults", ()))
    return run_case(main, seed, Options(**options))


def run(main: Any) -> Any:
    return sim.run(main, seed=1)


# --- running -------------------------------------------------------------------------------------


def test_run_returns_what_main_returns_with_and_without_a_lab() -> None:
    async def plain() -> int:
        await asyncio.sleep(3600)
        return 7

    async def with_lab(there: sim.Lab) -> float:
        await asyncio.sleep(3600)
        return there.now

    assert run(plain) == 7
    assert run(with_lab) == 3600.0


def test_run_raises_what_main_raises() -> None:
    async def main() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(main)


def test_ctrl_c_passes() -> None:
    async def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(main)


def test_a_test_that_waits_for_nothing_is_told_where_it_waits() -> None:
    with pytest.raises(sim.DeadlockError, match="the test waits in forever at line"):
        run(forever)


def test_a_test_that_never_ends_meets_its_limit() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    with pytest.raises(sim.DeadlockError, match="has not ended after 100 virtual seconds"):
        sim.run(main, limit=100)


def test_the_same_seed_gives_the_same_digest_and_another_one_another() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", echo)
        await lab.sleep(0.1)
        for _ in range(5):
            await ask("a")

    digests = [outcome(main, seed).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_trace_is_given_and_changes_nothing() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", echo)
        await lab.sleep(0.1)
        await ask("a")

    events: list[tuple[int, str, str]] = []
    traced = run_case(main, 1, Options(), trace=lambda *event: events.append(event))
    assert traced.digest == outcome(main).digest
    assert any(text.startswith("start a") for _, _, text in events)


def test_a_killed_program_does_nothing_more_not_even_in_finally() -> None:
    done = []

    async def program() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            done.append("finally")

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(0.5)
        lab.crash("a")
        await lab.sleep(5)
        assert done == []

    run(main)


# --- programs that end ---------------------------------------------------------------------------


async def failing() -> None:
    await asyncio.sleep(0.1)
    raise ZeroDivisionError("by nothing")


def test_a_program_that_ends_with_an_exception_fails_the_run() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", failing)
        await lab.sleep(1)

    with pytest.raises(
        AssertionError, match="a ended with ZeroDivisionError: by nothing"
    ) as caught:
        run(main)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_it_does_not_if_it_may() -> None:
    async def main(lab: sim.Lab) -> list[tuple[str, str]]:
        lab.host("a", failing, may_exit=True)
        b = lab.host("b", failing)
        lab.expect_exit(b)
        await lab.sleep(1)
        await lab.heal()
        return lab.exits

    assert run(main) == [("a", why := "ZeroDivisionError: by nothing"), ("b", why)]


def test_a_supervised_program_is_started_again_a_second_later() -> None:
    async def main(lab: sim.Lab) -> int:
        host = lab.host("a", failing, restart=True)
        await lab.sleep(4)
        return host.starts

    assert run(main) == 4


def test_a_program_that_returns_is_gone_and_fails_nothing() -> None:
    async def short() -> None:
        await asyncio.sleep(0.1)

    async def main(lab: sim.Lab) -> bool:
        host = lab.host("a", short)
        await lab.sleep(1)
        await lab.heal()
        return host.up

    assert run(main) is False


def test_sys_exit_ends_one_host_and_not_the_run() -> None:
    async def leaves(code: int) -> None:
        await asyncio.sleep(0.1)
        raise SystemExit(code)

    async def main(lab: sim.Lab, code: int) -> None:
        lab.host("a", partial(leaves, code))
        lab.host("b", echo)
        await lab.sleep(1)
        assert await ask("b") == "hello"

    run(lambda lab: main(lab, 0))
    with pytest.raises(AssertionError, match="a ended with it exited with 3"):
        run(lambda lab: main(lab, 3))


@pytest.mark.parametrize("program", [lambda: 5, lambda needed: forever()])
def test_a_program_that_is_none_fails_the_run(program: Any) -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1)

    with pytest.raises(AssertionError, match=r"^a ended with "):
        run(main)


def test_a_program_that_was_called_already_is_refused() -> None:
    async def main(lab: sim.Lab) -> None:
        coroutine: Any = forever()
        with pytest.raises(ConfigError, match="not called yet"):
            lab.host("a", coroutine)
        coroutine.close()

    run(main)


# --- crash, pause, signals -----------------------------------------------------------------------


def test_a_crashed_host_refuses_until_it_is_restarted() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        said = [await ask("a")]
        lab.crash("a")
        said.append(await ask("a"))
        lab.restart("a")
        await lab.sleep(0.1)
        return [*said, await ask("a")]

    assert run(main) == ["hello", "ConnectionRefusedError", "hello"]


def test_a_host_without_power_is_silent() -> None:
    async def main(lab: sim.Lab) -> str:
        lab.host("a", echo)
        await lab.sleep(0.1)
        lab.power_cut("a")
        return await ask("a")

    assert run(main) == "TimeoutError"


def test_a_paused_program_answers_when_it_goes_on() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        lab.pause("a")
        said = [await ask("a")]
        lab.resume("a")
        return [*said, await ask("a")]

    assert run(main) == ["TimeoutError", "hello"]


def test_sigterm_calls_the_programs_handler_and_stop_waits_for_its_end() -> None:
    heard = []

    async def polite() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await asyncio.sleep(2)
        heard.append("bye")

    async def main(lab: sim.Lab) -> tuple[float, bool]:
        host = lab.host("a", polite)
        await lab.sleep(1)
        await lab.stop("a")
        return round(lab.now, 1), host.up

    assert run(main) == (3.0, False)
    assert heard == ["bye"]


def test_a_handler_of_the_signal_module_is_called_with_the_number() -> None:
    heard = []

    async def program() -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
        await forever()

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1)
        lab.signal("a", signal.SIGUSR1)
        await lab.sleep(1)

    run(main)
    assert heard == [signal.SIGUSR1]


def test_a_program_that_is_stopped_may_end_in_any_way() -> None:
    """Servers that have heard SIGTERM raise it again once they are done."""

    async def server() -> None:
        stop = asyncio.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        await stop.wait()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    async def main(lab: sim.Lab) -> list[tuple[str, str]]:
        lab.host("a", server)
        await lab.sleep(1)
        await lab.stop("a")
        await lab.heal()
        return lab.exits

    assert run(main) == [("a", "it exited with 143")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_that_nobody_handles_ends_the_program(number: int) -> None:
    async def main(lab: sim.Lab) -> bool:
        host = lab.host("a", forever)
        await lab.sleep(1)
        lab.signal("a", number)
        return host.up

    assert run(main) is False


def test_a_program_that_does_not_stop_is_killed() -> None:
    async def deaf() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await forever()

    async def main(lab: sim.Lab) -> tuple[float, bool]:
        host = lab.host("a", deaf)
        await lab.sleep(1)
        await lab.stop("a", timeout=5)
        return round(lab.now, 1), host.up

    assert run(main) == (6.0, False)


# --- network, disks, names, clocks ---------------------------------------------------------------


def test_cuts_hold_until_they_are_undone() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        with lab.cut("a"):
            said = [await ask("a")]
        return [*said, await ask("a", 5)]

    assert run(main) == ["TimeoutError", "hello"]


def test_two_cuts_of_one_way_end_with_the_last() -> None:
    async def main(lab: sim.Lab) -> list[bool]:
        lab.host("a", forever)
        way = lab.sim.network.way("a", "test")
        one, other = lab.cut("a", "test"), lab.cut(["test"], ["a"])
        seen = [way.cut]
        one.undo()
        one.undo()
        seen.append(way.cut)
        other.undo()
        return [*seen, way.cut]

    assert run(main) == [True, True, False]


def test_a_one_way_cut_leaves_the_other_way() -> None:
    async def main(lab: sim.Lab) -> tuple[bool, bool]:
        lab.host("a", forever)
        lab.cut("a", "test", one_way=True)
        network = lab.sim.network
        return network.way("a", "test").cut, network.way("test", "a").cut

    assert run(main) == (True, False)


def test_a_slow_link_is_slow_by_as_much() -> None:
    async def main(lab: sim.Lab) -> float:
        lab.host("a", echo)
        await lab.sleep(0.1)
        lab.slow("a", delay=0.25)
        begin = lab.now
        assert await ask("a", 5) == "hello"
        return lab.now - begin

    assert 1.0 <= run(main) < 1.2  # a round trip to connect, and one to ask


def test_names_fail_and_come_back() -> None:
    async def main(lab: sim.Lab) -> list[str]:
        lab.host("a", echo)
        await lab.sleep(0.1)
        first = lab.dns("nxdomain")
        second = lab.dns("timeout", host="test")
        said = [await ask("a", 30)]
        second.undo()
        said.append(await ask("a"))
        first.undo()
        return [*said, await ask("a")]

    assert run(main) == ["gaierror", "gaierror", "hello"]


def test_clocks_are_off_until_it_is_undone_and_jumps_stay() -> None:
    async def main(lab: sim.Lab) -> list[int]:
        clock = lab.host("a", forever).clock
        with lab.clock("a", skew=60, drift_ppm=500):
            seen = [clock.skew_ns, clock.drift_ppm]
        lab.clock("a", jump=-5).undo()
        return [*seen, clock.skew_ns, clock.drift_ppm]

    assert run(main) == [60_000_000_000, 500, -5_000_000_000, 0]


def test_a_full_disk_refuses_and_a_program_that_stops_for_it_is_started_again() -> None:
    async def writes() -> None:
        world = current_world()
        world.storage.makedirs("/data")
        while True:
            file = world.storage.open("/data/log", create=True)
            file.pwrite(b"x", file.size())
            file.close()
            await asyncio.sleep(0.1)

    async def main(lab: sim.Lab) -> int:
        host = lab.host("a", writes)
        await lab.sleep(1)
        with lab.disk("a", "full"):
            await lab.sleep(0.5)
            assert not host.up
        await lab.sleep(2)
        assert host.up
        return host.starts

    assert run(main) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lab: lab.crash("b"),
        lambda lab: lab.crash("test"),
        lambda lab: lab.crash(),
        lambda lab: lab.cut("a", "b"),
        lambda lab: lab.disk("a", "melted"),
        lambda lab: lab.dns("silent"),
        lambda lab: lab.inject("crsh"),
        lambda lab: lab.host("a", forever),
        lambda lab: lab.host("Not a name", forever),
    ],
)
def test_what_is_not_there_is_refused(wrong: Any) -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", forever)
        with pytest.raises(ConfigError):
            wrong(lab)

    run(main)


# --- healing -------------------------------------------------------------------------------------


def test_heal_undoes_everything_at_once_and_awaited_waits_for_the_listeners() -> None:
    async def slow_start() -> None:
        await asyncio.sleep(3)
        await echo()

    async def main(lab: sim.Lab) -> str:
        for name in ("a", "b", "c"):
            lab.host(name, slow_start)
        await lab.sleep(4)
        lab.crash("a")
        lab.power_cut("b")
        lab.pause("c")
        lab.cut("a")
        lab.dns("nxdomain")
        lab.clock("c", drift_ppm=100)
        healing = lab.heal()
        assert all(host.up and not host.paused for host in lab.hosts.values())
        assert not lab.sim.network.way("a", "test").cut
        assert lab.hosts["c"].clock.drift_ppm == 0
        await healing
        return await ask("a")

    assert run(main) == "hello"


def test_heal_need_not_be_awaited() -> None:
    async def main(lab: sim.Lab) -> bool:
        host = lab.host("a", forever)
        lab.crash("a")
        lab.heal()
        return host.up

    assert run(main) is True


def test_a_host_that_does_not_come_back_is_named() -> None:
    async def once() -> None:
        if current_world().storage.exists("/been-here"):
            await forever()
        current_world().storage.makedirs("/been-here")
        await echo()

    async def main(lab: sim.Lab) -> None:
        lab.host("a", once)
        await lab.sleep(1)
        lab.crash("a")
        await lab.heal()

    with pytest.raises(DeadlineError, match="a did not come back within 60 virtual seconds"):
        run(main)


def test_heal_raises_at_once_if_a_program_has_failed() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("a", failing)
        await lab.sleep(1)
        await lab.heal()

    with pytest.raises(AssertionError, match="a ended with ZeroDivisionError"):
        run(main)


# --- what else -----------------------------------------------------------------------------------


def test_a_program_finds_the_world_of_its_host_and_a_new_one_after_a_crash() -> None:
    worlds = []

    async def program() -> None:
        worlds.append(sim.current_world())
        await forever()

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1)
        assert worlds == [lab.world("a")]
        assert current_world() is lab.world()
        lab.restart("a")
        await lab.sleep(1)
        assert worlds[1] is lab.world("a")
        assert worlds[1] is not worlds[0]
        assert worlds[1].storage is worlds[0].storage
        lab.crash("a")
        with pytest.raises(ConfigError, match="is down"):
            lab.world("a")

    run(main)


def test_a_history_is_written_with_virtual_times_and_can_be_judged() -> None:
    async def main(lab: sim.Lab) -> sim.Recorder:
        history = lab.history("kv")

        async def operation(f: str, key: str, value: Any, answer: Any, error: Any) -> None:
            with contextlib.suppress(Exception), history.operation(f, key=key, value=value) as op:
                await lab.sleep(1)
                if error is not None:
                    raise error
                op.ok(answer)

        await operation("put", "x", 1, 1, None)
        await operation("get", "x", None, 1, None)
        await operation("put", "x", 2, None, ConnectionRefusedError())
        await operation("get", "x", None, 1, None)
        await operation("put", "x", 3, None, TimeoutError())
        await operation("get", "x", None, 3, None)
        return history

    history = run(main)
    assert [event.type for event in history.events] == [
        "invoke", "ok", "invoke", "ok", "invoke", "fail", "invoke", "ok", "invoke", "info",
        "invoke", "ok",
    ]  # fmt: skip
    assert [event.process for event in history.events[-4:]] == [0, 0, 1, 1]
    assert history.events[1].time == 1_000_000_000
    judged = check.check(check.history_of(history.events, history.header), history.model)
    assert judged.verdict == "valid"


def test_sometimes_counts_and_tells_what_never_happened() -> None:
    async def main(lab: sim.Lab) -> None:
        assert lab.sometimes("often", condition=True)
        assert not lab.sometimes("never", condition=[])
        lab.sometimes("often")

    seen = outcome(main).sometimes
    assert (seen["often"], seen["never"]) == (2, 0)


def test_files_are_those_of_the_host_when_asked_for() -> None:
    async def program() -> None:
        with open("/state", "a") as file:  # noqa: ASYNC230
            file.write("x")
        await forever()

    async def main(lab: sim.Lab) -> list[int]:
        hosts = [lab.host("a", program), lab.host("b", program)]
        await lab.sleep(1)
        lab.crash("a")
        lab.restart("a")
        await lab.sleep(1)
        return [host.disk.open("/state", create=False).size() for host in hosts]

    assert sim.run(main, files=True) == [2, 1]


def test_a_real_file_that_is_written_is_told_in_the_outcome(tmp_path: Any) -> None:
    async def program() -> None:
        (tmp_path / "real").write_text("x")

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1)

    # What other modules of this process keep of the real clock is told too.
    (note,) = [one for one in outcome(main).notes if "file" in one.what]
    assert "a real file that is written" in str(note)
    assert "test_sim_lab.py" in note.where


def test_hosts_can_be_cut_by_their_objects() -> None:
    async def main(lab: sim.Lab) -> str:
        api = lab.host("api", echo)
        await lab.sleep(0.1)
        with lab.cut(api, ["test"]):
            assert lab.events[-1].victims == ("api", "test")
            return await ask("api")

    assert sim.run(main) == "TimeoutError"


@pytest.mark.parametrize("fault", ["crash,pause", ""])
def test_a_lab_injects_one_fault_at_a_time(fault: str) -> None:
    async def main(lab: sim.Lab) -> None:
        lab.inject(fault)

    with pytest.raises(ConfigError, match="give one, such as"):
        sim.run(main)


def test_a_disk_fault_by_hand_has_no_target_in_its_name() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("api", echo)
        lab.disk("api", "full@api")

    with pytest.raises(ConfigError, match="without a target"):
        sim.run(main)


def test_a_program_begins_with_what_stands_around_the_run_whoever_starts_it() -> None:
    mark = contextvars.ContextVar("mark", default="none")
    found: list[str] = []

    async def program() -> None:
        found.append(mark.get())
        await asyncio.Event().wait()

    async def main(lab: sim.Lab) -> None:
        mark.set("of the test")
        lab.host("api", program)
        await lab.sleep(0.1)
        lab.restart("api")
        await lab.sleep(0.1)
        lab.inject("crash@api", lasts=0.1)
        await lab.sleep(1)

    around = contextvars.copy_context()
    around.run(mark.set, "around the run")
    around.run(sim.run, main)
    assert found == ["around the run"] * 3


@pytest.mark.parametrize(
    "call",
    [
        lambda lab: lab.slow("api", loss=2.0),
        lambda lab: lab.slow("api", delay=-1.0),
        lambda lab: lab.clock("api", drift_ppm=-1_000_000),
        lambda lab: lab.burden("api", step=-1.0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call: Callable[[sim.Lab], object]) -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("api", echo)
        call(lab)

    with pytest.raises(ConfigError, match="lab"):
        sim.run(main)


@pytest.mark.parametrize("seed", range(1, 6))
def test_no_fault_strikes_after_healing_even_if_there_was_no_host_before(seed: int) -> None:
    async def main(lab: sim.Lab) -> int:
        await lab.heal()
        lab.host("api", echo)
        await lab.sleep(20)
        return len(lab.events)

    assert sim.run(main, seed=seed, faults="crash") == 0
