"""``outlast.connect`` refuses what cannot work before anything is dialled."""

from typing import Any

import pytest

import outlast
from outlast.state.ready.kv import Kv
from outlast.wire import Security


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(outlast.ConfigError) as caught:
        outlast.connect(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ("", "none given"),
        ("localhost", "has no port"),
        ("localhost:http", "is not a number"),
        ("localhost:1,localhost:1", "is given twice"),
        ("::1:7400", "brackets"),
    ],
)
def test_wrong_addresses_are_named(addresses: str, says: str) -> None:
    assert says in refused(Kv, addresses)


def test_a_client_can_be_made_without_a_loop() -> None:
    client = outlast.connect(Kv, ["localhost:7400", "127.0.0.1:7401"])
    assert "looking for a leader" in repr(client)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_above_zero(timeout: float) -> None:
    assert "seconds above 0" in refused(Kv, "localhost:7400", timeout=timeout)


def test_an_instance_is_not_a_class() -> None:
    assert "give the class itself" in refused(Kv(), "localhost:7400")


def test_without_tls_or_token_only_loopback_is_dialled() -> None:
    assert "not a loopback address" in refused(Kv, "n1.example:7400")
    assert outlast.connect(Kv, "n1.example:7400", token="a-secret-of-length") is not None


def test_a_route_off_the_machine_needs_protection_too() -> None:
    said = refused(Kv, "localhost:7400", routes={"n2": "n2.example:7400"})
    assert "not a loopback address" in said


def test_a_route_is_checked() -> None:
    assert "has no port" in refused(Kv, "localhost:7400", routes={"n2": "localhost"})
    assert "node id" in refused(Kv, "localhost:7400", routes={"n 2": "localhost:1"})


def test_security_comes_whole_or_in_parts() -> None:
    said = refused(Kv, "localhost:7400", security=Security(), token="a-secret-of-length")
    assert "exclude each other" in said
