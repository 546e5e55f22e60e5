"""Progress of a drill on stderr: a bar with a live table on a terminal, lines elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from outlast.drill.watching import View

_LINES = 10
_SAY_EVERY = 5.0


class DrillScreen:
    """Shows a drill while it runs; the result comes on stdout.

    Args:
        seed: Printed first, so that an interrupted drill can be repeated.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._live: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._told = 0
        self._next = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        print(f"seed {self._seed}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(40), TimeElapsedColumn()
            )
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; the table goes."""
        if self._live is not None:
            self._live.stop()

    def show(self, view: "View") -> None:
        """Show the view as it is now. Called from the drill's thread, one call at a time."""
        if self._live is not None:
            self._live.update(self._picture(view), refresh=True)
            return
        lines = [] if view.phase == self._phase else [view.phase]
        self._phase = view.phase
        lines += view.said[self._told :]
        self._told = len(view.said)
        if view.elapsed >= self._next and view.phase == "under load":
            self._next = view.elapsed + _SAY_EVERY
            lines.append(load_line(view))
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def _picture(self, view: "View") -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if self._task is None:
            self._task = self._bar.add_task(view.phase, total=view.seconds)
        self._bar.update(self._task, completed=view.elapsed, description=view.phase)
        nodes = Table("node", "state", "term", "applied", "starts", box=None)
        for row in view.nodes:
            style = {"leader": "bold", "down": "dim", "paused": "dim"}.get(row.state, "")
            nodes.add_row(
                row.name,
                row.state,
                "-" if row.term is None else str(row.term),
                "-" if row.applied is None else f"{row.applied:,}",
                str(row.starts),
                style=style,
            )
        now = f"now: {view.fault} on {' '.join(view.victims)}" if view.fault else "now: no fault"
        said = [Text(line) for line in view.said[-_LINES:]]
        return Group(self._bar, nodes, Text(load_line(view)), Text(now), *said)


def load_line(view: "View") -> str:
    """Return load and faults so far."""
    return (
        f"{view.elapsed:5.1f} of {view.seconds:g} s  {view.ok:,} acknowledged"
        f" ({view.rate:,.0f}/s), {view.fail:,} refused, {view.info:,} unknown,"
        f" fault {view.injected} of {view.planned}"
    )
