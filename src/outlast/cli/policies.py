"""The command that shows the policies of an application: settings, origins, live state."""

import sys
from typing import Any

from outlast.cli import EXIT_NO, EXIT_OK, show
from outlast.cli.access import Flag


def policies(
    *targets: str,
    config: str | None = None,
    url: str | None = None,
    lint: Flag = False,
    json: Flag = False,
) -> int:
    """Show policies: what is configured, where each value comes from, and the live state.

    Without a target, the settings of policies in outlast.toml and pyproject.toml are checked and
    shown. A module that configures its policies itself is shown as it does. With --lint, exit 1
    if there is anything to say.

    Args:
        targets: FILE.py, FILE.py:NAME, module or module:NAME; imported.
        config: Take settings from this TOML file.
        url: Ask a running service, at the path where it shows its policies.
        lint: Say what is probably not meant in each policy, and show nothing else.
        json: Print JSON.
    """
    from outlast.kernel import ConfigError
    from outlast.protect.overview import fetch_policies

    if url is not None:
        if targets or config is not None:
            raise ConfigError("--url shows another process; leave out targets and --config")
        rows, strange = fetch_policies(url), list[str]()
    else:
        rows, strange = _rows(targets, config)
    if lint:
        return _lint(rows, as_json=json)
    if json:
        print(show.as_text({"policies": rows, "unused": strange}))
        return EXIT_OK
    print(_text(rows))
    for line in strange:
        print(f"outlast: warning: {line}", file=sys.stderr)
    return EXIT_OK


def _rows(targets: tuple[str, ...], config: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    from outlast.protect.core.settings import near
    from outlast.protect.overview import load_policies, overview
    from outlast.protect.settings import configure, kept_settings

    found = {id(thing): thing for target in targets for thing in load_policies(target)}
    if config is not None or not kept_settings():
        configure(config)
    rows = overview(found.values())
    kept = kept_settings()
    names = {row["name"] for row in rows if not row["position"]}
    if targets:
        # One that only some other module makes is no mistake where a single name was asked for.
        strange = [
            f"policies.{name} ({settings[0].said}): no policy of that name here;"
            f" {near(name, sorted(names), 'none')}"
            for name, settings in kept.items()
            if name not in names and settings
        ]
        return rows, strange
    for name, settings in kept.items():
        keys = {".".join(setting.path): setting for setting in settings}
        rows.append(
            {
                "kind": "(configured)",
                "name": name,
                "position": "",
                "settings": {key: one.value for key, one in keys.items()},
                "origins": {key: one.said for key, one in keys.items()},
                "state": {},
                "lint": [],
            }
        )
    return rows, []


def _lint(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    found = [{"policy": row["name"], **one} for row in rows for one in row.get("lint", [])]
    found += [{"policy": row["name"], "line": row["error"]} for row in rows if "error" in row]
    if as_json:
        print(show.as_text({"findings": found}))
    elif found:
        print("\n".join(f"{one['policy'] or '(no name)'}: {one['line']}" for one in found))
    else:
        print(f"{len(rows)} policies: nothing found" if len(rows) != 1 else "nothing found")
    return EXIT_NO if found else EXIT_OK


def _text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no policies"
    settings = [
        [_name(row), key, _shown(value), row.get("origins", {}).get(key, "")]
        for row in rows
        for key, value in row["settings"].items()
    ]
    state = [
        [_name(row), key, _shown(value)] for row in rows for key, value in row["state"].items()
    ]
    parts = [show.columns(["policy", "setting", "value", "origin"], settings)]
    if state:
        parts += ["", show.columns(["policy", "state", "value"], state)]
    parts += [f"{_name(row)}: {row['error']}" for row in rows if "error" in row]
    return "\n".join(parts)


def _name(row: dict[str, Any]) -> str:
    name = str(row["name"]) or f"({row['kind']})"
    return f"{name} ({row['position']})" if row.get("position") else name


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(char if char.isprintable() else " " for char in text)
