"""What programs and tests find in a lab: worlds, histories, files."""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from outlast import check, sim
from outlast.kernel import ConfigError, current_world
from tests.support.sim_lab import ask, echo, forever, outcome, run

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
    assert "test_sim_lab_inside.py" in note.where


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
