"""Progress of a campaign on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from outlast.testing.campaign import View

_SAY_EVERY = 10.0
_HOUR = 3600.0


class SimScreen:
    """Shows a campaign while it runs; the report comes on stdout."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._next = _SAY_EVERY

    def __enter__(self) -> Self:
        """Begin."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            # The very file: a campaign in this process puts another in the place of sys.stderr.
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                console=Console(file=sys.stderr),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; the bar goes."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, view: "View") -> None:
        """Show the campaign as it is now."""
        if self._bar is not None:
            what = view.name if view.phase == "running" else f"{view.name}: {view.phase}"
            if self._task is None:
                self._task = self._bar.add_task(what, total=view.planned, speed="")
            self._bar.update(
                self._task, completed=view.done, description=what, speed=speed_line(view)
            )
            self._bar.refresh()
        elif view.elapsed >= self._next:
            self._next = view.elapsed + _SAY_EVERY
            of = "" if view.planned is None else f" of {view.planned:,}"
            print(
                f"{view.name}: {view.phase}, {view.done:,}{of} seeds, {speed_line(view)}",
                file=sys.stderr,
                flush=True,
            )


def speed_line(view: "View") -> str:
    """Return how quickly it goes, how much virtual time has passed, and what failed."""
    real = max(view.elapsed, 1e-9)
    failed = f", {view.failed} FAILED" if view.failed else ""
    return (
        f"{view.done / real:,.1f} seeds/s, {view.virtual / _HOUR:,.2f} virtual h,"
        f" {view.virtual / real:,.0f} × real time{failed}"
    )
