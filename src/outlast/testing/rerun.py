"""Run drawn commands in another process under another hash seed: ``python -m … < script``.

The order in which a set is iterated follows from hashes of text, which Python seeds per process.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import msgspec

from outlast.kernel import ConfigError
from outlast.state.context import Context
from outlast.state.runner import Runner
from outlast.state.spec import MachineSpec, machine_spec

_SECONDS_MAX = 60.0


class Script(msgspec.Struct, array_like=True):
    """What the other process is told: where the class is, where to start, what to call."""

    module: str
    file: str
    name: str
    path: list[str]
    chunks: list[bytes]
    steps: list[tuple[str, bytes, int, int, int, int]]


class Transcript(msgspec.Struct, array_like=True):
    """What it answers."""

    answers: list[tuple[int, bytes]]
    digest: bytes


def rerun(
    spec: MachineSpec, chunks: list[bytes], steps: Sequence[Any]
) -> tuple[list[tuple[int, bytes]], bytes] | None:
    """Run ``steps`` on the state in ``chunks`` in another process.

    Returns:
        Its answers and the digest at the end, or ``None`` when the class cannot be imported
        there because it was defined inside a function.

    Raises:
        ConfigError: The other process failed; the line is what it said last.
    """
    cls = spec.cls
    if "<locals>" in cls.__qualname__:
        return None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    if cls.__module__ == "__main__" and not file:
        return None
    script = Script(
        cls.__module__, file, cls.__qualname__, sys.path, chunks, [tuple(step) for step in steps]
    )
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "outlast.testing.rerun"],
        input=msgspec.msgpack.encode(script),
        capture_output=True,
        timeout=_SECONDS_MAX,
        check=False,
        env={
            **os.environ,
            "PYTHONHASHSEED": other,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise ConfigError(
            f"{spec.place}: a process with another hash seed could not run it: {said[-1]}"
        )
    answer = msgspec.msgpack.decode(done.stdout, type=Transcript)
    return answer.answers, answer.digest


def _class_of(script: Script) -> Any:
    """Find the class: by file, as the program under test may be no importable module."""
    if script.module != "__main__" and not script.file.endswith(".py"):
        found: Any = import_module(script.module)
    else:
        name = script.module if script.module != "__main__" else "__outlast_main__"
        found = sys.modules.get(name)
        if found is None:
            place = spec_from_file_location(name, script.file)
            if place is None or place.loader is None:
                raise ConfigError(f"{script.file} cannot be imported")
            found = module_from_spec(place)
            sys.modules[name] = found
            place.loader.exec_module(found)
    for part in script.name.split("."):
        found = getattr(found, part)
    return found


def main() -> None:
    """Read a script from standard input and write the transcript to standard output."""
    script = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Script)
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # what the user's module prints must not mix with the answer
    sys.path[:] = script.path
    spec = machine_spec(_class_of(script))
    runner = Runner(spec)
    runner.restore(script.chunks, version=spec.version, schema=spec.schema)
    answers = []
    for name, args, *rest in script.steps:
        run = runner.query if name in spec.queries else runner.execute
        answers.append(run(name, args, Context(*rest)))
    output.write(msgspec.msgpack.encode(Transcript(answers, runner.digest())))
    output.flush()


if __name__ == "__main__":
    main()
