"""Directories that a drill makes: marked when made, and removed only if they carry the mark."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from outlast.inject.core.undo import tagged_root

MARK = ".outlast-drill"


class Refused(Exception):
    """Something that heal was asked to remove is not to be touched; says why."""


def make_marked(path: str, drill: str) -> None:
    """Make a private directory with the mark of the drill.

    Raises:
        OSError: It exists, or cannot be made.
    """
    Path(path).mkdir(mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(os.path.join(path, MARK), flags, 0o600)
    try:
        os.write(descriptor, drill.encode())
    finally:
        os.close(descriptor)


def owned_root(path: str, drill: str) -> str:
    """Return the drill's directory that ``path`` is or lies in.

    Raises:
        Refused: It lies in none, a part of the way is a link, or the directory is not ours.
    """
    root = tagged_root(path, drill)
    if root is None:
        raise Refused("it does not lie in a directory that the drill made")
    parent = os.path.dirname(path)
    if os.path.realpath(parent) != parent:
        raise Refused("a part of its path is a symbolic link")
    with suppress(FileNotFoundError):
        facts = os.lstat(root)
        if not stat.S_ISDIR(facts.st_mode):
            raise Refused("it is not a directory")
        if facts.st_uid != os.geteuid():
            raise Refused(f"it belongs to uid {facts.st_uid}, not to us")
    return root


def remove_tree(path: str, drill: str, step: Callable[[], None]) -> bool:
    """Remove a drill's directory, the mark last; ``False`` if it was not there.

    May be interrupted anywhere and called again.

    Args:
        path: The directory.
        drill: Whose mark it must carry.
        step: Called before each entry is removed.

    Raises:
        Refused: It is not a directory that the drill made, or something is mounted in it.
        OSError: A part could not be removed.
    """
    if owned_root(path, drill) != path:
        raise Refused("it is not the directory itself that the drill made")
    if not os.path.lexists(path):
        return False
    entries = sorted(os.listdir(path))
    if entries and not _has_mark(path, drill):
        raise Refused(f"it holds files and no {MARK} of the drill")
    mounted = mounts_in(path)
    if mounted:
        raise Refused(f"{mounted[0]} is mounted in it; unmount that first")
    for name in entries:
        if name != MARK:
            step()
            _remove(os.path.join(path, name))
    step()
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, MARK))
    step()
    Path(path).rmdir()
    return True


def _has_mark(path: str, drill: str) -> bool:
    """Whether the mark is there; one that was cut short while it was written counts."""
    try:
        descriptor = os.open(os.path.join(path, MARK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return drill.encode().startswith(os.read(descriptor, 1024))
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        # A program may have taken rights from itself; the directories are ours to open again.
        for directory, _, _ in os.walk(path):
            for name in (directory, *_subdirectories(directory)):
                os.chmod(name, 0o700, follow_symlinks=False) if _is_directory(name) else None
        shutil.rmtree(path)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _subdirectories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def mounts_in(path: str) -> list[str]:
    """Return what is mounted at ``path`` or below, the innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        where = os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1"))
        if where == path or where.startswith(path + "/"):
            found.append(where)
    return sorted(found, key=len, reverse=True)
