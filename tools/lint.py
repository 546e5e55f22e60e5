"""Run every linter over the whole tree and say which of them object.

`python tools/lint.py` runs all of them; `python tools/lint.py imports types` only those named.
The tests in tests/tidy call the same functions, so CI and people see the same verdict.
"""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPED = ("src", "tools", "tests/typing")


def run(*command: str) -> tuple[bool, str]:
    """Run a program of this environment at the root; return whether it agreed and its output."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def style() -> tuple[bool, str]:
    """Rules of ruff, and its format."""
    agreed, text = run("ruff", "check", "--quiet", ".")
    formatted, diff = run("ruff", "format", "--check", "--quiet", ".")
    return agreed and formatted, "\n".join(part for part in (text, diff) if part)


def types() -> tuple[bool, str]:
    """Strict mypy over what ships and what users' programs would see."""
    return run("mypy", *(name for name in TYPED if any((ROOT / name).rglob("*.py"))))


def types_second() -> tuple[bool, str]:
    """The second type checker that users run, over tests/typing."""
    if not any((ROOT / "tests/typing").rglob("*.py")):
        return True, ""
    return run("basedpyright", "--level", "error")


def contracts() -> list[str]:
    """Ids of the import contracts all of whose rooms are written (the linter rejects others)."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return [
        contract["id"]
        for contract in listed
        if all(
            written(module)
            for key in ("protected_modules", "allowed_importers")
            for module in contract.get(key, [])
        )
    ]


def written(module: str) -> bool:
    """Whether a module of ours exists in src."""
    path = ROOT / "src" / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports() -> tuple[bool, str]:
    """Room layers and purity of cores."""
    chosen = [part for name in contracts() for part in ("--contract", name)]
    return run("lint-imports", "--no-cache", *chosen)


LINTERS: dict[str, Callable[[], tuple[bool, str]]] = {
    "style": style,
    "imports": imports,
    "types": types,
    "types_second": types_second,
}


def main(names: list[str]) -> int:
    """Run the named linters, or all; return 1 if any objects."""
    unknown = sorted(set(names) - LINTERS.keys())
    if unknown:
        print(f"tools/lint.py: no linter {unknown[0]!r}; there are {', '.join(LINTERS)}")
        return 2
    objections = 0
    for name in names or LINTERS:
        agreed, text = LINTERS[name]()
        print(f"{name}: {'ok' if agreed else 'objects'}")
        if not agreed:
            objections += 1
            print(text)
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
