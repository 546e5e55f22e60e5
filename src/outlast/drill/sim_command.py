"""Runs a command line of Python in the simulator: up to its ``asyncio.run``, then as a task.

A process cannot be simulated, but what it does can: its module is executed anew, as ``__main__``
and with its own ``sys.argv`` and environment, until it hands its coroutine to ``asyncio.run``.
That coroutine is the program; what stands after the call is never reached, as in a process that
is killed. Modules that it imports are shared by all hosts, as everything in one process is.
"""

import asyncio
import os
import runpy
import shlex
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from outlast.drill.target import PYTHONS
from outlast.kernel import ConfigError

_LEAST_WORDS = 2


class _Begun(BaseException):
    """The program has handed its coroutine over."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self.coroutine = coroutine


def check_command(command: str) -> None:
    """Refuse what cannot be simulated.

    Raises:
        ConfigError: Definite. It is no Python program by module or file.
    """
    words = shlex.split(command)
    module = words[1:2] == ["-m"] and len(words) > _LEAST_WORDS
    file = len(words) >= _LEAST_WORDS and words[1].endswith(".py")
    if words[0] not in PYTHONS or not (module or file):
        message = (
            f"Nodes: {command!r} cannot be simulated: write python -m MODULE … or python FILE.py"
            " …, or give main=, a coroutine function to call in its place"
        )
        raise ConfigError(message)


async def begin(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Execute the program in the running task until it ends.

    Raises:
        ConfigError: Definite. It ended without a call of ``asyncio.run``.
        Exception: Whatever the program raises.
    """
    await _coroutine(words, environment)


def _coroutine(words: Sequence[str], environment: Mapping[str, str]) -> Coroutine[Any, Any, Any]:
    module = words[1] == "-m"
    arguments = list(words[2:] if module else words[1:])
    with _as_process(arguments, environment):
        try:
            if module:
                runpy.run_module(arguments[0], run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(arguments[0], run_name="__main__")
        except _Begun as begun:
            return begun.coroutine
    message = (
        f"{shlex.join(words)}: it ended without asyncio.run(…): only asyncio programs can be"
        " simulated"
    )
    raise ConfigError(message)


@contextmanager
def _as_process(arguments: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Give what runs now its own arguments and environment, and wait for its coroutine."""
    argv, run, runner = sys.argv, asyncio.run, asyncio.Runner.run
    environ = dict(os.environ)

    def hand_over(*given: Any, **_: Any) -> NoReturn:
        raise _Begun(given[-1])

    sys.argv = arguments
    os.environ.update(environment)
    asyncio.run = hand_over
    asyncio.Runner.run = hand_over  # type: ignore[method-assign]
    try:
        yield
    finally:
        sys.argv, asyncio.run = argv, run
        asyncio.Runner.run = runner  # type: ignore[method-assign]
        os.environ.clear()
        os.environ.update(environ)
