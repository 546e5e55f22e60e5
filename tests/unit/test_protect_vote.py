"""``Vote``: the answer of the majority."""

import asyncio
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import (
    CommandError,
    ConfigError,
    DeadlineError,
    EventBus,
    InvariantError,
    current_world,
)
from outlast.kernel.errors import NoMajorityError
from outlast.protect.core.vote import Tally, majority, told
from outlast.protect.deadline import deadline
from outlast.protect.kinds import kind_of
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry
from outlast.protect.vote import Vote
from tests.support.beside import stage

assert outlast.host

Told = tuple[Any, float, list[Any]]


def _end(end: Any) -> Any:
    if isinstance(end, BaseException):
        raise end
    return end


def in_loop(*story: tuple[float, Any], **settings: Any) -> Told:
    def instance(seconds: float, end: Any) -> Callable[..., Any]:
        async def call() -> Any:
            await asyncio.sleep(seconds)
            return _end(end)

        return call

    async def main() -> Told:
        bus, events = current_world().events, list[Any]()
        assert isinstance(bus, EventBus)
        bus.subscribe(events.append)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            answer = await Vote([instance(*each) for each in story], **settings)()
        except Exception as error:
            answer = error
        assert len(asyncio.all_tasks()) == 1
        return answer, round(loop.time() - begun, 3), events

    return sim.run(main)


def blocking(*story: tuple[float, Any], **settings: Any) -> Told:
    with stage() as here:

        def instance(seconds: float, end: Any) -> Callable[..., Any]:
            def call() -> Any:
                here.pause(seconds)
                return _end(end)

            return call

        try:
            answer = Vote([instance(*each) for each in story], **settings)()
        except Exception as error:
            answer = error
        return answer, round(here.now, 3), here.events


both = pytest.mark.parametrize("run", [in_loop, blocking])
Run = Callable[..., Told]


@both
def test_the_answer_is_returned_as_soon_as_a_majority_agrees(run: Run) -> None:
    assert run((1, "a"), (9, "a"), (2, "a"))[:2] == ("a", 2)


@both
def test_a_liar_is_outvoted_and_named(run: Run) -> None:
    answer, _, events = run((1, "lie"), (2, "a"), (3, "a"))
    assert answer == "a"
    assert [(e.dissenting, e.failed) for e in events] == [(("instance 1",), ())]


@both
def test_an_instance_that_fails_is_named_and_has_no_voice(run: Run) -> None:
    answer, seconds, events = run((1, OSError()), (2, "a"), (3, "a"), names=["x", "y", "z"])
    assert (answer, seconds) == ("a", 3)
    assert [(e.dissenting, e.failed) for e in events] == [((), ("x",))]


@both
def test_no_answer_of_its_own_ends_the_vote_as_soon_as_it_is_hopeless(run: Run) -> None:
    error, seconds, _ = run((1, "a"), (2, "b"), (3, OSError()), (9, "c"))
    assert isinstance(error, NoMajorityError)
    assert seconds == 3  # three of four are needed; two differ and one failed
    assert error.parties == (1, 1)
    assert error.unheard == ("instance 4",)
    assert error.happened == "maybe"


@both
def test_errors_and_times_are_told_but_not_the_answers(run: Run) -> None:
    error, seconds, _ = run((1, "secret"), (2, OSError()), (9, "x"), timeout=5.0)
    assert isinstance(error, NoMajorityError)
    assert seconds == 5
    assert "secret" not in str(error)
    assert error.failed == {"instance 2": "OSError"}
    assert error.unheard == ("instance 3",)
    assert isinstance(error.__cause__, OSError)
    assert pickle.loads(pickle.dumps(error)).parties == (1,)


@both
def test_a_key_says_what_is_compared(run: Run) -> None:
    story = [(n, {"body": "b", "at": n}) for n in (1, 2, 3)]
    assert run(*story, key=lambda answer: answer["body"])[0] == {"body": "b", "at": 1}


@both
def test_an_answer_that_cannot_be_compared_is_none(run: Run) -> None:
    answer, _, events = run((1, None), (2, {"k": 1}), (3, {"k": 1}), key=lambda a: a["k"])
    assert answer == {"k": 1}
    assert events[0].failed == ("instance 1",)


@both
def test_a_command_error_is_an_answer(run: Run) -> None:
    error = run((1, CommandError("no")), (2, CommandError("no")), (3, "yes"))[0]
    assert isinstance(error, CommandError)


@both
def test_an_invariant_error_comes_out(run: Run) -> None:
    assert isinstance(run((1, "a"), (2, InvariantError("x")), (3, "a"))[0], InvariantError)


