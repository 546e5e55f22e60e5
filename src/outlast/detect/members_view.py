"""What a member tells of its view to whoever asks it over TCP, and how to ask."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outlast.detect.core.swim.api import Member
from outlast.detect.members_net import resolve
from outlast.detect.members_seal import Purpose, check_keys, make_seal
from outlast.detect.members_stream import ask
from outlast.kernel import DeadlineError, ProtocolError
from outlast.wire.address import parse_address

DEFAULT_PORT: Final = 7946
QUESTION: Final = b"members"
SCHEMA: Final = 1
_FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "name": str, "address": str, "incarnation": int, "state": str, "metadata": dict,
    "accusers": list, "seconds": (int, float), "rtt_ms": (int, float, type(None)),
}  # fmt: skip


def row(member: Member, now_ns: int) -> dict[str, Any]:
    """Return ``member`` as values that JSON knows, with the age of its state in seconds."""
    return {
        "name": member.name,
        "address": member.address,
        "incarnation": member.incarnation,
        "state": str(member.state),
        "metadata": dict(member.metadata),
        "accusers": list(member.accusers),
        "seconds": round(max(now_ns - member.since_ns, 0) / 1e9, 3),
        "rtt_ms": None if member.rtt_ns is None else round(member.rtt_ns / 1e6, 3),
    }


def encode_view(name: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the answer to :data:`QUESTION`."""
    import json

    return json.dumps({"schema": SCHEMA, "name": name, "members": list(rows)}).encode()


def decode_view(data: bytes) -> dict[str, Any]:
    """Return what :func:`encode_view` was given.

    Raises:
        ProtocolError: It is something else.
    """
    import json

    try:
        view = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("the answer is no JSON") from None
    if not isinstance(view, dict) or view.get("schema") != SCHEMA:
        raise ProtocolError(f"the answer is not of schema {SCHEMA}: another version of outlast?")
    rows = view.get("members")
    if not isinstance(view.get("name"), str) or not isinstance(rows, list):
        raise ProtocolError("the answer has no name or no members")
    for one in rows:
        if not isinstance(one, dict) or not all(
            isinstance(one.get(field, ...), kind) for field, kind in _FIELDS.items()
        ):
            raise ProtocolError("a member in the answer has other fields")
    return view


async def ask_members(
    address: str,
    *,
    key: bytes | Sequence[bytes] | None = None,
    encrypt: bool = True,
    timeout: float = 2.0,
) -> dict[str, Any]:
    """Ask a running member for its view, as ``outlast members list`` does. Changes nothing.

    Args:
        address: ``HOST:PORT`` of any member; port 7946 if none is given.
        key: The group's key or keys, as for :class:`~outlast.detect.Members`.
        encrypt: As for :class:`~outlast.detect.Members`.
        timeout: Seconds to wait for the answer.

    Returns:
        ``{"schema": 1, "name": …, "members": [{"name", "address", "incarnation", "state",
        "metadata", "accusers", "seconds", "rtt_ms"}, …]}``: ``seconds`` is how long it has been
        in its ``state`` for whoever answered.

    Raises:
        ConfigError: Definite. The address or a key is none.
        OSError: Nobody listens there, or no answer was given: without the group's key there is
            none.
        DeadlineError: Not answered in time.
        ProtocolError: What came is no answer of a member with this key.
    """
    where = parse_address(address, default_port=DEFAULT_PORT)
    seal = make_seal(check_keys(key), encrypt=encrypt)
    try:
        host = parse_address(await resolve(where.host, where.port)).host
        answer = await ask(host, where.port, seal, Purpose.QUESTION, QUESTION, timeout=timeout)
    except ProtocolError as error:
        message = f"{where}: the answer is none of this group ({error}); is it the same key?"
        raise ProtocolError(message) from None
    except ConnectionRefusedError:
        raise ConnectionRefusedError(f"{where}: no member listens there") from None
    except ConnectionResetError:
        message = f"{where}: closed without an answer; is it a member, with the same key?"
        raise ConnectionResetError(message) from None
    except TimeoutError:
        raise DeadlineError(f"{where}: no answer within {timeout:g} s") from None
    return decode_view(answer)
