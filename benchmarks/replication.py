"""Our cluster beside etcd and PySyncObj in one run: rate, latency, failover, CPU per command.

    python -m benchmarks.replication [--json] [--quick] [--callers 1 16 64 256] [--runs 5]

Every system runs three nodes on loopback and on the same disk; etcd and outlast flush each
acknowledgement on a majority, PySyncObj does not flush at all. Callers are closed loops over the
same number of connections, the load generator is a process of its own, and the systems take turns,
so that a slow minute of the machine hits all. Medians and ranges over the runs; the ratio is
ours to the peer's.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import ROOT, Result, machine
from benchmarks.peers import etcd, pysyncobj_peer

SYSTEMS = ("outlast", "etcd", "pysyncobj")


def runners(names: Sequence[str]) -> dict[str, Callable[[int, float, Path], Result]]:
    """How each system is run once."""
    known: dict[str, Callable[[int, float, Path], Result]] = {
        "outlast": ours.run,
        "etcd": etcd.run,
        "pysyncobj": pysyncobj_peer.run,
    }
    return {name: known[name] for name in names}


def failovers(names: Sequence[str]) -> dict[str, Callable[..., list[Result]]]:
    """How each system's leader is ended under load."""
    known: dict[str, Callable[..., list[Result]]] = {
        "outlast": ours.failover,
        "etcd": etcd.failover,
        "pysyncobj": pysyncobj_peer.failover,
    }
    return {name: known[name] for name in names}


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Median and range of the runs of one system at one number of callers."""

    def spread(values: Sequence[float], digits: int) -> dict[str, float]:
        return {
            "median": round(statistics.median(values), digits),
            "min": round(min(values), digits),
            "max": round(max(values), digits),
        }

    return {
        "runs": len(results),
        "rate": spread([r.rate for r in results], 1),
        "p50_ms": spread([r.p50 * 1e3 for r in results], 3),
        "p99_ms": spread([r.p99 * 1e3 for r in results], 3),
        "server_cpu_us": spread([r.server_cpu * 1e6 / max(1, r.operations) for r in results], 1),
        "client_cpu_us": spread([r.client_cpu * 1e6 / max(1, r.operations) for r in results], 1),
        "errors": sum(r.errors for r in results),
    }


def throughput(
    names: Sequence[str], callers: Sequence[int], runs: int, seconds: float, workdir: Path
) -> dict[str, Any]:
    """Alternate the systems; returns summaries by callers and system, with ratios."""
    table: dict[str, Any] = {}
    for count in callers:
        found: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(runs):
            for name, run in runners(names).items():
                result = run(count, seconds, workdir)
                found[name].append(result)
                print(result.line(), file=sys.stderr, flush=True)
        row: dict[str, Any] = {name: summary(results) for name, results in found.items()}
        row["ratio"] = ratios(row, names)
        fsyncs = [r.extra.get("fsyncs") for r in found.get("outlast", [])]
        if fsyncs:
            row["outlast"]["fsyncs_last_run"] = fsyncs[-1]
        table[str(count)] = row
    return table


def ratios(row: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Ours to each peer: rates (more is better) and p50 (less is better)."""
    mine = row.get("outlast")
    if mine is None:
        return {}
    found = {}
    for name in names:
        if name != "outlast":
            peer = row[name]
            found[f"rate/{name}"] = round(
                mine["rate"]["median"] / max(1e-9, peer["rate"]["median"]), 2
            )
            found[f"p50/{name}"] = round(
                mine["p50_ms"]["median"] / max(1e-9, peer["p50_ms"]["median"]), 2
            )
    return found


def gaps(names: Sequence[str], kills: int, workdir: Path, *, silence: bool) -> dict[str, Any]:
    """Longest gap in acknowledged writes after the leader's end, in milliseconds."""
    table: dict[str, Any] = {}
    for name, failover in failovers(names).items():
        results = failover(kills, workdir, silence=silence)
        values = sorted(round(r.gap * 1e3, 1) for r in results)
        table[name] = {"median_ms": statistics.median(values), "worst_ms": values[-1],
                       "all_ms": values}  # fmt: skip
        print(f"{name}: {'SIGSTOP' if silence else 'kill -9'} gaps {values} ms",
              file=sys.stderr, flush=True)  # fmt: skip
    return table


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    for count, row in report["throughput"].items():
        print(f"{count} callers")
        for name in report["systems"]:
            s = row[name]
            print(
                f"  {name:10} {s['rate']['median']:9,.0f}/s ({s['rate']['min']:,.0f}–"
                f"{s['rate']['max']:,.0f})  p50 {s['p50_ms']['median']:.2f} ms"
                f"  p99 {s['p99_ms']['median']:.2f} ms  CPU servers"
                f" {s['server_cpu_us']['median']:.0f} us, client"
                f" {s['client_cpu_us']['median']:.0f} us"
            )
        print("  ratio     ", ", ".join(f"{k} {v}" for k, v in row["ratio"].items()))
    for kind in ("kill", "silence"):
        for name, row in report.get(kind, {}).items():
            print(f"{kind:8} {name:10} median {row['median_ms']} ms, worst {row['worst_ms']} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="1 run of 3 s, 1 kill")
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--pauses", type=int, default=5)
    parser.add_argument("--workdir", type=Path, default=ROOT / "build" / "bench")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.runs, chosen.seconds, chosen.kills, chosen.pauses = 1, 3.0, 1, 1
    chosen.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.workdir) as folder:
        workdir = Path(folder)
        report: dict[str, Any] = {
            "schema": 1,
            "machine": machine(),
            "systems": chosen.systems,
            "seconds": chosen.seconds,
            "throughput": throughput(
                chosen.systems, chosen.callers, chosen.runs, chosen.seconds, workdir
            ),
        }
        if chosen.kills:
            report["kill"] = gaps(chosen.systems, chosen.kills, workdir, silence=False)
        if chosen.pauses:
            report["silence"] = gaps(chosen.systems, chosen.pauses, workdir, silence=True)
    print(json.dumps(report)) if chosen.json else show(report)


if __name__ == "__main__":
    main()
