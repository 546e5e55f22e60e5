"""``supervise``: run a tree of children until a signal."""

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from outlast.cli import show
from outlast.cli.access import Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.kernel import Event


def supervise(target: str, /, *, json: Flag = False) -> int:
    """Start children in order, start again what ends, stop all in reverse on SIGTERM or Ctrl-C.

    A second signal kills at once. Exit 1 says that restarts did not help.

    Args:
        target: FILE.toml of commands, or FILE.py:NAME or module:NAME of a Supervisor.
        json: Print each event as one line of JSON.
    """
    from outlast.detect.supervisor_file import load_supervisor
    from outlast.host import make_world
    from outlast.kernel import EventBus, use_world

    supervisor = load_supervisor(target)
    bus = EventBus()
    bus.subscribe(_as_json if json else _teller())
    use_world(make_world(events=bus))
    return asyncio.run(supervisor.main())


def _as_json(event: "Event") -> None:
    print(show.as_text({"event": type(event).__name__, **asdict(event)}), flush=True)


def _teller() -> "Callable[[Event], None]":
    """Return what tells people what happens, one line each."""
    from outlast.detect import events

    def tell(event: "Event") -> None:
        text = ""
        match event:
            case events.ChildStarted(child=child, pid=pid, restarts=restarts):
                again = f", restart {restarts}" if restarts else ""
                text = f"{child}: runs{f' as pid {pid}' if pid else ''}{again}"
            case events.ChildExited(level="info", child=child, reason=reason):
                text = f"{child}: {reason}"
            case events.ChildExited(child=child, reason=reason, lines=lines):
                text = f"{child}: {reason}" + "".join(f"\n  | {line}" for line in lines[-10:])
            case events.ChildStuck(child=child, seconds=seconds):
                text = f"{child}: does nothing for {seconds:.1f} s"
            case events.ChildAbandoned(child=child):
                text = f"{child}: does not stop"
            case events.CrashLoop(child=child, count=count, period=period):
                text = f"{child}: in a crash loop, {count} restarts within {period:g} s"
            case events.OrphansEnded(child=child, count=count):
                text = f"{child}: left {count} processes behind, ended"
            case events.SupervisorEscalated(supervisor=name, reason=reason):
                text = f"{name or 'supervisor'}: ended: {reason}"
            case _:
                return
        print(text, file=sys.stderr, flush=True)

    return tell
