"""Looking up and checking instances: sources, active checks, and who runs them."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError, Event, UnavailableError, current_world
from outlast.pool import (
    DiscoveryFailed,
    Dns,
    Endpoint,
    Found,
    Instance,
    InstanceCheckFailed,
    InstanceCheckPassed,
    Membership,
    Pool,
    PoolChanged,
    call_check,
    http_check,
)

ABC = ["a", "b", "c"]


def listen() -> list[Event]:
    """Return a list that gets the events of the simulation under way."""
    told: list[Event] = []
    current_world().events.subscribe(told.append)  # type: ignore[attr-defined]
    return told


def of(kind: type[Event], told: list[Event]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]


async def where(endpoint: Endpoint) -> str:
    return endpoint.address


# --- sources -------------------------------------------------------------------------------------


def test_a_function_is_asked_every_five_seconds_and_its_answer_taken_over() -> None:
    async def main() -> None:
        told = listen()
        answers = [["a", "b"], ["b", Instance("c", weight=2)]]

        async def look() -> list[Any]:
            return answers[0]

        async with Pool("shop", look) as pool:
            assert pool.addresses == ("a", "b")
            answers.pop(0)
            await asyncio.sleep(5)
            assert pool.addresses == ("b", "c")
            assert pool.instances[1].weight == 2
        assert [(e.joined, e.leaving) for e in of(PoolChanged, told)] == [
            (("a", "b"), ()), (("c",), ("a",)),
        ]  # fmt: skip
        assert pool.describe()["source"].endswith("look()")

    sim.run(main)


def test_a_function_that_hangs_is_told_of_and_asked_again() -> None:
    async def main() -> None:
        told = listen()
        hangs: list[bool] = [False, True]

        async def look() -> list[str]:
            if hangs.pop(0) if hangs else False:
                await asyncio.Event().wait()
            return ["a"] if hangs else ["b"]

        async with Pool("shop", look) as pool:
            await asyncio.sleep(60)
            assert pool.addresses == ("b",)
        assert [event.error for event in of(DiscoveryFailed, told)] == [
            "TimeoutError: no answer within 30 s"
        ]

    sim.run(main)


def test_a_plain_function_that_hangs_is_told_of_and_runs_once() -> None:
    async def main() -> None:
        told, runs = listen(), []

        def look() -> list[str]:
            runs.append(1)
            if len(runs) == 2:
                current_world().clock.pause(100)  # on a thread of its own, but for the simulator
            return [f"a{len(runs)}"]

        async with Pool("shop", look) as pool:
            await asyncio.sleep(100)
            assert (len(runs), pool.addresses) == (2, ("a1",))
            await asyncio.sleep(30)
            assert pool.addresses > ("a2",)
        assert {event.error for event in of(DiscoveryFailed, told)} == {
            "TimeoutError: no answer within 30 s"
        }

    sim.run(main)


def test_the_last_good_answer_stays_when_looking_up_fails_or_finds_nobody() -> None:
    async def main() -> None:
        told = listen()
        answers: list[Any] = [["a"], OSError("no route"), OSError("no route"), [], 5, ["a"] * 3]

        async def look() -> Any:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        async with Pool("shop", look) as pool:
            await asyncio.sleep(60)
            assert pool.addresses == ("a",)
        errors = [event.error for event in of(DiscoveryFailed, told)]
        assert errors[:2] == ["OSError: no route", "LookupError: nobody was found"]
        assert errors[2].startswith("ConfigError")
        assert {event.kept for event in of(DiscoveryFailed, told)} == {1}

    sim.run(main)


def test_a_plain_function_runs_beside_the_loop_and_may_return_an_awaitable() -> None:
    async def main() -> None:
        async with Pool("shop", lambda: ["a"]) as pool:
            assert await pool.call(where) == "a"

        async def later() -> list[str]:
            return ["b"]

        async with Pool("shop", lambda: later()) as pool:
            assert await pool.call(where) == "b"

    sim.run(main)


def test_a_stream_of_lists_is_followed() -> None:
    async def stream() -> AsyncIterator[list[str]]:
        yield ["a"]
        await asyncio.sleep(3)
        yield ["b"]

    async def main() -> None:
        for source in (stream, stream()):
            async with Pool("shop", source) as pool:
                assert pool.addresses == ("a",)
                await asyncio.sleep(4)
                assert pool.addresses == ("b",)

    sim.run(main)


def test_a_stream_that_fails_keeps_what_it_has_told() -> None:
    async def stream() -> AsyncIterator[list[str]]:
        yield ["a"]
        raise OSError("gone")

    async def main() -> None:
        told = listen()
        async with Pool("shop", stream()) as pool:
            await asyncio.sleep(1)
            assert pool.addresses == ("a",)
        assert [event.error for event in of(DiscoveryFailed, told)] == ["OSError: gone"]

    sim.run(main)


def test_a_source_of_the_users_own_that_raises_is_followed_again() -> None:
    class Own:
        begun = 0

        async def follow(self, world: Any, told: Callable[[Any], None]) -> None:
            self.begun += 1
            if self.begun == 1:
                raise OSError("not yet")
            told(Found((Instance("a"),)))
            told(Found(tuple(Instance(str(number)) for number in range(99))))

        def describe(self) -> str:
            return "own"

    async def main() -> None:
        told = listen()
        async with Pool("shop", Own(), instances_max=9) as pool:
            with pytest.raises(UnavailableError, match="none of 0"):
                await pool.call(where)
            await asyncio.sleep(6)
            assert pool.addresses == ("a",)
        assert [event.error for event in of(DiscoveryFailed, told)] == [
            "OSError: not yet", "ValueError: more than instances_max=9 instances",
        ]  # fmt: skip

    sim.run(main)


def test_a_source_that_says_nothing_does_not_hold_up_the_start_for_ever() -> None:
    async def silent() -> AsyncIterator[list[str]]:
        await asyncio.sleep(60)
        yield ["a"]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with Pool("shop", silent) as pool:
            assert loop.time() - begun == 5
            await asyncio.sleep(60)
            assert pool.addresses == ("a",)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), Pool("shop", silent):
                pass

    sim.run(main)


# --- DNS -----------------------------------------------------------------------------------------


def rows(*addresses: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in addresses]


def test_names_are_looked_up_and_the_last_good_answer_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        told = listen()
        answers: list[Any] = [rows("10.0.0.2", "10.0.0.1", "10.0.0.1"), socket.gaierror("down"),
                              rows("::1")]  # fmt: skip

        async def look(host: str, port: int, **_: Any) -> Any:
            assert (host, port) == ("shop", 8080)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look, raising=False)
        async with Pool("shop", Dns("http://shop:8080/api", every=5)) as pool:
            first = pool.addresses
            assert first == ("http://10.0.0.1:8080/api", "http://10.0.0.2:8080/api")
            assert {instance.host for instance in pool.instances} == {"shop"}
            await asyncio.sleep(6)
            assert pool.addresses == first
            await asyncio.sleep(5)
            assert pool.addresses == ("http://[::1]:8080/api",)
        (failed,) = of(DiscoveryFailed, told)
        assert (failed.source, failed.kept) == ("DNS http://shop:8080/api", 2)

    sim.run(main)


def test_a_look_up_that_hangs_has_failed_and_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        told = listen()
        begun = []

        async def look(host: str, port: int, **_: Any) -> Any:
            begun.append(1)
            await asyncio.sleep(18)
            return rows("10.0.0.1")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look, raising=False)
        async with Pool("shop", Dns("shop:8080", every=1, timeout=4)) as pool:
            await asyncio.sleep(14.5)
            assert len(begun) == 1
            assert pool.addresses == ("10.0.0.1:8080",)
            await asyncio.sleep(3)
        assert next(event.error for event in of(DiscoveryFailed, told)) == (
            "TimeoutError: no answer within 4 s"
        )

    sim.run(main)


def test_names_of_simulated_hosts_are_found() -> None:
    async def serve() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", 8080)
        await server.serve_forever()

    async def main(lab: sim.Lab) -> None:
        lab.host("shop", serve)
        async with Pool("shop", Dns("shop:8080")) as pool:
            assert len(pool.addresses) == 1

    sim.run(main)


@pytest.mark.parametrize("name", ["shop", "shop:http", ":80", "http://shop", "shop:0", "a:99999"])
def test_a_name_needs_a_port(name: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        Dns(name)


# --- membership ----------------------------------------------------------------------------------


class Members:
    """A membership as a pool sees it."""

    def __init__(self) -> None:
        self.known: list[Any] = []
        self.callbacks: list[Any] = []

    def put(self, name: str, state: str, **metadata: Any) -> None:
        self.known = [one for one in self.known if one.name != name]
        self.known.append(SimpleNamespace(
            name=name, address=f"{name}:7946", state=state, metadata=metadata,
        ))  # fmt: skip
        for callback in self.callbacks:
            callback(self.known[-1])

    def members(self) -> tuple[Any, ...]:
        return tuple(self.known)

    def watch(self, callback: Any) -> Any:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


def test_members_come_are_avoided_when_suspected_and_go() -> None:
    async def main() -> None:
        members = Members()
        members.put("n1", "alive", http="8080", weight="2", zone="eu")
        members.put("n2", "alive", http="10.0.0.9:81")
        members.put("n3", "alive", http="https://n3.example")
        async with Pool("shop", Membership(members)) as pool:
            assert pool.addresses == ("http://n1:8080", "http://10.0.0.9:81", "https://n3.example")
            assert (pool.instances[0].weight, pool.instances[0].zone) == (2.0, "eu")
            members.put("n2", "suspect", http="10.0.0.9:81")
            await asyncio.sleep(0.1)
            assert len(pool.addresses) == 3
            assert "http://10.0.0.9:81" not in {await pool.call(where) for _ in range(40)}
            for state in ("unreachable", "dead", "left"):
                members.put("n2", state, http="10.0.0.9:81")
                await asyncio.sleep(0.1)
                assert len(pool.addresses) == 2
                members.put("n2", "alive", http="10.0.0.9:81")
                await asyncio.sleep(0.1)
        assert members.callbacks == []

    sim.run(main)


def test_what_members_say_of_themselves_is_not_trusted() -> None:
    members = Members()
    members.put("n1", "alive", http="8080", weight="heavy")
    members.put("n2", "alive", http="x" * 9999)
    members.put("n3", "alive", http="8080\r\nHost: x")
    members.put("n4", "alive", http=8080)
    members.put("n5", "alive", grpc="9090")
    members.put("n6", "alive", http="8080", weight="nan")
    members.put("n7", "alive", http="81")
    assert [one.address for one in Membership(members).found().instances] == ["http://n7:81"]
    assert Membership(members, "grpc", scheme="").found().instances[0].address == "n5:9090"
    with pytest.raises(ConfigError, match="has no members"):
        Membership(5)


# --- checks --------------------------------------------------------------------------------------


def test_a_check_takes_an_instance_out_and_brings_it_back() -> None:
    async def main() -> None:
        told = listen()
        down = {"a"}

        async def check(instance: Instance) -> bool:
            if instance.address == "b" and "b" in down:
                raise OSError("x")
            return instance.address not in down

        async with Pool("shop", ABC, check=check) as pool:
            await asyncio.sleep(7)
            assert {await pool.call(where) for _ in range(30)} == {"b", "c"}
            down.clear()
            await asyncio.sleep(5)
            down.add("b")
            await asyncio.sleep(7)
        (first, second) = of(InstanceCheckFailed, told)
        assert (first.endpoint, first.reason, first.failures) == ("a", "it returned False", 3)
        assert (second.endpoint, second.reason) == ("b", "OSError")
        assert [event.endpoint for event in of(InstanceCheckPassed, told)] == ["a"]

    sim.run(main)


def test_a_check_that_hangs_has_failed_and_the_others_go_on() -> None:
    async def main() -> None:
        begun: list[str] = []

        async def check(instance: Instance) -> None:
            begun.append(instance.address)
            if instance.address == "a":
                await asyncio.sleep(60)

        async with Pool("shop", ABC, check=check) as pool:
            await asyncio.sleep(8)
            states = {one["address"]: one for one in pool.snapshot()["instances"]}
            assert [states[name]["check_failed"] for name in "abc"] == [True, False, False]
        assert begun.count("b") >= 4

    sim.run(main)


class SlowThreads:
    """Threads that get to their first calls late, as on a busy machine, and then at once.

    As the real ones do, they leave out a call whose future was cancelled before they got to it.
    """

    def __init__(self) -> None:
        self.busy = True
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    def run(self, lane: str, call: Callable[[], Any]) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if not self.busy:
            self.work()
        return future

    def work(self) -> None:
        self.busy = False
        while self._waiting:
            call, future = self._waiting.pop(0)
            if not future.cancelled():
                answer = call()
                if not future.cancelled():
                    future.set_result(answer)


def test_a_check_whose_thread_came_too_late_is_made_again() -> None:
    async def main() -> None:
        threads, seen = SlowThreads(), list[str]()
        world = replace(current_world(), offload=threads)  # type: ignore[arg-type]
        check = call_check(lambda one: seen.append(one.address), pass_after=1)
        async with Pool("shop", ABC, check=check, world=world) as pool:
            await asyncio.sleep(9)
            assert [one["check_failed"] for one in pool.snapshot()["instances"]] == [True] * 3
            threads.work()
            seen.clear()
            await asyncio.sleep(5)
            assert set(seen) == {"a", "b", "c"}
            assert [one["check_failed"] for one in pool.snapshot()["instances"]] == [False] * 3

    sim.run(main)


def test_instances_that_come_are_checked_and_those_that_go_are_not() -> None:
    async def main() -> None:
        seen: list[str] = []
        answers = [["a"], ["b"]]

        async def look() -> list[str]:
            return answers[0]

        async with Pool("shop", look, check=lambda one: seen.append(one.address)):
            await asyncio.sleep(3)
            assert set(seen) == {"a"}
            answers.pop(0)
            await asyncio.sleep(5)
            seen.clear()
            await asyncio.sleep(5)
            assert set(seen) == {"b"}

    sim.run(main)


def test_over_http_any_status_up_to_399_is_good(request: pytest.FixtureRequest) -> None:
    said = {"a": b"HTTP/1.1 200 OK", "b": b"HTTP/1.1 503 Busy", "c": b"SSH-2.0", "d": b""}
    seen: list[bytes] = []

    async def serve(name: str) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(said[name] + b"\r\n\r\n" if said[name] else b"")
            writer.close()

        server = await asyncio.start_server(answer, "0.0.0.0", 8080)
        await server.serve_forever()

    async def main(lab: sim.Lab) -> None:
        told = listen()
        for name in said:
            lab.host(name, lambda name=name: serve(name))  # type: ignore[misc]
        urls = [*(f"http://{name}:8080/api" for name in said), "ftp://x", "http://nobody:8080"]
        async with Pool("shop", urls, check=http_check("/readyz", every=1)):
            await asyncio.sleep(6)
        assert {event.endpoint: event.reason for event in of(InstanceCheckFailed, told)} == {
            "http://b:8080/api": "status 503",
            "http://c:8080/api": "the answer is not HTTP",
            "http://d:8080/api": "the answer is not HTTP",
            "ftp://x": "ftp://x is no http URL",
            "http://nobody:8080": "gaierror",
        }

    sim.run(main)
    assert seen[0].startswith(b"GET /readyz HTTP/1.1\r\nHost: ")


@pytest.mark.parametrize("path", ["readyz", "/a b", "/\r\nX: y", "/ä"])
def test_a_path_must_be_one(path: str) -> None:
    with pytest.raises(ConfigError, match="path is"):
        http_check(path)
    with pytest.raises(ConfigError):
        http_check(every=0)


# --- on real threads -----------------------------------------------------------------------------


def test_without_a_loop_a_thread_does_the_work_and_ends_with_the_block() -> None:
    answered = threading.Event()

    def check(instance: Instance) -> None:
        if instance.address == "b":
            answered.set()

    with Pool("shop", lambda: ["a", "b"], check=call_check(check, every=0.05)) as pool:
        assert pool.call(lambda endpoint: endpoint.address) in {"a", "b"}
        assert answered.wait(15)
        with pytest.raises(RuntimeError, match="entered already"):
            pool.__enter__()
    for one in threading.enumerate():
        if "outlast-pool-shop" in one.name:
            one.join(15)
            assert not one.is_alive()
    with pytest.raises(ConfigError, match="async with"):
        pool.call(lambda endpoint: endpoint.address)


def test_a_plain_check_that_hangs_costs_one_thread_and_the_others_go_on() -> None:
    hung, others = threading.Event(), threading.Semaphore(0)

    def check(instance: Instance) -> None:
        if instance.address == "a":
            hung.wait(60)
        else:
            others.release()

    settings: dict[str, Any] = {"every": 0.04, "timeout": 0.02}
    with Pool("hung", ABC, check=call_check(check, **settings)) as pool:
        for _ in range(12):
            assert others.acquire(timeout=15)
        while not pool.snapshot()["instances"][0]["check_failed"]:
            assert others.acquire(timeout=15)
        hung.set()
    lanes = [one for one in threading.enumerate() if "pool hung check" in one.name]
    assert len(lanes) <= 4


def test_stopping_twice_and_without_a_start_does_nothing() -> None:
    pool = Pool("shop", ABC)
    pool.__exit__(None, None, None)
    with pool, suppress(RuntimeError):
        raise RuntimeError
    asyncio.run(pool.__aexit__(None, None, None))
