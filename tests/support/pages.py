"""Pages of the documentation: what stands on them runs as it stands there.

The blocks of a page run one after another in one namespace, in virtual time. A block with
``await`` at its top level runs as the main coroutine of a simulation of its own; the blocks
between two of them share one time. A block whose first line begins with ``# real`` runs on the
real machine. Tests that a block defines are run. What a block prints must be what the ``text``
block behind it shows (``…`` for anything). A ``toml`` block is the file that its first line
names. A block whose first line begins with ``# before`` or ``# not run`` is not run.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from outlast import sim
from outlast.testing.virtual import VirtualTime, virtual_time

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)


def run_page(page: Path, folder: Path) -> None:
    """Run every block of a page.

    Args:
        page: The page.
        folder: Where files go that the page shows.
    """
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module
    ran = 0
    printed: str | None = None
    time = Time()
    try:
        for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
            block = dedent(body)
            if kind == "python" and not block.startswith(("# before", "# not run")):
                printed = run(block, module, time) or None
                ran += 1
            elif kind == "toml":
                (folder / block.split()[1]).write_text(block, encoding="utf-8")
            elif kind == "text" and printed is not None:
                check_printed(block, printed, page)
                printed = None
            else:
                printed = None
    finally:
        time.close()
        del sys.modules[module.__name__]
    assert ran, "nothing ran"


class Time:
    """The virtual time that blocks share; whether it is under way."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._begun = False

    def begin(self) -> None:
        if not self._begun:
            self._stack.enter_context(virtual_time(seed=1))
        self._begun = True

    def close(self) -> None:
        self._stack.close()
        self._begun = False


def run(block: str, module: ModuleType, time: "Time") -> str:
    """Run one block, and the tests that it defines; return what it printed.

    Args:
        block: The source.
        module: Its namespace.
        time: Holds the virtual time of blocks without ``await``, if any is under way.
    """
    code = compile(block, module.__name__, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    awaits = bool(code.co_flags & inspect.CO_COROUTINE)
    tests = re.findall(r"^(?:async )?def (test_\w+)", block, re.MULTILINE)
    real = block.startswith("# real")
    if awaits or tests or real:
        time.close()
    else:
        time.begin()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if awaits:

            async def main() -> None:
                await eval(code, vars(module))  # noqa: S307 - our own page

            if real:
                asyncio.run(main())
            else:
                sim.run(main, seed=1)
        else:
            exec(code, vars(module))  # noqa: S102 - our own page
    for name in tests:
        run_test(getattr(module, name))
    return out.getvalue()


def run_test(function: Callable[..., Any]) -> None:
    wanted = inspect.signature(function).parameters
    assert set(wanted) <= {"virtual_time"}, f"a fixture that is not known here: {wanted}"
    if "virtual_time" in wanted:
        clock = VirtualTime(1)
        with clock.running():
            function(clock)
    else:
        function()


def check_printed(wanted: str, printed: str, page: Path) -> None:
    pattern = ".*".join(re.escape(part) for part in wanted.strip().split("…"))
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    assert found, f"{page.name} shows\n{wanted}\nand this was printed:\n{printed}"
