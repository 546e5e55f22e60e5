"""``outlast sim`` as people run it: on a small program with a bug that only a crash shows."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.nodes import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

PROGRAM = '''
import asyncio


async def main():
    """A store that acknowledges what it keeps in memory alone."""
    orders = []

    async def serve(reader, writer):
        line = await reader.readline()
        if line.startswith(b"put"):
            orders.append(line.split()[1])
            writer.write(b"ok")
        else:
            writer.write(b" ".join(orders))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 8080)
    await server.serve_forever()


async def ask(line):
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("api", 8080)
        writer.write(line + b"\\n")
        answer = await reader.read()
        writer.close()
        return answer
'''

TESTS = """
import asyncio
from contextlib import suppress

import shop
from outlast import sim


@sim.test(seeds=50, faults=["crash", "link:slow"])
async def test_acknowledged_orders_survive(lab: sim.Lab) -> None:
    lab.host("api", shop.main)
    acked = set()
    for number in range(20):
        with suppress(OSError):
            if await shop.ask(b"put %d" % number) == b"ok":
                acked.add(number)
        await asyncio.sleep(0.1)
    await lab.heal()
    assert acked <= set(map(int, (await shop.ask(b"list")).split()))


@sim.test(seeds=50, faults=["link:slow"])
async def test_orders_are_kept_without_crashes(lab: sim.Lab) -> None:
    lab.host("api", shop.main)
    for number in range(3):
        with suppress(TimeoutError):
            await shop.ask(b"put %d" % number)
        await asyncio.sleep(1)
    await lab.heal()
    assert await shop.ask(b"list")


@sim.test
async def test_never(lab: sim.Lab) -> None:
    await asyncio.sleep(1)
    lab.sometimes("it was late", False)


@sim.test
async def test_outside(lab: sim.Lab) -> None:
    import subprocess

    subprocess.run(["true"])


@sim.test
async def test_sets(lab: sim.Lab) -> None:
    for name in {"n1", "n2", "n3", "n4"}:
        lab.host(name, shop.main)
    await asyncio.sleep(1)
"""
FOUND = "test_shop.py::test_acknowledged_orders_survive"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(PROGRAM)
    (folder / "test_shop.py").write_text(TESTS)
    return folder


def outlast(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outlast", "sim", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def found(place: Path) -> str:
    done = outlast(place, FOUND, "--seeds", "100", "--trace", "trace.txt")
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_the_bug_is_found_and_told_with_the_line_that_shows_it(found: str) -> None:
    assert found.startswith("failed: test_acknowledged_orders_survive, seed ")
    assert "assert acked <= set(map(int, (await shop.ask" in found
    assert re.search(r"\n +acked = \{\d+, \d+, ", found)


def test_the_faults_are_shortened_to_the_one_that_matters(found: str) -> None:
    assert re.search(r"shortened: 1 of \d+ fault steps is enough \(\d+ runs\)\n  .* crash", found)


def test_the_campaign_checks_that_runs_repeat_and_counts_faults(found: str) -> None:
    assert re.search(r"repeatable: \d+ seeds? ran twice, \d+ also under two hash seeds", found)
    assert re.search(r"\ncrash@one +\d+ +\d+ +\d+ +\d+%\n", found)


def test_the_trace_ends_where_the_test_fails(found: str) -> None:
    assert "trace, the last 25 lines (virtual seconds, host, event):" in found
    assert found.index(" heal\n") > found.index("trace, the last")


def test_the_whole_trace_of_the_failing_seed_is_written(place: Path, found: str) -> None:
    lines = (place / "trace.txt").read_text().splitlines()
    assert len(lines) > 25
    assert all(re.match(r" *\d+\.\d{9} \S+ +\S", line) for line in lines)


@pytest.mark.parametrize("number", [0, 1])
def test_the_printed_commands_fail_in_the_same_way(place: Path, found: str, number: int) -> None:
    """The whole seed, and the seed with the steps that are enough."""
    commands = re.findall(r"outlast sim (\S+ --seed \d+(?: --only \S+)?)\n", found)
    words = commands[number].split()
    assert ("--only" in words) == (number == 1)
    done = outlast(place, *words)
    assert done.returncode == 1
    seed = words[words.index("--seed") + 1]
    assert done.stdout.startswith(
        f"failed: test_acknowledged_orders_survive, seed {seed}: AssertionError"
    )
    trace = found.partition("trace, the last")[2].partition("\n\n")[0]
    assert done.stdout.partition("trace, the last")[2].partition("\n\n")[0] == trace


def test_a_test_that_holds_passes(place: Path) -> None:
    done = outlast(place, "test_shop.py:test_orders_are_kept_without_crashes", "--seeds", "20")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        "passed: test_orders_are_kept_without_crashes, 20 seeds from 1 on\n"
    )


def test_all_tests_of_a_file_run_and_the_worst_decides(place: Path) -> None:
    done = outlast(place, "test_shop.py", "--seeds", "20", "--json", "--workers", "1")
    assert done.returncode == 2, "one of them asks for a process"
    data = json.loads(done.stdout)
    assert (data["schema"], data["verdict"]) == (1, "failed")
    verdicts = {test["name"]: test["verdict"] for test in data["tests"]}
    assert verdicts == {
        "test_acknowledged_orders_survive": "failed",
        "test_orders_are_kept_without_crashes": "passed",
        "test_never": "void",
        "test_outside": "failed",
        "test_sets": "failed",
    }
    difference = data["tests"][4]["repeatable"]["difference"]
    assert difference["how"].startswith("PYTHONHASHSEED=1 and 2"), "it iterates over a set"
    assert "start n" in difference["first"]


def test_a_promise_that_never_happens_is_void(place: Path) -> None:
    done = outlast(place, "test_shop.py::test_never", "--seeds", "20", "--workers", "1")
    assert done.returncode == 3
    assert done.stdout.endswith("void: test_never: 'it was late' happened in 0 of 20 seeds\n")


def test_what_cannot_be_simulated_is_told_in_one_line_with_its_place(place: Path) -> None:
    done = outlast(place, "test_shop.py::test_outside", "--seeds", "20", "--workers", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(
        r"outlast: .*test_shop.py:\d+ in test_outside: a real process cannot", done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "nowhere.py: no such file; write FILE.py::test_name"),
        (["test_shop.py::test_nevr"], "no test 'test_nevr'; did you mean test_never?"),
        (["test_shop.py", "--seeds", "0"], "seeds is 0; at least 1 would be right"),
        (["test_shop.py", "--seed", "-4"], "--seed -4: a seed is a whole number from 0 on"),
        (["test_shop.py", "--only", "3"], "--only 3: steps are those of one seed; give --seed"),
        (["test_shop.py", "--seed", "3", "--only", "x"], "--only x: write numbers of steps"),
        (["test_shop.py", "--seed", "3", "--until-failure"], "give one of them"),
        (["test_shop.py", "--trace", "no/where.txt"], "--trace no/where.txt: name a file in a"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Path, arguments: list[str], said: str
) -> None:
    done = outlast(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


COUNTED = """
import asyncio
from pathlib import Path

