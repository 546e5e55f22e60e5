"""A best-effort look at the source of commands for what differs between replicas.

It reads the syntax tree: it finds ``time.time()`` and ``from random import choice`` in a
command or in what the command calls on ``self``, and it does not find what a library does
inside. What runs is judged by ``outlast.testing.check_machine``.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from outlast.state.machine import Operation, StateMachine

_INSTEAD = {
    "time": "use self.ctx.now_ns",
    "datetime": "use self.ctx.now",
    "random": "use self.ctx.random",
    "secrets": "a replicated value is no secret; use self.ctx.random, or pass it as an argument",
    "uuid": "pass the id as an argument, or build it from self.ctx.random",
    "os": "pass what it reads as an argument",
    "socket": "talk to the network before the command and pass the answer as an argument",
    "threading": "a command runs alone; do without threads",
    "asyncio": "a command runs at once; do without tasks",
    "subprocess": "run it before the command and pass the answer as an argument",
    "requests": "ask before the command and pass the answer as an argument",
    "httpx": "ask before the command and pass the answer as an argument",
}
_ONLY = {
    "datetime": {"now", "utcnow", "today"},
    "uuid": {"uuid1", "uuid4", "getnode"},
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "localtime", "sleep"),
    },
    "os": {
        *("urandom", "getrandom", "getenv", "environ", "getpid", "getcwd", "listdir", "scandir"),
        *("stat", "walk", "cpu_count", "system", "popen"),
    },
}
_NEVER = {"random": {"Random"}}  # a generator that is seeded by the command is repeatable
_BUILTINS = {
    "hash": "hash() of text differs between processes; use hashlib",
    "id": "id() is an address; use a key of the state",
    "open": "read it before the command and pass the content as an argument",
    "input": "ask before the command and pass the answer as an argument",
}
_SETS = "iteration order differs between nodes; use dict.fromkeys(…) or sorted(…)"


class Hint(NamedTuple):
    """One suspicious place: the operation, its line, what was found, and what to do."""

    operation: str
    line: int
    found: str
    instead: str


def source_hints(cls: type[StateMachine]) -> list[Hint]:
    """Return the suspicious calls in the commands of ``cls`` and the methods they call on self.

    Nothing is found in a class whose source cannot be read.
    """
    methods: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, StateMachine) and base is not StateMachine:
            methods.update(vars(base))
    hints: list[Hint] = []
    for name, value in methods.items():
        if isinstance(value, Operation) and value.kind == "command":
            hints.extend(_command_hints(name, methods))
    return hints


def _command_hints(command: str, methods: dict[str, Any]) -> Iterator[Hint]:
    queue, seen = [command], {command: None}
    while queue:
        member = methods[queue.pop()]
        function = member.function if isinstance(member, Operation) else member
        try:
            lines, first = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            called = _self_call(node)
            if called in methods and called not in seen:
                seen[called] = None
                queue.append(called)
            found = _suspicious(node, function.__globals__)
            if found:
                yield Hint(command, first + getattr(node, "lineno", 1) - 1, *found)


def _self_call(node: ast.AST) -> str:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id == "self":
            return node.func.attr
    return ""


def _imported(node: ast.Import | ast.ImportFrom) -> tuple[str, str] | None:
    if isinstance(node, ast.ImportFrom):
        modules = [node.module or ""]
    else:
        modules = [alias.name for alias in node.names]
    for module in modules:
        root = module.partition(".")[0]
        if root in _INSTEAD:
            return f"import of {root}", _INSTEAD[root]
    return None


def _suspicious(node: ast.AST, names: dict[str, Any]) -> tuple[str, str] | None:
    if isinstance(node, ast.For | ast.comprehension):
        over = node.iter
        is_set = isinstance(over, ast.Set | ast.SetComp) or (
            isinstance(over, ast.Call)
            and isinstance(over.func, ast.Name)
            and over.func.id in {"set", "frozenset"}
        )
        return ("iteration over a set", _SETS) if is_set else None
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _imported(node)
    if not isinstance(node, ast.Call):
        return None
    text = ast.unparse(node.func)
    root, _, _ = text.partition(".")
    if text in _BUILTINS and text not in names:
        return f"{text}()", _BUILTINS[text]
    value = names.get(root)
    if value is None:
        return None
    module = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "") or ""
    module = module.partition(".")[0].lstrip("_")
    if module == "posix":
        module = "os"
    if inspect.ismethod(value) and type(value.__self__).__name__ == "Random":
        module = "random"
    parts = {getattr(value, "__name__", ""), *text.split(".")}
    if module not in _INSTEAD or parts & _NEVER.get(module, set()):
        return None
    if not parts & _ONLY.get(module, parts):
        return None
    return f"{text}()", _INSTEAD[module]
