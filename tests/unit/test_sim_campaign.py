"""Campaigns in this process: which seeds run, what is told, when nothing is proven."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from outlast.kernel import ConfigError
from outlast.testing.campaign import (
    Campaign,
    Explanation,
    Report,
    SeedResult,
    Settings,
    View,
    find_tests,
    run_campaign,
    workers,
    write_trace,
)
from outlast.testing.campaign.single import TRACE_LINES, Tail, TraceTail, run_seed
from outlast.testing.campaign.telling import kind_of, own_lines, values, verdict_of
from outlast.testing.campaign.workers import Pool, WorkerProcess
from tests.support.sim_fake import Fake, make, origin


def campaign(how: str, *, bad: list[int] | None = None, needs: list[int] | None = None,
             **settings: Any) -> Report:  # fmt: skip
    settings = {"workers": 1, "repeats": False, **settings}
    return run_campaign(make(how, bad, needs)[0], settings=Settings(**settings))


def test_all_seeds_run_and_their_faults_are_counted() -> None:
    report = campaign("fine", seeds=40, first=7)
    assert (report.verdict, report.seeds, report.first) == ("passed", 40, 7)
    assert report.virtual_seconds == 400.0
    assert sum(tally.times for tally in report.faults.values()) == 20 * 40
    assert report.sentence() == "passed: fake, 40 seeds from 7 on"


def test_a_campaign_ends_at_the_first_failure() -> None:
    report = campaign("fails", bad=[12, 20], seeds=100)
    assert report.verdict == "failed"
    assert [result.seed for result in report.failures] == [12]
    assert report.seeds == 12


def test_with_keep_going_every_seed_runs_and_one_failure_of_each_kind_is_told() -> None:
    report = campaign("two", bad=[3, 4, 5, 6, 7], seeds=50, keep_going=True)
    assert report.seeds == 50
    assert [result.seed for result in report.failures] == [3, 4, 5, 6, 7]
    assert [told.seed for told in report.told] == [3, 4]
    assert "also failed:\n  seed 5: ValueError: order 5" in str(report)


def test_only_needed_fault_steps_are_told_with_the_command_that_injects_them_alone() -> None:
    report = campaign("fails", bad=[9], needs=[2, 13])
    told = report.told[0]
    assert told.kept == [2, 13]
    assert told.minimal
    assert [step.index for step in told.shortened] == [2, 13]
    text = str(report)
    assert "again:     outlast sim fake.py::fake --seed 9\n" in text
    assert "  outlast sim fake.py::fake --seed 9 --only 2,13\n" in text
    assert "2 of 20 fault steps are enough" in text


def test_a_seed_that_fails_without_any_fault_is_told_so() -> None:
    report = campaign("fails", bad=[9])
    assert "it fails without any of the 20 fault steps (1 run)" in str(report)
    assert "--seed 9 --only none" in str(report)


def test_the_failure_is_told_with_its_own_lines_values_trace_and_output() -> None:
    told = campaign("fails", bad=[9], needs=[2]).told[0]
    assert told.lines[-2:] == ["AssertionError", "  acked = {1, 2, 3}"]
    assert any("assert acked <= {1, 2}" in line for line in told.lines)
    assert told.printed == ["about to fail at 9"]
    assert told.trace[-1].endswith("problem lost"), "the trace ends where the problem is"


def test_shortening_keeps_to_the_same_kind_of_error() -> None:
    """A subset of the steps that fails in another way does not count."""

    class Two(Fake):
        def run(self, seed: int, *, only: Any = None, trace: Any = None) -> Any:
            outcome = super().run(seed, only=only, trace=trace)
            indices = {step.index for step in outcome.faults}
            outcome.error = ValueError("a") if {1, 2} <= indices else KeyError("b")
            return outcome

    report = run_campaign(Two("fine", [], []), settings=Settings(workers=1, repeats=False))
    assert report.told[0].kept == [1, 2]


def test_a_seed_given_with_steps_runs_with_these_alone() -> None:
    one = {"seeds": 1, "first": 9}
    assert campaign("fails", bad=[9], needs=[2], only=frozenset({3}), **one).verdict == "passed"
    report = campaign("fails", bad=[9], needs=[2], only=frozenset({2, 3}), **one)
    assert report.replay(9) == "outlast sim fake.py::fake --seed 9 --only 2,3"
    assert report.told[0].kept == [2]


def test_a_run_that_hangs_is_told_with_its_stack() -> None:
    begun = time.monotonic()
    report = campaign("spins", bad=[2], hang_seconds=0.5)
    assert time.monotonic() - begun < 15
    found = report.failures[0]
    assert (found.seed, found.lost) == (2, True)
    assert "still running after 0.5 s of real time" in found.error
    assert "in _misbehave" in found.error
    assert any("sum(range(1000))" in line for line in found.stack)


def test_a_program_that_differs_in_a_second_run_is_not_repeatable() -> None:
    report = campaign("leaks", bad=[1], seeds=5)
    assert report.verdict == "failed"
    assert report.difference is not None
    assert report.difference.seed == 1
    assert report.sentence() == "failed: fake is not repeatable: seed 1"


def test_an_escape_ends_the_campaign_even_with_keep_going() -> None:
    report = campaign("escapes", bad=[3], seeds=50, keep_going=True)
    assert report.seeds == 3
    assert report.escape is not None
    assert "shop.py:41" in report.escape.error
    assert not report.told, "there is nothing to shorten"


def test_a_campaign_in_which_nothing_was_injected_is_void() -> None:
    report = campaign("quiet", seeds=20)
    assert report.verdict == "void"
    assert "no fault was injected in 20 seeds" in str(report)


def test_what_should_sometimes_happen_and_never_does_makes_a_campaign_void() -> None:
    report = campaign("sometimes", seeds=20)
    assert report.voids == ["'retried' happened in 0 of 20 seeds"]


def test_what_should_sometimes_happen_must_happen_in_the_share_that_is_asked_for() -> None:
    class Now(Fake):
        sometimes = ("named",)

        def run(self, seed: int, *, only: Any = None, trace: Any = None) -> Any:
            outcome = super().run(seed, only=only, trace=trace)
            outcome.sometimes = {"rare": int(seed % 25 == 0), "segment lost": seed == 1}
            if seed % 50 == 0:
                outcome.sometimes["named"] = 2
            del outcome.sometimes["segment lost"]
            if seed == 1:
                outcome.sometimes["segment lost"] = 1
            return outcome

    def voids(share: float) -> list[str]:
        settings = Settings(workers=1, repeats=False, seeds=100, sometimes=share)
        return run_campaign(Now("fine", [], []), settings=settings).voids

    assert voids(0.0) == []
    assert voids(0.05) == [
        "'named' happened in 2 of 100 seeds",
        "'rare' happened in 4 of 100 seeds",
    ], "what the simulator counts by itself is no promise"


def test_a_single_seed_to_be_looked_at_is_not_void() -> None:
    assert campaign("quiet", seeds=1).verdict == "passed"


def test_until_failure_goes_on_beyond_any_number_of_seeds() -> None:
    report = campaign("fails", bad=[77], seeds=5, until_failure=True)
    assert report.failures[0].seed == 77
    assert report.planned is None


def test_no_seeds_are_begun_after_the_time_that_was_given() -> None:
    report = campaign("fine", until_failure=True, seconds=0.05)
    assert report.verdict == "passed"
    assert 0 < report.seconds < 5


def test_an_interrupted_campaign_keeps_what_it_has_found() -> None:
    class Interrupted(Fake):
        def run(self, seed: int, **more: Any) -> Any:
            if seed == 8:
                raise KeyboardInterrupt
            return super().run(seed, **more)

    begun = Campaign(Interrupted("fine", [], []), settings=Settings(workers=1))
    with pytest.raises(KeyboardInterrupt):
        begun.run()
    assert begun.report.seeds == 7


def test_progress_is_shown_with_counts_that_grow() -> None:
    views: list[View] = []
    slow = make("fine")[0]
    run = slow.run
    slow.run = lambda *a, **k: (time.sleep(0.02), run(*a, **k))[1]  # type: ignore[method-assign]
    run_campaign(slow, settings=Settings(workers=1, seeds=20, repeats=False), show=views.append)
    assert len(views) >= 2
    assert [view.done for view in views] == sorted(view.done for view in views)
    assert views[-1].planned == 20


def test_notes_are_told_once() -> None:
    report = campaign("notes", seeds=30)
    assert report.notes == ["shop.py:41 writes orders.json"]
    assert str(report).count("shop.py:41") == 1


def test_the_report_is_plain_data_for_json() -> None:
    report = campaign("fails", bad=[9], needs=[2, 13])
    data = json.loads(json.dumps(report.as_json()))
    assert data["verdict"] == "failed"
    assert data["failures"][0]["seed"] == 9
    assert data["failures"][0]["told"]["kept"] == [2, 13]
    assert Explanation.from_json(data["failures"][0]["told"]) == report.told[0]


def test_a_result_survives_the_way_between_processes() -> None:
    result = run_seed(make("fails", [5], [1])[0], 5)
    assert result.error == "AssertionError"
    assert result.again == result.digest
    assert SeedResult(**json.loads(json.dumps(result.as_json()))) == result


def test_the_whole_trace_goes_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    write_trace(make("fails", [5], [])[0], 5, str(path))
    lines = path.read_text().splitlines()
    assert lines[0] == "    0.000000000 api      fault 0"
    assert lines[-1] == "    0.022000000 api      after it"


def test_a_trace_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trace .*: Is a directory; name a file"):
        write_trace(make("fine")[0], 5, str(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "seeds is 0; at least 1"),
        ({"workers": 0}, "workers is 0; at least 1"),
        ({"first": -1}, "first is -1; at least 0"),
        ({"seconds": 0.0}, "seconds is 0; above 0"),
        ({"hang_seconds": 0.0}, "hang_seconds is 0; above 0"),
        ({"sometimes": 1.5}, "sometimes is 1.5; a share from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Settings(**wrong)


# --- what is run -------------------------------------------------------------------------------


def test_an_origin_gives_the_same_runnable_by_name() -> None:
    assert origin("fine").one("fake").place == "fake.py::fake"
    with pytest.raises(ConfigError, match="gives nothing called 'other'"):
        origin("fine").one("other")


TESTS = """
from outlast import sim

