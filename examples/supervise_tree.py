"""A tree of four kinds of children: a command, a Python function, a thread and a task.

``python supervise_tree.py``, then in another terminal ``kill -9`` or ``kill -STOP`` one of its
processes; Ctrl-C stops all in reverse order.
"""

import asyncio
import os
import signal
import sys
import time

from outlast.detect import Child, Grace, Ready, Supervisor, progress_stamp

SERVER = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]


def worker(rest: float) -> None:
    """Runs in an interpreter of its own; replaced if it stamps no progress for two seconds."""
    while True:
        progress_stamp()
        time.sleep(rest)


def poll() -> None:
    """Called once a second on a thread."""


async def consume() -> None:
    while True:
        await asyncio.sleep(0.1)
        progress_stamp()


def make_tree() -> Supervisor:
    return Supervisor(
        # Whoever comes after the server starts when the server says that it serves.
        Child.command("server", SERVER, ready="Serving HTTP", output="keep", stop=Grace(2)),
        Child.process("worker", worker, args=(0.1,), ready=Ready.stamp(), progress=2.0),
        # These two belong together: if one fails, both start anew.
        Supervisor(
            Child.thread("poller", poll, every=1.0),
            Child.task("consumer", consume, progress=5.0),
            name="intake",
            strategy="one_for_all",
        ),
        name="shop",
    )


async def kill_one() -> str:
    """Kill the worker, and return how the tree looks when another one works."""
    async with make_tree() as tree:
        os.kill(tree.child("worker").pid or 0, signal.SIGKILL)
        for _ in range(500):
            await asyncio.sleep(0.01)
            if tree.child("worker").restarts and tree.child("worker").state == "running":
                break
        return str(tree)


def test_it_runs() -> None:
    shown = asyncio.run(kill_one())
    print(shown)
    if "1 restarts (killed by SIGKILL)" not in shown:
        raise SystemExit("it was not started again")


if __name__ == "__main__":
    if "--once" in sys.argv:
        test_it_runs()
        sys.exit(0)
    sys.exit(make_tree().run())
