"""Finds and ends processes by a mark in their environment (Linux).

A process group can be ended as one; whoever has left it (a daemon, ``setsid``) is found by its
environment, which it has inherited. One that wiped its environment is not found, nor one that runs
as somebody else.

Run as a program (``python -I -S sweeper.py MARK``) it waits until its input is closed: then the
process that started it has ended, however it did, and it ends all that bear the mark. It imports
nothing of ours.
"""

import errno
import os
import signal
import sys
import time
from contextlib import suppress

VARIABLE = "OUTLAST_SUPERVISED"
"""Environment variable that holds the marks, the outermost supervisor's first."""

_ROUNDS_MAX = 50
_REST_SECONDS = 0.02
_ENVIRONMENT_BYTES_MAX = 1 << 21


def bears(pid: int, mark: str) -> bool:
    """Whether the environment of a process has ``mark``; a zombie has none.

    Raises:
        OSError: That cannot be told: no descriptor is left.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            text = b"\0" + file.read(_ENVIRONMENT_BYTES_MAX)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return False
    variable = b"\0" + VARIABLE.encode() + b"="
    return mark.encode() in text.partition(variable)[2].partition(b"\0")[0]


def end_all(mark: str, *, clean: int = 1) -> int:
    """End every process that bears ``mark`` (SIGKILL), also those born meanwhile.

    Blocking: reads all of ``/proc`` once at least. While no descriptor is left for that, it looks
    again and again, for a second at most.

    Args:
        mark: What they bear.
        clean: How many looks in a row must find none.

    Returns:
        How many were ended.
    """
    ended: set[int] = set()
    own, empty = os.getpid(), 0
    for _ in range(_ROUNDS_MAX):
        try:
            found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            found = [pid for pid in found if pid != own and bears(pid, mark)]
        except OSError:
            empty = 0
            time.sleep(_REST_SECONDS)
            continue
        ended.update(found)
        for pid in found:
            _end(pid, mark)
        empty = 0 if found else empty + 1
        if empty >= clean:
            break
        time.sleep(_REST_SECONDS)
    return len(ended)


def _end(pid: int, mark: str) -> None:
    """End one process; the descriptor makes sure that it is still the one that was found."""
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if bears(pid, mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def main() -> None:
    """Wait for the end of the supervisor, then sweep."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1):
        pass
    end_all(sys.argv[1], clean=3)


if __name__ == "__main__":
    main()
