"""False elections: any change of term without a fault, under load and with checkpoints running.

python -m benchmarks.steady [--minutes 10] [--callers 256] [--json]
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import ours
from benchmarks.common import ROOT, finish_load, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    with ours.cluster(chosen.workdir) as members:
        leader = members.leader()
        term = members.status(leader)["term"]
        seconds = chosen.minutes * 60
        load = ours.load(members, callers=chosen.callers, seconds=seconds)
        covered: dict[str, set[int]] = {node: set() for node in members.processes}
        end = time.monotonic() + seconds
        while time.monotonic() < end and load.poll() is None:
            time.sleep(2.0)
            for node, found in covered.items():
                found.add(int(str(members.status(node).get("snapshot_index", 0))))
        result = finish_load(load, seconds + 120)
        last = {node: members.status(node) for node in members.processes}
        report = {
            "schema": 1,
            "machine": machine(),
            "minutes": chosen.minutes,
            "callers": chosen.callers,
            "rate": round(result.rate, 1),
            "p50_ms": round(result.p50 * 1e3, 3),
            "p99_ms": round(result.p99 * 1e3, 3),
            "longest_gap_ms": round(result.gap * 1e3, 1),
            "errors": result.errors,
            "term_before": term,
            "term_after": max(int(str(facts["term"])) for facts in last.values()),
            "checkpoints": {node: len(found - {0}) for node, found in covered.items()},
        }
    report["false_elections"] = int(str(report["term_after"])) - int(str(term))
    print(
        json.dumps(report) if chosen.json else "\n".join(f"{k:18} {v}" for k, v in report.items())
    )
    sys.exit(1 if report["false_elections"] else 0)


if __name__ == "__main__":
    main()
