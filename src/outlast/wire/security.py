"""Who may connect: TLS from files, scoped tokens, and loopback only when there is neither.

Only the standard library's ``ssl`` and ``hmac`` are used. Tokens are compared in constant
time, all of them each time, and appear in no message, event or ``repr``.
"""

import hmac
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from outlast.kernel import ConfigError
from outlast.wire.address import is_loopback
from outlast.wire.core.handshake import Credentials, Scope, allows

TOKEN_CHARACTERS_MIN: Final = 16

_GIVE = (
    "give TLS (certificate, key and CA files) or a token, or use a loopback address such as "
    "127.0.0.1"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A shared secret with a name, which may be shown, and a scope."""

    name: str
    scope: Scope
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Check the length: what can be guessed is no secret."""
        if len(self.secret) < TOKEN_CHARACTERS_MIN:
            raise ConfigError(
                f"token {self.name!r} has {len(self.secret)} characters; "
                f"at least {TOKEN_CHARACTERS_MIN} are needed"
            )


def parse_tokens(text: str, *, where: str = "tokens") -> tuple[Token, ...]:
    """Read lines of ``name scope token``; empty lines and ``#`` comments are skipped.

    Raises:
        ConfigError: Definite. A line has another form, a scope is unknown, a name or token
            is given twice. The message never holds a token.
    """
    tokens: list[Token] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3:
            raise ConfigError(
                f'{where}:{number}: {len(words)} words; write "name scope token" on each line'
            )
        name, scope, secret = words
        if scope not in set(Scope):
            scopes = ", ".join(Scope)
            raise ConfigError(f"{where}:{number}: scope {scope!r} is not one of {scopes}")
        for other in tokens:
            if other.name == name:
                raise ConfigError(f"{where}:{number}: name {name!r} is given twice")
            if other.secret == secret:
                raise ConfigError(f"{where}:{number}: the token is the same as {other.name!r}'s")
        tokens.append(Token(name, Scope(scope), secret))
    return tuple(tokens)


def certificate_names(ssl_object: Any) -> tuple[str, ...] | None:
    """Return the DNS names and the common name of the other side's verified certificate.

    ``None`` when it showed none.
    """
    if ssl_object is None:
        return None
    shown = ssl_object.getpeercert()
    if not shown:
        return None
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    for part in shown.get("subject", ()):
        names.extend(value for key, value in part if key == "commonName")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Security:
    """What one process demands and shows. Without TLS and token: loopback only.

    Args:
        server_tls: Context for accepted connections.
        client_tls: Context for dialled connections.
        tokens: Tokens that a listener accepts.
        token: Token that a dialler shows, ``None`` for none.
        unprotected: Lift the loopback rule. For networks that nobody else can reach, such as
            a simulated one; whoever can reach the port then has every right.
    """

    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    tokens: Sequence[Token] = field(default=(), repr=False)
    token: str | None = field(default=None, repr=False)
    unprotected: bool = False

    @classmethod
    def from_files(
        cls,
        *,
        certificate: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        tokens: str | Sequence[Token] | None = None,
        token: str | None = None,
    ) -> "Security":
        """Build from PEM files and a token file.

        Args:
            certificate: Own certificate chain. With ``key``, needed to listen with TLS.
            key: Its private key.
            ca: Certificates of the authorities to trust; no other is trusted.
            tokens: Path of a file with lines ``name scope token``, or the tokens themselves.
            token: Token to show when dialling; by default the first peer token of ``tokens``.

        Raises:
            ConfigError: Definite. Files are missing, cannot be read or do not belong together.
        """
        accepted = _read_tokens(tokens) if isinstance(tokens, str) else tuple(tokens or ())
        if token is None:
            peers = [t.secret for t in accepted if t.scope is Scope.PEER]
            token = peers[0] if peers else None
        if certificate is None and key is None and ca is None:
            return cls(tokens=accepted, token=token)
        if ca is None:
            raise ConfigError(
                "TLS: ca is missing; give the file of the CA that signed the nodes' certificates"
            )
        if (certificate is None) != (key is None):
            given, missing = ("certificate", "key") if key is None else ("key", "certificate")
            raise ConfigError(f"TLS: {given} is given and {missing} is not; give both")
        client = _context(ssl.Purpose.SERVER_AUTH, ca, certificate, key)
        client.check_hostname = False  # the name must be the node id: checked in the handshake
        client.verify_mode = ssl.CERT_REQUIRED
        server: ssl.SSLContext | None = None
        if certificate is not None:
            server = _context(ssl.Purpose.CLIENT_AUTH, ca, certificate, key)
            # With tokens, clients may come without a certificate; peers never.
            server.verify_mode = ssl.CERT_OPTIONAL if accepted else ssl.CERT_REQUIRED
        return cls(server_tls=server, client_tls=client, tokens=accepted, token=token)

    def check_bind(self, host: str) -> None:
        """Refuse to listen on ``host`` if anybody could then connect.

        Raises:
            ConfigError: Definite. Not loopback, and neither TLS nor tokens.
        """
        if not (self.server_tls or self.tokens or self.unprotected or is_loopback(host)):
            raise ConfigError(f"listen on {host!r}: not a loopback address; {_GIVE}")

    def check_dial(self, host: str) -> None:
        """Refuse to dial ``host`` if anybody could then answer.

        Raises:
            ConfigError: Definite. Not loopback, and neither TLS nor a token.
        """
        if not (self.client_tls or self.token or self.unprotected or is_loopback(host)):
            raise ConfigError(f"connect to {host!r}: not a loopback address; {_GIVE}")

    def may_accept(self, host: str) -> bool:
        """Whether a connection from ``host`` may say hello at all."""
        return bool(self.server_tls or self.tokens or self.unprotected or is_loopback(host))

    def credentials(self, token: str | None, ssl_object: Any) -> Credentials:
        """Return what a caller's token and certificate amount to."""
        found = self.match(token) if token is not None else None
        names = certificate_names(ssl_object)
        return Credentials(
            required=bool(self.server_tls or self.tokens),
            token=found.scope if found is not None else None,
            token_valid=token is None or found is not None,
            names=names,
            tls=ssl_object is not None,
        )

    def client_token_check(self) -> Callable[[str], bool] | None:
        """Return a test of whether a token allows what clients do; ``None`` without tokens.

        For listeners that speak another protocol, such as an HTTP gateway.
        """
        if not self.tokens:
            return None

        def check(token: str) -> bool:
            found = self.match(token)
            return found is not None and allows(found.scope, Scope.CLIENT)

        return check

    def match(self, token: str) -> Token | None:
        """Return which of the accepted tokens ``token`` is, in time that tells nothing."""
        shown = token.encode("utf-8", "surrogatepass")
        found: Token | None = None
        for known in self.tokens:
            if hmac.compare_digest(known.secret.encode(), shown):
                found = known
        return found


def _read_tokens(path: str) -> tuple[Token, ...]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path}: cannot be read: {error}") from None
    tokens = parse_tokens(text, where=path)
    if not tokens:
        raise ConfigError(f'token file {path}: no tokens; write "name scope token" lines')
    return tokens


def _context(
    purpose: ssl.Purpose, ca: str, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    files = [ca] if certificate is None else [ca, certificate, key or ""]
    for path in files:
        if not Path(path).is_file():
            raise ConfigError(f"TLS: {path} is not a file")
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"TLS: {', '.join(files)}: {error}") from None
    return context
