"""A program under an outside guard that restarts it: in its first life it gets into trouble.

    python -m tests.support.guarded TROUBLE FOLDER

It prints ``life N`` once the guard watches it. The folder holds the guard's log and what tells
one life from the next.
"""

import ctypes
import resource
import signal
import sys
import time
from pathlib import Path

from outlast.detect import Guard, Ladder, ProcessWatchdog, Watchdogs

SECONDS = 60


def frozen() -> None:
    ctypes.PyDLL(None).sleep(SECONDS)  # C that keeps the interpreter lock


def stopped() -> None:
    signal.raise_signal(signal.SIGSTOP)


def main(trouble: str, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lives = folder / "lives"
    life = len(lives.read_text()) + 1 if lives.exists() else 1
    lives.write_text("." * life)
    act = Ladder(("event", "restart"), after=(0, 0.3))  # a signal for stacks would end the sleep
    guard = Guard(0.5, act=act, log=str(folder / "guard.log"))
    with Watchdogs(ProcessWatchdog(0.5, dump=False), guard=guard):
        time.sleep(0.3)  # the guard has looked at the stamps by now
        print(f"life {life}", flush=True)
        if life == 1:
            globals()[trouble]()
        signal.sigtimedwait([signal.SIGTERM], SECONDS)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main(sys.argv[1], Path(sys.argv[2]))
