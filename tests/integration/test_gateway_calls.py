"""The HTTP gateway of every node, as curl and other languages use it."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.nodes import Nodes, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("gateway"), target="bank")
    try:
        made.init().start().serving()
        made.leader()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60.0) as client:
        yield client


def deposit(
    http: httpx.Client, url: str, account: str, amount: Any = 5, **headers: str
) -> httpx.Response:
    body = {"account": account, "amount": amount}
    return http.post(f"{url}/v1/command/deposit", json=body, headers=headers)


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check the shape that every error has."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "message", "happened", "may_have_happened"}
    assert body["may_have_happened"] == (body["happened"] != "no")
    return body


def test_any_node_takes_commands_and_queries(nodes: Nodes, http: httpx.Client) -> None:
    digests = {}
    for number, name in enumerate(nodes.names, 1):
        done = deposit(http, nodes.url(name), "everywhere", 1)
        assert done.status_code == 200, done.text
        assert done.json()["result"] == number
        digests[done.json()["index"]] = done.json()["digest"]
        read = http.get(f"{nodes.url(name)}/v1/query/balances")
        assert read.json()["result"]["everywhere"] == number
        assert read.json()["index"] >= done.json()["index"]
        read = http.post(f"{nodes.url(name)}/v1/query/balances", json={})
        assert read.json()["result"]["everywhere"] == number
    assert len(digests) == len(set(digests.values())) == 3


def test_the_index_lists_what_there_is(nodes: Nodes, http: httpx.Client) -> None:
    told = http.get(nodes.url("n1")).json()
    assert (told["commands"], told["queries"]) == (["deposit", "transfer"], ["balances"])
    for page in told["pages"]:
        url = f"{nodes.url('n1')}{page}"
        until(lambda url=url: http.get(url).status_code == 200, f"{page} is good")


def test_what_a_command_raises_is_a_conflict_on_every_node(
    nodes: Nodes, http: httpx.Client
) -> None:
    body = {"source": "nobody", "target": "bob", "amount": 1}
    for name in nodes.names:
        answer = http.post(f"{nodes.url(name)}/v1/command/transfer", json=body)
        told = error(answer, 409)
        assert (told["error"], told["message"]) == ("OverdrawnError", "nobody")
        assert told["happened"] == "yes"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"account": "a"}', "amount"),
        (b'{"account": "a", "amount": "5"}', "amount"),
        (b'{"account": "a", "amount": 5, "more": 1}', "more"),
        (b"[1]", "object"),
        (b"{nothing", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 200_000, "JSON"),
        (b'{"account": "a", "amount": 99999999999999999999999}', "64 bits"),
        (b'{"account": "\\ud800", "amount": 5}', "surrogates"),
        (b'{"account": "a", "amount": NaN}', "amount"),
    ],
)
def test_wrong_arguments_are_named(
    nodes: Nodes, http: httpx.Client, body: bytes, named: str
) -> None:
    answer = http.post(f"{nodes.url('n1')}/v1/command/deposit", content=body)
    told = error(answer, 400)
    assert named in told["message"]
    assert told["happened"] == "no"


def test_wrong_headers_and_options_are_named(nodes: Nodes, http: httpx.Client) -> None:
    url = nodes.url("n2")
    for value in ("soon", "0", "-1", "nan", "61"):
        told = error(deposit(http, url, "a", 1, **{"outlast-timeout": value}), 400)
        assert value in told["message"]
        assert "outlast-timeout" in told["message"]
    for key in ("", "k" * 256):
        told = error(deposit(http, url, "a", 1, **{"idempotency-key": key}), 400)
        assert f"{len(key)} characters" in told["message"]
    read = http.get(f"{url}/v1/query/balances", params={"consistency": "eventual"})
    assert "linearizable or stale" in error(read, 400)["message"]


def test_what_does_not_exist_is_not_found_with_a_near_name(
    nodes: Nodes, http: httpx.Client
) -> None:
    url = nodes.url("n3")
    told = error(http.post(f"{url}/v1/command/deposti", json={}), 404)
    assert told["message"] == "no command 'deposti'; did you mean deposit?"
    told = error(http.get(f"{url}/v1/query/deposit"), 404)
    assert "there are: balances" in told["message"]
    error(http.get(f"{url}/v2/command/deposit"), 404)
    answer = http.get(f"{url}/v1/command/deposit")
    error(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_a_body_that_is_too_large_is_refused_and_the_gateway_goes_on(
    nodes: Nodes, http: httpx.Client
) -> None:
    url = f"{nodes.url('n1')}/v1/command/deposit"
    body = json.dumps({"account": "x" * (1 << 20), "amount": 1}).encode()
    told = error(http.post(url, content=body), 413)
    assert str(1 << 20) in told["message"]
    just_too_large = json.dumps({"account": "x" * ((1 << 20) - 40), "amount": 1}).encode()
    assert len(just_too_large) <= 1 << 20
    told = error(http.post(url, content=just_too_large), 400)
    assert "bytes" in told["message"]
    large = json.dumps({"account": "x" * 900_000, "amount": 1}).encode()
    assert http.post(url, content=large).json()["result"] == 1


def test_a_repeat_under_a_key_is_answered_and_another_body_is_refused(
    nodes: Nodes, http: httpx.Client
) -> None:
    key = {"idempotency-key": "order-17"}
    first = deposit(http, nodes.url("n1"), "keyed", 7, **key)
    assert first.json()["result"] == 7
    for name in nodes.names:
        again = deposit(http, nodes.url(name), "keyed", 7, **key)
        assert again.json()["result"] == 7
        told = error(deposit(http, nodes.url(name), "keyed", 8, **key), 422)
        assert (told["error"], told["happened"]) == ("KeyReusedError", "no")
    read = http.get(f"{nodes.url('n1')}/v1/query/balances")
    assert read.json()["result"]["keyed"] == 7


def test_a_recorded_error_is_the_answer_to_its_repeat(nodes: Nodes, http: httpx.Client) -> None:
    body = {"source": "later", "target": "bob", "amount": 1}
    key = {"idempotency-key": "order-18"}
    for name in ("n1", "n2"):
        url = f"{nodes.url(name)}/v1/command/transfer"
        assert error(http.post(url, json=body, headers=key), 409)["error"] == "OverdrawnError"
        deposit(http, nodes.url(name), "later", 10)


def test_metrics_parse_and_count(nodes: Nodes, http: httpx.Client) -> None:
    deposit(http, nodes.url("n1"), "counted", 1)

    def metrics(name: str) -> dict[str, float]:
        answer = http.get(f"{nodes.url(name)}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.labels.get("node") == name
        }

    for name in nodes.names:
        found = until(lambda name=name: quiet(metrics(name)), f"{name} is ready")
        assert found["outlast_fsyncs_total"] > 0
        assert found["outlast_applied_index"] > 0
    until(
        lambda: [metrics(name)["outlast_leading"] for name in nodes.names].count(1.0) == 1,
        "one of them leads",
    )


def quiet(found: dict[str, float]) -> dict[str, float]:
    """Metrics of a node that is ready; nothing if it is not, as on a busy machine now and then."""
    return found if found["outlast_ready"] == 1.0 else {}


def test_status_is_the_same_picture_on_every_node(nodes: Nodes, http: httpx.Client) -> None:
    def same() -> list[dict[str, Any]]:
        facts = [http.get(f"{nodes.url(name)}/status").json() for name in nodes.names]
        agree = len({one["leader"] for one in facts}) == 1
        return facts if agree and all(one["ready"] for one in facts) else []

    facts = until(same, "all are ready and name the same leader")
    assert [one["node"] for one in facts] == nodes.names
    assert all(one["phase"] == "serving" for one in facts)
    assert [row["node"] for row in facts[0]["members"]] == nodes.names


def test_keys_survive_the_leader_and_probes_tell_when_nobody_leads(
    nodes: Nodes, http: httpx.Client
) -> None:
    """The last test of this cluster: it ends without a majority."""
    dead = nodes.leader()
    left, last = [name for name in nodes.names if name != dead]
    key = {"idempotency-key": "order-19"}
    assert deposit(http, nodes.url(dead), "survivor", 3, **key).json()["result"] == 3
    nodes.kill(dead)
    again = deposit(http, nodes.url(left), "survivor", 3, **key)
    assert again.json()["result"] == 3
    error(deposit(http, nodes.url(last), "survivor", 4, **key), 422)

    assert deposit(http, nodes.url(left), "survivor", 1).json()["result"] == 4
    asked = {"outlast-timeout": "1"}
    for _ in range(10):  # it may have noticed first: then once more
        leader = nodes.leader(other_than=dead)
        other = left if leader == last else last
        url = nodes.url(leader)
        nodes.signal(signal.SIGSTOP, other)
        answer = deposit(http, url, "lonely", 1, **asked)
        if answer.status_code == 504:
            break
        nodes.signal(signal.SIGCONT, other)
    # Taken by a leader that does not know yet that it is alone: nobody can tell.
    assert error(answer, 504)["may_have_happened"]

    until(lambda: http.get(f"{url}/readyz").status_code == 503, "not ready")
    assert http.get(f"{url}/livez").status_code == 200
    assert http.get(f"{url}/startupz").status_code == 200
    assert not http.get(f"{url}/status").json()["ready"]
    # Nobody leads: surely not sent, and so surely not executed.
    answer = deposit(http, url, "refused", 1, **asked)
    assert error(answer, 503)["happened"] == "no"
    assert int(answer.headers["retry-after"]) >= 1
    read = http.get(f"{url}/v1/query/balances", headers=asked)
    assert read.status_code in {503, 504}

    ages = []
    for _ in range(2):
        read = http.get(f"{url}/v1/query/balances", params={"consistency": "stale"})
        assert read.json()["result"]["survivor"] == 4
        assert "refused" not in read.json()["result"]
        ages.append(read.json()["age_seconds"])
    assert 0 < ages[0] < ages[1]

    nodes.signal(signal.SIGCONT, other)
    assert deposit(http, url, "survivor", 1).json()["result"] == 5
    until(lambda: http.get(f"{url}/readyz").status_code == 200, "ready again")
