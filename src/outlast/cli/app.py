"""All commands in their groups, and where settings come from: flag > environment > files."""

from collections.abc import Callable
from typing import Any

from cyclopts import App, ArgumentCollection, Group, Parameter
from cyclopts.config import Env, Toml

from outlast.cli import (
    check,
    drill,
    faults,
    health,
    inspection,
    members,
    policies,
    run,
    sim,
    supervise,
    use,
)

_HELP = "Keep a Python service working while its parts fail, and prove that it does."
_EPILOGUE = (
    "Settings: flag, then OUTLAST_NAME, then outlast.toml, then [tool.outlast] in"
    " pyproject.toml; --show-config prints each with its origin."
    " Exit: 0 done, 1 the answer is no, 2 could not be done, 3 unknown, 130 interrupted."
)
_FILES = ("outlast.toml", "pyproject.toml")


def make_app(*, show_config: bool = False) -> App:
    """Return the application.

    Args:
        show_config: Print the settings of the command with their origins and stop.
    """
    app = App(
        name="outlast",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        help_formatter="plain",
        help_format="plaintext",
        default_parameter=Parameter(negative=()),
        version=_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        config=[
            Env("OUTLAST_", command=False, show=False),
            _file(Toml(_FILES[0])),
            _file(Toml(_FILES[1], root_keys=("tool", "outlast"))),
            *([_show] if show_config else []),
        ],
    )
    app.group_commands = Group("Other", sort_key=9)
    _run, _use, _prove, _inspect = (
        Group(name, sort_key=number)
        for number, name in enumerate(("Run", "Use", "Prove", "Inspect"), 1)
    )
    app.command(run.serve, group=_run)
    app.command(run.node, group=_run)
    app.command(run.init, group=_run)
    app.command(supervise.supervise, group=_run)
    app.command(drill.demo, group=_run)
    app.command(use.call, group=_use)
    app.command(use.status, group=_use)
    member = App(name="member", help="Add a node to the cluster, or remove one.", group=_use)
    member.command(use.add)
    member.command(use.remove)
    app.command(member)
    group = App(name="members", help="Take part in a group, list it, make its key.", group=_use)
    group.command(members.join)
    group.command(members.list_, name="list")
    group.command(members.keygen)
    app.command(group)
    app.command(use.transfer_leader, group=_use)
    app.command(health.health, group=_use)
    app.command(drill.drill, group=_prove)
    app.command(sim.sim, group=_prove)
    app.command(check.check, group=_prove)
    app.command(faults.faults, group=_prove)
    app.command(faults.heal, group=_prove)
    app.command(inspection.lint, group=_inspect)
    app.command(policies.policies, group=_inspect)
    data = App(name="data", help="Look at a data directory.", group=_inspect)
    data.command(inspection.check)
    app.command(data)
    return app


def _file(toml: Toml) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """Return what takes options from a file, except where its table is not one of options.

    ``[policies.NAME]`` holds the settings of a policy.
    """

    def read(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if commands[:1] != ("policies",):
            toml(app, commands, arguments)

    return read


def _version() -> str:
    from importlib.metadata import version

    return version("outlast")


def _show(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Print each setting, its value and where it comes from; the command does not run."""
    rows: list[list[Any]] = []
    for argument in arguments:
        if not argument.parse or argument.children:
            continue
        tokens = argument.tokens
        if tokens:
            value = " ".join(str(token.value or token.implicit_value) for token in tokens)
            source = tokens[0].source
            origin = tokens[0].keyword or "argument" if source in {"cli", "env"} else source
        else:
            default = argument.field_info.default
            value = str(default) if default not in {None, (), argument.field_info.empty} else ""
            origin = "default"
        secret = argument.name == "--token" and value
        rows.append([argument.name.lstrip("-"), "(not shown)" if secret else value, origin])
    from outlast.cli.show import columns

    print(columns(["setting", "value", "origin"], rows))
    raise SystemExit(0)
