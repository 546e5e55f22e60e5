"""Print `docs/reference/errors.md` from the table of errors, so that they cannot drift apart.

`python tools/errors_page.py` writes the file; a test in tests/tidy compares it.
"""

from pathlib import Path

from outlast.kernel.errors import ERROR_TABLE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "errors.md"

HEAD = """\
# Errors

Each error answers one question: did the operation happen? `error.happened` is `no` (surely no
effect, now or later: safe to repeat), `maybe` (it may have had an effect or may yet have one:
repeat only within a session) or `yes` (it was carried out and the error is its answer).
`outlast.happened(exception)` also answers for exceptions of other libraries.

<!-- Written by tools/errors_page.py from outlast.kernel.errors.ERROR_TABLE. -->

| error | happened | is a | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Return the text of the page."""
    rows = (
        f"| `{row.name}` | {row.happened} | {bases(row.bases)} | {cell(row.meaning)} |\n"
        for row in ERROR_TABLE
    )
    return HEAD + "".join(rows)


def bases(names: str) -> str:
    """A cell for the classes that an error derives from: a reader sees what catches it."""
    return ", ".join(f"`{name}`" for name in names.split(", "))


def cell(text: str) -> str:
    """Text that cannot end its table cell early; docstrings quote code with two backticks."""
    return text.replace("|", "\\|").replace("``", "`")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
