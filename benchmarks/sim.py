"""How fast simulations run: ``python -m benchmarks.sim [--quick] [--json]``.

*Loop level*: five real nodes with default timers, ten clients and 50 operations a virtual second
in one thread (``tests/support/spine.py``), with and without the look into every node after every
step; then the campaign with all faults, with one and with two workers. *Node level*: steps of
``RaftNode`` with all invariants. *Gossip*: one small asyncio program, unmodified, under ours and
under other simulators, and as a bound under asyncio itself. *Idle*: aiohttp and uvicorn services
that have little to do. *Memory*: how much a run of the cluster holds.

Each figure is the median of some runs, each in a process of its own; those that are compared take
turns. Rates are by CPU time, so that other programs on the machine do little to them; those of
campaigns are by the clock, too.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import ROOT, machine

CALM_MIN = 20.0
"""Virtual seconds per second that one worker must reach at loop level."""
STEPS_MIN = 20_000
IDLE_MIN = 10_000.0
CAMPAIGN = "tests/sim/spine.py::test_cluster"
GOSSIP_SECONDS = 120.0
LATER = {"simloom": "0.5.0", "simloop": "0.2.2", "seedloop": "0.4.1"}
"""Simulators that need Python 3.12 or later: name and version."""
SECTIONS = ("loop", "campaign", "node", "gossip", "idle", "memory")

Found = dict[str, Any]


# --- what runs in a process of its own ---------------------------------------------------------


def calm(seconds: float, seed: int) -> Found:
    """Run the cluster without faults, after a short run that fills all caches."""
    from outlast.sim import Lab
    from outlast.sim.running import Options, run_case
    from tests.support.spine import Spine

    done: list[int] = []

    async def story(lab: Lab, length: float) -> None:
        spine = Spine(lab, count=5, seconds=length, changes=False, plain=True)
        await spine.run()
        done.append(sum(len(one.done) for one in spine.running))

    run_case(lambda lab: story(lab, 1.0), seed, Options())
    before = _mib()
    began = time.process_time()
    outcome = run_case(lambda lab: story(lab, seconds), seed, Options())
    cpu = time.process_time() - began
    if outcome.error is not None:
        raise outcome.error
    return {
        "speed": outcome.virtual_seconds / cpu,
        "callback_us": cpu / outcome.steps * 1e6,
        "callbacks": outcome.steps / outcome.virtual_seconds,
        "operations": done[-1] / outcome.virtual_seconds,
        "virtual": outcome.virtual_seconds,
        "mib": _mib(),
        "grown_mib": _mib() - before,
    }


def node(seconds: float, seed: int) -> Found:
    """Run the campaign of bare Raft cores."""
    from benchmarks.sim_node import measure_node

    return measure_node(seconds, seed)


def idle(seconds: float, seed: int) -> Found:
    """Run services that have little to do."""
    from benchmarks.sim_idle import measure_idle

    return dict(measure_idle())


WITHIN: dict[str, Callable[[float, int], Found]] = {"calm": calm, "node": node, "idle": idle}


def _mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- running them ------------------------------------------------------------------------------


def apart(module: str, *arguments: object, black_box: bool = False) -> Found:
    """Run ``module`` in a process of its own and return the object that it prints.

    Raises:
        RuntimeError: It printed none; the message ends with the last line of its errors.
    """
    environment = dict(os.environ)
    environment.pop("OUTLAST_SPINE", None)
    if black_box:
        environment["OUTLAST_SPINE"] = "black-box"
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1800,
    )  # fmt: skip
    if not done.stdout.strip():
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"{module} {' '.join(map(str, arguments))}: {said[-1]}")
    found: Found = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def middle(runs: Sequence[Found]) -> Found:
    """The median of each number that the runs have in common."""
    return {
        key: statistics.median(run[key] for run in runs)
        for key, value in runs[0].items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def loop_level(rounds: int, seconds: float) -> Found:
    """Measure the cluster without faults, black-box and with the watch, taking turns."""
    runs: dict[str, list[Found]] = {"clients": [], "watched": []}
    for number in range(rounds):
        for way, found in runs.items():
            arguments = ("--within", "calm", seconds, number + 1)
            found.append(apart("benchmarks.sim", *arguments, black_box=way == "clients"))
    return {way: middle(found) for way, found in runs.items()}


def campaign(seeds: int) -> Found:
    """Run the campaign of the cluster with all faults, with one worker and with two."""
    found: Found = {}
    for workers in (1, 2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        told = apart(
            "outlast", "sim", CAMPAIGN, "--seeds", seeds, "--workers", workers, "--json"
        )  # fmt: skip
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        test = told["tests"][0]
        found[f"{workers}"] = {
            "verdict": told["verdict"],
            "failed": [one["seed"] for one in test["failures"]],
            "repeatable": test["repeatable"]["difference"] is None,
            "seeds": test["seeds"],
            "seeds_per_second": test["seeds"] / wall,
            "cpu_per_seed": cpu / test["seeds"],
            "speed": test["virtual_seconds"] / wall,
            "virtual": test["virtual_seconds"] / test["seeds"],
        }
    return found


def gossip(rounds: int, seconds: float) -> Found:
    """Run the gossip program under each simulator that is installed, taking turns."""
    from benchmarks.peers.gossip import LOOPS

    runs: dict[str, list[Found]] = {}
    missing = {
        name: "not installed: pip install -r requirements/bench.txt"
        for name in ("detangle", "async-solipsism")
        if importlib.util.find_spec(name.replace("-", "_")) is None
    }
    old = sys.version_info < (3, 12)
    for name, version in LATER.items():
        why = f"needs Python 3.12, this is {sys.version.split()[0]}" if old else "not tried"
        missing[f"{name} {version}"] = why
    for number in range(rounds):
        for name in LOOPS:
            if name in missing:
                continue
            length = min(seconds, 10.0) if name == "asyncio" else seconds  # in real time
            found = apart("benchmarks.peers.gossip", name, length, number + 1)
            found["speed"] = found["virtual"] / found["cpu"]
            found["steps_per_second"] = found["steps"] / found["cpu"]
            found["pushes_per_second"] = found["pushes"] / found["cpu"]
            runs.setdefault(f"{name} {found['version']}", []).append(found)
    return {"runs": {name: middle(found) for name, found in runs.items()}, "missing": missing}


def memory(seconds: float) -> Found:
    """Measure what runs of the cluster of two lengths hold at most."""
    short, long = (
        apart("benchmarks.sim", "--within", "calm", length, 1) for length in (seconds, 4 * seconds)
    )
    grown = long["mib"] - short["mib"]
    return {
        "short": short["mib"],
        "long": long["mib"],
        "virtual": long["virtual"],
        "per_virtual_minute": 60 * grown / (long["virtual"] - short["virtual"]),
    }


# --- telling -----------------------------------------------------------------------------------


def against(value: float, least: float) -> str:
    """Say how a figure stands to its bar."""
    return f"{value / least:.2f} of the bar ({least:,.0f})"


def show(name: str, found: Found) -> list[str]:
    """Return the lines of one section."""
    if "error" in found:
        return [f"{name}: not measured: {found['error']}"]
    return _LINES[name](found)


def _loop_lines(found: Found) -> list[str]:
    lines = ["loop level, five nodes, ten clients, no faults"]
    for way, said in (("clients", "judged by clients alone"), ("watched", "every step watched")):
        one = found[way]
        lines.append(
            f"  {said:24} {one['speed']:6.1f} × real time, {against(one['speed'], CALM_MIN)}, "
            f"{one['callback_us']:.1f} us a callback, {one['callbacks']:,.0f} callbacks and "
            f"{one['operations']:.0f} operations a virtual second"
        )
    return lines


def _campaign_lines(found: Found) -> list[str]:
    lines = ["campaign with all faults, digests compared"]
    for workers, one in found.items():
        lines.append(
            f"  {workers} worker(s): {one['verdict']}"
            f"{'' if one['repeatable'] else ', not repeatable'}"
            f"{''.join(f', seed {seed} failed' for seed in one['failed'])}, "
            f"{one['seeds_per_second']:.2f} seeds/s, "
            f"{one['speed']:.1f} × real time by the clock; {one['cpu_per_seed']:.2f} s of CPU and "
            f"{one['virtual']:.1f} virtual s a seed, {one['seeds']} seeds"
        )
    return lines


def _node_lines(found: Found) -> list[str]:
    rate = float(found["steps_per_cpu_second"])
    return [f"node level: {rate:,.0f} steps/s of CPU time, {against(rate, STEPS_MIN)}"]


def _gossip_lines(found: Found) -> list[str]:
    lines = ["gossip, five nodes over TCP, the same program"]
    ours = next((one for name, one in found["runs"].items() if name.startswith("outlast")), None)
    for name, one in found["runs"].items():
        ratio = f"{ours['speed'] / one['speed']:6.2f}" if ours else "     -"
        steps = f"{one['steps_per_second']:9,.0f}" if one["steps"] else "        -"
        lines.append(
            f"  {name:24} ours is {ratio} × as fast  {one['speed']:8,.1f} virtual s/s"
            f"  {steps} steps/s  {one['pushes_per_second']:8,.0f} pushes/s  {one['mib']:5.0f} MiB"
        )
    lines += [f"  {name:24} {why}" for name, why in found["missing"].items()]
    return lines


def _idle_lines(found: Found) -> list[str]:
    lines = ["programs that idle: virtual seconds per second of CPU time"]
    for name, one in found.items():
        bar = f", {against(one['cpu_ratio'], IDLE_MIN)}" if name == "keep_alive" else ""
        lines.append(
            f"  {name:24} {one['cpu_ratio']:9,.0f} × real time{bar}; {one['pings']:,} pings, "
            f"{one['steps']:,} steps in {one['virtual_hours']:.0f} h"
        )
    return lines


def _memory_lines(found: Found) -> list[str]:
    return [
        f"memory of a run: {found['long']:.0f} MiB after {found['virtual']:.0f} virtual s, "
        f"{found['per_virtual_minute']:.1f} MiB more a virtual minute"
    ]


_LINES: dict[str, Callable[[Found], list[str]]] = {
    "loop": _loop_lines,
    "campaign": _campaign_lines,
    "node": _node_lines,
    "gossip": _gossip_lines,
    "idle": _idle_lines,
    "memory": _memory_lines,
}


def measure(name: str, *, quick: bool) -> Found:
    """Measure one section; what keeps it from that is in ``error``."""
    rounds, seconds = (3, 20.0) if quick else (7, 40.0)
    sections: dict[str, Callable[[], Found]] = {
        "loop": lambda: loop_level(rounds, seconds),
        "campaign": lambda: campaign(6 if quick else 40),
        "node": lambda: middle(
            [
                apart("benchmarks.sim", "--within", "node", 2.0 if quick else 5.0, 1000 * number)
                for number in range(rounds)
            ]
        ),
        "gossip": lambda: gossip(rounds, GOSSIP_SECONDS / 4 if quick else GOSSIP_SECONDS),
        "idle": lambda: apart("benchmarks.sim", "--within", "idle", 0, 0),
        "memory": lambda: memory(10.0 if quick else 30.0),
    }
    try:
        return sections[name]()
    except RuntimeError as error:
        return {"error": str(error)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as asked for on the command line; 1 if something failed or could not be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--within", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.within:
        name, seconds, seed = chosen.within
        print(json.dumps(WITHIN[name](float(seconds), int(seed))))
        return 0
    report: Found = {"machine": machine()}
    if not chosen.json:
        print(report["machine"])
    for name in chosen.sections:
        report[name] = measure(name, quick=chosen.quick)
        if not chosen.json:
            print("\n".join(show(name, report[name])), flush=True)
    if chosen.json:
        print(json.dumps(report))
    bad = any("error" in report[name] for name in chosen.sections)
    failed = any(
        isinstance(one, dict) and one["verdict"] == "failed"
        for one in report.get("campaign", {}).values()
    )
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
