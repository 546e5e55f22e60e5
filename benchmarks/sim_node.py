"""How fast the node-level simulation is: steps of ``RaftNode`` a second, all invariants on.

One step is one ``RaftNode.step`` with its effects carried out, the state machine with sessions
above it, and every check of ``tests/support/raft_checker.py``. Run it alone::

    python -m benchmarks.sim_node --seconds 10
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from tests.support.raft_campaign import Tally, facts, run_seed

STEPS_PER_SECOND_MIN = 20_000
"""What one process must reach on the machine of the benchmark."""


def measure_node(seconds: float, first: int = 0) -> dict[str, object]:
    """Run seeds from ``first`` on for ``seconds`` and return what that gave.

    Keys are those of :func:`tests.support.raft_campaign.facts`, ``steps_per_second`` among
    them; with other programs on the machine look at ``steps_per_cpu_second``.

    Raises:
        SeedError: A seed failed.
    """
    run_seed(first)  # imports and caches
    tally = Tally()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        tally.add(run_seed(first + tally.seeds))
    return facts(tally, time.perf_counter() - begun, time.process_time() - begun_cpu)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the measurement as JSON; exit 1 if it is below the bar."""
    parser = argparse.ArgumentParser(prog="sim_node", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (10)")
    args = parser.parse_args(arguments)
    found = measure_node(args.seconds)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if int(str(found["steps_per_second"])) >= STEPS_PER_SECOND_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
