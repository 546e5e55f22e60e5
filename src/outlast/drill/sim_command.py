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
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
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


async def begin(words: Sequence[str], environment: Mapping[str, str], home: str) -> None:
    """Execute the program in the running task until it ends.

    Args:
        words: Of its command line, the Python at their head among them.
        environment: What is added to ours.
        home: The directory in which a file of a relative path lies.

    Raises:
        ConfigError: Definite. It ended without a call of ``asyncio.run``.
        Exception: Whatever the program raises.
    """
    module = words[1] == "-m"
    arguments = list(words[2:] if module else words[1:])
    process = _Process(arguments, {**os.environ, **environment})
    with process.here(), _handing_over():
        try:
            if module:
                runpy.run_module(arguments[0], run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(str(Path(home, arguments[0])), run_name="__main__")
        except _Begun as begun:
            coroutine = begun.coroutine
        else:
            message = (
                f"{shlex.join(words)}: it ended without asyncio.run(…): only asyncio programs"
                " can be simulated"
            )
            raise ConfigError(message)
    await _Inside(coroutine, process)


class _Process:
    """What a process has of its own and all hosts share here: arguments and environment."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment

    @contextmanager
    def here(self) -> Iterator[None]:
        """Let what runs in the block see them, and keep what it makes of them."""
        argv, environ = sys.argv, dict(os.environ)
        sys.argv = self._arguments
        _set_environment(self._environment)
        try:
            yield
        finally:
            self._arguments, self._environment = sys.argv, dict(os.environ)
            sys.argv = argv
            _set_environment(environ)


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


class _Inside:
    """Awaits a coroutine, each of whose steps is taken inside its process.

    Tasks that it starts find the arguments and the environment of whoever runs the drill.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], process: _Process) -> None:
        self._coroutine = coroutine
        self._process = process

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            with self._process.here():
                try:
                    waited = step()
                except StopIteration as end:
                    return end.value
            try:
                step = partial(self._coroutine.send, (yield waited))
            except BaseException as error:
                step = partial(self._coroutine.throw, error)


@contextmanager
def _handing_over() -> Iterator[None]:
    """Let ``asyncio.run`` hand its coroutine to us until the block ends."""
    run, runner = asyncio.run, asyncio.Runner.run

    def run_here(main: Any, **_: Any) -> NoReturn:
        raise _Begun(main)

    def runner_run_here(_self: Any, coro: Any, **_: Any) -> NoReturn:
        raise _Begun(coro)

    asyncio.run = run_here
    asyncio.Runner.run = runner_run_here  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        asyncio.run = run
        asyncio.Runner.run = runner  # type: ignore[method-assign]
