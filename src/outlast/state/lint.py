"""``outlast lint bank.py:Bank --against DATA``: what a new class would do to stored state.

Two kinds of finding: what differs from the schema that a data directory holds, and what in the
source of commands looks as if it differed between replicas. Each says what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from outlast.state.checkpoint import differences
from outlast.state.hints import source_hints
from outlast.state.machine import StateMachine
from outlast.state.spec import machine_spec


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``error``) or deserves a look (``warning``).

    Attributes:
        level: An error keeps the class from starting on that data, or breaks its clients.
        where: ``bank.py:Bank`` or ``bank.py:Bank.transfer``.
        text: What it is.
        advice: What to do about it.
    """

    level: Literal["error", "warning"]
    where: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.level}: {self.text}; {self.advice}"


def lint_machine(
    cls: type[StateMachine], against: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Compare a class with a stored schema and look through its commands.

    Args:
        cls: The class as it is now.
        against: A stored ``MachineSpec.schema``, or ``None`` to look at the source only.

    Returns:
        Findings, errors first. Empty when it may be deployed.

    Raises:
        ConfigError: The class itself is refused.
    """
    spec = machine_spec(cls)
    findings = [
        Finding("warning", f"{spec.place}.{name}", f"{found} in line {line}", instead)
        for name, line, found, instead in source_hints(cls)
    ]
    if against is not None:
        findings.extend(_compared(cls, spec.place, spec.schema, against))
    return sorted(findings, key=lambda finding: finding.level)


def _compared(
    cls: type[StateMachine], place: str, new: Mapping[str, Any], old: Mapping[str, Any]
) -> list[Finding]:
    was, now = old["version"], new["version"]
    found: list[Finding] = []
    if old["machine"] != new["machine"]:
        found.append(
            Finding(
                "error",
                place,
                f"the data belongs to machine {old['machine']!r}",
                "serve that class, or give this one its own directory",
            )
        )
        return found
    if now < was:
        found.append(
            Finding(
                "error",
                place,
                f"version {now} is older than the data's {was}",
                "deploy the newer code",
            )
        )
    said = differences(old["fields"], new["fields"])
    if now == was:
        advice = f"write version = {was + 1}, and migrate() unless fields were only added"
        found.extend(Finding("error", place, text, advice) for text in said)
    elif said and any("was added" not in text for text in said):
        base = StateMachine.migrate.__func__  # type: ignore[attr-defined]
        if cls.migrate.__func__ is base:  # type: ignore[attr-defined]
            advice = f"write migrate(cls, state, version) for version {was}"
            found.extend(
                Finding("error", place, text, advice) for text in said if "was added" not in text
            )
    for kind in ("commands", "queries"):
        found.extend(_operations(place, was, now, old.get(kind, {}), new[kind]))
    return found


def _operations(
    place: str, was: int, now: int, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[Finding]:
    found: list[Finding] = []
    for name, before in old.items():
        where = f"{place}.{name}"
        after = new.get(name)
        if after is None:
            found.append(
                Finding(
                    "error",
                    where,
                    "was removed, and the log may still hold calls of it",
                    "keep it; let it raise a CommandError from the new version on",
                )
            )
            continue
        found.extend(_parameters(where, was, before, after))
        if before["returns"] != after["returns"]:
            found.append(
                Finding(
                    "error",
                    where,
                    f"returned {before['returns']} and returns {after['returns']}",
                    "clients of the old code decode the old type; give it a new name",
                )
            )
    for name, after in new.items():
        if name not in old and after["since"] <= was:
            found.append(
                Finding(
                    "error",
                    f"{place}.{name}",
                    f"is new, but since={after['since']}",
                    f"write since={max(now, was + 1)}: replicas of version {was} lack it",
                )
            )
    return found


def _parameters(
    where: str, was: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[Finding]:
    found: list[Finding] = []
    old, new = before["parameters"], after["parameters"]
    for name, kind in old.items():
        if name not in new:
            advice = "the log holds calls with it; keep it with a default"
            found.append(Finding("error", where, f"parameter {name!r} was removed", advice))
        elif new[name] != kind:
            text = f"parameter {name!r} was {kind} and is {new[name]}"
            advice = "the log holds calls with the old type; add a new parameter or command"
            found.append(Finding("error", where, text, advice))
    for name in new:
        if name not in old and name not in after["defaults"]:
            text = f"parameter {name!r} was added without a default"
            found.append(Finding("error", where, text, "calls in the log lack it; give it one"))
    for name, value in before["defaults"].items():
        if name in new and after["defaults"].get(name, value) != value:
            text = f"the default of {name!r} was {value} and is {after['defaults'][name]}"
            advice = f"keep it and choose by self.ctx.version > {was}: replay would differ"
            found.append(Finding("error", where, text, advice))
        elif name in new and name not in after["defaults"]:
            text = f"parameter {name!r} lost its default {value}"
            found.append(Finding("error", where, text, "calls in the log lack it; keep it"))
    return found
