"""The command that judges a history: one line of verdict first, then why, then the drawing."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from outlast.cli import show
from outlast.cli.access import Flag

if TYPE_CHECKING:
    from outlast.check import CounterExample, History, Operation, Result


def _no_option(type_: Any, value: str) -> None:
    """Refuse a misspelt option where the file is expected; ``-`` alone is stdin."""
    if value.startswith("-") and value != "-":
        raise ValueError(f"unknown option {value}; `outlast check --help` lists them")


def check(
    history: Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)],
    /,
    *,
    model: str | None = None,
    seconds: float = 60.0,
    memory: int = 1024,
    report: str | None = None,
    independent: Flag = False,
    json: Flag = False,
) -> int:
    """Judge a history: can any order of its operations explain the answers?

    Exit: 0 valid, 1 invalid, 3 unknown (a limit was reached), 2 bad input.

    Args:
        history: File of JSON lines or of EDN (Jepsen, Knossos); - reads stdin.
        model: register, kv, append, set, counter, bank or queue; the first line may say it.
        seconds: Give up after so long.
        memory: Give up beyond so many MiB.
        report: Write a page (FILE.html) or a picture (FILE.svg) of the counter-example.
        independent: The values of an EDN history are [key value].
        json: Print JSON.
    """
    from outlast import check as room
    from outlast.kernel import ConfigError

    if report is not None:
        _writable(report)
    if not seconds > 0:
        raise ConfigError(f"--seconds is {seconds:g}; above 0 would be right")
    if memory < 1:
        raise ConfigError(f"--memory is {memory}; at least 1 (MiB) would be right")
    found = _read(history, independent)
    name = model or found.header.get("model")
    if not isinstance(name, str):
        names = ", ".join(room.MODELS)
        raise ConfigError(f"{history}: its first line names no model; --model takes {names}")
    result = room.check(found, name, seconds=seconds, memory_bytes=memory << 20)
    _print(as_json(result, history, report) if json else as_text(result))
    if report is not None:
        again = shlex.join(["outlast", "check", history, "--model", name])
        _write(report, result, history, again + " --independent" * independent)
    return result.exit_code


def _read(history: str, independent: bool) -> "History":
    from outlast.check import read_history, read_stream

    if history == "-":
        return read_stream(sys.stdin.buffer, "stdin", independent=independent or None)
    return read_history(history, independent=independent or None)


def _writable(report: str) -> None:
    """Refuse a report that could not be written before anything is judged."""
    from outlast.kernel import ConfigError

    path = Path(report)
    if path.suffix not in {".html", ".svg"}:
        raise ConfigError(f"--report {report}: its name decides the kind; end it in .html or .svg")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--report {report}: {path.parent} is no directory to write it to")


def _write(report: str, result: "Result", name: str, again: str) -> None:
    from outlast.check.picture import html, svg

    if report.endswith(".svg"):
        if result.counterexample is None:
            print(f"{report} not written: there is no counter-example to draw", file=sys.stderr)
            return
        drawn = svg(result.counterexample)
    else:
        drawn = html(result, name=name, command=again)
    Path(report).write_text(drawn, encoding="utf-8")


def _print(text: str) -> None:
    """Print text that came from a history: what stdout cannot encode becomes an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


# --- words -------------------------------------------------------------------------------------

_MEANING = {
    "valid": "an order explains every answer",
    "invalid": "no order explains these answers",
    "unknown": "a limit was reached before anything was shown",
}


def as_text(result: "Result") -> str:
    """Return a result for people: verdict, counts, reason, and the drawing if there is one."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in result.counts.items())
    objects = f"; {result.parts:,} objects" if result.parts > 1 else ""
    how = f" ({result.how})" if result.how else ""
    lines = [
        f"{result.verdict}: {_MEANING[result.verdict]}",
        f"{result.model}{how}: {counts}{objects}; {result.seconds:.2f} s",
    ]
    found = result.counterexample
    if result.why and (found is None or not result.why.startswith(found.reason)):
        lines.append(result.why)
    if found is not None:
        on = "" if found.key is None else f" on key {found.key}"
        count = len(found.operations)
        plural = "" if count == 1 else "s"
        lines += ["", f"{count} operation{plural}{on}:", "", found.text()]
    return "\n".join(lines)


def as_json(result: "Result", name: str, report: str | None) -> str:
    """Return a result for ``--json``."""
    found = result.counterexample
    return show.as_text(
        {
            "history": name,
            "verdict": result.verdict,
            "model": result.model,
            "counts": dict(result.counts),
            "parts": result.parts,
            "how": result.how,
            "why": result.why,
            "seconds": round(result.seconds, 6),
            "counterexample": None if found is None else _example(found),
            "report": report,
        }
    )


def _example(found: "CounterExample") -> dict[str, Any]:
    return {
        "key": found.key,
        "reason": found.reason,
        "stuck": None if found.stuck is None else found.stuck.index,
        "operations": [_operation(op) for op in found.operations],
        "best": [{"index": op.index, "state": state} for op, state in found.best],
    }


def _operation(op: "Operation") -> dict[str, Any]:
    return {
        "index": op.index,
        "process": op.process,
        "type": op.kind,
        "f": op.f,
        "key": op.key,
        "value": op.value,
        "output": op.output,
        "from": op.start,
        "to": op.end,
    }
