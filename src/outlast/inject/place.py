"""Where journals lie: a directory that nobody else can enter, found again by the next drill."""

import os
import stat
from pathlib import Path

from outlast.kernel import ConfigError

_MODE = 0o700


def well_known() -> list[str]:
    """Return where journals may lie, the one that is used first.

    ``$OUTLAST_STATE``, else ``$XDG_RUNTIME_DIR/outlast``, else ``/tmp/outlast-UID``.
    """
    environment = os.environ
    found = []
    if environment.get("OUTLAST_STATE"):
        found.append(os.path.abspath(environment["OUTLAST_STATE"]))
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(os.path.join(os.path.abspath(environment["XDG_RUNTIME_DIR"]), "outlast"))
    found.append(f"/tmp/outlast-{os.geteuid()}")  # noqa: S108 - owner and mode are checked
    return found


def searched() -> list[str]:
    """Return where heal looks: where ``$OUTLAST_STATE`` says, else in all that may be."""
    places = well_known()
    return places[:1] if os.environ.get("OUTLAST_STATE") else places


def open_place(directory: str | None = None) -> str:
    """Return a private directory for journals, made if it is missing.

    Args:
        directory: By default the first of :func:`well_known`.

    Raises:
        ConfigError: It is a link, is not ours, or others can enter it.
        OSError: It cannot be made.
    """
    place = os.path.abspath(directory) if directory else well_known()[0]
    try:
        Path(place).mkdir(mode=_MODE)
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        parent = os.path.dirname(place)
        raise ConfigError(f"{place}: {parent} does not exist; make it first") from error
    reason = refusal(place)
    if reason:
        raise ConfigError(reason)
    return place


def refusal(place: str) -> str:
    """Say why a directory is not to be trusted; empty: it is."""
    facts = os.lstat(place)
    if stat.S_ISLNK(facts.st_mode):
        return f"{place} is a symbolic link; remove it, or set OUTLAST_STATE to a directory"
    if not stat.S_ISDIR(facts.st_mode):
        return f"{place} is not a directory; set OUTLAST_STATE to one"
    if facts.st_uid != os.geteuid():
        return f"{place} belongs to uid {facts.st_uid}, not to us; set OUTLAST_STATE"
    if stat.S_IMODE(facts.st_mode) & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        return f"{place} has mode {mode:03o}; others must not enter it: chmod 700 {place}"
    return ""


def boot_word() -> str:
    """Return what tells this boot, and this space of pids, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
