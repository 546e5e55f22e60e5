"""Judges the histories of a drill, one workload after the other."""

import os
import platform
from collections import Counter

from outlast.check import check, history_of
from outlast.drill.report import WorkloadReport
from outlast.drill.workload import Running

_JUDGE_SECONDS = 60.0
_ERRORS_MAX = 5


def judge_workload(running: Running) -> WorkloadReport:
    """Judge the history of one workload."""
    result = check(
        history_of(running.events, running.header), running.model, seconds=_JUDGE_SECONDS
    )
    picture = drawing = ""
    if result.counterexample is not None:
        from outlast.check.picture import svg

        picture, drawing = svg(result.counterexample), result.counterexample.text()
    return WorkloadReport(
        name=running.name,
        model=running.model,
        ok=running.counts["ok"],
        fail=running.counts["fail"],
        info=running.counts["info"],
        verdict=result.verdict,
        how=_how(result.how, running),
        why=result.why,
        seconds=round(result.seconds, 3),
        picture=picture,
        drawing=drawing,
        refused=running.refused,
        errors=dict(Counter(running.errors).most_common(_ERRORS_MAX)),
    )


def _how(how: str, running: Running) -> str:
    if not running.refused:
        return how
    return f"{how}; {running.refused:,} reads not served by the node they were pinned to"


def versions() -> dict[str, str]:
    """Return what took part, for the report."""
    from importlib.metadata import version

    return {
        "outlast": version("outlast"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": str(os.cpu_count()),
    }