@sim.test(seeds=3, seed=40, faults=["crash"])
async def test_one(lab): ...

@sim.test
async def test_two(lab): ...

@sim.test
async def test_three(lab, tmp_path): ...

async def plain(): ...
"""


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    path = tmp_path / f"sim_loading_{abs(hash(request.node.name))}.py"
    path.write_text(TESTS)
    return str(path)


@pytest.mark.parametrize("between", ["::", ":"])
def test_a_target_names_a_file_and_a_test(place: str, between: str) -> None:
    (found,) = find_tests(f"{place}{between}test_one")
    assert found.name == "test_one"
    assert found.command == f"outlast sim {place}::test_one"
    assert (found.first, found.seeds, found.faults) == (40, 3, ("crash@one",))


def test_a_test_that_wants_fixtures_is_sent_to_pytest(place: str) -> None:
    with pytest.raises(ConfigError, match=r"test_three takes tmp_path, which only pytest can"):
        find_tests(f"{place}::test_three")


def test_a_misspelt_test_gets_a_hint(place: str) -> None:
    with pytest.raises(ConfigError, match="no test 'test_on'; did you mean test_one"):
        find_tests(f"{place}::test_on")


def test_a_function_without_the_decorator_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match=r"plain is no simulation test; put @sim\.test"):
        find_tests(f"{place}::plain")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.py", "nowhere.py: no such file; write FILE.py::test_name"),
        ("no.such.module", "'no.such.module': no such module; write FILE.py::test_name"),
        ("json:loads", "json:loads is no simulation test"),
        ("json", "json: no simulation test in it"),
    ],
)
def test_a_target_that_is_none_is_refused_in_one_line(target: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_tests(target)


# --- errors as text ----------------------------------------------------------------------------


def raised(call: Any) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise RuntimeError


def test_two_errors_are_of_one_kind_by_type_and_line_and_not_by_what_they_say() -> None:
    def fail(number: int) -> None:
        raise ValueError(f"order {number}")

    def other() -> None:
        raise ValueError("order 1")

    assert kind_of(raised(lambda: fail(1))) == kind_of(raised(lambda: fail(2)))
    assert kind_of(raised(lambda: fail(1))) != kind_of(raised(other))


def test_an_error_without_a_line_of_the_program_is_known_by_its_words_without_numbers() -> None:
    assert kind_of(AssertionError("api ended 12 times")) == kind_of(
        AssertionError("api ended 3 times")
    )


def test_a_group_of_errors_is_told_by_its_first() -> None:
    group = ExceptionGroup("tasks", [raised(lambda: {}["order"])])
    assert "KeyError: 'order'" in own_lines(group)
    assert own_lines(group)[-1] == "(inside ExceptionGroup: tasks (1 sub-exception))"


def test_the_cause_of_an_error_comes_first() -> None:
    def fail() -> None:
        try:
            {}["order"]
        except KeyError as error:
            raise ValueError("bad") from error

    lines = own_lines(raised(fail))
    assert lines.index("KeyError: 'order'") < lines.index("which led to")
    assert lines[-1] == "ValueError: bad"


def test_a_value_whose_repr_fails_does_not_hide_the_others() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        odd, count = Odd(), 3
        assert odd is None, count

    shown = values(raised(fail))
    assert any(line.startswith("  odd = <Odd instance") for line in shown)
    assert "  count = 3" in shown


def test_the_verdict_of_a_checker_is_told_with_its_counter_example() -> None:
    class Example:
        def text(self) -> str:
            return "w1 | r0"

    class Result:
        verdict, why, counterexample = "invalid", "read an old value", Example()

    assert verdict_of(AssertionError(Result())) == "invalid: read an old value\nw1 | r0"
    assert verdict_of(AssertionError("plain")) == ""


def test_output_is_kept_from_its_end() -> None:
    tail = Tail(2)
    for text in ("a\nb", "c\nd\n", "e"):
        tail.write(text)
    assert tail.lines() == ["bc", "d", "e"]


def test_a_trace_is_kept_from_its_end_up_to_the_first_problem() -> None:
    tail = TraceTail()
    for number in range(100):
        tail(number, "api", "problem it broke" if number == 80 else f"event {number}")
    assert len(tail.lines()) == TRACE_LINES
    assert tail.lines()[-1].endswith("problem it broke")


# --- processes -----------------------------------------------------------------------------------


class Process:
    """What is asked of a worker, without one."""

    made: ClassVar[list["Process"]] = []
    asked: ClassVar[list[str]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        self.number = len(self.made)
        self.made.append(self)
        if self.number == 2:
            raise KeyboardInterrupt

    def kill(self) -> None:
        self.asked.append(f"kill {self.number}")

    def end(self) -> None:
        self.asked.append(f"end {self.number}")


@pytest.mark.parametrize("count", [2, 3])
def test_all_workers_are_killed_before_the_first_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Also if Ctrl-C comes while they are started: the third never is."""
    monkeypatch.setattr(workers, "WorkerProcess", Process)
    monkeypatch.setattr(Process, "made", [])
    monkeypatch.setattr(Process, "asked", [])
    with suppress(KeyboardInterrupt), Pool(origin("fine"), "fake", workers=count):
        assert count == 2
    assert Process.asked == ["kill 0", "kill 1", "end 0", "end 1"]


def test_a_worker_that_reads_nothing_more_is_ended_all_the_same() -> None:
    """What is still to be written to it does not keep us waiting for it to read."""
    worker = WorkerProcess(origin("fine"), "fake")
    process = worker._process
    assert process.stdin is not None
    os.kill(process.pid, signal.SIGSTOP)
    os.set_blocking(process.stdin.fileno(), False)
    with suppress(BlockingIOError):
        process.stdin.write(b"x" * (1 << 18))
    os.set_blocking(process.stdin.fileno(), True)
    try:
        worker.end()
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL
