"""Write the pages of `docs/reference` that follow from the code, so that they cannot drift apart.

`python -m tools.reference_pages` writes them; a test in tests/tidy compares them.
"""

import dataclasses
import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import outlast
from outlast.kernel.events import Event
from tools.errors_page import cell

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WIDTH = 96

# --- command line ------------------------------------------------------------------------------

COMMANDS = (
    "serve", "node", "init", "demo", "call", "status", "member add", "member remove",
    "transfer-leader", "drill", "sim", "check", "faults", "heal", "lint", "policies",
    "health", "members join", "members list", "members keygen", "supervise", "data check",
)  # fmt: skip

CLI_HEAD = """\
# Command line

`outlast COMMAND --help` prints what stands here.

<!-- Written by tools/reference_pages.py from the help of the commands. -->

**Output.** Results go to stdout, everything else to stderr. With `--json` a result is one line of
JSON whose field `schema` grows when another field changes its meaning. Errors are one line;
`OUTLAST_DEBUG=1` adds the traceback.

**Settings.** Each option is taken from the flag, else from `OUTLAST_NAME` (`--http-port` is
`OUTLAST_HTTP_PORT`), else from `outlast.toml` in the working directory, else from `[tool.outlast]`
in `pyproject.toml`. `--show-config` prints the value of each with its origin and runs nothing. In
the files a table is named after its command:

```toml
# outlast.toml
[serve]
nodes = 5
```

**Exit codes.**

| code | meaning | examples |
| --- | --- | --- |
| 0 | done | a result was printed; `serve`, `node` or `supervise` was asked to stop by SIGTERM; `health` passes |
| 1 | done, and the answer is no | the command raised; `status` found no leader; `lint` found an error; `check` found no order, `data check` found damage; `heal` could not undo something; `health` does not pass; `supervise`: restarts did not help; `drill` and `demo`: failed; `sim`: a seed failed, or a run is not repeatable. `node`: it failed while running, another start may help |
| 2 | could not be done, and nothing happened | wrong arguments, nobody to reach, a directory that does not fit, a simulated program that asks for what cannot be simulated. `node`: another start would end the same |
| 3 | unknown | a call was sent and not answered; `check` reached a limit; `drill` and `demo`: void or unknown; `sim`: void |
| 130 | interrupted | Ctrl-C |
"""  # noqa: E501 - cells of a table cannot be broken


def cli_page() -> str:
    """Return the page of commands, with the help of each."""
    parts = [CLI_HEAD]
    for name in COMMANDS:
        parts.append(f"\n## {name}\n\n```text\n{help_of(name)}\n```\n")
    return "".join(parts)


def help_of(command: str) -> str:
    """Return what ``outlast COMMAND --help`` prints, without what all commands share."""
    from rich.console import Console

    from outlast.cli.app import make_app

    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, no_color=True, force_terminal=False)
    make_app().help_print(command.split(), console=console)
    text = out.getvalue().partition("\nSettings: flag")[0]
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


# --- settings ----------------------------------------------------------------------------------

SETTINGS = (
    ("outlast.cluster", "NodeSettings", "One node: `outlast node` builds it from its options."),
    ("outlast.log.engines.raft", "RaftSettings", "The Raft engine: `NodeSettings.raft`."),
    ("outlast.state", "ReplicaSettings", "Batches, applying, digests: `NodeSettings.replica`."),
    (
        "outlast.state",
        "Limits",
        "Agreed through the log and equal on every replica: `ReplicaSettings.limits`. Log time is"
        " explained in [sessions](../explanation/sessions.md).",
    ),
    ("outlast.log.engines.raft", "RaftLogSettings", "A Raft log used without a node."),
    ("outlast.log.engines.file", "FileLogSettings", "The file engine, below `outlast.open`."),
    ("outlast.log.engines.memory", "MemoryLogSettings", "The memory engine."),
    ("outlast.log.medium", "QueueLimits", "The queue in front of the file and memory engines."),
    ("outlast.log.wal", "WalSettings", "The log on disk, below the file and Raft engines."),
    ("outlast.wire", "Limits", "Every connection and listener."),
    ("outlast.detect", "RestartPolicy", "When a supervised process is started again."),
)

SETTINGS_HEAD = """\
# Settings

Frozen classes, checked when they are made: a value out of range, or two that do not fit each
other, is a `ConfigError` that names them. Durations are seconds and sizes are bytes, unless the
name ends in `_ns` (nanoseconds).

They are given from Python. `outlast serve` and `outlast node` run with the defaults; their own
options stand on [the command line's page](cli.md).

<!-- Written by tools/reference_pages.py from the classes. -->
"""


