"""requests under a policy, by the adapter of the example, on real sockets."""

import time
from collections.abc import Iterator
from contextlib import closing
from socket import create_server
from typing import Any

import pytest
import requests

from outlast.kernel import BulkheadFullError, CircuitOpenError, TooLateError
from outlast.protect import Bulkhead, CircuitBreaker, Policy, Retry, deadline
from tests.support.deadlines import ends_as
from tests.support.examples import example

pytestmark = pytest.mark.timeout(120)

shown = example("protect_requests")
serving = example("flaky").serving


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def policy(**parts: Any) -> Policy:
    retry = Retry(on=shown.repeatable, base=0.001)
    breaker = CircuitBreaker(3, 30, counts=shown.speaks_against_it)
    return Policy("shop", **{"retry": retry, "breaker": breaker, **parts})


def test_a_get_is_repeated_after_hanging_up_503_and_429(session: requests.Session) -> None:
    with serving(0, 503, 429, 200) as service:
        session.mount(
            "http://", shown.Protected(policy(retry=Retry(shown.repeatable, 4, base=0.001)))
        )
        assert session.get(service.url).text == "1.08"
        assert service.asked == ["GET"] * 4


def test_a_post_is_repeated_after_429_only(session: requests.Session) -> None:
    session.mount("http://", shown.Protected(policy()))
    for answers, made in (((429, 200), 2), ((503, 200), 1)):
        with serving(*answers) as service:
            session.post(service.url, b"buy")
            assert len(service.asked) == made
    with serving(0, 200) as service:
        with pytest.raises(requests.ConnectionError):
            session.post(service.url, b"buy")
        assert len(service.asked) == 1


def test_a_post_to_a_closed_port_is_repeated(session: requests.Session) -> None:
    session.mount("http://", shown.Protected(policy(breaker=None)))
    with pytest.raises(requests.ConnectionError) as caught:
        session.post("http://127.0.0.1:1/", b"buy")
    assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]


def test_a_body_that_is_read_once_is_sent_once(session: requests.Session) -> None:
    session.mount("http://", shown.Protected(policy()))
    with serving(503, 200) as service:
        assert session.put(service.url, iter([b"buy"])).status_code == 503
        assert service.asked == ["PUT"]


def test_the_breaker_opens_after_5xx_and_not_after_404(session: requests.Session) -> None:
    session.mount("http://", shown.Protected(policy(retry=None)))
    with serving(404, 404, 404, 500, 500, 500, 200) as service:
        seen = [session.get(service.url).status_code for _ in range(6)]
        assert seen == [404, 404, 404, 500, 500, 500]
        with pytest.raises(CircuitOpenError):
            session.get(service.url)


def test_a_socket_waits_no_longer_than_the_deadline(session: requests.Session) -> None:
    session.mount("http://", shown.Protected(policy()))
    with closing(create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        begun = time.monotonic()

        def wait(seconds: float) -> None:
            with deadline(seconds):
                session.get(url, timeout=(60, 60))

        ends_as(requests.ReadTimeout, wait)
        assert time.monotonic() - begun < 60
        with pytest.raises(TooLateError), deadline(0):
            session.get(url)


def test_above_the_limit_a_request_is_refused_before_it_takes_a_connection(
    session: requests.Session,
) -> None:
    guarded = policy(limit=Bulkhead(1))
    session.mount("http://", shown.Protected(guarded))
    with pytest.raises(BulkheadFullError):
        guarded.call(session.get, "http://127.0.0.1:1/")
