"""The command line: reads arguments, calls one function, prints, sets the exit code.

Anything here can be done from Python in one call.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

EXIT_OK = 0
EXIT_NO = 1
EXIT_CANNOT = 2
EXIT_UNKNOWN = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: done, and the answer is no (a command raised, a demonstration failed, data is
    damaged). 2: could not be done; nothing happened. 3: it may have happened, or nothing was
    proven. 130: interrupted. Errors are one line on stderr; ``OUTLAST_DEBUG=1`` adds the
    traceback.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone: nobody to tell, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        return complain(error)


def _run(arguments: list[str]) -> int:
    try:
        from cyclopts import CycloptsError

        from outlast.cli.app import make_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "outlast":
            raise
        return say(f'the command line needs {error.name}: pip install "outlast[cluster]"')
    app = make_app(show_config="--show-config" in arguments)
    arguments = [argument for argument in arguments if argument != "--show-config"]
    try:
        result: Any = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return say(_usage(error))
    return result if isinstance(result, int) else EXIT_OK


def _usage(error: Any) -> str:
    """Say what is wrong with the arguments, and where to look."""
    from cyclopts import MissingArgumentError

    if isinstance(error, MissingArgumentError) and error.argument is not None:
        command = " ".join(("outlast", *(error.command_chain or ())))
        return f"{error.argument.name} is missing; `{command} --help` shows how"
    return _one_line(error)


def complain(error: Exception) -> int:
    """Print ``error`` as one line on stderr and return the exit code that fits."""
    if os.environ.get("OUTLAST_DEBUG", "") not in {"", "0"}:
        import traceback

        traceback.print_exception(error)
    from outlast.kernel import CommandError, IndefiniteError, InvariantError, OutlastError

    if isinstance(error, CommandError):
        name = error.type_name or type(error).__name__
        return say(f"{name}: {_one_line(error)}", EXIT_NO)
    if isinstance(error, IndefiniteError):
        return say(_one_line(error), EXIT_UNKNOWN)
    expected = isinstance(error, OutlastError) and not isinstance(error, InvariantError)
    if expected or isinstance(error, OSError):
        return say(_one_line(error))
    return say(
        f"internal error: {type(error).__name__}: {_one_line(error)};"
        " OUTLAST_DEBUG=1 shows where; please report it"
    )


def say(line: str, code: int = EXIT_CANNOT) -> int:
    """Print one line about what went wrong on stderr and return ``code``."""
    print(f"outlast: {line}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


__all__ = ["main"]
