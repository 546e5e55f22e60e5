"""Commands for a running cluster: call, status, member, transfer-leader."""

import asyncio
import json as json_text
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from outlast.cli import EXIT_NO, EXIT_OK, show
from outlast.cli.access import Access, Flag

_DEFAULT = Access()


def call(
    name: str,
    arguments: str = "{}",
    /,
    *,
    key: str | None = None,
    query: Flag = False,
    access: Access = _DEFAULT,
    json: Flag = False,
) -> int:
    """Run a command or query of the machine, print its result.

    Args:
        name: Name of the command.
        arguments: Its arguments, a JSON object by parameter name; - reads it from stdin.
        key: Idempotency key: a repeat under the same key is not executed again.
        query: It is a query: it reads and changes nothing.
        access: Where and how.
        json: Print an object with schema number instead of the bare result.
    """
    given = _arguments(sys.stdin.read() if arguments == "-" else arguments)

    async def run() -> Any:
        async with access.client() as client:
            with _key(key):
                return await client.call_json(name, given, query=query)

    print(show.result(asyncio.run(run()), as_json=json))
    return EXIT_OK


def _arguments(text: str) -> dict[str, Any]:
    from outlast.kernel import ConfigError

    try:
        value = json_text.loads(text)
    except ValueError as error:
        message = (
            f"arguments {text!r}: not JSON ({error}); write an object by parameter name, such"
            ' as \'{"account": "alice", "amount": 30}\''
        )
        raise ConfigError(message) from None
    if not isinstance(value, dict):
        message = (
            f"arguments {text!r}: write an object by parameter name, such as"
            ' \'{"account": "alice", "amount": 30}\''
        )
        raise ConfigError(message)
    return value


def _key(key: str | None) -> AbstractContextManager[Any]:
    if key is None:
        return nullcontext()
    from outlast.state import idempotency_key

    return idempotency_key(key)


def status(*, access: Access = _DEFAULT, json: Flag = False) -> int:
    """Show every node: role, term, progress, lag, whether it answers.

    Args:
        access: Where and how.
        json: Print JSON.
    """
    from outlast.cluster.overview import overview

    found = asyncio.run(
        overview(
            access.addresses(),
            security=access.security(),
            routes=access.routes(),
            timeout=min(access.timeout, 2.0),
        )
    )
    print(show.status_json(found) if json else show.status_text(found))
    return EXIT_OK if found.leader else EXIT_NO


def add(node: str, /, *, address: str, access: Access = _DEFAULT, json: Flag = False) -> int:
    """Add a node: it becomes a learner, and a voter once it has caught up.

    Args:
        node: Id of the new node.
        address: HOST:PORT where the others reach it.
        access: Where the cluster is.
        json: Print JSON.
    """
    return _administer("member-add", node, access, address=address, json=json)


def remove(node: str, /, *, access: Access = _DEFAULT, json: Flag = False) -> int:
    """Remove a node from the cluster.

    Args:
        node: Id of the node.
        access: Where the cluster is.
        json: Print JSON.
    """
    return _administer("member-remove", node, access, json=json)


def transfer_leader(node: str, /, *, access: Access = _DEFAULT, json: Flag = False) -> int:
    """Hand leadership to a node.

    Args:
        node: Id of the node that is to lead.
        access: Where the cluster is.
        json: Print JSON.
    """
    return _administer("transfer", node, access, json=json)


def _administer(op: str, node: str, access: Access, *, address: str = "", json: bool) -> int:
    from outlast.cluster import administer
    from outlast.cluster.identity import check_node_id
    from outlast.host import default_world
    from outlast.wire import parse_address

    message, facts = asyncio.run(
        administer(
            default_world(),
            access.addresses(),
            op,
            check_node_id(node),
            address=str(parse_address(address)) if address else "",
            security=access.security(),
            timeout=access.timeout,
        )
    )
    print(show.done(message, facts, as_json=json))
    return EXIT_OK
