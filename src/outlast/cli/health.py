"""The command that asks for the health of a process: for containers, exec probes and people."""

from typing import TYPE_CHECKING, Literal

from outlast.cli import EXIT_CANNOT, EXIT_NO, EXIT_OK, say, show
from outlast.cli.access import Flag

if TYPE_CHECKING:
    from outlast.detect import Probed


def health(
    target: str,
    /,
    *,
    group: Literal["startup", "liveness", "readiness"] = "readiness",
    within: float = 5.0,
    json: Flag = False,
) -> int:
    """Ask a health page or a health file whether it passes.

    Exit: 0 passing, 1 not, 2 nobody to ask. Fit for HEALTHCHECK of a container and exec probes.

    Args:
        target: A URL, such as http://127.0.0.1:9090 or http://127.0.0.1:8000/healthz, or a file
            that HealthFile writes.
        group: startup, liveness or readiness, of a file or of a URL without a path.
        within: Seconds in which a URL must have answered, and a file been written.
        json: Print JSON.
    """
    from outlast.detect import probe_health
    from outlast.host import default_world

    found = probe_health(target, group=group, within=within, world=default_world())
    if json:
        print(
            show.as_text(
                {
                    "target": target,
                    "passing": found.passing,
                    "status": found.status,
                    "checks": list(found.checks),
                }
            )
        )
        if found.passing is None:
            return EXIT_CANNOT
    elif found.passing is None:
        return say(found.status)
    else:
        print(as_text(found))
    return EXIT_OK if found.passing else EXIT_NO


def as_text(found: "Probed") -> str:
    """Return the status, and a line for each check that is not well."""
    lines = [found.status]
    for check in found.checks:
        status, detail = str(check.get("status")), " ".join(str(check.get("detail", "")).split())
        if status != "ok":
            lines.append(f"{check.get('name')} {status}{f': {detail}' if detail else ''}")
    return "\n".join(lines)
