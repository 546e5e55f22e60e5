"""``Keyed``: parts by key, in bounded memory."""

import asyncio
import json
import os
from typing import Any

import pytest

from outlast.kernel import BulkheadFullError, CircuitOpenError, ConfigError, DeadlineError
from outlast.protect import Bulkhead, CircuitBreaker, Keyed, Policy, RateLimit, Retry
from outlast.protect.careful import StatusBreakers
from tests.support.protected import Stage, play, stage


def hosts(**settings: Any) -> Keyed[CircuitBreaker]:
    return Keyed(lambda: CircuitBreaker(2, 10), by=lambda url, *_: url.split("/")[2], **settings)


def get(url: str) -> str:
    if "down" in url:
        raise ConnectionError(url)
    return url


async def get_async(url: str, seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return get(url)


def test_each_key_has_a_breaker_of_its_own() -> None:
    async def story(here: Stage) -> None:
        breakers = hosts()
        policy = Policy("web", breaker=breakers)
        ask, ask_async = policy(get), policy(get_async)
        with pytest.raises(ConnectionError):
            ask("http://down/1")
        with pytest.raises(ConnectionError):
            await ask_async("http://down/2")
        with pytest.raises(CircuitOpenError):
            ask("http://down/3")
        with pytest.raises(CircuitOpenError):
            await ask_async("http://down/3")
        with pytest.raises(CircuitOpenError):
            policy.call(get, "http://down/3")
        with pytest.raises(CircuitOpenError):
            await policy.acall(get_async, "http://down/3")
        assert ask("http://up/1") == "http://up/1"
        assert await ask_async("http://up/1") == "http://up/1"
        assert (breakers.part("down").state, breakers.part("up").state) == ("OPEN", "CLOSED")
        calls = policy.snapshot()["calls"]
        assert (calls["failed"], calls["rejected"], calls["succeeded"]) == (2, 4, 2)

    play(story)


def test_generators_are_protected_by_key_too() -> None:
    with stage():
        policy = Policy(breaker=hosts())

        @policy
        def items(url: str) -> Any:
            yield get(url)

        for _ in range(2):
            with pytest.raises(ConnectionError):
                list(items("http://down/"))
        with pytest.raises(CircuitOpenError):
            list(items("http://down/"))
        assert list(items("http://up/")) == ["http://up/"]


def test_two_keyed_parts_choose_each_for_itself() -> None:
    with stage():
        limits = Keyed(lambda: Bulkhead(1), by=lambda url: url[-1])
        policy = Policy(breaker=hosts(), limit=limits, retry=Retry(on=ConnectionError))
        permit = limits.part("1").pop()
        with pytest.raises(BulkheadFullError):
            policy.call(get, "http://up/1")
        assert policy.call(get, "http://up/2") == "http://up/2"
        limits.part("1").release(permit)
        assert policy.call(get, "http://up/1") == "http://up/1"


def test_the_least_recently_used_key_is_forgotten_with_its_state() -> None:
    with stage():
        breakers = hosts(max_keys=2)
        policy = Policy("web", breaker=breakers)
        ask = policy(get)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                ask("http://down/")
        ask("http://a/")
        with pytest.raises(CircuitOpenError):
            ask("http://down/")  # used again: now a is the older one
        ask("http://b/")
        assert len(breakers) == 2
        with pytest.raises(CircuitOpenError):
            ask("http://down/")
        ask("http://c/")
        ask("http://d/")
        with pytest.raises(ConnectionError):
            ask("http://down/")
        assert breakers.snapshot() == {"keys": 2, "states": {"CLOSED": 2}}


def test_frames_are_kept_for_no_more_keys_than_parts_are() -> None:
    breakers = hosts(max_keys=3)
    policy = Policy(breaker=breakers)
    ask: Any = policy(get)
    frames = ask.__closure__[0].cell_contents.__self__
    for number in range(20):
        ask(f"http://h{number}/")
    assert len(frames._frames) == 3
    breakers.configure(max_keys=1)
    ask("http://h0/")
    assert (len(frames._frames), len(breakers)) == (1, 1)


def test_a_key_can_be_forgotten_by_hand() -> None:
    breakers = hosts()
    first = breakers.part("a")
    breakers.forget("a")
    breakers.forget("a")
    assert breakers.part("a") is not first


def test_limits_of_time_change_live_for_all_keys() -> None:
    async def story(here: Stage) -> None:
        policy = Policy("web", breaker=hosts())
        ask = policy(get_async)
        await ask("http://a/", 5.0)
        policy.configure(attempt_timeout=1.0)
        with pytest.raises(DeadlineError):
            await ask("http://a/", 5.0)
        policy.configure(attempt_timeout=None, timeout=2.0)
        with pytest.raises(DeadlineError):
            await ask("http://a/", 5.0)
        assert here.now == 8.0
        assert policy.snapshot()["calls"]["failed"] == 2

    play(story)


def test_parts_take_the_name_of_the_policy_for_their_events() -> None:
    with stage() as here:
        policy = Policy("web", breaker=hosts())
        for _ in range(2):
            with pytest.raises(ConnectionError):
                policy.call(get, "http://down/")
        assert [event.name for event in here.events] == ["web"]  # type: ignore[attr-defined]


def test_what_it_says_of_itself_can_be_written_as_json() -> None:
    breakers = hosts(max_keys=7)
    described = json.loads(json.dumps(Policy("web", breaker=breakers).describe()))
    assert described["breaker"]["keyed"] == "CircuitBreaker"
    assert described["breaker"]["failure_threshold"] == 2
    assert described["breaker"]["max_keys"] == 7


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Keyed(CircuitBreaker(2, 10), by=str), "Keyed: make returned"),
        (lambda: Keyed(lambda: 5, by=str), "Keyed: make returned 5; give a function"),  # type: ignore[arg-type, return-value]
        (lambda: Keyed(5, by=str), "Keyed: make returned None"),  # type: ignore[arg-type]
        (lambda: hosts(max_keys=0), "Keyed: max_keys is 0; 1 or more"),
        (lambda: hosts(max_keys=True), "max_keys is True"),
        (lambda: hosts().configure(by=str), "Keyed: no setting 'by' to change; it has max_keys"),
    ],
)
def test_settings_are_checked(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_blocks_have_no_arguments_and_so_no_key() -> None:
    policy = Policy(breaker=hosts())
    with pytest.raises(TypeError, match="a block has no arguments from which a key could be"):
        policy.__enter__()
    with pytest.raises(TypeError, match=r"attempts\(\) has no arguments"):
        policy.attempts()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_use_it_although_the_locks_were_held() -> None:
    breakers = hosts()
    ask: Any = Policy(breaker=breakers)(get)
    frames = ask.__closure__[0].cell_contents.__self__
    with breakers._lock, frames._lock:
        pid = os.fork()
        if pid == 0:
            os._exit(7 if ask("http://a/") == "http://a/" else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_how_many_breakers_are_in_each_state_and_how_many_permits_are_held_is_told() -> None:
    with stage():
        breakers = hosts()
        assert breakers.snapshot() == {"keys": 0, "states": {}}
        breakers.part("a").trip()
        breakers.part("b").isolate()
        breakers.part("c")
        assert breakers.snapshot() == {"keys": 3, "states": {"CLOSED": 1, "OPEN": 2}}
        limits = Keyed(lambda: Bulkhead(3), by=str)
        for key in "aab":
            limits.part(key).try_acquire()
        assert limits.snapshot() == {"keys": 2, "in_flight": 3}
        rates = Keyed(lambda: RateLimit(3), by=str)
        rates.part("a")
        assert rates.snapshot() == {"keys": 1}


def test_breakers_by_host_can_be_looked_at() -> None:
    behind = StatusBreakers(Keyed(lambda: CircuitBreaker(5, 30), by=str, name="hosts"))
    behind.part("a")
    assert behind.snapshot() == {"keys": 1, "states": {"CLOSED": 1}}
    assert behind.describe()["keyed"] == "CircuitBreaker"
    assert len(behind) == 1
