"""The httpx transports: what they repeat, what they count, what they tell, what they close."""

import asyncio
import sys
from importlib import import_module
from typing import Any

import httpx
import pytest

from outlast import sim
from outlast.kernel import CircuitOpenError, ConfigError, DeadlineError, happened
from outlast.protect import (
    AdaptiveLimit,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Idempotency,
    Keyed,
    Policy,
    Retry,
    incoming,
)
from outlast.protect.careful import asked_var
from outlast.protect.httpx_transport import AsyncHttpxTransport, HttpxTransport
from outlast.testing import virtual_time
from tests.support.http_story import KINDS, SHOP, Body, Kind, Service, Story

pytestmark = pytest.mark.parametrize("kind", KINDS)


def retry(**more: Any) -> Retry:
    return Retry(httpx.TransportError, base=1, cap=8, jitter="none", **more)


def patient(**parts: Any) -> Policy:
    return Policy("shop", **{"retry": retry(), **parts})


class EmptyBudget:
    def deposit(self) -> int:
        return 0

    def try_spend(self, now_ns: int) -> bool:
        return False


# --- what is repeated ----------------------------------------------------------------------------


def test_a_get_is_repeated_after_a_broken_connection(kind: Kind) -> None:
    service = Service(httpx.ReadError("reset"), httpx.ReadTimeout("late"), 200)
    assert Story(kind, patient(), service).ask().status_code == 200
    assert service.at == [0, 1, 3]


def test_a_post_is_not_repeated_after_a_broken_connection_and_its_error_says_why(
    kind: Kind,
) -> None:
    service = Service(httpx.ReadError("reset"), 200)
    with pytest.raises(httpx.ReadError) as caught:
        Story(kind, patient(), service).ask("POST", json={"buy": 1})
    assert len(service.seen) == 1
    assert caught.value.__notes__ == [
        "not repeated: POST may have taken effect, and nothing would tell a repeat from a "
        "second one"
    ]


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_a_post_is_repeated_where_it_surely_did_nothing(
    kind: Kind, error: type[httpx.TransportError]
) -> None:
    service = Service(error("no"), 201)
    assert Story(kind, patient(), service).ask("POST", json={"buy": 1}).status_code == 201
    assert service.bodies == [b'{"buy":1}'] * 2


def test_errors_that_the_retry_does_not_name_are_not_repeated(kind: Kind) -> None:
    service = Service(httpx.ReadError("reset"), 200)
    policy = patient(retry=Retry(httpx.ConnectError))
    with pytest.raises(httpx.ReadError) as caught:
        Story(kind, policy, service).ask()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_get_is_repeated_after_a_status_that_asks_for_it(kind: Kind, status: int) -> None:
    service = Service(status, 200)
    assert Story(kind, patient(), service).ask().status_code == 200
    assert service.at == [0, 1]


@pytest.mark.parametrize("status", [400, 404, 409, 500, 501])
def test_other_statuses_are_returned_at_once(kind: Kind, status: int) -> None:
    service = Service(status, 200)
    response = Story(kind, patient(), service).ask()
    assert (response.status_code, response.content) == (status, b"said")
    assert len(service.seen) == 1


def test_a_post_is_repeated_after_a_refusal_and_not_after_a_server_that_may_have_begun(
    kind: Kind,
) -> None:
    assert Story(kind, patient(), Service(429, 201)).ask("POST").status_code == 201
    assert Story(kind, patient(), Service(503, 201)).ask("POST").status_code == 503


def test_the_last_response_is_returned_as_it_is_when_attempts_are_used_up(kind: Kind) -> None:
    service = Service(503, 503, (503, {"X-Which": "last"}))
    response = Story(kind, patient(), service).ask()
    assert (response.status_code, response.headers["X-Which"]) == (503, "last")
    assert response.content == b"said"
    assert len(service.seen) == 3


def test_the_statuses_to_repeat_can_be_chosen(kind: Kind) -> None:
    chosen = {"retry_statuses": {409}}
    assert Story(kind, patient(), Service(409, 200), **chosen).ask().status_code == 200
    assert Story(kind, patient(), Service(503, 200), **chosen).ask().status_code == 503


def test_retry_after_is_kept_to_and_capped(kind: Kind) -> None:
    service = Service((429, {"Retry-After": "7"}), (503, {"Retry-After": "900"}), 200)
    assert Story(kind, patient(), service).ask().status_code == 200
    assert service.at == [0, 7, 67]


