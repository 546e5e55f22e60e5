"""Runs the demonstration and draws what it showed at the end, for the README.

python -m tools.demo_picture [--seconds 30] [--to docs/_static/demo.svg]
"""

import argparse
import asyncio
import io
import re
import tempfile
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from outlast.cli import show
from outlast.cluster import LocalCluster
from outlast.cluster.connect import connect
from outlast.drill import Demo, DemoView
from outlast.host import make_world

_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


async def run(seconds: float) -> DemoView:
    """Run the demonstration once, in a directory that is gone afterwards."""
    world = make_world()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="demo-") as folder:
        cluster = LocalCluster(world, "bank", folder, port=0, http_port=None)
        demo = Demo(world, cluster, lambda: connect(None, cluster.addresses), seconds=seconds)
        return await demo.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--to", type=Path, default=Path("docs/_static/demo.svg"))
    chosen = parser.parse_args()
    view = asyncio.run(run(chosen.seconds))
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(
        Group(show.demo_table(view), Text(), Text(show.demo_text(view).splitlines()[-2]))
    )
    console.print(Text(show.sentence(view), style="bold"))
    chosen.to.parent.mkdir(parents=True, exist_ok=True)
    drawn = console.export_svg(title="outlast demo")
    chosen.to.write_text(_FONTS.sub("", drawn), encoding="utf-8")  # any fixed-width font will do
    print(show.demo_text(view))


if __name__ == "__main__":
    main()
