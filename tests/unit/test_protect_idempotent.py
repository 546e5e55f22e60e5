"""Work done once for each key: decorators on functions and coroutines, and a failing store."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import (
    BulkheadFullError,
    CommandError,
    ConfigError,
    DeadlineError,
    Event,
    InFlightError,
    KeyReusedError,
    OverloadedError,
    ReplyLostError,
    UnavailableError,
    current_world,
    happened,
)
from outlast.protect import deadline
from outlast.protect.call import CallInfo, current_call_var
from outlast.protect.core.codec import Json
from outlast.protect.core.idempotency import Answer
from outlast.protect.headers import incoming
from outlast.protect.idempotent import Idempotent
from outlast.protect.store.api import RecordStore
from outlast.protect.store.records import MemoryRecords
from outlast.testing import virtual_time


class Remote:
    """A store as another process would be: bytes only, and it can be down."""

    local = False

    def __init__(self) -> None:
        self.inner = MemoryRecords()
        self.down = False
        self.calls: list[str] = []

    def _call(self, name: str, *args: Any) -> Any:
        self.calls.append(name)
        if self.down:
            raise ConnectionError("store is down")
        return getattr(self.inner, name)(*args)

    def begin(self, *args: Any) -> Answer:
        answer: Answer = self._call("begin", *args)
        return answer

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        assert isinstance(outcome, bytes)
        return bool(self._call("finish", key, token, outcome, ttl_ns))

    def release(self, *args: Any) -> None:
        self._call("release", *args)

    def renew(self, *args: Any) -> bool:
        return bool(self._call("renew", *args))


@contextmanager
def under(key: str | None) -> Iterator[None]:
    token = current_call_var.set(CallInfo(key))
    try:
        yield
    finally:
        current_call_var.reset(token)


def heard() -> list[str]:
    names: list[str] = []

    def listen(event: Event) -> None:
        names.append(type(event).__name__)

    current_world().events.subscribe(listen)  # type: ignore[attr-defined]
    return names


def counted(
    idempotent: Idempotent, answer: Callable[[int], Any] = lambda number: number
) -> tuple[Callable[..., Any], list[int]]:
    runs: list[int] = []
    idempotent.name = idempotent.name or "work"

    @idempotent
    def work(*args: Any) -> Any:
        runs.append(len(runs))
        return answer(len(runs))

    return work, runs


def test_a_repeat_gets_the_outcome_of_the_first_and_nothing_runs() -> None:
    with virtual_time():
        work, runs = counted(Idempotent())
        with under("a"):
            assert [work(5), work(5)] == [1, 1]
        with under("b"):
            assert work(5) == 2
        assert runs == [0, 1]


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
def test_falsy_results_are_outcomes_too(value: object) -> None:
    with virtual_time():
        for store in (None, Remote()):
            work, runs = counted(Idempotent(store), lambda _: value)
            with under("a"):
                assert work() == value
                assert work() == value
            assert len(runs) == 1


def test_without_a_key_the_work_simply_runs_unless_one_is_required() -> None:
    with virtual_time():
        work, runs = counted(Idempotent())
        work()
        work()
        assert len(runs) == 2
        strict, runs = counted(Idempotent(require=True))
        with pytest.raises(ConfigError, match="required"):
            strict()
        assert not runs


def test_the_key_comes_from_the_arguments_or_from_the_request_being_served() -> None:
    with virtual_time():
        work, runs = counted(Idempotent(key=lambda order: f"order-{order}"))
        assert [work(1), work(2), work(1)] == [1, 2, 1]
        served, runs = counted(Idempotent())
        for _ in range(2):
            with incoming({"Idempotency-Key": "k"}), under(None):
                served()
        assert len(runs) == 1
        wrong, _ = counted(Idempotent(key=lambda: 7))  # type: ignore[arg-type,return-value]
        with pytest.raises(ConfigError, match="must be a text"):
            wrong()


def test_two_functions_may_see_the_same_key() -> None:
    with virtual_time(), under("a"):
        shared = Idempotent()

        @shared
        def one() -> str:
            return "one"

        @shared
        def two() -> str:
            return "two"

        assert (one(), two(), one()) == ("one", "two", "one")


def test_a_key_with_other_arguments_is_refused() -> None:
    with virtual_time(), under("a"):
        work, runs = counted(Idempotent())
        work(5)
        with pytest.raises(KeyReusedError) as caught:
            work(6)
        assert happened(caught.value) == "no"
        assert len(runs) == 1


def test_self_does_not_count_as_an_argument_and_a_fingerprint_of_ones_own_does() -> None:
    class Bank:
        @Idempotent(key=lambda self, amount: "k")
        def pay(self, amount: int) -> int:
            return amount

    with virtual_time():
        assert [Bank().pay(5), Bank().pay(5)] == [5, 5]
        work, _ = counted(Idempotent(fingerprint=lambda order, stamp: str(order)))
        with under("a"):
            assert work(1, "now") == work(1, "later")


class OddError(Exception):
    def __init__(self, part: str, number: int) -> None:
        super().__init__(f"{part} failed")
        self.number = number


def test_an_error_is_raised_again_as_it_was_without_the_traces_of_earlier_times() -> None:
    def fail(_: int) -> None:
        raise OddError("disk", 7)

    with virtual_time(), under("a"):
        work, runs = counted(Idempotent(), fail)
        caught = []
        for _ in range(3):
            with pytest.raises(OddError, match="disk failed") as info:
                work()
            info.value.add_note("seen by one caller")
            caught.append(info.value)
        assert len(runs) == 1
        assert [error.number for error in caught] == [7, 7, 7]
        assert [error.args for error in caught] == [("disk failed",)] * 3
        assert [error.__notes__ for error in caught] == [["seen by one caller"]] * 3
        lengths = set()
        for error in caught[1:]:
            trace, length = error.__traceback__, 0
            while trace is not None:
                trace, length = trace.tb_next, length + 1
            lengths.add(length)
        assert len(lengths) == 1


def test_an_error_with_state_of_its_own_is_kept_itself() -> None:
    def fail(_: int) -> None:
        raise FileNotFoundError(2, "no such file", "x")

    with virtual_time(), under("a"):
        work, _ = counted(Idempotent(), fail)
        for _ in range(2):
            with pytest.raises(FileNotFoundError) as caught:
                work()
            assert (caught.value.errno, caught.value.filename) == (2, "x")


def test_a_refusal_before_any_work_frees_the_key() -> None:
    def refuse(number: int) -> str:
        if number == 1:
            raise BulkheadFullError("full")
        return "done"

    with virtual_time(), under("a"):
        work, runs = counted(Idempotent(), refuse)
        with pytest.raises(BulkheadFullError):
            work()
        assert work() == "done"
        assert len(runs) == 2


@pytest.mark.parametrize(
    "errors", [CommandError, (CommandError, KeyError), lambda error: type(error) is CommandError]
)
def test_only_errors_that_the_filter_takes_are_kept(errors: Any) -> None:
    def fail(number: int) -> None:
        raise ValueError("bug") if number == 1 else CommandError("no money")

    with virtual_time(), under("a"):
        work, runs = counted(Idempotent(errors=errors), fail)
        with pytest.raises(ValueError, match="bug"):
            work()
        for _ in range(2):
            with pytest.raises(CommandError, match="no money"):
                work()
        assert len(runs) == 2


def test_an_outcome_is_forgotten_when_its_time_is_over() -> None:
    with virtual_time() as clock, under("a"):
        work, _ = counted(Idempotent(ttl=60))
        assert work() == 1
        clock.advance(59)
        assert work() == 1
        clock.advance(1)
        assert work() == 2


def test_an_interrupted_run_frees_the_key() -> None:
    def stop(number: int) -> int:
        if number == 1:
            raise KeyboardInterrupt
        return number

    with virtual_time(), under("a"):
        work, _ = counted(Idempotent(), stop)
        with pytest.raises(KeyboardInterrupt):
            work()
        assert work() == 2


def test_work_that_gave_up_because_its_callers_time_was_up_frees_the_key() -> None:
    with virtual_time() as clock, under("a"):

        def late(number: int) -> int:
            if number == 1:
                clock.advance(5)
                raise DeadlineError("time is up")
            return number

        work, _ = counted(Idempotent(), late)
        with pytest.raises(DeadlineError), deadline(2.0):
            work()
        assert work() == 2


def test_a_run_that_hung_past_its_lease_is_replaced_and_its_late_outcome_fenced() -> None:
    with virtual_time() as clock, under("a"):
        events = heard()

        def hang(number: int) -> int:
            if number == 1:
                with pytest.raises(InFlightError) as caught:
                    work()
                assert caught.value.retry_after == 10.0
                clock.advance(10)
                assert work() == 2
            return number

        work, runs = counted(Idempotent(lease=10), hang)
        assert work() == 1
        assert len(runs) == 2
        assert work() == 2
        assert events.count("OutcomeFenced") == 1


def test_a_generator_cannot_be_done_once() -> None:
    with pytest.raises(TypeError, match="generator"):

        @Idempotent()
        def numbers() -> Iterator[int]:
            yield 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ttl": 0}, "ttl is 0"),
        ({"lease": float("inf")}, "lease is inf"),
        ({"key": "k"}, "key is 'k'"),
        ({"fingerprint": 1}, "fingerprint is 1"),
        ({"errors": 3}, "errors is 3"),
        ({"errors": (3,)}, "errors is"),
        ({"store_down": "maybe"}, "store_down is 'maybe'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Idempotent(**settings)


def test_settings_and_records_show() -> None:
    store = MemoryRecords(capacity=5)
    idempotent = Idempotent(store, ttl=60.0, name="pay")
    assert idempotent.describe() == {
        "name": "pay", "store": "MemoryRecords", "ttl": 60.0, "lease": 30.0, "require": False,
        "store_down": "local",
    }  # fmt: skip
    with virtual_time(), under("a"):
        counted(idempotent)[0]()
    assert store.snapshot() == {"in_flight": 0, "done": 1, "bytes": 0, "evicted": 0}
    assert isinstance(store, RecordStore)
    assert isinstance(Remote(), RecordStore)


def test_no_room_for_more_work_in_flight_is_told_as_overload() -> None:
    with virtual_time():
        inner, _ = counted(Idempotent(MemoryRecords(capacity=1), key=lambda n: f"k{n}"))
        only = Idempotent(MemoryRecords(capacity=1), key=lambda n: f"k{n}", name="only")

        @only
        def outer(number: int) -> None:
            if number == 1:
                outer(2)

        with pytest.raises(OverloadedError, match="no room"):
            outer(1)
        assert inner(1) == 1


# --- stores elsewhere ------------------------------------------------------------------------


def test_a_store_elsewhere_gets_bytes_and_gives_the_same_outcome() -> None:
    with virtual_time(), under("a"):
        work, runs = counted(Idempotent(Remote()), lambda number: (number, b"x"))
        assert [work(), work()] == [(1, b"x"), (1, b"x")]

        def fail(_: int) -> None:
            raise LookupError("nothing", 5)

        failing, runs = counted(Idempotent(Remote(), codec=Json(errors=[LookupError])), fail)
        for _ in range(2):
            with pytest.raises(LookupError) as caught:
                failing()
            assert caught.value.args == ("nothing", 5)
        assert len(runs) == 1


def test_what_the_codec_cannot_keep_is_done_without_an_answer() -> None:
    with virtual_time(), under("a"):
        events = heard()
        work, runs = counted(Idempotent(Remote()), lambda _: {1, 2})
        assert work() == {1, 2}
        with pytest.raises(ReplyLostError) as caught:
            work()
        assert happened(caught.value) == "yes"
        assert len(runs) == 1
        assert "OutcomeNotKept" in events


def test_damaged_bytes_in_the_store_do_not_make_the_work_run_again() -> None:
    with virtual_time(), under("a"):
        store = Remote()
        work, runs = counted(Idempotent(store))
        store.finish = lambda key, token, _outcome, ttl: store.inner.finish(  # type: ignore[method-assign]
            key, token, b"{damaged", ttl
        )
        work()
        with pytest.raises(ReplyLostError) as caught:
            work()
        assert happened(caught.value) == "yes"
        assert len(runs) == 1


def test_a_store_that_is_down_is_replaced_by_records_of_this_process() -> None:
    with virtual_time(), under("a"):
        store, events = Remote(), heard()
        work, runs = counted(Idempotent(store))
        store.down = True
        assert [work(), work()] == [1, 1]
        store.down = False
        assert work() == 1
        assert len(runs) == 1
        assert events.count("RecordsLost") == 1
        with under("b"):
            assert work() == 2
        assert store.inner.snapshot()["done"] == 1


def test_with_refuse_a_store_that_is_down_refuses_before_the_work() -> None:
    with virtual_time(), under("a"):
        store = Remote()
        work, runs = counted(Idempotent(store, store_down="refuse"))
        store.down = True
        with pytest.raises(UnavailableError):
            work()
        assert not runs


def test_a_store_that_goes_down_during_the_work_does_not_spoil_its_result() -> None:
    with virtual_time() as clock, under("a"):
        store, events = Remote(), heard()

        def lose(number: int) -> int:
            store.down = number == 1
            return number

        work, _ = counted(Idempotent(store, lease=10), lose)
        assert work() == 1
        assert events == ["OutcomeNotKept"]
        store.down = False
        with pytest.raises(InFlightError):
            work()
        clock.advance(10)
        assert work() == 2


# --- coroutines -----------------------------------------------------------------------------


@pytest.mark.parametrize("remote", [False, True])
def test_coroutines_that_repeat_at_once_run_once(remote: bool) -> None:
    async def main() -> None:
        runs: list[int] = []

        @Idempotent(Remote() if remote else None, name="work")
        async def work() -> int:
            runs.append(1)
            await asyncio.sleep(5)
            return len(runs)

        with under("a"):
            first = asyncio.ensure_future(work())
            await asyncio.sleep(1)
            with pytest.raises(InFlightError) as caught:
                await work()
            assert caught.value.retry_after is not None
            assert 28 < caught.value.retry_after <= 30
            assert await first == 1
            assert await work() == 1
        assert len(runs) == 1

    sim.run(main)


@pytest.mark.parametrize("remote", [False, True])
def test_a_coroutine_renews_its_lease_while_it_runs(remote: bool) -> None:
    async def main() -> None:
        @Idempotent(Remote() if remote else None, lease=9, name="work")
        async def work() -> str:
            await asyncio.sleep(100)
            return "done"

        with under("a"):
            first = asyncio.ensure_future(work())
            for _ in range(9):
                await asyncio.sleep(10)
                with pytest.raises(InFlightError):
                    await work()
            assert await first == "done"
            await asyncio.sleep(50)
            assert await work() == "done"

    sim.run(main)


@pytest.mark.parametrize("remote", [False, True])
def test_a_cancelled_coroutine_frees_its_key_at_once(remote: bool) -> None:
    async def main() -> None:
        runs: list[int] = []

        @Idempotent(Remote() if remote else None, name="work")
        async def work() -> int:
            runs.append(1)
            if len(runs) == 1:
                await asyncio.sleep(60)
            return len(runs)

        with under("a"):
            first = asyncio.ensure_future(work())
            await asyncio.sleep(1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await work() == 2

    sim.run(main)


def test_one_that_is_cancelled_while_it_asks_the_store_leaves_the_key_free() -> None:
    async def main() -> None:
        store = Remote()

        @Idempotent(store, name="work")
        async def work() -> str:
            return "done"

        with under("a"):
            first = asyncio.ensure_future(work())
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await asyncio.sleep(1)
            assert await work() == "done"

    sim.run(main)


def test_a_coroutine_raises_again_what_the_first_run_raised() -> None:
    async def main() -> None:
        store, runs = Remote(), []

        @Idempotent(store, name="work")
        async def work(amount: int) -> None:
            runs.append(amount)
            raise CommandError("no money", amount)

        with under("a"):
            for _ in range(2):
                with pytest.raises(CommandError) as caught:
                    await work(5)
                assert (caught.value.happened, caught.value.args) == ("yes", ("no money", 5))
            with pytest.raises(KeyReusedError):
                await work(6)
        assert runs == [5]
        assert await_all_released(store)

    sim.run(main)


def await_all_released(store: Remote) -> bool:
    return store.inner.snapshot()["in_flight"] == 0


def test_coroutines_go_on_with_a_store_that_is_down() -> None:
    async def main() -> None:
        store = Remote()

        @Idempotent(store, lease=3, name="work")
        async def work() -> str:
            store.down = True
            await asyncio.sleep(10)
            return "done"

        with under("a"):
            assert await work() == "done"
            assert "renew" in store.calls
            assert await work() == "done"

    sim.run(main)


# --- what it decorates -----------------------------------------------------------------------


class Work:
    """An object that is called as a coroutine function is."""

    def __init__(self, answer: int) -> None:
        self.answer = answer

    async def __call__(self) -> int:
        await asyncio.sleep(1)
        self.answer += 1
        return self.answer


async def add(left: int, right: int) -> int:
    return left + right


def test_objects_and_partials_are_done_once_as_what_they_are() -> None:
    async def main() -> None:
        work = Idempotent(name="work", key=lambda: "k")(Work(0))
        assert [await work(), await work()] == [1, 1]
        sums = Idempotent(name="sums", key=lambda n: f"{n}")(partial(add, 2))
        assert [await sums(3), await sums(3), await sums(4)] == [5, 5, 6]

    sim.run(main)


@pytest.mark.parametrize("make", [lambda: add(1, 2), lambda: iter(x for x in "ab")])
def test_what_can_be_used_only_once_is_no_outcome(make: Callable[[], Any]) -> None:
    with virtual_time(), under("a"):
        once = Idempotent(name="w")(make)
        for _ in range(2):
            with pytest.raises(TypeError, match=r"Idempotent: a .* can be used only once"):
                once()


def test_a_coroutine_function_that_returns_an_awaitable_is_refused() -> None:
    async def twice() -> Any:
        return add(1, 2)

    async def main() -> None:
        with under("a"), pytest.raises(TypeError, match="Idempotent: a coroutine can be used"):
            await Idempotent(name="w")(twice)()

    sim.run(main)


@pytest.mark.parametrize("wrong", [staticmethod(add), Work, 5])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Idempotent(name="w")(wrong)


@pytest.mark.parametrize("unnamed", [lambda: 1, partial(add, 1), Work(1)])
def test_a_function_without_a_name_of_its_own_needs_one(unnamed: Any) -> None:
    with pytest.raises(ConfigError, match=r"may be the name of several functions.*give name="):
        Idempotent(MemoryRecords())(unnamed)
    Idempotent(MemoryRecords(), name="w")(unnamed)
    alone = Idempotent()
    alone(unnamed)
    with pytest.raises(ConfigError, match="give name="):
        alone(unnamed)


def test_a_function_with_a_name_of_its_own_needs_no_other() -> None:
    async def main() -> None:
        once = Idempotent(MemoryRecords(), key=lambda *_: "k")(add)
        assert [await once(1, 2), await once(1, 2)] == [3, 3]

    sim.run(main)
