"""How long a cluster of ours is without a leader, and how often it elects one for nothing.

Three figures: the longest gap in acknowledged writes after kill -9 of the leader, the same after
SIGSTOP (silence), and the elections that happen while every core has eight processes that want
it and no node has failed. etcd stands beside us for the gaps (``--systems``).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import ROOT, Result, finish_load, machine
from benchmarks.peers import etcd

SYSTEMS = {"outlast": ours.failover, "etcd": etcd.failover}
BURNERS_PER_CORE = 8


@contextmanager
def burners(count: int, seconds: float) -> Iterator[None]:
    """Keep ``count`` processes busy that end by themselves."""
    code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    processes = [subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def gaps(names: Sequence[str], rounds: int, workdir: Path, *, silence: bool) -> dict[str, Any]:
    """Measure the gap ``rounds`` times for each system."""
    found: dict[str, Any] = {}
    for name in names:
        results: list[Result] = SYSTEMS[name](rounds, workdir, silence=silence)
        values = sorted(round(result.gap * 1e3) for result in results)
        found[name] = {
            "median_ms": statistics.median(values), "worst_ms": values[-1], "all_ms": values,
        }  # fmt: skip
        print(f"{name} {'SIGSTOP' if silence else 'kill -9'}: {values} ms", file=sys.stderr)
    return found


def loaded(minutes: float, cores: int, workdir: Path) -> dict[str, Any]:
    """Count elections while nothing has failed and every core is taken eightfold."""
    seconds = minutes * 60
    with ours.cluster(workdir) as members:
        leader = members.leader()
        term = int(str(members.status(leader)["term"]))
        with burners(BURNERS_PER_CORE * cores, seconds + 60):
            process = ours.load(members, callers=4, seconds=seconds)
            result = finish_load(process, seconds + 120)
        time.sleep(1.0)
        facts = members.status(members.leader())
        said = [
            line
            for node in members.plan.addresses
            for line in (members.logs / f"{node}.log").read_text(errors="replace").splitlines()
            if "LeaderSteppedDown" in line or "ElectionStarted" in line
        ]
    return {
        "minutes": minutes,
        "burners": BURNERS_PER_CORE * cores,
        "elections": int(str(facts["term"])) - term,
        "writes_per_second": round(result.rate, 1),
        "p99_ms": round(result.p99 * 1e3, 1),
        "longest_gap_ms": round(result.gap * 1e3),
        "said": said[-20:],
    }


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    for kind in ("kill", "silence"):
        for name, row in report.get(kind, {}).items():
            print(f"{kind:8} {name:8} median {row['median_ms']} ms, worst {row['worst_ms']} ms")
    row = report.get("load")
    if row:
        print(
            f"load     {row['burners']} burners for {row['minutes']:g} min: {row['elections']}"
            f" elections, {row['writes_per_second']} writes/s, p99 {row['p99_ms']} ms,"
            f" longest gap {row['longest_gap_ms']} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="1 round each, 12 s of load")
    parser.add_argument("--systems", nargs="*", default=["outlast"], choices=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=20, help="kill -9 of the leader")
    parser.add_argument("--pauses", type=int, default=10, help="SIGSTOP of the leader")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load without a failure")
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.pauses, chosen.minutes = 1, 1, 0.2
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema": 1, "machine": machine()}
    with tempfile.TemporaryDirectory(dir=chosen.workdir) as folder:
        workdir = Path(folder)
        if chosen.rounds:
            report["kill"] = gaps(chosen.systems, chosen.rounds, workdir, silence=False)
        if chosen.pauses:
            report["silence"] = gaps(chosen.systems, chosen.pauses, workdir, silence=True)
        if chosen.minutes:
            report["load"] = loaded(chosen.minutes, 2, workdir)
    print(json.dumps(report)) if chosen.json else show(report)


if __name__ == "__main__":
    main()
