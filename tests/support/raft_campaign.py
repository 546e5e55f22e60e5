"""Runs many random lives of a whole cluster (``raft_tempest``) and says what happened in them.

``python -m tests.support.raft_campaign --seeds 500`` prints steps per second and how many seeds
saw each of the things that must happen *sometimes*: a campaign in which one of them hardly ever
happens proves nothing about it and is void. The first seed that fails ends it with its error.

Exit codes: 0 all seeds passed, 1 one failed, 3 void.
"""

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from outlast.log.engines.raft.core.node import RaftNode
from tests.support.raft_tempest import Tempest

SOMETIMES = {
    "truncation": "uncommitted entries were truncated",
    "snapshot_resumed": "a snapshot's transfer was interrupted, resumed and installed",
    "change_in_cut": "the members changed while the network was cut",
    "lost_tail": "a restart found the unsynced tail lost or torn",
    "duplicate_after_failover": "the session table answered a repeat after a failover",
    "lease_lost": "a leader lost its lease by a pause, and served nobody",
}
SHARE_MIN = 5
"""Per cent of the seeds in which each of :data:`SOMETIMES` must be seen."""

SEEDS_MIN = 100
"""Fewer seeds than this say nothing about shares."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one seed gave. ``digest`` is equal whenever and wherever the seed is run."""

    seed: int
    steps: int
    counters: dict[str, int]
    digest: str
    virtual_ns: int = 0


class SeedError(AssertionError):
    """A seed failed; ``seed`` repeats it, ``__cause__`` is why."""

    def __init__(self, seed: int, error: BaseException) -> None:
        super().__init__(f"seed {seed}: {type(error).__name__}: {error}")
        self.seed = seed


def run_seed(
    seed: int,
    *,
    actions: int = 100,
    black_box: bool = False,
    make: Callable[..., RaftNode] = RaftNode,
) -> Result:
    """Run one seed to its end.

    Args:
        seed: The only input.
        actions: How many random actions before all is healed.
        black_box: Judge by what clients and the final states show, and by nothing inside.
        make: Builds a node.

    Raises:
        SeedError: A promise was broken, or the node itself noticed that it had gone wrong.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        cluster = Tempest(seed, make, watch=not black_box).run(actions)
    except Exception as error:
        raise SeedError(seed, error) from error
    finally:
        if collecting:
            gc.enable()
    final = blake2b(digest_size=16)
    final.update(f"{cluster.trace} {cluster.steps} {cluster.now}".encode())
    for replica, host in cluster.hosts.items():
        if host.state is not None:
            final.update(replica.encode() + host.state.fingerprint())
    counters = dict(sorted(cluster.counts.items()))
    final.update(json.dumps(counters).encode())
    return Result(seed, cluster.steps, counters, final.hexdigest(), cluster.now)


@dataclass(slots=True)
class Tally:
    """What a number of seeds gave."""

    seeds: int = 0
    steps: int = 0
    virtual_ns: int = 0
    seen: Counter[str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.seen = Counter()

    def add(self, result: Result) -> None:
        """Count one seed."""
        self.seeds += 1
        self.steps += result.steps
        self.virtual_ns += result.virtual_ns
        self.seen.update(name for name, count in result.counters.items() if count)

    def share(self, name: str) -> float:
        """Return in how many per cent of the seeds ``name`` was seen."""
        return 100 * self.seen[name] / max(1, self.seeds)

    @property
    def missing(self) -> list[str]:
        """What must be seen sometimes and was not seen often enough."""
        return [name for name in SOMETIMES if self.share(name) < SHARE_MIN]

    @property
    def verdict(self) -> str:
        """``passed``, or ``void`` if something hardly ever happened."""
        return "void" if self.missing else "passed"


def campaign(
    seeds: Iterable[int],
    *,
    black_box: bool = False,
    seen: Callable[[Result], None] = lambda _: None,
) -> Tally:
    """Run ``seeds`` and return what they gave; its ``verdict`` may be ``void``.

    Raises:
        SeedError: The first seed that failed.
    """
    tally = Tally()
    for seed in seeds:
        result = run_seed(seed, black_box=black_box)
        tally.add(result)
        seen(result)
        if tally.seeds % 20 == 0:
            gc.collect()
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="raft_campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--black-box", action="store_true", help="judge by outcomes alone")
    parser.add_argument("--digests", action="store_true", help="print each seed's digest")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    partial = Tally()

    def seen(result: Result) -> None:
        partial.add(result)
        if args.digests:
            sys.stdout.write(f"{result.seed} {result.digest}\n")

    try:
        campaign(
            range(args.first, args.first + args.seeds),
            black_box=args.black_box,
            seen=seen,
        )
    except SeedError as error:
        if args.json:
            told = {"seed": error.seed, "error": str(error), "passed": partial.seeds}
            sys.stdout.write(json.dumps(told) + "\n")
        else:
            sys.stdout.write(f"failed: {error}\nrepeat: run_seed({error.seed})\n")
        return 1
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    if args.json:
        sys.stdout.write(json.dumps(facts(partial, seconds, cpu)) + "\n")
    else:
        sys.stdout.write(table(partial, seconds, cpu))
    return 3 if partial.seeds >= SEEDS_MIN and partial.missing else 0


def facts(tally: Tally, seconds: float, cpu: float) -> dict[str, object]:
    """Return what a campaign gave as plain values, ``cpu`` being its processor time."""
    return {
        "seeds": tally.seeds,
        "steps": tally.steps,
        "seconds": round(seconds, 2),
        "steps_per_second": round(tally.steps / seconds),
        "steps_per_cpu_second": round(tally.steps / cpu),
        "virtual_seconds": tally.virtual_ns // 10**9,
        "share": {name: round(tally.share(name), 1) for name in sorted(tally.seen)},
        "missing": tally.missing,
        "verdict": tally.verdict,
    }


def table(tally: Tally, seconds: float, cpu: float) -> str:
    """Return what a campaign gave, for people."""
    lines = [
        f"{tally.seeds} seeds, {tally.steps} steps in {seconds:.1f} s:"
        f" {tally.steps / seconds:,.0f} steps/s ({tally.steps / cpu:,.0f} per CPU second),"
        f" {tally.virtual_ns / 1e9 / seconds:.0f} virtual seconds per second",
        "",
        "must be seen sometimes                                                  % of seeds",
    ]
    for name, meaning in SOMETIMES.items():
        lines.append(f"  {meaning:<68} {tally.share(name):7.1f}")
    lines += ["", "also seen"]
    for name in sorted(tally.seen):
        if name not in SOMETIMES:
            lines.append(f"  {name:<68} {tally.share(name):7.1f}")
    lines += ["", f"verdict: {tally.verdict}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
