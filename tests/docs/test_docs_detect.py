"""The pages about noticing failure: what stands on them runs."""

import contextlib
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.pages import FENCE, Time, run, run_page

pytestmark = pytest.mark.timeout(180)

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    *sorted(path for path in (DOCS / "reference" / "detect").glob("*.md") if path.stem != "index"),
    DOCS / "reference" / "pool.md",
    DOCS / "how-to" / "detect.md",
]
NAMED = {
    "detectors", "membership", "health", "serving-health", "watchdogs", "supervision",
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_stands_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


def test_there_is_a_page_for_each_part() -> None:
    assert {page.stem for page in PAGES if page.parent.name == "detect"} == NAMED


def test_what_the_readme_shows_of_detection_runs() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    [shown] = [body for kind, body in FENCE.findall(readme) if "tree = Supervisor(" in body]
    module = ModuleType("readme_detect")
    time = Time()
    with contextlib.closing(time):
        run(shown, module, time)
        assert module.health.read("readiness").results[0].name == "queue"
        assert module.shop.addresses == ("http://a:8080", "http://b:8080")
        assert "worker command new" in str(module.tree)
