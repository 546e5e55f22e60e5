"""What foreign errors say of whether the operation may have had an effect."""

import socket

import httpcore
import httpx
import pytest

from outlast.kernel import happened


@pytest.mark.parametrize("library", [httpx, httpcore])
def test_what_http_clients_raise_before_they_send_is_definite(library: object) -> None:
    names = ["ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"]
    for name in names:
        assert happened(getattr(library, name)("x")) == "no", name
    for name in ["ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "RemoteProtocolError"]:
        assert happened(getattr(library, name)("x")) == "maybe", name
    assert happened(httpx.InvalidURL("x")) == "no"
    assert happened(httpx.LocalProtocolError("x")) == "maybe"


def test_a_refused_connection_and_an_unknown_name_are_definite() -> None:
    assert happened(ConnectionRefusedError()) == "no"
    assert happened(socket.gaierror(-2, "Name or service not known")) == "no"
    for error in (ConnectionResetError(), BrokenPipeError(), TimeoutError(), OSError("x")):
        assert happened(error) == "maybe"


def test_a_class_of_the_same_name_from_elsewhere_is_not_believed() -> None:
    class ConnectError(Exception):
        """Ours by name only."""

    assert happened(ConnectError()) == "maybe"

    class OwnError(httpx.ConnectError):
        """Derived from one that is known."""

    assert happened(OwnError("x")) == "no"
