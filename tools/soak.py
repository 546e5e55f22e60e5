"""Run simulations, property, recovery and soak tests again and again, with new random data.

Each round begins with new seeds of the simulated clusters, at both levels, and of simulated
memberships. Stops at the first failure, whose output holds the command that repeats it. Exit code
is pytest's, or that of the simulation.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests/property", "tests/recovery", "tests/sim", "tests/drills")
NOTHING_COLLECTED = 5
SIMULATED_SECONDS = 120
NODE_SEEDS = 500
MEMBERSHIP_SEEDS = 100
FIRST_SEED = 1_000_000
"""Above the seeds that the tests use."""


def main() -> int:
    """Repeat until the time is over; return 0 or the exit code of the run that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, help="of the first round; drawn if not given")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(2**32)
    folders = [folder for folder in FOLDERS if (ROOT / folder).is_dir()]
    end = time.monotonic() + chosen.seconds
    rounds = 0
    while time.monotonic() < end:
        command = ["-m", "pytest", "-q", "-x", "-n", "2", f"--hypothesis-seed={seed + rounds}"]
        print(f"round {rounds + 1}: --seed {seed + rounds}", flush=True)
        for part in (*simulations(FIRST_SEED + seed + rounds), [*command, *folders]):
            done = subprocess.run([sys.executable, *part], cwd=ROOT, check=False)
            if done.returncode not in {0, NOTHING_COLLECTED}:
                again = f"python tools/soak.py --seed {seed + rounds} --seconds 1"
                print(f"failed; repeat with: {again}")
                return done.returncode
        rounds += 1
    print(f"{rounds} rounds without a failure")
    return 0


def simulations(first: int) -> list[list[str]]:
    """Return commands that run clusters and memberships simulated, from seed ``first`` on."""
    seeds = ["--first", str(first), "--seeds"]
    return [
        ["-m", "tests.support.raft_campaign", *seeds, str(NODE_SEEDS)],
        ["-m", "tests.support.swim_campaign", *seeds, str(MEMBERSHIP_SEEDS)],
        ["-m", "outlast", "sim", "tests/sim/spine.py", *seeds, "1000000", "--seconds",
         str(SIMULATED_SECONDS)],
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
