"""Commands that prove: ``drill``, and ``demo``, which is the drill of our own cluster."""

import json as json_text
import secrets  # noqa: TID251 - a seed for whoever gives none; it is printed
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Literal

from outlast.cli import EXIT_NO, EXIT_OK, EXIT_UNKNOWN
from outlast.cli.access import Flag
from outlast.cli.drill_screen import DrillScreen

if TYPE_CHECKING:
    from outlast.drill import Drill, Report
    from outlast.kernel import HistoryEvent

_SEEDS = 1_000_000
_EXITS = {"survived": EXIT_OK, "failed": EXIT_NO}


def drill(
    name: str = "bank",
    /,
    *,
    faults: str | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    nodes: int | None = None,
    target: str = "outlast",
    world: Literal["real", "sim"] = "real",
    seeds: int | None = None,
    workers: int | None = None,
    only: str | None = None,
    trace: str | None = None,
    report: str | None = None,
    history: str | None = None,
    json: Flag = False,
) -> int:
    """Break a running system on purpose, judge what its clients saw, say whether it survived.

    In the simulator the same drill runs in one thread and in virtual time: the same faults by
    name, the same histories, judges and report, repeatable by its seed.

    Args:
        name: bank (our own cluster), or FILE.py:Class of a drill of your own.
        faults: Names with commas between them, as `outlast faults` lists them; the drill's own
            by default.
        seconds: How long the load runs, starting and judging aside: 60 by default, 20 under
            each of several seeds.
        seed: What schedule, victims and operations are drawn from; drawn and printed by default.
        nodes: How many nodes, 1 to 9; the drill's own number by default.
        target: For bank: outlast, or a node that breaks a promise on purpose, such as
            broken-acks-early, which the drill must find.
        world: real (processes on this machine) or sim (the simulator).
        seeds: With --world sim: run so many seeds from --seed on, each with as many of the
            faults as fit into --seconds.
        workers: With --seeds: processes that run them; 2 by default.
        only: With --world sim: inject these faults of the plan alone, N,N,… or none.
        trace: With --world sim: file for everything that happened.
        report: File for the report, one HTML page that needs no network.
        history: Directory for the histories, one file per workload, as `outlast check` reads.
        json: Print the report as JSON.
    """
    from outlast.drill.choosing import choose_drill

    if world == "sim":
        from outlast.cli.drill_sim import simulated

        return simulated(
            name, faults=faults, seconds=seconds, seed=seed, nodes=nodes, target=target,
            seeds=seeds, workers=workers, only=only, trace=trace, report=report,
            history=history, json=json,
        )  # fmt: skip
    _only_simulated(seeds=seeds, workers=workers, only=only, trace=trace)
    if seed is None:
        seed = secrets.randbelow(_SEEDS) + 1
    seconds = 60.0 if seconds is None else seconds
    chosen, home = choose_drill(name, nodes, target)
    words = ["outlast", "drill", name, "--seconds", f"{seconds:g}", "--seed", str(seed)]
    for option, value in (("--faults", faults), ("--nodes", nodes)):
        if value is not None:
            words += [option, str(value)]
    if target != "outlast":
        words += ["--target", target]
    return _run(
        chosen,
        seconds=seconds,
        seed=seed,
        faults=faults,
        home=home,
        command=shlex.join(words),
        report=report,
        history=history,
        json=json,
    )


def _only_simulated(**given: object) -> None:
    """Refuse options that mean something in the simulator alone.

    Raises:
        ConfigError: Definite. One is given.
    """
    from outlast.kernel import ConfigError

    for option, value in given.items():
        if value is not None:
            message = f"--{option} {value}: only with --world sim"
            raise ConfigError(message)


def demo(
    *,
    seconds: float = 40.0,
    seed: int | None = None,
    nodes: int = 3,
    report: str | None = "outlast-demo.html",
    history: str | None = None,
    json: Flag = False,
) -> int:
    """Show a cluster that survives: `outlast drill bank`, with a report to open.

    Args:
        seconds: How long the load runs.
        seed: What everything is drawn from; drawn and printed by default.
        nodes: How many nodes, 1 to 9.
        report: File for the report.
        history: Directory for the histories.
        json: Print the report as JSON.
    """
    return drill(
        seconds=seconds, seed=seed, nodes=nodes, report=report, history=history, json=json
    )


def _run(
    chosen: "type[Drill]",
    *,
    seconds: float,
    seed: int,
    faults: str | None,
    home: str,
    command: str,
    report: str | None,
    history: str | None,
    json: bool,
) -> int:
    from outlast.drill.running import prepare, run_in_thread

    writable(report)
    with ExitStack() as stack:
        histories = stack.enter_context(Histories(history)) if history is not None else None
        prepared = prepare(
            chosen,
            seconds=seconds,
            seed=seed,
            faults=faults.split(",") if faults is not None else (),
            home=home,
            command=command,
            record=histories.write if histories is not None else None,
        )
        prepared.show = stack.enter_context(DrillScreen(seed)).show
        stack.enter_context(terminable())
        found = run_in_thread(prepared)
    return tell(found, report, json=json)


def tell(found: "Report", report: str | None, *, json: bool) -> int:
    """Print a report, write its page, and return the exit code of its verdict."""
    print(json_text.dumps(found.as_json(), default=str) if json else found)
    if report is not None:
        write_report(found, report)
        if not json:
            print(f"report: {report}")
    return _EXITS.get(found.verdict, EXIT_UNKNOWN)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the drill as Ctrl-C does: in order, with nothing left behind."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def writable(report: str | None) -> None:
    """Refuse before the drill a report that could not be written after it."""
    from outlast.kernel import ConfigError

    if report is None:
        return
    path = Path(report)
    if path.is_dir() or not path.parent.is_dir():
        message = f"--report {report}: name a file in a directory that exists, such as shop.html"
        raise ConfigError(message)


def write_report(found: "Report", report: str) -> None:
    """Write the page of a report."""
    from outlast.drill.page import page

    with _writing("--report", report):
        Path(report).write_text(page(found), encoding="utf-8")


@contextmanager
def _writing(option: str, path: str | Path) -> Iterator[None]:
    """Name the option and the file when the disk does not take what is written.

    Raises:
        ConfigError: Definite. With what the system said.
    """
    from outlast.kernel import ConfigError

    try:
        yield
    except OSError as error:
        message = f"{option} {path}: {error.strerror or error}; name a place with room"
        raise ConfigError(message) from error


class Histories:
    """Writes one history per workload into a directory, as the drill goes on."""

    def __init__(self, directory: str) -> None:
        self._folder = Path(directory)
        self._files: dict[str, Any] = {}

    def __enter__(self) -> "Histories":
        """Make the directory."""
        with _writing("--history", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        with _writing("--history", self._folder):
            for file in self._files.values():
                file.close()

    def write(self, name: str, header: Mapping[str, Any], event: "HistoryEvent") -> None:
        """Append one event to the history of workload ``name``."""
        from outlast.check import line_of

        path = self._folder / f"{name}.jsonl"
        with _writing("--history", path):
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = path.open("w", encoding="utf-8")
                file.write(json_text.dumps(header) + "\n")
            file.write(line_of(event) + "\n")
