"""Takes pictures of a drill's report with headless Chromium, for the README and for looking.

python -m tools.report_picture REPORT.html            docs/_static/report.png and report-dark.png
python -m tools.report_picture REPORT.html --all DIR  all of it, 1280, 768 and 360 px wide
python -m tools.report_picture --samples DIR          made-up reports to look at, as pages
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STATIC = Path("docs/_static")
WIDTHS = (1280, 768, 360)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


def browser() -> str | None:
    """Return the path of a browser that is installed, or ``None``."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def shoot(
    page: Path, to: Path, *, width: int, height: int, dark: bool = False, scale: int = 1
) -> None:
    """Take one picture of the top ``height`` pixels of ``page``, with nothing but loopback.

    Raises:
        FileNotFoundError: No browser is installed, or it took no picture.
    """
    program = browser()
    if program is None:
        raise FileNotFoundError(f"none of {', '.join(_BROWSERS)} is installed")
    with tempfile.TemporaryDirectory(prefix="report-picture-") as profile:
        command = [
            program, *_FLAGS, f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--force-device-scale-factor={scale}", f"--window-size={width},{height}",
            f"--screenshot={to.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, check=True, timeout=120)
    if not to.exists():
        raise FileNotFoundError(f"{program} took no picture of {page}")


def samples(folder: Path) -> list[Path]:
    """Write the made-up reports of the tests as pages into ``folder``."""
    from outlast.drill.page import page
    from tests.support.drill_reports import SAMPLES

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in SAMPLES.items():
        to = folder / f"{name}.html"
        to.write_text(page(make()), encoding="utf-8")
        written.append(to)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("--samples", type=Path, metavar="DIR")
    parser.add_argument("--all", type=Path, metavar="DIR")
    parser.add_argument("--to", type=Path, default=STATIC / "report.png")
    parser.add_argument("--height", type=int, default=1500)
    chosen = parser.parse_args()
    if chosen.samples:
        for written in samples(chosen.samples):
            print(f"{written}: {written.stat().st_size:,} bytes")
        return 0
    if chosen.report is None:
        parser.error("name a report, as `outlast drill --report FILE.html` writes it")
    if browser() is None:
        print(f"no picture taken: none of {', '.join(_BROWSERS)} is installed", file=sys.stderr)
        return 2
    if chosen.all:
        chosen.all.mkdir(parents=True, exist_ok=True)
        for width in WIDTHS:
            for dark in (False, True):
                to = chosen.all / f"{chosen.report.stem}-{width}{'-dark' if dark else ''}.png"
                shoot(chosen.report, to, width=width, height=10 * 640, dark=dark)
                print(to)
        return 0
    for dark in (False, True):
        to = chosen.to.with_stem(chosen.to.stem + "-dark") if dark else chosen.to
        to.parent.mkdir(parents=True, exist_ok=True)
        shoot(chosen.report, to, width=1120, height=chosen.height, dark=dark, scale=2)
        print(f"{to}: {to.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
