"""From ``drill_shop.py:Shop`` or ``bank`` on a command line to the class."""

import importlib.util
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from outlast.drill.api import Drill
from outlast.drill.running import LoadedSoFar, loading
from outlast.kernel import ConfigError

READY = ("bank",)
"""Drills by a short name."""


def load_drill(target: str) -> type[Drill]:
    """Return the drill class that ``FILE.py:Class`` names.

    The class may be left out when the file has one. A file that runs its drill at its end is
    loaded up to there.

    Raises:
        ConfigError: Definite. No such file or class, the file raised, or it is not a Drill.
    """
    place, _, name = target.rpartition(":")
    if name.endswith(".py") or not place:
        place, name = target, ""
    if not place.endswith(".py"):
        near = get_close_matches(target, READY, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(READY)}"
        raise ConfigError(f"drill {target!r}: {hint} Or write FILE.py:Class")
    path = Path(place)
    if not path.is_file():
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], 1, 0.5)
        hint = f"did you mean {path.parent / near[0]}?" if near else "write FILE.py:Class"
        raise ConfigError(f"{place}: no such file; {hint}")
    return _chosen(place, name, _load(path.resolve()))


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path.name}: cannot be imported as Python; write FILE.py:Class")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module
    loading.append(True)
    try:
        spec.loader.exec_module(module)
    except LoadedSoFar:
        pass
    except ConfigError:
        raise
    except SyntaxError as error:
        message = f"{path.name}:{error.lineno}: SyntaxError: {error.msg}"
        raise ConfigError(message) from error
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        message = f"{path.name}{line}: {type(error).__name__}: {error}".rstrip(": ")
        raise ConfigError(message) from error
    finally:
        loading.pop()
    return module


def _chosen(place: str, name: str, module: ModuleType) -> type[Drill]:
    drills = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Drill)
        and value.__module__ == module.__name__
    }
    if name:
        if name in drills:
            return drills[name]
        if name in vars(module):
            raise ConfigError(f"{place}:{name} is not a Drill; write class {name}(drill.Drill)")
        near = get_close_matches(name, drills, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(drills) or 'none'}"
        raise ConfigError(f"{place}: no drill {name!r}; {hint}")
    if len(drills) != 1:
        found = ", ".join(drills) or "none"
        raise ConfigError(f"{place}: which drill? It has {found}; write {place}:Class")
    return next(iter(drills.values()))