@both
def test_a_quorum_of_all_wants_all(run: Run) -> None:
    assert run((1, "a"), (2, "a"), (3, "a"), quorum=3)[:2] == ("a", 3)


def test_a_blocking_vote_ends_at_the_deadline() -> None:
    with stage() as here:
        slow = [lambda: here.pause(9)] * 3
        with pytest.raises(DeadlineError), deadline(2.0):
            Vote(slow)()
        assert here.now == pytest.approx(2.0)


def test_a_cancelled_vote_cancels_all_instances() -> None:
    ended: list[int] = []

    async def instance() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            ended.append(1)

    async def main() -> None:
        task = asyncio.ensure_future(Vote([instance] * 3)())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ended) == 3

    sim.run(main)


def test_threads_are_bounded_and_an_instance_without_one_fails() -> None:
    go = threading.Event()
    vote = Vote([lambda: go.wait(5), lambda: 1, lambda: 1], max_threads=1)
    with pytest.raises(NoMajorityError) as caught:
        vote()
    go.set()
    assert set(caught.value.failed.values()) == {"OverloadedError"}


def test_real_threads_agree() -> None:
    vote = Vote([lambda: 2, lambda: 3, lambda: 2], name="v")
    assert vote() == 2
    assert vote.describe()["quorum"] == 2
    assert vote.snapshot()["votes"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"instances": [len]}, {"instances": [3, 4]}, {"quorum": 3}, {"quorum": 0}, {"key": 1},
        {"timeout": 0}, {"names": ["a", "a"]}, {"max_threads": 0},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Vote: {next(iter(wrong))} is"):
        Vote(**{"instances": [len, abs], **wrong})


def test_kinds_are_not_mixed() -> None:
    async def other() -> None: ...

    with pytest.raises(ConfigError, match="all plain or all async"):
        Vote([len, other])


def test_liars_up_to_the_bound_are_masked_whatever_they_say() -> None:
    for count in range(2, 8):
        liars = (count - 1) // 2
        for together in (True, False):
            tally = Tally(count, majority(count))
            for member in range(count):
                lie = "lie" if together else member
                tally.answered(member, lie if member < liars else "true", member)
            assert tally.winner is not None
            assert tally.winner.ballot == "true"
            assert tally.dissenters == tuple(range(liars))


def test_the_dissenters_of_an_open_vote_are_not_known() -> None:
    tally = Tally(3, 2)
    tally.answered(0, "a", "a")
    assert (tally.dissenters, tally.hopeless, tally.open_count) == ((), False, 2)


def test_a_vote_that_is_won_is_not_hopeless_whatever_comes_later() -> None:
    tally = Tally(3, 2)
    for member, answer in enumerate(["a", "a", "b"]):
        tally.answered(member, answer, answer)
    assert not tally.hopeless
    assert tally.parties == (2, 1)


def test_what_was_answered_is_told_in_words() -> None:
    def after(count: int, answers: str) -> str:
        tally = Tally(count, count)
        for member, answer in enumerate(answers):
            tally.answered(member, answer, answer)
        return told(tally)

    assert after(3, "abc") == "3 instances gave 3 different answers"
    assert after(5, "aab") == "3 of 5 instances gave 2 different answers, at most 2 the same"
    assert after(3, "aa") == "2 of 3 instances gave the same answer"
    assert after(3, "a") == "1 of 3 instances answered"
    assert after(3, "") == "none of 3 instances answered"


@both
def test_the_error_says_what_was_needed_and_who_was_not_heard(run: Run) -> None:
    error = run((1, "a"), (2, "b"), (3, OSError()), (9, "c"))[0]
    assert str(error).startswith(
        "2 of 4 instances gave 2 different answers, 1 failed, 1 had not answered; 3 equal answers"
    )


def test_a_policy_protects_a_vote_as_the_kind_of_function_that_the_instances_are() -> None:
    async def one(number: int) -> int:
        return number

    async def main() -> None:
        policy = Policy("p", timeout=5.0, retry=Retry(on=OSError))
        vote: Vote[[int], Any] = Vote([one, one], name="v")
        for protected in (policy(vote), partial(policy.call, vote), policy(partial(vote))):
            call: Any = protected
            assert await call(3) == 3
        assert policy.snapshot()["calls"]["succeeded"] == 3

    sim.run(main)
    assert Policy("q", timeout=5.0)(Vote([abs, abs]))(-2) == 2
    assert kind_of(Vote([abs, abs])) == "blocking"


def test_an_object_that_has_any_attribute_is_not_asked_for_its_kind() -> None:
    assert kind_of(MagicMock()) == "blocking"