def settings_page() -> str:
    """Return the page of settings: a table of each class."""
    parts = [SETTINGS_HEAD]
    for module, name, what in SETTINGS:
        cls = getattr(importlib.import_module(module), name)
        parts.append(f"\n## {module}.{name}\n\n{what}\n\n| setting | default | meaning |\n")
        parts.append("| --- | --- | --- |\n")
        meanings = arguments_of(cls)
        for field, default in defaults_of(cls):
            parts.append(f"| `{field}` | {default} | {cell(prose(meanings[field]))} |\n")
    return "".join(parts)


def arguments_of(cls: type) -> dict[str, str]:
    """Return the meanings that the section ``Args:`` of a docstring gives."""
    found: dict[str, str] = {}
    section = inspect.getdoc(cls) or ""
    section = section.partition("\nArgs:\n")[2].partition("\n\n")[0]
    name = ""
    for line in section.splitlines():
        begun = re.match(r"    (\w+): (.*)", line)
        if begun:
            name = begun[1]
            found[name] = begun[2]
        else:
            found[name] += " " + line.strip()
    return found


def defaults_of(cls: type) -> Iterator[tuple[str, str]]:
    """Yield each field with its default as it is shown."""
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.default is not dataclasses.MISSING:
                yield field.name, shown(field.name, field.default)
            elif field.default_factory is not dataclasses.MISSING:
                made = field.default_factory()
                yield field.name, "none" if made in ({}, ()) else "its own defaults"
            else:
                yield field.name, "(required)"
        return
    struct: Any = cls()
    for name in struct.__struct_fields__:
        yield name, shown(name, getattr(struct, name))


_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def shown(name: str, value: object) -> str:
    """Return a default; sizes and nanoseconds also in a unit that is easier to read."""
    if value in ("", None, ()):
        return "none"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1000:
        return f"`{value}`"
    text = f"`{value:_}`"
    if name.endswith("_ns"):
        return f"{text} ({value // 10**9:,} s)"
    if "bytes" in name:
        for size, unit in _UNITS:
            if value % size == 0:
                return f"{text} ({value // size} {unit})"
    return text


# --- events ------------------------------------------------------------------------------------

EVENTS_HEAD = """\
# Events

What a room says has happened. A node writes each as one line to the logger `outlast.ROOM`, at the
level given here; a program that embeds a room subscribes to the `EventBus` of its `World`. Every
event also has `level` and `node`; `node` is empty where the room does not know its node.
`HealthChanged` is a warning when the check failed, `DrainEnded` when work was left; `ChildExited`
is none when the end was asked for or good.

<!-- Written by tools/reference_pages.py from the subclasses of outlast.kernel.Event. -->

| event | room | level | fields | meaning |
| --- | --- | --- | --- | --- |
"""


def events_page() -> str:
    """Return the page of events: one row each, by room and name."""
    rows = []
    for cls in sorted(events(), key=lambda cls: (room_of(cls), cls.__name__)):
        fields = [f for f in dataclasses.fields(cls) if f.name not in {"level", "node"}]
        level = next(f.default for f in dataclasses.fields(cls) if f.name == "level")
        names = ", ".join(f"`{f.name}`" for f in fields)
        meaning = cell(prose(inspect.getdoc(cls) or ""))
        rows.append(f"| `{cls.__name__}` | {room_of(cls)} | {level} | {names} | {meaning} |\n")
    return EVENTS_HEAD + "".join(rows)


