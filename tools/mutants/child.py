"""Runs in a copy: seed after seed of one campaign until one fails. One JSON line per seed.

``python -m tools.mutants.child LEVEL FIRST SEEDS BLACK_BOX COPY``, started by
:mod:`tools.mutants.run` with ``PYTHONPATH`` at the copy. Exit code 0; what was found is in the
lines: ``{"passed": seed}``, ``{"refused": seed}`` or, last, ``{"failed": seed, "error": …}``.
"""

import gc
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[int], "tuple[str, str] | None"]
"""Runs one seed; returns the class and the text of what failed."""

NODE = "tests.support.raft_campaign"
STAGED = "tests.support.raft_staged"
SPINE = "tests.sim.spine"
CASES = {
    "cluster": (SPINE, "test_cluster"),
    "damage": (SPINE, "test_damage"),
    "protect": ("tests.sim.protect_fleet", "test_fleet"),
}


def main(arguments: list[str]) -> int:
    """Run the seeds that ``arguments`` name."""
    level, first, seeds, black_box, copy = arguments
    import outlast

    if Path(copy) not in Path(outlast.__file__).parents:
        sys.stderr.write(f"outlast comes from {outlast.__file__}, not from the copy\n")
        return 2
    run = node_run(bool(int(black_box))) if level == "node" else cluster_run(*CASES[level])
    for seed in range(int(first), int(first) + int(seeds)):
        found = run(seed)
        if seed % 20 == 0:
            gc.collect()
        if found is None:
            say({"passed": seed})
        elif int(black_box) and found[0] == "InvariantError":
            # The product noticed by itself: no outcome was judged, so this seed says nothing.
            say({"refused": seed, "error": found[1]})
        else:
            say({"failed": seed, "kind": found[0], "error": found[1]})
            return 0
    return 0


def say(line: dict[str, Any]) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def node_run(black_box: bool) -> Run:
    """Return the runner of node-level seeds: a random life, and one with staged scenes."""
    run_seed = importlib.import_module(NODE).run_seed
    staged = importlib.import_module(STAGED).staged

    def run(seed: int) -> tuple[str, str] | None:
        try:
            run_seed(seed, black_box=black_box)
            staged(seed, watch=not black_box)
        except Exception as error:
            cause = error.__cause__ or error
            return type(cause).__name__, str(cause)
        return None

    return run


def cluster_run(module: str, name: str) -> Run:
    """Return the runner of loop-level seeds: a whole cluster, or fleet, in the simulator."""
    case = getattr(importlib.import_module(module), name).__outlast_sim__

    def run(seed: int) -> tuple[str, str] | None:
        outcome = case.run(seed)
        if outcome.error is not None:
            return type(outcome.error).__name__, str(outcome.error)
        if outcome.problems:
            return "problem", str(outcome.problems[0])
        return None

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
