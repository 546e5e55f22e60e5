"""Commands that look and change nothing: lint, data check."""

import asyncio

from outlast.cli import EXIT_NO, EXIT_OK, show
from outlast.cli.access import Flag


def lint(target: str, /, *, against: str | None = None, json: Flag = False) -> int:
    """Say what would stop a deployment, or make replicas differ.

    Args:
        target: FILE.py:Class, module:Class, or a ready machine such as kv.
        against: Data directory (of a node or of a whole cluster) that it would continue.
        json: Print JSON.
    """
    from outlast.host import default_world
    from outlast.state import lint_machine, load_machine
    from outlast.state.stored import stored_schema

    machine = load_machine(target)
    schema = stored_schema(default_world().storage, against) if against is not None else None
    findings = lint_machine(machine, schema)
    print(show.findings_json(findings) if json else show.findings_text(findings, target))
    return EXIT_NO if any(finding.level == "error" for finding in findings) else EXIT_OK


def check(directory: str, /, *, json: Flag = False) -> int:
    """Read every log in a data directory and report all damage; changes nothing.

    Args:
        directory: Of a node, of a whole cluster, or of an embedded machine.
        json: Print JSON.
    """
    from outlast.host import default_world
    from outlast.log.wal import check as check_log
    from outlast.state.stored import log_directories

    world = default_world()
    logs = log_directories(world.storage, directory)

    async def run() -> list[show.CheckedLog]:
        return [show.CheckedLog(path, await check_log(world, path)) for path in logs]

    checked = asyncio.run(run())
    print(show.checks_json(checked) if json else show.checks_text(checked))
    return EXIT_NO if any(one.report.status == "corrupt" for one in checked) else EXIT_OK