def test_a_retry_after_that_does_not_fit_the_deadline_returns_the_response_now(kind: Kind) -> None:
    service = Service((429, {"Retry-After": "7"}), 200)
    response = Story(kind, patient(timeout=5), service).ask()
    assert (response.status_code, response.content) == (429, b"said")


def test_a_policy_without_a_retry_repeats_nothing(kind: Kind) -> None:
    service = Service(503, 200)
    assert Story(kind, Policy("shop", timeout=5), service).ask().status_code == 503


def test_a_budget_that_is_used_up_returns_the_response_intact(kind: Kind) -> None:
    budget: Any = EmptyBudget()
    service = Service((503, Body(b"so", b"rry")), 200)
    response = Story(kind, patient(retry=retry(budget=budget)), service).ask()
    assert (response.status_code, response.content) == (503, b"sorry")


def test_may_repeat_lets_a_post_that_only_searches_be_repeated(kind: Kind) -> None:
    asked: list[str] = []

    def search(request: httpx.Request) -> bool:
        asked.append(request.url.path)
        return True

    service = Service(httpx.ReadError("reset"), 503, 200)
    assert Story(kind, patient(), service, may_repeat=search).ask("POST").status_code == 200
    assert asked == ["/"]


def test_an_unwanted_result_is_repeated_only_where_that_is_harmless(kind: Kind) -> None:
    policy = patient(retry=retry(on_result=lambda response: response.status_code == 202))
    assert Story(kind, policy, Service(202, 200)).ask().status_code == 200
    assert Story(kind, policy, Service(202, 200)).ask("POST").status_code == 202


def test_what_is_called_between_attempts_is_called_for_statuses_too(kind: Kind) -> None:
    seen: list[Any] = []

    async def between_async(error: Exception) -> None:
        await asyncio.sleep(1)
        seen.append(error)

    between = seen.append if kind == "blocking" else between_async
    service = Service(503, httpx.ReadError("reset"), 200)
    Story(kind, patient(retry=retry(between=between)), service).ask()
    assert [type(error).__mro__[2] for error in seen[:1]] == [httpx.HTTPStatusError]
    assert seen[0].response.status_code == 503
    assert isinstance(seen[1], httpx.ReadError)


# --- keys ----------------------------------------------------------------------------------------


