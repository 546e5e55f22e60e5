"""``outlast.connect``: addresses, security and limits become a client."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from outlast.cluster.client import Client
from outlast.cluster.identity import check_node_id
from outlast.kernel import ConfigError, World, current_world
from outlast.state import StateMachine
from outlast.wire import Security, parse_address, parse_addresses

M = TypeVar("M", bound=StateMachine)


@overload
def connect(
    machine: type[M],
    addresses: str | Sequence[str],
    *,
    timeout: float = ...,
    routes: Mapping[str, str] | None = ...,
    token: str | None = ...,
    tls_cert: str | None = ...,
    tls_key: str | None = ...,
    tls_ca: str | None = ...,
    security: Security | None = ...,
    world: World | None = ...,
    name: str = ...,
) -> Client[M]: ...


@overload
def connect(
    machine: None,
    addresses: str | Sequence[str],
    *,
    timeout: float = ...,
    routes: Mapping[str, str] | None = ...,
    token: str | None = ...,
    tls_cert: str | None = ...,
    tls_key: str | None = ...,
    tls_ca: str | None = ...,
    security: Security | None = ...,
    world: World | None = ...,
    name: str = ...,
) -> Client[Any]: ...


def connect(
    machine: type[Any] | None,
    addresses: str | Sequence[str],
    *,
    timeout: float = 10.0,
    routes: Mapping[str, str] | None = None,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_ca: str | None = None,
    security: Security | None = None,
    world: World | None = None,
    name: str = "client",
) -> Client[Any]:
    """Return a client of the cluster at ``addresses``, for ``async with``.

    Nothing is dialled before the client is entered or first used, inside a running event loop.
    One address is enough to find the others; several survive the loss of the first.

    Args:
        machine: The machine's class, or ``None`` to use ``call_json`` only.
        addresses: ``"n1:7400,n2:7400,n3:7400"`` or a sequence of ``"host:port"``.
        timeout: Seconds that a call may take, repeats included; ``with outlast.deadline(s)``
            shortens it. Above 0.
        routes: Address to dial instead of whatever is learnt, by node id.
        token: Token to show. Without TLS or token only loopback addresses are dialled.
        tls_cert: PEM file of the client's certificate; with ``tls_key``.
        tls_key: PEM file of its private key.
        tls_ca: PEM file of the authorities to trust; turns TLS on.
        security: All of the four above, already built.
        world: Clock, network and randomness; those of this process by default.
        name: How the client calls itself to the nodes.

    Raises:
        ConfigError: Definite. An address, route, limit or security setting is wrong.
    """
    seeds = tuple(str(address) for address in parse_addresses(addresses))
    if not timeout > 0:
        message = f"connect: timeout is {timeout!r}; give seconds above 0, such as 10.0"
        raise ConfigError(message)
    given: object = machine
    if given is not None and not (isinstance(given, type) and issubclass(given, StateMachine)):
        message = (
            f"connect: {machine!r} is not a StateMachine class; give the class itself, such as"
            " Bank, or None for call_json"
        )
        raise ConfigError(message)
    overrides = {
        str(check_node_id(node)): str(parse_address(address))
        for node, address in (routes or {}).items()
    }
    security = _security(security, token=token, cert=tls_cert, key=tls_key, ca=tls_ca)
    for address in (*seeds, *overrides.values()):
        security.check_dial(parse_address(address).host)
    return Client(
        machine,
        seeds,
        world=world or _world(),
        routes=overrides,
        security=security,
        timeout=timeout,
        name=name,
    )


def _security(
    given: Security | None,
    *,
    token: str | None,
    cert: str | None,
    key: str | None,
    ca: str | None,
) -> Security:
    if given is None:
        return Security.from_files(certificate=cert, key=key, ca=ca, token=token)
    if any(part is not None for part in (token, cert, key, ca)):
        message = "connect: security= and token=/tls_…= exclude each other; give one of them"
        raise ConfigError(message)
    return given


def _world() -> World:
    import outlast.host  # noqa: F401 - makes the real world the default one

    return current_world()
