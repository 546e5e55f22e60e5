"""The public interface is a text file that is reviewed as a diff, and all of it is documented."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import outlast
from outlast.kernel import errors
from outlast.kernel.events import Event
from tools import errors_page

LISTING = Path(__file__).with_name("public_api.txt")


def rooms() -> list[str]:
    """The package and its rooms, by name."""
    found = pkgutil.iter_modules(outlast.__path__, "outlast.")
    return ["outlast", *(info.name for info in found if not info.name.endswith("__main__"))]


def describe(name: str, value: Any) -> str:
    """One line for a public name: its kind, and what a caller must know."""
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        return f"class {name}({bases})" if bases else f"class {name}"
    if inspect.isfunction(value):
        prefix = "async def" if inspect.iscoroutinefunction(value) else "def"
        return f"{prefix} {name}({', '.join(parameters(value))})"
    if isinstance(value, ModuleType):
        return f"module {name}"
    return name


def parameters(function: Any) -> Iterator[str]:
    """Parameter names with their stars, and `=` where there is a default."""
    star_seen = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            star_seen = True
            yield f"*{parameter.name}"
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star_seen:
            star_seen = True
            yield "*"
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else "="
        yield f"{stars}{parameter.name}{default}"


BESIDE = {"outlast": ("open",)}
"""What is public, too, and left out of star imports lest it hide a builtin."""


def listing() -> str:
    """The names in `__all__` of the package and of every room that has one."""
    parts = []
    for room in rooms():
        module = importlib.import_module(room)
        public = [*getattr(module, "__all__", ()), *BESIDE.get(room, ())]
        names = sorted(public, key=str.lower)
        if names:
            lines = [f"  {describe(name, getattr(module, name))}" for name in names]
            parts.append("\n".join([room, *lines]))
    return "\n\n".join(parts) + "\n"


def test_public_interface_is_the_listed_one(golden: Any) -> None:
    golden(LISTING, listing())


def test_every_room_says_what_it_offers() -> None:
    missing = [
        room
        for room in rooms()
        if room != "outlast" and not hasattr(importlib.import_module(room), "__all__")
    ]
    assert not missing, f"rooms without __all__: {missing}"


def modules() -> list[ModuleType]:
    """Every module of ours, imported."""
    found = pkgutil.walk_packages(outlast.__path__, "outlast.")
    names = (info.name for info in found if not info.name.endswith("__main__"))
    return [importlib.import_module(name) for name in names]


def family(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from family(child)


def test_every_event_says_what_it_means() -> None:
    assert modules()
    ours = [cls for cls in family(Event) if cls.__module__.startswith("outlast.")]
    silent = [f"{cls.__module__}.{cls.__qualname__}" for cls in ours if not written_docstring(cls)]
    assert not silent, f"events without a docstring of their own: {silent}"


def written_docstring(cls: type) -> bool:
    """Whether a class has a docstring that somebody wrote, and not the one of @dataclass."""
    text = cls.__dict__.get("__doc__") or ""
    return bool(text) and not text.startswith(f"{cls.__name__}(")


def test_every_error_is_on_the_errors_page(golden: Any) -> None:
    listed = {row.name for row in errors.ERROR_TABLE}
    written = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.OutlastError)
    }
    assert listed == written
    golden(errors_page.PAGE, errors_page.page())


def test_every_error_of_ours_comes_from_the_kernel() -> None:
    """Errors elsewhere would be missing on the page, unless they are private to a program."""
    assert modules()
    stray = [
        f"{cls.__module__}.{cls.__qualname__}"
        for cls in family(errors.OutlastError)
        if cls.__module__.startswith("outlast.") and cls.__module__ != errors.__name__
        if not cls.__name__.startswith("_")
        if not cls.__module__.startswith(("outlast.state.ready.", "outlast.drill.machine"))
    ]
    assert not stray, f"public errors outside outlast.kernel.errors: {stray}"