from outlast import sim


def note() -> None:
    with Path("ran").open("a") as file:
        file.write(".")


@sim.test(files=False)
async def test_counted(lab: sim.Lab) -> None:
    note()
    await asyncio.sleep(1)


@sim.test(files=False)
async def test_greedy(lab: sim.Lab) -> None:
    note()
    while Path("ran").stat().st_size > 20:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


@pytest.mark.parametrize(
    ("name", "workers"), [("test_counted", 2), ("test_counted", 1), ("test_greedy", 1)]
)
def test_ctrl_c_ends_a_campaign_soon_with_what_it_has_found(
    tmp_path: Path, name: str, workers: int
) -> None:
    """Also if the program under test swallows it."""
    (tmp_path / "test_counted.py").write_text(COUNTED)
    ran = tmp_path / "ran"
    with _started(
        tmp_path, f"test_counted.py::{name}", "--until-failure", "--workers", str(workers)
    ) as running:
        end = time.monotonic() + 100
        while not (ran.exists() and ran.stat().st_size > 20):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        started = _children(running.pid)
        begun = time.monotonic()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=100)
        took = time.monotonic() - begun
    assert running.returncode == 130, err
    assert out.endswith("(interrupted)\n")
    assert err == ""
    assert took < 60, "two seconds, if the machine has nothing else to do"
    assert len(started) == (workers if workers > 1 else 0)
    assert not any(map(_lives, started))


def test_workers_are_honoured_without_a_number_of_seeds(tmp_path: Path) -> None:
    (tmp_path / "test_counted.py").write_text(COUNTED)
    ran = tmp_path / "ran"
    with _started(
        tmp_path, "test_counted.py::test_counted", "--workers", "3", "--seconds", "600"
    ) as running:
        until(ran.exists, "the first seed runs")  # all processes are there before it
        assert len(_children(running.pid)) == 3
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=100)
    assert running.returncode == 130


@contextmanager
def _started(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start ``outlast sim`` in a session of its own, of which nothing is left at the end."""
    running = subprocess.Popen(
        [sys.executable, "-m", "outlast", "sim", *arguments],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # Where the suite itself was started in the background, SIGINT would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    children: list[int] = []
    try:
        yield running
    finally:
        if running.poll() is None:
            children = _children(running.pid)  # each leads a session of its own
            os.killpg(running.pid, signal.SIGKILL)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.communicate()


def _lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found
