"""One seed in this process: run it within a limit of real time, and say what it came to."""

import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from outlast.host import HostClock
from outlast.kernel import ConfigError, EscapeError
from outlast.testing.campaign.model import FaultStep, Outcome, Runnable, SeedResult, Trace
from outlast.testing.campaign.telling import kind_of, one_line, own_lines, place_of

HANG_SECONDS = 60.0
"""So long may one run take in real time by default."""
TRACE_LINES = 25
_PRINTED_LINES = 20
_AGAIN_SECONDS = 2.0
_NS = 1_000_000_000
_CLOCK = HostClock()


class HangError(KeyboardInterrupt):
    """A run has taken too long in real time.

    A ``KeyboardInterrupt``, since that passes through whatever a program catches in its tasks.
    """


def seconds() -> float:
    """Return the real monotonic time."""
    return _CLOCK.monotonic_ns() / _NS


@contextmanager
def limited(wall_seconds: float) -> Iterator[None]:
    """Raise :class:`HangError` in what still runs after ``wall_seconds`` of real time.

    No effect outside the main thread and where there are no interval timers.
    """
    possible = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not possible:
        yield
        return

    def ring(_: int, frame: FrameType | None) -> None:
        message = f"still running after {wall_seconds:g} s of real time"
        raise HangError(message)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Tail:
    """A text file that keeps the last lines written to it."""

    def __init__(self, lines: int = _PRINTED_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._open = ""

    def write(self, text: str) -> int:
        """Take ``text``."""
        *done, self._open = (self._open + text).split("\n")
        self._lines.extend(done)
        return len(text)

    def flush(self) -> None:
        """Nothing waits to be written."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    @property
    def encoding(self) -> str:
        """Any text can be written."""
        return "utf-8"

    def lines(self) -> list[str]:
        """Return the last lines."""
        return [*self._lines, *([self._open] if self._open else [])]


class TraceTail:
    """Keeps the last events of a run: up to the first problem, if it has one."""

    def __init__(self, lines: int = TRACE_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._over = False

    def __call__(self, moment_ns: int, host: str, text: str) -> None:
        """Take an event."""
        if not self._over:
            self._lines.append(trace_line(moment_ns, host, text))
            self._over = text.startswith("problem ")

    def lines(self) -> list[str]:
        """Return the last events as text."""
        return list(self._lines)


def trace_line(moment_ns: int, host: str, text: str) -> str:
    """Return one event as a line: virtual seconds, host, event."""
    return f"{moment_ns // _NS:>5}.{moment_ns % _NS:09} {host:<8} {text.rstrip()}"


def run_once(
    runnable: Runnable,
    seed: int,
    *,
    only: frozenset[int] | None = None,
    trace: Trace | None = None,
    hang_seconds: float = HANG_SECONDS,
    printed: Tail | None = None,
) -> Outcome:
    """Run one seed; what it prints goes to ``printed``.

    Raises:
        HangError: It took longer than ``hang_seconds``.
        ConfigError: Definite. It cannot be run at all.
    """
    tail: Any = printed or Tail()
    # The loop of a run that was interrupted is closed by its own code, whatever that raises.
    with redirect_stdout(tail), redirect_stderr(tail), limited(hang_seconds):
        return runnable.run(seed, only=only, trace=trace)


def run_seed(
    runnable: Runnable,
    seed: int,
    *,
    only: frozenset[int] | None = None,
    twice: bool | None = False,
    hang_seconds: float = HANG_SECONDS,
) -> SeedResult:
    """Run one seed and return what it came to.

    Args:
        runnable: What is run.
        seed: The only input.
        only: The fault steps to inject; all by default.
        twice: Run it a second time for its digest; ``False``: only if it fails; ``None``: never.
        hang_seconds: Real seconds that it may take.

    Raises:
        ConfigError: Definite. It cannot be run at all.
    """
    begun = seconds()
    try:
        outcome = run_once(runnable, seed, only=only, hang_seconds=hang_seconds)
        result = summary(seed, outcome)
        result.wall_seconds = seconds() - begun
        del outcome  # a run must not meet the objects of the one before
        if twice or (twice is False and result.error and not result.escape):
            again = run_once(runnable, seed, only=only, hang_seconds=hang_seconds)
            result.again = str(again.digest)
    except HangError as hung:
        return SeedResult(
            seed,
            error=f"hung: {hung}, in {place_of(hung)}",
            kind="hang",
            stack=own_lines(hung),
            lost=True,
            wall_seconds=seconds() - begun,
        )
    return result


def summary(seed: int, outcome: Outcome) -> SeedResult:
    """Return what an outcome came to, without the objects of the run."""
    error, kind = failure(outcome)
    injected: dict[str, int] = {}
    felt: dict[str, int] = {}
    for step in fault_steps(outcome):
        injected[step.name] = injected.get(step.name, 0) + 1
        if step.felt:
            felt[step.name] = felt.get(step.name, 0) + 1
    return SeedResult(
        seed,
        error=error,
        kind=kind,
        escape=isinstance(outcome.error, EscapeError),
        digest=str(outcome.digest),
        steps=outcome.steps,
        virtual_seconds=outcome.virtual_seconds,
        injected=injected,
        felt=felt,
        sometimes=dict(outcome.sometimes),
        notes=[str(note) for note in outcome.notes],
    )


def failure(outcome: Outcome) -> tuple[str, str]:
    """Return the error in one line and its kind, both empty if there is none."""
    if outcome.error is not None:
        return one_line(outcome.error), kind_of(outcome.error)
    if outcome.problems:
        text = outcome.problems[0]
        return text, "problem " + "".join(c for c in text if not c.isdigit())
    return "", ""


def fault_steps(outcome: Outcome) -> list[FaultStep]:
    """Return what was injected, in order."""
    return [
        FaultStep(step.index, step.fault, bool(step.felt), str(step).strip())
        for step in outcome.faults
    ]


def write_trace(
    runnable: Runnable,
    seed: int,
    path: str,
    *,
    only: frozenset[int] | None = None,
    hang_seconds: float = HANG_SECONDS,
) -> str:
    """Run ``seed`` and write its whole trace to a file, one line per event.

    Returns:
        The digest of the run; empty if it hung. What was traced until then is in the file.

    Raises:
        ConfigError: Definite. The file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8") as file:

            def write(moment_ns: int, host: str, text: str) -> None:
                file.write(trace_line(moment_ns, host, text) + "\n")

            with suppress(HangError):
                outcome = run_once(
                    runnable, seed, only=only, trace=write, hang_seconds=hang_seconds
                )
                return str(outcome.digest)
    except OSError as error:
        message = f"--trace {path}: {error.strerror or error}; name a file that can be written"
        raise ConfigError(message) from error
    return ""
