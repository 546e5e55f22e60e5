"""Options that several commands share: where the cluster is, and how to be let in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from outlast.wire import Security

LOCAL = "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402"
"""Where ``outlast serve`` listens by default."""

Flag = Annotated[bool, Parameter(show_default=False)]
"""An option that is there or not."""

Routes = Annotated[tuple[str, ...], Parameter(show_default=False)]
"""``NODE=HOST:PORT``, again and again."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the cluster is and how to be let in.

    Attributes:
        at: Addresses of nodes, HOST:PORT,…; one finds the others.
        timeout: Seconds to wait for an answer.
        route: NODE=HOST:PORT: dial this instead of what is learnt. Repeatable.
        token: Token to show; better given in OUTLAST_TOKEN.
        tls_cert: Own certificate, a PEM file.
        tls_key: Its private key, a PEM file.
        tls_ca: Authorities to trust, a PEM file; turns TLS on.
    """

    at: str = LOCAL
    timeout: float = 10.0
    route: Routes = ()
    token: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None

    def security(self) -> "Security":
        """Return TLS and token as the wire takes them."""
        from outlast.wire import Security

        return Security.from_files(
            certificate=self.tls_cert, key=self.tls_key, ca=self.tls_ca, token=self.token
        )

    def addresses(self) -> list[str]:
        """Return the addresses, checked."""
        from outlast.wire import parse_addresses

        return [str(address) for address in parse_addresses(self.at)]

    def routes(self) -> dict[str, str]:
        """Return the overriding addresses by node."""
        return parse_routes(self.route)

    def client(self) -> Any:
        """Return a client that needs no class."""
        from outlast.cluster.connect import connect

        return connect(
            None,
            self.at,
            timeout=self.timeout,
            routes=self.routes(),
            security=self.security(),
            name="cli",
        )


def parse_routes(given: tuple[str, ...]) -> dict[str, str]:
    """Read ``NODE=HOST:PORT`` options.

    Raises:
        ConfigError: Definite. One has another form, or a node comes twice.
    """
    from outlast.cluster.identity import parse_peers
    from outlast.kernel import ConfigError

    routes: dict[str, str] = {}
    for text in given:
        if "=" not in text:
            message = f"--route {text}: write NODE=HOST:PORT, such as n2=127.0.0.1:7401"
            raise ConfigError(message)
        for node, address in parse_peers(text).items():
            if node in routes:
                message = f"--route {text}: node {node} has a route already, {routes[node]}"
                raise ConfigError(message)
            routes[node] = address
    return routes
