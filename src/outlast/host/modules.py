"""Python files and modules by the name that people type, with one line when it does not work."""

import importlib.util
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from outlast.kernel import ConfigError


def load_file(
    path: Path, *, until: type[BaseException] | tuple[()] = (), form: str = "FILE.py:Class"
) -> ModuleType:
    """Run a Python file as a module and return it.

    Args:
        path: The file. Its directory is put first on ``sys.path``; where people stand is put
            last, as ``python -m`` has it.
        until: What the file may raise to say that nothing after it is wanted: what was defined
            before stands in the module.
        form: What people should have written, for messages.

    Raises:
        ConfigError: No such file (near names are offered), or what it raised, with its line.
    """
    if not path.is_file():
        folder = path.parent
        near = get_close_matches(path.name, [p.name for p in folder.glob("*.py")] or [], 1, 0.5)
        hint = f"; did you mean {folder / near[0]}?" if near else f"; write {form}"
        raise ConfigError(f"{path}: no such file{hint}")
    path = path.resolve()
    name = path.stem
    kept = sys.modules.get(name)
    if kept is not None:
        file = getattr(kept, "__file__", None)
        if file is not None and Path(file).resolve() == path:
            return kept
        name = f"outlast_machine_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported as Python; write {form}")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    here = str(Path.cwd())
    if not {here, ""} & {*sys.path}:
        sys.path.append(here)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except until:
        pass
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ConfigError) or not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(import_line(error, str(path))) from error
    return module


def import_line(error: BaseException, file: str) -> str:
    """Say what the user's file raised, at the deepest line that is in it."""
    said = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or file).name}:{error.lineno}: SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    frames[:] = [frame for frame in frames if "importlib" not in frame.filename]
    own = [frame for frame in frames if not file or Path(frame.filename) == Path(file)]
    for frame in reversed(own or frames):
        return f"{Path(frame.filename).name}:{frame.lineno}: {said}"
    return f"{file}: {said}"
