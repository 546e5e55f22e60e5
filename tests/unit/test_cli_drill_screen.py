"""Progress of a drill: lines that do not repeat, or a live table where there is a terminal."""

import io
import sys
from dataclasses import replace

import pytest

from outlast.cli.drill_screen import DrillScreen, load_line
from outlast.drill.watching import NodeView, View

VIEW = View(
    "bank", 60.0, "under load", 12.0, planned=9, injected=2, ok=1_234, fail=5, info=6, rate=103.0,
    nodes=[NodeView("n1", "leader", 3, 4_711, 2), NodeView("n2", "down")],
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(capsys: pytest.CaptureFixture[str], *views: View) -> list[str]:
    with DrillScreen(7) as screen:
        for view in views:
            screen.show(view)
    out, err = capsys.readouterr()
    assert out == "", "stdout is for the result"
    return err.splitlines()


def test_the_seed_comes_first_so_that_an_interrupted_drill_can_be_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lines_of(capsys) == ["seed 7"]


def test_a_phase_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    starting = View("bank", 60.0)
    loaded = replace(VIEW, elapsed=0.0)
    said = lines_of(capsys, starting, starting, starting, loaded, loaded, starting)
    assert said[1:] == [
        "starting the nodes",
        "under load",
        load_line(loaded),
        "starting the nodes",
    ]


def test_the_load_is_told_every_five_seconds_and_only_under_load(
    capsys: pytest.CaptureFixture[str],
) -> None:
    views = [replace(VIEW, elapsed=n / 10) for n in range(125)]
    said = lines_of(capsys, *views, replace(VIEW, phase="final reads", elapsed=60.0))
    told = [line for line in said if " acknowledged " in line]
    assert [line.split()[0] for line in told] == ["0.0", "5.0", "10.0"]


def test_each_fault_that_is_over_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = replace(VIEW, said=["crash: gone"])
    view.said.append("pause: state T")
    said = lines_of(capsys, view, view, replace(view, said=[*view.said, "link: slow"]))
    assert [line for line in said if ": " in line and "crash" in line] == ["crash: gone"]
    assert said.count("pause: state T") == 1
    assert said.count("link: slow") == 1


def test_the_load_line_says_counts_and_faults() -> None:
    assert load_line(VIEW) == (
        " 12.0 of 60 s  1,234 acknowledged (103/s), 5 refused, 6 unknown, fault 2 of 9"
    )


def test_on_a_terminal_a_bar_and_a_table_of_the_nodes_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with DrillScreen(7) as screen:
        screen.show(VIEW)
        screen.show(replace(VIEW, fault="crash@leader", victims=("n1",), said=["[bold] is text"]))
    text = terminal.getvalue()
    for word in ("under load", "n1", "leader", "4,711", "down", "1,234 acknowledged",
                 "now: no fault", "now: crash@leader on n1", "[bold] is text"):  # fmt: skip
        assert word in text
    assert text.startswith("seed 7\n")
    assert text.endswith("\x1b[?25h") or "\x1b[?25h" in text, "the cursor is shown again"


def test_the_cursor_comes_back_when_the_drill_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def interrupted() -> None:
        with DrillScreen(7) as screen:
            screen.show(VIEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in terminal.getvalue()