def events() -> list[type[Event]]:
    """Return every event of ours; importing all modules finds them."""
    for info in pkgutil.walk_packages(outlast.__path__, "outlast."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    return [cls for cls in family(Event) if cls.__module__.startswith("outlast.")]


def family(cls: type[Event]) -> Iterator[type[Event]]:
    """Yield all subclasses. A dataclass with slots replaces the class that it was made from."""
    for child in cls.__subclasses__():
        if getattr(importlib.import_module(child.__module__), child.__name__, None) is child:
            yield child
        yield from family(child)


def room_of(cls: type) -> str:
    """Return the room that a class comes from."""
    return cls.__module__.split(".")[1]


# --- metrics -----------------------------------------------------------------------------------

METRICS_HEAD = """\
# Metrics

## Of a node

`GET /metrics` on a node's gateway answers in Prometheus' text format. All are read from the node's
status at scrape time, and have the label `node`. A node that is not serving yet leaves out what it
does not know. No token is needed to read them.

<!-- Written by tools/reference_pages.py from outlast.cluster.metrics. -->

| metric | type | meaning |
| --- | --- | --- |
"""

METRICS_POLICIES = """
## Of policies, detection and pools

`observe.to_prometheus()` and `observe.to_otel()` offer these under the same names and labels, for
everything that has a name. Labels are the names of policies and parts, of health, monitors and
pools; a part without a name has that of the first policy that holds it. What comes from events
is counted from the moment on at which the sink was made. What comes from state is read when
somebody asks, costs a call nothing, and begins again at 0 with another policy of that name. A
metric has at most {series} series; what is beyond that, and a `reason` with figures in it, is
counted under `other`.

<!-- Written by tools/reference_pages.py from outlast.observe.METRICS. -->

| metric | type | labels | meaning | source |
| --- | --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """Return the page of metrics: what a node that knows everything answers, and of policies."""
    from outlast.cluster import metrics

    facts = dict.fromkeys((*metrics._GAUGES, *metrics._COUNTERS), 0)
    text = metrics.Metrics(lambda: {**facts, "node": "n1"}).render().decode()
    rows = (
        f"| `{name}` | {kind} | {cell(meaning)} |\n"
        for name, meaning, kind in re.findall(r"# HELP (\S+) (.*)\n# TYPE \S+ (\S+)", text)
    )
    return METRICS_HEAD + "".join(rows) + policy_metrics()


def policy_metrics() -> str:
    """Return the table of what sinks offer of policies."""
    from outlast.observe.core.metrics import METRICS, SERIES_MAX

    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{word}`' for word in metric.labels)} "
        f"| {cell(metric.meaning)} | {metric.source} |\n"
        for metric in METRICS
    )
    return METRICS_POLICIES.format(series=f"{SERIES_MAX:,}") + "".join(rows)


# --- faults ------------------------------------------------------------------------------------

FAULTS_HEAD = """\
# Faults

What a drill can break, by name: `KIND[:VARIANT][@TARGET]`, as in `crash@leader`. The target says
which nodes are hit; `one` is a node drawn from the seed. `outlast faults` prints which of them
this machine permits, and why not.

Every fault is a lease: it ends by itself at its time, and when the drill dies. What ends it is
written to a journal before it begins; [`outlast heal`](cli.md) and the start of the next drill
read it. None needs root. The proxy sees bytes and not packets: a lost segment is a late one, as it
is for a program behind TCP.

<!-- Written by tools/reference_pages.py from outlast.inject.CATALOGUE. -->

| fault | class | targets, the default first | what it does | how | needs | in the simulator |
| --- | --- | --- | --- | --- | --- | --- |
"""

FAULTS_NEEDS = """
**Needs.** {needs}.

**Evidence.** Without it a drill is `void`: for `crash`, that the processes are gone; for `pause`,
state T of each; for a full disk, that no byte is free; for links, the bytes that were withheld,
late, lost or dropped, the connections that were stalled or reset.

"""

FAULTS_SIMULATED = """
## Only in the simulator

With `--world sim`, and by name in `@sim.test(faults=[…])`.

| fault | class | what it does | how |
| --- | --- | --- | --- |
"""

FAULTS_PLANNED = """
## Known by name, not built yet

| fault | class | what it will do |
| --- | --- | --- |
"""


def faults_page() -> str:
    """Return the page of faults, from the catalogue."""
    from outlast.inject.core.catalogue import CATALOGUE, NEEDS

    parts = [FAULTS_HEAD]
    for row in CATALOGUE:
        if row.built:
            others = [target for target in row.targets if target != row.target]
            targets = ", ".join([row.target, *others])
            needs = ", ".join(row.needs)
            cells = (
                f"`{row.name}`", row.category, targets, row.what, row.how, needs, row.simulated
            )  # fmt: skip
            parts.append(f"| {' | '.join(map(cell, cells))} |\n")
    needs = "; ".join(f"`{word}`: {meaning}" for word, meaning in NEEDS.items())
    parts.append(FAULTS_NEEDS.format(needs=needs))
    parts.append(FAULTS_SIMULATED)
    parts += [
        f"| `{row.name}` | {row.category} | {cell(row.what)} | {cell(row.simulated)} |\n"
        for row in CATALOGUE
        if row.simulated and not row.built
    ]
    parts.append(FAULTS_PLANNED)
    parts += [
        f"| `{row.name}` | {row.category} | {cell(row.what)} |\n"
        for row in CATALOGUE
        if not (row.built or row.simulated)
    ]
    return "".join(parts)


# --- all ---------------------------------------------------------------------------------------


def prose(docstring: str) -> str:
    """Return a docstring as one line of Markdown: roles become plain code."""
    text = " ".join(docstring.split())
    text = re.sub(r":\w+:`[.~]?([^`]+)`", r"``\1``", text)
    return text.replace("``", "`")


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "events.md": events_page,
    "metrics.md": metrics_page,
    "faults.md": faults_page,
}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (FOLDER / file).write_text(page(), encoding="utf-8")