def test_with_idempotency_a_post_is_repeated_under_one_key(kind: Kind) -> None:
    service = Service(httpx.ReadError("reset"), 503, 201)
    policy = patient(idempotency=Idempotency())
    assert Story(kind, policy, service).ask("POST").status_code == 201
    keys = [request.headers["Idempotency-Key"] for request in service.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert [request.headers.get("Outlast-Attempt") for request in service.seen] == [None, "2", "3"]


@pytest.mark.parametrize("style", ["outlast", "grpc", None])
def test_the_key_goes_in_the_header_of_its_part_and_with_unsafe_methods_only(
    kind: Kind, style: Any
) -> None:
    policy = Policy("shop", idempotency=Idempotency("X-Key", key=lambda request: request.method))
    service = Service(200)
    requests = [(method, dict[str, Any]()) for method in ("GET", "HEAD", "PUT", "DELETE", "POST")]
    Story(kind, policy, service, style=style).asks(*requests)
    keys = [request.headers.get_list("X-Key") for request in service.seen]
    assert keys == [[], [], ["PUT"], ["DELETE"], ["POST"]]


def test_a_key_that_the_caller_gave_is_kept_and_makes_the_request_repeatable(kind: Kind) -> None:
    headers = {"idempotency-key": "mine"}
    for policy in (patient(), patient(idempotency=Idempotency())):
        service = Service(httpx.ReadError("reset"), 201)
        assert Story(kind, policy, service).ask("POST", headers=headers).status_code == 201
        keys = [request.headers.get_list("Idempotency-Key") for request in service.seen]
        assert keys == [["mine"], ["mine"]]


def test_a_key_that_came_in_is_not_handed_on_and_promises_nothing(kind: Kind) -> None:
    service = Service(httpx.ReadError("reset"), 201)
    policy = patient(idempotency=Idempotency(key=lambda request: "theirs"))
    with incoming({"Idempotency-Key": "theirs"}), pytest.raises(httpx.ReadError):
        Story(kind, policy, service).ask("POST")
    assert "Idempotency-Key" not in service.seen[0].headers


# --- failures ------------------------------------------------------------------------------------


def test_the_breaker_counts_5xx_and_errors_and_no_other_status(kind: Kind) -> None:
    breaker = CircuitBreaker(3, 30)
    service = Service(500, httpx.ReadError("reset"), 404, 429, 200, 501, 503, 500, 200)
    policy = Policy("shop", breaker=breaker)
    requests = [("GET", dict[str, Any]())] * 9
    ended = Story(kind, policy, service).asks(*requests)
    assert [getattr(each, "status_code", type(each)) for each in ended] == [
        500, httpx.ReadError, 404, 429, 200, 501, 503, 500, CircuitOpenError,
    ]  # fmt: skip
    assert breaker.failure_count == 3


def test_counts_of_the_breaker_decides_about_5xx(kind: Kind) -> None:
    breaker = CircuitBreaker(1, 30, counts=httpx.TransportError)
    requests = [("GET", dict[str, Any]())] * 2
    ended = Story(kind, Policy("shop", breaker=breaker), Service(500)).asks(*requests)
    assert [each.status_code for each in ended] == [500, 500]


def test_a_request_for_which_no_time_is_left_tells_the_breaker_nothing(kind: Kind) -> None:
    breaker, service = CircuitBreaker(1, 30), Service(200)
    story = Story(kind, Policy("shop", breaker=breaker), service)
    late, fine = story.asks(("GET", {"within": 0.001}), ("GET", {}))
    assert (happened(late), type(late).__name__) == ("no", "TooLateError")
    assert fine.status_code == 200
    assert len(service.seen) == 1


def test_an_adaptive_limit_hears_of_429_as_a_failure(kind: Kind) -> None:
    heard: list[str] = []

    class Listening(AdaptiveLimit):
        def sample(self, elapsed_ns: int, outcome: Any, now_ns: int) -> None:
            heard.append(outcome)

    policy = Policy("shop", limit=Listening())
    Story(kind, policy, Service(429, 200, 503)).asks(*[("GET", dict[str, Any]())] * 3)
    assert heard == ["failed", "ok", "failed"]


def test_each_host_has_a_breaker_of_its_own(kind: Kind) -> None:
    breakers = Keyed(lambda: CircuitBreaker(2, 30), by=HttpxTransport.by_host, max_keys=2)
    policy = Policy("web", breaker=breakers, limit=Keyed(lambda: Bulkhead(2), by=lambda _: 1))
    service = Service(500)

    def run(urls: list[str]) -> list[Any]:
        ended: list[Any] = []

        async def main() -> None:
            made = AsyncHttpxTransport(policy, service)
            async with httpx.AsyncClient(transport=made, trust_env=False) as client:
                for url in urls:
                    try:
                        ended.append((await client.get(url)).status_code)
                    except CircuitOpenError:
                        ended.append("open")

        def blocking() -> None:
            made = HttpxTransport(policy, service)
            with httpx.Client(transport=made, trust_env=False) as client:
                for url in urls:
                    try:
                        ended.append(client.get(url).status_code)
                    except CircuitOpenError:
                        ended.append("open")

        blocking() if kind == "blocking" else asyncio.run(main())
        return ended

    a, b, c = "http://a/", "http://a:81/", "http://c/"
    assert run([a, a, a, b]) == [500, 500, "open", 500]
    # A third host takes the place of the first, which begins anew.
    assert run([b, c, b, a]) == [500, 500, "open", 500]


# --- time ----------------------------------------------------------------------------------------


def test_the_time_left_bounds_every_timeout_and_is_told_to_the_server(kind: Kind) -> None:
    service = Service(httpx.ConnectError("no"), 200)
    own = httpx.Timeout(connect=1, read=None, write=9, pool=9)
    Story(kind, patient(timeout=5), service).ask(timeout=own)
    first, second = (request.extensions["timeout"] for request in service.seen)
    assert first == {"connect": 1, "read": 5, "write": 5, "pool": 5}
    assert second == {"connect": 1, "read": 4, "write": 4, "pool": 4}
    told = [request.headers["Outlast-Timeout-Ms"] for request in service.seen]
    assert told == ["4995", "3995"]


def test_an_attempt_has_its_own_time_and_a_deadline_of_the_context_counts(kind: Kind) -> None:
    service = Service(200)
    story = Story(kind, Policy("shop", attempt_timeout=2), service)
    story.asks(("GET", {}), ("GET", {"within": 1.5}))
    assert [request.extensions["timeout"]["read"] for request in service.seen] == [2, 1.5]


def test_without_any_limit_the_timeouts_are_those_of_the_client(kind: Kind) -> None:
    service = Service(200)
    Story(kind, patient(), service).ask(timeout=7)
    assert service.seen[0].extensions["timeout"] == dict.fromkeys(
        ("connect", "read", "write", "pool"), 7
    )
    assert "Outlast-Timeout-Ms" not in service.seen[0].headers


def test_a_server_that_does_not_answer_is_given_up_and_asked_again(kind: Kind) -> None:
    both = (httpx.TransportError, DeadlineError)
    careless = Retry(both, base=1, jitter="none", repeat_indefinite=True)
    policy = Policy("shop", attempt_timeout=2, retry=careless)
    service = Service(60.0, 200)
    assert Story(kind, policy, service).ask().status_code == 200
    assert service.at == [0, 3]
    service = Service(60.0, 200)
    with pytest.raises((httpx.ReadTimeout, DeadlineError)):
        Story(kind, policy, service).ask("POST")
    assert len(service.seen) == 1


def test_other_styles_tell_in_their_headers_and_none_tells_nothing(kind: Kind) -> None:
    service = Service(200)
    Story(kind, patient(timeout=5), service, style="envoy").ask()
    assert service.seen[0].headers["x-envoy-expected-rq-timeout-ms"] == "4995"
    service = Service(503, 200)
    Story(kind, patient(timeout=5), service, style=None).ask()
    assert not [name for name in service.seen[1].headers if "outlast" in name]


def test_a_limit_of_time_that_is_changed_live_counts_from_then_on(kind: Kind) -> None:
    policy, service = patient(timeout=5), Service(200)

    async def main() -> None:
        transport = AsyncHttpxTransport(policy, service)
        for timeout in (5, 3):
            policy.configure(timeout=timeout)
            await transport.handle_async_request(httpx.Request("GET", SHOP))

    def main_blocking() -> None:
        transport = HttpxTransport(policy, service)
        for timeout in (5, 3):
            policy.configure(timeout=timeout)
            transport.handle_request(httpx.Request("GET", SHOP))

    if kind == "async":
        sim.run(main)
    else:
        with virtual_time():
            main_blocking()
    assert [request.extensions["timeout"]["read"] for request in service.seen] == [5, 3]


def test_settings_of_a_part_that_are_changed_live_count_from_then_on(kind: Kind) -> None:
    careful = retry()
    policy, service = patient(retry=careful), Service(503)
    transport = (HttpxTransport if kind == "blocking" else AsyncHttpxTransport)(policy, service)
    careful.configure(attempts=2)
    if kind == "blocking":
        careful.configure(base=0.001)
        transport.handle_request(httpx.Request("GET", SHOP))  # type: ignore[union-attr]
    else:
        sim.run(lambda: transport.handle_async_request(httpx.Request("GET", SHOP)))  # type: ignore[union-attr]
    assert len(service.seen) == 2


# --- the rest ------------------------------------------------------------------------------------


def test_the_name_the_counts_and_the_state_are_those_of_the_policy(kind: Kind) -> None:
    policy = patient(breaker=CircuitBreaker(5, 30), limit=Bulkhead(1))
    Story(kind, policy, Service(503, 200)).ask()
    calls = policy.snapshot()["calls"]
    assert (calls["succeeded"], calls["retried"]) == (1, 1)
    assert asked_var.get() is None


def test_closing_the_client_closes_the_wrapped_transport(kind: Kind) -> None:
    service = Service(200)
    Story(kind, patient(), service).ask()
    assert service.closed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": retry()}, "policy is Retry"),
        ({"policy": Policy("p", cache=Cache(ttl=1))}, "cache= of policy 'p'"),
        ({"replay_max": -1}, "replay_max is -1"),
        ({"read_max": 1.5}, "read_max is 1.5"),
        ({"retry_statuses": {200}}, "retry_statuses is 200"),
        ({"style": "loud"}, "style is 'loud'; it must be None or one of outlast"),
    ],
)
def test_wrong_settings_are_refused(kind: Kind, settings: dict[str, Any], said: str) -> None:
    made: Any = HttpxTransport if kind == "blocking" else AsyncHttpxTransport
    with pytest.raises(ConfigError, match=said):
        made(**{"policy": patient(), "transport": Service(200), **settings})


def test_without_httpx_the_extra_is_named(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, HttpxTransport.__module__)
    with pytest.raises(ConfigError, match=r'pip install "outlast\[httpx\]"'):
        import_module(HttpxTransport.__module__)


def test_a_transport_shows_its_policy(kind: Kind) -> None:
    made: Any = HttpxTransport if kind == "blocking" else AsyncHttpxTransport
    assert "'shop'" in repr(made(patient(), Service(200)))
