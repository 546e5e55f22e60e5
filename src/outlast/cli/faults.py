"""Commands about faults: faults lists what can be injected here, heal cleans up after drills."""

from outlast.cli import EXIT_NO, EXIT_OK, show
from outlast.cli.access import Flag


def faults(*, json: Flag = False) -> int:
    """List all faults: what each does, what it hits, whether this machine or the simulator can.

    Args:
        json: Print JSON.
    """
    from outlast.inject import permits

    rows = permits()
    if json:
        print(show.as_text({"faults": [permit.as_json() for permit in rows]}))
        return EXIT_OK
    built = []
    for permit in rows:
        row = permit.row
        what = row.what if permit.permitted else f"{row.what} ({permit.why_not})"
        here = "yes" if permit.permitted else "no"
        sim = "yes" if row.simulated else "no"
        if row.built or row.simulated:
            built.append([row.name, row.category, row.target, here, sim, what])
    print(show.columns(["fault", "class", "target", "here", "sim", "what it does"], built))
    planned = ", ".join(
        permit.row.name for permit in rows if not (permit.row.built or permit.row.simulated)
    )
    print(f"\nKnown by name, not built yet: {planned}")
    return EXIT_OK


def heal(*, all: Flag = False, json: Flag = False) -> int:
    """End what drills that died have left behind: processes, stopped ones, directories.

    Drills that are alive are left alone. Every drill does this too when it starts.

    Args:
        all: Look into every place where journals may lie, also with OUTLAST_STATE set, and show
            the drills that are alive.
        json: Print JSON.
    """
    from outlast.host import default_world
    from outlast.inject import heal as run
    from outlast.inject.place import well_known

    report = run(default_world(), directories=well_known() if all else None)
    if json:
        print(show.as_text(report.as_json()))
        return EXIT_OK if report.clean else EXIT_NO
    if report.steps:
        rows = [[step.drill[-8:], step.what, step.outcome, step.detail] for step in report.steps]
        print(show.columns(["drill", "undo", "outcome", "detail"], rows))
    else:
        print("nothing to heal")
    if all and report.alive:
        living = [[one.drill[-8:], f"pid {one.pid}", one.why] for one in report.alive]
        print(show.columns(["left alone", "owner", "why"], living))
    return EXIT_OK if report.clean else EXIT_NO
