"""The lab: hosts are started and ended, and the run says what became of them."""

import asyncio
import signal
from functools import partial
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError
from outlast.sim.running import Options, run_case
from tests.support.sim_lab import ask, echo, failing, forever, outcome, run

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
