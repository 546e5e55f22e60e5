"""The program of a supervised Python function: ``python -P child_main.py``, its order as input.

The order comes from the supervisor through a nameless file of its own, so it is trusted like its
code. The module path is the supervisor's. A function of the file that is the supervisor's program
is found by running that file under the name ``__mp_main__``, as ``multiprocessing`` does: what
stands behind ``if __name__ == "__main__"`` is not run.
"""

import os
import pickle
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def find(module: str, qualified: str, main_path: str, file: str) -> "Callable[..., Any]":
    """Import the function."""
    if module == "__main__":
        import runpy
        from types import ModuleType

        main = ModuleType("__mp_main__")
        main.__dict__.update(runpy.run_path(main_path, run_name="__mp_main__"))
        sys.modules["__mp_main__"] = sys.modules["__main__"] = main
        found: Any = main
    else:
        found = load(module, file)
    for part in qualified.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def load(module: str, file: str) -> "Any":
    """Import a module by name, or from its file if the supervisor had it by no path."""
    from importlib import import_module, util

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        spec = util.spec_from_file_location(module, file) if file else None
        if error.name != module or spec is None or spec.loader is None:
            raise
        found = sys.modules[module] = util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found


def main() -> None:
    """Read the order, import the function, call it."""
    with open(0, "rb", closefd=False) as file:
        order = pickle.load(file)  # noqa: S301 - written by our own supervisor
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        sys.path[:] = order["path"]
        sys.argv[:] = [order["name"]]
        function = find(order["module"], order["function"], order["main"], order["file"])
        args = pickle.loads(order["args"])  # noqa: S301 - the same
    function(*args)


if __name__ == "__main__":
    main()
