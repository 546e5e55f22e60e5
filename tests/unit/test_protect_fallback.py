"""``Fallback`` and ``Inject``."""

import asyncio
from functools import partial
from typing import Any

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import ConfigError, InvariantError, current_world
from outlast.protect.fallback import Fallback
from outlast.protect.inject import Inject
from outlast.protect.policy import Policy
from tests.support.beside import stage

assert outlast.host

ERROR = KeyError("x")


@pytest.mark.parametrize(
    ("value", "options", "answer"),
    [
        (3, {}, 3),
        (None, {}, None),
        (list, {}, []),
        (lambda: 4, {}, 4),
        (lambda error: error, {}, ERROR),
        (lambda *args: args, {}, (ERROR,)),
        (lambda a, b=0: (a, b), {"call_with": "arguments"}, (1, 2)),
        (lambda a=0: a, {"call_with": "nothing"}, 0),
        (partial(int, "7"), {"call_with": "nothing"}, 7),
        (len, {"call_with": "value"}, len),
        ([1].copy, {}, [1]),
    ],
)
def test_how_the_answer_is_made(value: Any, options: dict[str, Any], answer: Any) -> None:
    with stage() as here:
        fallback = Fallback(value, **options)
        assert fallback.value_blocking(ERROR, (1,), {"b": 2} if options else {}) == answer
        assert here.told() == ["FallbackUsed"]
        assert fallback.snapshot() == {"used": 1}


def test_a_builtin_without_a_signature_is_called_with_nothing() -> None:
    with stage():
        assert Fallback(dict).value_blocking(ERROR, (), {}) == {}
        assert Fallback(iter([1]).__next__).value_blocking(ERROR, (), {}) == 1


def test_a_coroutine_function_answers_coroutines_only() -> None:
    async def answer() -> int:
        return 5

    fallback = Fallback(answer)
    with pytest.raises(TypeError, match=r"answer is a coroutine function"):
        fallback.refuse_blocking()
    with stage(), pytest.raises(TypeError):
        fallback.value_blocking(ERROR, (), {})

    async def main() -> Any:
        return await fallback.value_async(ERROR, (), {})

    assert sim.run(main) == 5


def test_a_plain_function_answers_coroutines_too() -> None:
    async def main() -> Any:
        return await Fallback(lambda: 6).value_async(ERROR, (), {})

    assert sim.run(main) == 6


def test_neither_cancellation_nor_an_invariant_is_answered() -> None:
    fallback = Fallback(1)
    assert fallback.answers(ERROR)
    for error in (asyncio.CancelledError(), KeyboardInterrupt(), InvariantError("x")):
        assert not fallback.answers(error)
    assert not Fallback(1, on=OSError).answers(ERROR)


def test_a_fallback_changes_live() -> None:
    fallback = Fallback(1)
    fallback.configure(value=lambda: 2)
    with stage():
        assert fallback.value_blocking(ERROR, (), {}) == 2


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (1, {"on": ()}), (1, {"on": KeyboardInterrupt}), (1, {"call_with": "x"}),
        (1, {"call_with": "error"}), (lambda a, b: 1, {}),
    ],
)  # fmt: skip
def test_a_wrong_fallback_is_refused(value: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Fallback: "):
        Fallback(value, **wrong)


# --- Inject --------------------------------------------------------------------------------------


def test_nothing_is_injected_by_default() -> None:
    with stage() as here:
        assert Inject().wrap_blocking(lambda: 1, "p")() == 1
        assert here.events == []


def test_errors_come_as_often_as_they_are_told_to_and_each_is_another() -> None:
    with stage() as here:
        error, failed = OSError("x"), list[OSError]()
        inject = Inject(error=error, error_rate=0.3, seed=3)
        call = inject.wrap_blocking(lambda: 1, "p")
        for _ in range(500):
            try:
                call()
            except OSError as raised:
                failed.append(raised)
        assert 110 < len(failed) < 190
        assert error not in failed
        assert str(failed[0]) == "x"
        assert inject.snapshot()["error"] == len(failed) == len(here.events)


def test_the_same_seed_gives_the_same_faults() -> None:
    def run() -> list[bool]:
        with stage():
            call = Inject(result=True, result_rate=0.5, seed=9).wrap_blocking(lambda: False, "p")
            return [call() for _ in range(50)]

    assert run() == run()
    assert 0 < sum(run()) < 50


def test_latency_is_drawn_between_two_ends_and_the_call_is_made() -> None:
    with stage() as here:
        inject = Inject(latency=(1.0, 2.0), latency_rate=1.0)
        call = inject.wrap_blocking(lambda: 1, "p")
        for turn in range(1, 20):
            assert call() == 1
            assert turn <= here.now <= 2 * turn
        assert here.told()[0] == "FaultInjected"


def test_coroutines_meet_latency_errors_and_results() -> None:
    async def one() -> int:
        return 1

    async def main() -> list[Any]:
        clock = current_world().clock
        begun = clock.monotonic_ns()
        slow = Inject(latency=2.0, latency_rate=1.0).wrap_async(one, "p")
        told: list[Any] = [await slow(), (clock.monotonic_ns() - begun) / 1e9]
        with pytest.raises(OSError):
            await Inject(error=OSError, error_rate=1.0).wrap_async(one, "p")()
        told.append(await Inject(result=None, result_rate=1.0).wrap_async(one, "p")())
        told.append(await Inject(result=3, result_rate=1.0, active=False).wrap_async(one, "p")())
        return told

    assert sim.run(main) == [1, 2.0, None, 1]


def test_when_looks_at_the_arguments_and_enabled_switches() -> None:
    with stage():
        inject = Inject(result=0, result_rate=1.0, when=lambda n: n > 5, active=False)
        call = inject.wrap_blocking(lambda n: n, "p")
        assert call(9) == 9
        with inject.enabled():
            assert [call(9), call(1)] == [0, 1]
            with inject.enabled(False):
                assert call(9) == 9
        assert call(9) == 9


def test_faults_change_live() -> None:
    with stage():
        inject = Inject(result=0, result_rate=1.0, seed=1)
        call = inject.wrap_blocking(lambda: 1, "p")
        inject.configure(result_rate=0.0)
        assert call() == 1
        inject.configure(result_rate=1.0, seed=2)
        assert call() == 0


def test_an_error_maker_that_makes_none_is_told() -> None:
    make: Any = lambda: 3  # noqa: E731 - a wrong one
    with stage(), pytest.raises(TypeError, match="no error"):
        Inject(error=make, error_rate=1.0).wrap_blocking(lambda: 1, "p")()


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_rate": 0.5}, {"error": 3}, {"error": OSError, "error_rate": 2},
        {"latency": (1, 2, 3)}, {"latency": (2, 1)}, {"latency": -1}, {"when": 3},
        {"result_rate": 1.0},
    ],
)  # fmt: skip
def test_a_wrong_fault_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Inject: "):
        Inject(**wrong)


def test_one_call_hands_on_the_arguments_of_the_call_alone() -> None:
    seen: list[tuple[object, ...]] = []

    def instead(*args: object) -> str:
        seen.append(args)
        return "instead"

    def larger(number: int) -> bool:
        seen.append((number,))
        return number > 7

    def ask(number: int) -> str:
        raise OSError(number)

    policy = Policy(fallback=Fallback(instead, call_with="arguments"))
    assert policy.call(ask, 7) == "instead"
    faulty = Policy(inject=Inject(error=OSError, error_rate=1.0, when=larger))
    with pytest.raises(OSError, match="7"):
        faulty.call(ask, 7)
    assert seen == [(7,), (7,)]
