"""Progress of a campaign: a line now and then, or a bar where there is a terminal."""

import io
import sys
from dataclasses import replace

import pytest

from outlast.cli.sim_screen import SimScreen, speed_line
from outlast.testing.campaign import View

VIEW = View("test_orders", "running", 1000, done=250, failed=0, elapsed=10.0, virtual=7200.0)


def test_speed_is_told_in_seeds_and_in_virtual_time() -> None:
    assert speed_line(VIEW) == "25.0 seeds/s, 2.00 virtual h, 720 × real time"
    assert speed_line(replace(VIEW, failed=2)).endswith(", 2 FAILED")


def test_without_a_terminal_a_line_comes_every_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with SimScreen() as screen:
        for tenth in range(251):
            screen.show(replace(VIEW, elapsed=tenth / 10))
    out, err = capsys.readouterr()
    assert out == "", "stdout is for the result"
    assert len(err.splitlines()) == 2
    assert err.startswith("test_orders: running, 250 of 1,000 seeds, ")


def test_on_a_terminal_a_bar_is_drawn_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with SimScreen() as screen:
        screen.show(VIEW)
        screen.show(replace(VIEW, phase="shortening: 3 runs, 2 fault steps left", failed=1))
    drawn = terminal.getvalue()
    assert "test_orders" in drawn
    assert "250/1000" in drawn
    assert "shortening: 3 runs" in drawn
