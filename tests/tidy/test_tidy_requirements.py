"""The pins of `requirements/` are whole: what an installed one needs is pinned, too."""

from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).resolve().parents[2] / "requirements"


def pins(file: str) -> dict[str, str]:
    """Return versions by name, of a file and of those that it includes."""
    found: dict[str, str] = {}
    for line in (FOLDER / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found |= pins(line[3:])
        elif "==" in line:
            name, _, version = line.partition("==")
            found[canonicalize_name(name)] = version.partition(";")[0].strip()
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.txt")))
def test_what_a_pinned_package_needs_is_pinned_and_fits(file: str) -> None:
    pinned = pins(file)
    assert pinned
    wrong: list[str] = []
    for name in pinned:
        try:
            needs = [Requirement(one) for one in requires(name) or ()]
        except PackageNotFoundError:
            continue  # peers of benchmarks are installed by `make bench` only
        for need in needs:
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            version = pinned.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, prereleases=True):
                wrong.append(f"{name} needs {need}; pinned: {version}")
    assert not wrong
