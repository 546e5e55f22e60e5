"""Commands for a membership group: join it, list it, make its key."""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from outlast.cli import EXIT_INTERRUPTED, EXIT_OK, show
from outlast.cli.access import Flag, Routes

if TYPE_CHECKING:
    from outlast.detect import Members
    from outlast.kernel import Event

_LOCAL = "127.0.0.1:7946"


def join(
    name: str,
    /,
    *,
    bind: str = _LOCAL,
    seed: Routes = (),
    key_file: str | None = None,
    signed_only: Flag = False,
    advertise: str | None = None,
    metadata: Routes = (),
    profile: Literal["lan", "fast", "wan"] = "lan",
    insecure: Flag = False,
    json: Flag = False,
) -> int:
    """Take part in a group, print who comes and goes; SIGTERM or Ctrl-C leaves it.

    Args:
        name: Name of this member; no other may have it.
        bind: HOST:PORT to listen on, by UDP and TCP.
        seed: HOST:PORT of a member to join through. Repeatable.
        key_file: File with the group's key, or several: the first closes, all open.
        signed_only: Authenticate messages, and leave them readable. Equal on all members.
        advertise: HOST[:PORT] where others reach it; --bind by default.
        metadata: KEY=VALUE that it says of itself. Repeatable.
        profile: How soon others are suspected and removed.
        insecure: Listen beyond this machine without a key.
        json: Print each change as one line of JSON.
    """
    from outlast.detect import Members

    members = Members(
        name,
        bind=bind,
        seeds=seed,
        key=_keys(key_file),
        encrypt=not signed_only,
        advertise=advertise,
        metadata=_pairs(metadata),
        profile=profile,
        insecure=insecure,
    )
    return asyncio.run(_join(members, as_json=json))


async def _join(members: "Members", *, as_json: bool) -> int:
    asked: list[int] = []
    until = asyncio.Event()

    def stop(number: int) -> None:
        asked.append(number)
        until.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    events = members.events()

    async def tell() -> None:
        async for event in events:
            print(_event_json(event) if as_json else _event_text(event), flush=True)

    telling = asyncio.ensure_future(tell())
    starting = asyncio.ensure_future(members.start())
    stopping = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            print(_started(members, as_json=as_json), flush=True)
        await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if telling.done():
            telling.result()
        return EXIT_INTERRUPTED if signal.SIGINT in asked else EXIT_OK
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await members.leave()
        stopping.cancel()
        telling.cancel()
        await asyncio.gather(telling, stopping, return_exceptions=True)


def _started(members: "Members", *, as_json: bool) -> str:
    if as_json:
        facts = {"event": "Started", "name": members.name, "address": members.address}
        return show.as_text(facts)
    there = len(members.alive())
    return f"{members.name} listens at {members.address}; {there} there; Ctrl-C leaves"


def list_(
    *,
    address: str = _LOCAL,
    key_file: str | None = None,
    signed_only: Flag = False,
    timeout: float = 2.0,
    json: Flag = False,
) -> int:
    """Ask a running member who is in the group, as it sees it.

    Args:
        address: HOST:PORT of any member.
        key_file: File with the group's key.
        signed_only: The group's messages are authenticated only.
        timeout: Seconds to wait for the answer.
        json: Print JSON.
    """
    from outlast.detect import ask_members
    from outlast.kernel import ConfigError

    if not 0 < timeout < 3600:
        raise ConfigError(f"--timeout {timeout}: give seconds above 0")
    view = asyncio.run(
        ask_members(address, key=_keys(key_file), encrypt=not signed_only, timeout=timeout)
    )
    if json:
        print(show.as_text({key: view[key] for key in ("name", "members")}))
        return EXIT_OK
    rows = [
        [
            one["name"] + (" (answers)" if one["name"] == view["name"] else ""),
            one["address"],
            one["state"],
            f"{one['seconds']:.1f} s",
            None if one["rtt_ms"] is None else f"{one['rtt_ms']:.2f} ms",
            ", ".join(one["accusers"]),
            " ".join(f"{key}={value}" for key, value in sorted(one["metadata"].items())),
        ]
        for one in sorted(view["members"], key=lambda one: str(one["name"]))
    ]
    names = ["member", "address", "state", "since", "round trip", "accused by", "metadata"]
    print(show.columns(names, rows))
    return EXIT_OK


def keygen(*, out: str | None = None) -> int:
    """Make a key for a group: one line, the same file for all members.

    Args:
        out: Write it to a new file that only its owner can read, instead of stdout.
    """
    from outlast.detect import Members
    from outlast.detect.members_seal import key_text
    from outlast.kernel import ConfigError

    line = key_text(Members.make_key())
    if out is None:
        print(line)
        return EXIT_OK
    try:
        made = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}") from None
    with os.fdopen(made, "w") as file:
        file.write(line + "\n")
    return EXIT_OK


def _keys(path: str | None) -> list[bytes] | None:
    if path is None:
        return None
    from outlast.detect.members_seal import read_keys
    from outlast.kernel import ConfigError

    try:
        text = Path(path).read_text(encoding="ascii")
    except UnicodeDecodeError:
        message = f"{path}: not a file of keys; `outlast members keygen` makes one"
        raise ConfigError(message) from None
    except OSError as error:
        raise ConfigError(f"--key-file {path}: {error.strerror or error}") from None
    return read_keys(text, where=path)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    from outlast.kernel import ConfigError

    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals or key in pairs:
            message = f"--metadata {text}: write KEY=VALUE, each key once, such as zone=a"
            raise ConfigError(message)
        pairs[key] = value
    return pairs


def _event_json(event: "Event") -> str:
    return show.as_text({"event": type(event).__name__, **_plain(event)})


def _plain(value: Any) -> Any:
    """Return a copy that JSON knows: events hold members, and those read-only mappings."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _event_text(event: "Event") -> str:
    """Return an event in one line: what, whom, and by whose word."""
    member = getattr(event, "member", None)
    kind = type(event).__name__
    if not isinstance(member, str) and member is not None:
        words = [kind.removeprefix("Member").lower(), member.name, member.address]
        if evidence := getattr(event, "evidence", None):
            words.append(f"by {getattr(event, 'by', '')}: {evidence.kind}")
        if accusers := getattr(event, "accusers", ()):
            words.append(f"accused by {', '.join(accusers)}")
        return " ".join(words)
    told = [field.name for field in fields(event) if field.name not in {"level", "node"}]
    return " ".join([kind, *(f"{name}={getattr(event, name)}" for name in told)])
