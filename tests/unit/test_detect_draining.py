"""A drain: its phases, what it takes and refuses, how it ends; in virtual time."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from outlast import sim
from outlast.detect import Drain, DrainApp, DrainEnded, DrainStarted, Health
from outlast.detect.core.draining import DrainDecider, DrainSettings
from outlast.kernel import ConfigError, Event, RejectedError, current_world

NS = 1_000_000_000


def decider(delay: float = 5, within: float = 25) -> DrainDecider:
    return DrainDecider(DrainSettings.of(delay, within))


# --- the core ----------------------------------------------------------------------------------


def test_it_serves_until_it_is_asked() -> None:
    one = decider()
    assert one.advance(10**20) is None
    assert (one.phase, one.enter()) == ("serving", True)


def test_work_is_taken_for_the_delay_and_then_refused() -> None:
    one = decider()
    one.enter()
    assert one.begin(100 * NS)
    assert one.advance(100 * NS) == 105 * NS
    assert (one.phase, one.enter()) == ("leaving", True)
    assert one.advance(105 * NS - 1) == 105 * NS
    assert one.advance(105 * NS) == 125 * NS
    assert (one.phase, one.enter(), one.in_flight) == ("refusing", False, 2)


def test_the_last_piece_of_work_ends_it() -> None:
    one = decider()
    one.enter()
    one.enter()
    one.begin(0)
    one.advance(5 * NS)
    assert not one.leave()
    assert one.leave()
    assert one.advance(6 * NS) is None
    assert (one.phase, one.enter()) == ("ended", False)


def test_work_that_leaves_before_the_delay_is_over_ends_nothing() -> None:
    one = decider()
    one.enter()
    one.begin(0)
    assert not one.leave()
    assert one.advance(4 * NS) == 5 * NS
    assert one.phase == "leaving"


def test_work_that_does_not_end_is_given_up() -> None:
    one = decider()
    one.enter()
    one.begin(0)
    assert one.advance(25 * NS - 1) == 25 * NS
    assert one.phase == "refusing"
    assert one.advance(25 * NS) is None
    assert (one.phase, one.in_flight) == ("ended", 1)


def test_nothing_leads_back() -> None:
    one = decider()
    assert one.begin(NS)
    assert not one.begin(9 * NS)
    assert one.began_ns == NS
    one.advance(9 * NS)
    assert not one.begin(10 * NS)
    assert one.phase == "ended"


def test_haste_ends_it_whatever_runs_but_begins_nothing() -> None:
    one = decider()
    one.enter()
    one.hurry()
    assert (one.advance(0), one.phase) == (None, "serving")
    one.begin(0)
    assert one.advance(0) == 5 * NS
    one.hurry()
    assert (one.advance(1), one.phase) == (None, "ended")


@pytest.mark.parametrize(
    ("delay", "within"), [(-1, 5), (6, 5), (0, 0), (0, float("inf")), (float("nan"), 5)]
)
def test_times_that_cannot_be_are_refused(delay: float, within: float) -> None:
    with pytest.raises(ConfigError, match="0 <= delay <= within"):
        Drain(delay=delay, within=within)


# --- on a loop ---------------------------------------------------------------------------------


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return sim.run(main, seed=1)


def now() -> float:
    return current_world().clock.monotonic_ns() / NS


def heard() -> list[Event]:
    events: list[Event] = []
    current_world().events.subscribe(events.append)  # type: ignore[attr-defined]
    return events


def term(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_turns_readiness_off_and_lets_work_finish() -> None:
    async def main() -> None:
        events, health, start = heard(), Health(), now()
        async with Drain(health) as drain:

            async def work() -> None:
                async with drain.working():
                    await asyncio.sleep(12)

            task = asyncio.create_task(work())
            await asyncio.sleep(1)
            term()
            await asyncio.sleep(0.01)
            assert (drain.phase, health.read("readiness").passing) == ("leaving", False)
            with drain.working():
                assert drain.in_flight == 2
            await asyncio.sleep(6)
            with pytest.raises(RejectedError, match="going to stop"):
                drain.working().__enter__()
            assert await drain.wait() == 0
            assert task.done()
            assert now() - start == pytest.approx(12, abs=0.1)
            assert health.read("liveness").passing
        told = [event for event in events if isinstance(event, DrainStarted | DrainEnded)]
        assert told == [
            DrainStarted(reason="SIGTERM", in_flight=1, delay=5.0, within=25.0),
            DrainEnded(in_flight_left=0, seconds=pytest.approx(11, abs=0.1)),
        ]

    run(main)


def test_what_does_not_finish_is_left_and_told() -> None:
    async def main() -> None:
        events, start, ends = heard(), now(), list[int]()
        async with Drain(delay=1, within=3, on_end=ends.append) as drain:
            with drain.working():
                drain.begin("told to")
                assert await drain.wait() == 1
        assert now() - start == pytest.approx(3, abs=0.1)
        assert (drain.left, ends) == (1, [1])
        assert events[-1] == DrainEnded(
            level="warning", in_flight_left=1, seconds=pytest.approx(3, abs=0.1)
        )
        assert repr(drain) == "<Drain ended, 0 in flight>"

    run(main)


def test_an_idle_program_leaves_after_the_delay() -> None:
    async def main() -> None:
        start = now()
        async with Drain() as drain:
            term()
            await drain.wait()
        assert now() - start == pytest.approx(5, abs=0.1)

    run(main)


def test_a_second_interrupt_ends_at_once_and_a_second_term_does_not() -> None:
    async def main() -> None:
        start = now()
        async with Drain() as drain:
            with drain.working():
                term()
                await asyncio.sleep(1)
                term()
                await asyncio.sleep(1)
                assert drain.phase == "leaving"
                term(signal.SIGINT)
                assert await drain.wait() == 1
        assert now() - start == pytest.approx(2, abs=0.1)

    run(main)


def test_the_handler_before_gets_the_signal_at_the_end_and_is_given_back() -> None:
    async def main() -> None:
        got: list[int] = []

        def before(number: int, frame: Any) -> None:
            got.append(number)

        signal.signal(signal.SIGTERM, before)
        async with Drain(delay=1):
            term()
            await asyncio.sleep(0.9)
            assert got == []
            await asyncio.sleep(0.2)
            assert got == [signal.SIGTERM]
            term()
            await asyncio.sleep(0)
            assert len(got) == 2  # what comes later is handed on at once
        assert signal.getsignal(signal.SIGTERM) is before

    run(main)


def test_without_a_handler_before_the_program_exits() -> None:
    async def main() -> None:
        drain = Drain(delay=1)
        async with drain:
            term()
            await asyncio.sleep(0.5)
            drain._left = 0
            with pytest.raises(SystemExit) as exit_:
                drain._hand_on(signal.SIGTERM)
            assert exit_.value.code == 0
            drain._left = 2
            with pytest.raises(SystemExit) as exit_:
                drain._hand_on(signal.SIGTERM)
            assert exit_.value.code == 1
        drain._hand_on(signal.SIGTERM)  # no longer ours

    run(main)


def test_begun_by_hand_nothing_exits() -> None:
    async def main() -> None:
        async with Drain(delay=0, within=1) as drain:
            drain.begin()
            await asyncio.sleep(2)
            assert drain.phase == "ended"

    run(main)


def test_asked_before_it_was_entered_it_begins_on_entering() -> None:
    async def main() -> None:
        drain = Drain(delay=1, signals=())
        drain.begin()
        async with drain:
            await drain.wait()

    run(main)


def test_a_callback_that_raises_keeps_nobody_waiting() -> None:
    async def main() -> str:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def fail(left: int) -> None:
            raise ValueError("no")

        async with Drain(delay=0, within=1, on_end=fail) as drain:
            drain.begin()
            await drain.wait()
            await asyncio.sleep(0)
        return repr(told[0]["exception"])

    assert run(main) == "ValueError('no')"


def test_it_is_for_one_stop_and_waits_where_it_was_entered() -> None:
    async def main() -> None:
        drain = Drain(signals=())
        with pytest.raises(ConfigError, match="async with"):
            await drain.wait()
        async with drain:
            with pytest.raises(ConfigError, match="`with`"):
                drain.wait_blocking()
            with pytest.raises(ConfigError, match="entered before"):
                await drain.__aenter__()

    run(main)


# --- applications ------------------------------------------------------------------------------


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(2)
    headers = [(b"connection", b"keep-alive"), (b"x-a", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"done"})


def test_requests_are_counted_told_to_go_and_then_refused() -> None:
    async def main() -> None:
        async with Drain(delay=1, within=10, signals=()) as drain:
            transport = httpx.ASGITransport(drain.asgi(slow))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                given = await client.get("/")
                assert given.headers["connection"] == "keep-alive"
                running = asyncio.create_task(client.get("/"))
                await asyncio.sleep(0.5)
                assert drain.in_flight == 1
                drain.begin()
                late = asyncio.create_task(client.get("/late"))
                await asyncio.sleep(1.1)
                refused = await client.get("/")
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert refused.headers["connection"] == "close"
                assert (await client.get("/livez")).status_code == 200  # not refused, not counted
                assert [(await one).status_code for one in (running, late)] == [200, 200]
                assert (await running).headers.get_list("connection") == ["close"]
                assert (await running).headers["x-a"] == "1"
            assert await drain.wait() == 0

    run(main)


def test_http_2_has_no_connection_header() -> None:
    async def main() -> None:
        drain, told = Drain(), list[Any]()
        drain._decider.begin(0)
        drain._decider.advance(100 * NS)

        async def send(message: Any) -> None:
            told.append(message)

        scope = {"type": "http", "path": "/", "http_version": "2"}
        await DrainApp(slow, drain)(scope, None, send)  # type: ignore[arg-type]
        assert b"connection" not in dict(told[0]["headers"])
        assert told[0]["status"] == 503

    run(main)


def test_a_request_that_fails_is_over() -> None:
    async def main() -> None:
        async def fail(scope: Any, receive: Any, send: Any) -> None:
            raise ValueError

        drain = Drain()
        with pytest.raises(ValueError):
            await drain.asgi(fail)({"type": "http", "path": "/"}, None, None)  # type: ignore[arg-type]
        assert drain.in_flight == 0

    run(main)


def test_wsgi_requests_are_counted_until_their_body_is_closed() -> None:
    drain, told, closed = Drain(), list[str](), list[bool]()

    class Body:
        def __iter__(self) -> Any:
            return iter([b"a", b"b"])

        def close(self) -> None:
            closed.append(True)

    app = drain.wsgi(lambda environ, start: Body())
    body: Any = app({"PATH_INFO": "/"}, lambda *given: told.append(given[0]))
    assert (list(body), drain.in_flight) == ([b"a", b"b"], 1)
    body.close()
    body.close()
    assert (drain.in_flight, closed) == (0, [True, True])
    drain._decider.begin(0)
    drain._decider.enter()
    drain._decider.advance(10 * NS)
    assert app({"PATH_INFO": "/"}, lambda *given: told.append(given[0])) == [b"going to stop\n"]
    assert isinstance(app({"PATH_INFO": "/readyz/x"}, lambda *_: None), Body)
    assert told == ["503 Service Unavailable"]


def test_a_wsgi_application_that_raises_is_over() -> None:
    drain = Drain()

    def fail(environ: Any, start: Any) -> Any:
        raise ValueError

    with pytest.raises(ValueError):
        drain.wsgi(fail)({}, lambda *_: None)
    assert drain.in_flight == 0


def test_signals_are_for_the_main_thread() -> None:
    raised: list[str] = []

    def enter() -> None:
        try:
            Drain().__enter__()
        except ConfigError as error:
            raised.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in raised[0]


def test_a_program_of_threads_may_begin_by_hand() -> None:
    events: list[Event] = []
    drain = Drain(delay=0, within=5, signals=())
    world = current_world()
    unsubscribe = world.events.subscribe(events.append)  # type: ignore[attr-defined]
    try:
        with drain:
            with drain.working():
                drain.begin("told to")
                assert not drain.wait_blocking(0.01)
            assert drain.wait_blocking(5)
    finally:
        unsubscribe()
    assert [type(event) for event in events] == [DrainStarted, DrainEnded]


def test_a_signal_is_not_handed_on_after_the_block_was_left() -> None:
    left, places = threading.Event(), list[str]()
    place = "before"

    class Slow(threading.Event):
        """Who sets it is held up until the block was left, as a busy machine may do."""

        def set(self) -> None:
            super().set()
            left.wait(30)

    before = signal.signal(signal.SIGUSR1, lambda *_: places.append(place))
    try:
        with Drain(delay=0, within=5, signals=(signal.SIGUSR1,)) as drain:
            place, driver = "inside", drain._driver
            driver.ended = ended = Slow()  # type: ignore[union-attr, assignment]
            signal.raise_signal(signal.SIGUSR1)
            while not threading.Event.wait(ended, 0.01):
                pass
        place = "outside"
        left.set()
        driver._thread.join(30)  # type: ignore[union-attr]
    finally:
        left.set()
        signal.signal(signal.SIGUSR1, before)
    assert places == ["inside"]


def test_a_drain_that_ends_while_the_block_is_left_hands_nothing_on() -> None:
    places: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: places.append("handed on"))
    try:
        with Drain(delay=0, within=5, signals=(signal.SIGUSR1,)) as drain:
            driver: Any = drain._driver
        driver._hand_on(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert places == []
