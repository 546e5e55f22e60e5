"""Tokens and the loopback rule: no secret is shown, nothing is open by accident."""

import pytest

from outlast.kernel import ConfigError
from outlast.wire import Scope, Security, Token, parse_tokens

SECRET = "k9-" + "x" * 20
OTHER = "p7-" + "y" * 20
FILE = f"""
# name scope token
app client {SECRET}
node peer {OTHER}
"""


def test_a_token_file_is_read() -> None:
    tokens = parse_tokens(FILE)
    assert [(t.name, t.scope) for t in tokens] == [("app", Scope.CLIENT), ("node", Scope.PEER)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"app {SECRET}", "2 words"),
        (f"app root {SECRET}", "scope 'root' is not one of client, peer, admin"),
        ("app client short", "5 characters"),
        (f"app client {SECRET}\napp peer {OTHER}", "given twice"),
        (f"app client {SECRET}\nnode peer {SECRET}", "same as 'app'"),
    ],
)
def test_a_bad_token_file_is_refused_without_showing_tokens(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_tokens(line, where="f")
    assert SECRET not in str(caught.value)
    assert OTHER not in str(caught.value)


def test_match_finds_exactly_the_token() -> None:
    security = Security(tokens=parse_tokens(FILE))
    found = security.match(OTHER)
    assert found is not None
    assert found.name == "node"
    for wrong in ("", SECRET[:-1], SECRET + "x", SECRET.upper(), "\udcff", "é"):
        assert security.match(wrong) is None


def test_no_repr_shows_a_secret() -> None:
    security = Security.from_files(tokens=parse_tokens(FILE))
    assert security.token == OTHER  # a node shows its peer token
    assert SECRET not in repr(security) + repr(security.tokens)
    assert OTHER not in repr(security) + repr(security.tokens)
    assert SECRET not in repr(Token("app", Scope.CLIENT, SECRET))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "n1", ""])
def test_without_tls_or_token_only_loopback(host: str) -> None:
    bare = Security()
    with pytest.raises(ConfigError, match=r"give TLS .* or a token"):
        bare.check_bind(host)
    with pytest.raises(ConfigError, match=r"give TLS .* or a token"):
        bare.check_dial(host)
    assert not bare.may_accept(host)
    # A dialler's token does not protect a listener, nor the other way round.
    with pytest.raises(ConfigError):
        Security(token=SECRET).check_bind(host)
    with pytest.raises(ConfigError):
        Security(tokens=parse_tokens(f"app client {SECRET}")).check_dial(host)
    Security(tokens=parse_tokens(FILE)).check_bind(host)
    Security(token=SECRET).check_dial(host)
    Security(unprotected=True).check_bind(host)


def test_loopback_needs_nothing() -> None:
    Security().check_bind("127.0.0.1")
    Security().check_dial("::1")
    assert Security().may_accept("127.0.0.1")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"certificate": "c", "key": "k"}, "ca is missing"),
        ({"certificate": "c", "ca": "a"}, "certificate is given and key is not"),
        ({"key": "c", "ca": "a"}, "key is given and certificate is not"),
        ({"ca": "nowhere.pem"}, "nowhere.pem is not a file"),
        ({"tokens": "nowhere.txt"}, "nowhere.txt: cannot be read"),
    ],
)
def test_incomplete_files_are_refused(files: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Security.from_files(**files)


def test_a_check_for_other_listeners() -> None:
    assert Security().client_token_check() is None
    check = Security(tokens=parse_tokens(FILE)).client_token_check()
    assert check is not None
    assert check(SECRET)
    assert check(OTHER)
    assert not check(SECRET[:-1])
